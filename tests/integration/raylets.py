"""A Ray cluster of several nodes, each a raylet on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster

from cluster.stages import connect

_OURS = {"include_dashboard": False, "dashboard_port": 0, "object_store_memory": 128 * 2**20}
# A node that was killed is missed within seconds; Ray's own patience is half a minute.
_HEALTH = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4"}


class Raylets:
    """The cluster, whose first node has the driver, and what CPUs are asked for."""

    def __init__(self, num_cpus: int) -> None:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus, **_OURS})
        self.address: str = self._cluster.address

    def add(self, **resources: Any) -> str:
        """A node more; returns its id."""
        return str(self._cluster.add_node(**resources, **_OURS).node_id)

    def remove(self, node_id: str) -> None:
        """Kill a node, with all that runs on it."""
        (node,) = [node for node in self._cluster.worker_nodes if node.node_id == node_id]
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End it."""
        self._cluster.shutdown()


@contextmanager
def raylets(folder: Path, num_cpus: int = 0) -> Iterator[Raylets]:
    """A cluster that this process has joined as a run's job, in a folder of its own."""
    with patch.dict(os.environ, {"RAY_TMPDIR": str(folder), **_HEALTH}):
        cluster = Raylets(num_cpus)
        try:
            with patch.dict(os.environ, {"RAY_ADDRESS": cluster.address}):
                connect("test")
                yield cluster
        finally:
            ray.shutdown()
            cluster.close()
