"""A Ray cluster for each file that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from cluster.stages import connect


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine's, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("r")))
        connect()
        yield
        ray.shutdown()
