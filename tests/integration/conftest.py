"""A Ray cluster for each file that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from cluster.stages import connect
from tests.integration.prometheus import FREQUENT_EXPORTS


@pytest.fixture(scope="module")
def ray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cluster has its files."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture(scope="module")
def frequent_exports() -> Iterator[None]:
    """Ray exports as often as it can, where this comes before `own_ray`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FREQUENT_EXPORTS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def own_ray(ray_folder: Path) -> Iterator[None]:
    """A cluster of this machine's, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(ray_folder))
        connect("test")
        yield
        ray.shutdown()
