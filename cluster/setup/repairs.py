"""What some installations need before vision models import. Where all is well, nothing is touched.

A package registry's torchvision is a CUDA build, which beside a CPU build of torch fails with "operator
torchvision::nms does not exist"; `torchvision_hook` says why declaring the operator is enough. torchaudio
and torchcodec are built for one torch or for libraries of the system. transformers and vLLM do without them,
but where one is found it is imported, and if that fails the models fail with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path

from cluster.setup.pip_command import InstallError, PipLike

HOOK = "caliber_torchvision_hook"
MISSING_OPERATOR = "operator torchvision::nms does not exist"
OPTIONAL = ("torchaudio", "torchcodec")

Probe = Callable[[str], str | None]


def probe(module: str) -> str | None:
    """What a fresh Python says when it cannot import the module; None where it can."""
    ran = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=sys.prefix,
    )
    return None if ran.returncode == 0 else ran.stderr.strip() or f"exit code {ran.returncode}"


def is_installed(module: str) -> bool:
    """Whether the module can be found; it is not imported."""
    invalidate_caches()  # pip may have installed it since this Python started
    return find_spec(module) is not None


def repair_torchvision(probe: Probe, site_packages: Path) -> None:
    """Put the hook into `site_packages` where torchvision fails for want of its operators.

    A hook that is there already is brought up to date. Raises InstallError where torchvision fails otherwise,
    or still does.
    """
    if (site_packages / f"{HOOK}.pth").exists():
        _write_hook(site_packages)
    error = probe("torchvision")
    if error is not None and MISSING_OPERATOR in error:
        print("caliber: torchvision's operators do not load beside this torch; adding a hook that declares them")
        _write_hook(site_packages)
        error = probe("torchvision")
    if error is not None:
        raise InstallError(
            f"torchvision does not import: {error.splitlines()[-1]}\n"
            "Vision models need it: install the torchvision that belongs to the installed torch"
        )


def _write_hook(site_packages: Path) -> None:
    shutil.copyfile(Path(__file__).with_name("torchvision_hook.py"), site_packages / f"{HOOK}.py")
    # The .pth goes last: it must never name a module that is not there.
    (site_packages / f"{HOOK}.pth").write_text(f"import {HOOK}\n")


def remove_broken(probe: Probe, is_installed: Callable[[str], bool], pip: PipLike) -> None:
    """Uninstall the optional packages that are there and do not import. Raises InstallError."""
    for package in OPTIONAL:
        if not is_installed(package):
            continue
        error = probe(package)
        if error is None:
            continue
        print(f"caliber: removing {package}, which is optional and does not import ({error.splitlines()[-1]})")
        outcome = pip.run("uninstall", "--yes", package)
        if not outcome.succeeded:
            raise InstallError(outcome.report(f"{package} is broken, and pip could not uninstall it"))
