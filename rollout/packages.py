"""Data and models that come as Python packages: found where pip put them, never imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package_folder(package: str, needed_by: str, remedy: str) -> Path:
    """The folder of an installed package. Raises ValueError with the remedy, a command, where it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{needed_by} needs the package that provides `{package}`: {remedy}")
    return Path(spec.origin).parent
