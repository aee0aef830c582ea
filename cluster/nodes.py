"""What the nodes of a Ray cluster have."""

from __future__ import annotations

from collections.abc import Mapping

import ray

from configs.bundles import Bundle


def nodes_here() -> list[Bundle]:
    """The nodes of the cluster that this process is in; what they have in all, whoever uses it."""
    return [bundle_of(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def free_here() -> Bundle:
    """What nobody has reserved, of all nodes together."""
    return bundle_of(ray.available_resources())


def bundle_of(resources: Mapping[str, float]) -> Bundle:
    """What Ray calls resources."""
    return Bundle(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
