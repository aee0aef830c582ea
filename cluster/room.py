"""Room on the cluster's nodes for actors, held for them before they are made and from one actor to its successor.

It is a placement group of Ray's, asked for anew where its node is lost. A process that is in a placement group itself,
as a trial of Ray Tune is, has all its room there: it takes bundles that are as large as what it asks for, and says
which, since Ray would put a small actor into a large one's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.actor_names import next_name
from cluster.fit import in_words
from cluster.nodes import free_here, nodes_here
from configs.bundles import Asked

logger = logging.getLogger(__name__)

SECONDS_TO_FIRST_LINE = 10.0  # of waiting; each further line comes after twice as long


class NoRoom(RuntimeError):
    """The cluster had no room for as long as it was waited for."""


class Room:
    """Room for some actors: a bundle for each, on as few nodes as can be."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._resources = {
            name: amount for name, amount in (("CPU", asked.bundle.cpus), ("GPU", asked.bundle.gpus)) if amount
        }
        self._group = given = _given() if self._resources else None
        self._is_taken = given is not None  # and not made here
        self._bundles = list(range(asked.count))  # of the group, by actor
        if given is not None:
            self._bundles = _take(given, self._resources, asked)
        elif self._resources:
            self._group = self._reserved()

    async def held(self, limit: asyncio.Timeout) -> None:
        """Wait until it is there, or is there again, and tell of the wait in the log; once where there is no limit.

        Raises NoRoom where `limit` ends it; whoever has set the limit may change it meanwhile.
        """
        if self._group is None:
            return
        if not self._is_taken and placement_group_table(self._group)["state"] == "RESCHEDULING":
            # A node was lost, and Ray looks for another: without a pause, on a whole core of the head for as long as
            # there is none (Ray 2.60; ray-project/ray#65007). For new groups it looks once a second.
            remove_placement_group(self._group)
            self._group = self._reserved()
        ready = asyncio.wrap_future(self._group.ready().future())
        pause = SECONDS_TO_FIRST_LINE
        try:
            async with limit:
                while not (await asyncio.wait({ready}, timeout=pause))[0]:
                    if limit.when() is not None or pause == SECONDS_TO_FIRST_LINE:
                        logger.warning("waiting for %s", self._lack())
                    pause *= 2
                await ready
        except TimeoutError:
            raise NoRoom(
                f"no {self._lack()}. Add nodes, wait for other jobs to end, lower {self._asked.settings}, or raise "
                "rl.seconds_per_wait"
            ) from None
        finally:
            ready.cancel()

    def options(self, number: int = 0) -> dict[str, Any]:
        """For the actor of this number."""
        amounts: dict[str, Any] = {"num_cpus": self._asked.bundle.cpus, "num_gpus": self._asked.bundle.gpus}
        if self._group is None:
            return amounts
        return {**amounts, "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, self._bundles[number])}

    def nodes(self) -> list[str]:
        """The node that each actor is on, by its id; the same "" for all where nothing is reserved here."""
        if self._group is None:
            return [""] * self._asked.count
        on = placement_group_table(self._group)["bundles_to_node_id"]
        return [on[number] for number in self._bundles]

    def remove(self) -> None:
        """Give it up; actors that are in it end."""
        if self._is_taken:
            _in_use.difference_update(self._bundles)
            self._bundles = []
        elif self._group is not None:
            remove_placement_group(self._group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def _reserved(self) -> PlacementGroup:
        return placement_group([self._resources] * self._asked.count, "PACK", next_name(f"room of {self._asked.who}"))

    def _lack(self) -> str:
        return f"room for {self._asked}: the cluster has {free_here()} free in all, on {in_words(nodes_here())}"


_in_use: set[int] = set()  # bundles of the group that this process is in


def _given() -> PlacementGroup | None:
    """The placement group that this process is in."""
    return ray.util.get_current_placement_group() if ray.is_initialized() else None


def _take(given: PlacementGroup, resources: Mapping[str, float], asked: Asked) -> list[int]:
    sizes = [{name: amount for name, amount in bundle.items() if amount} for bundle in given.bundle_specs]
    free = [number for number, size in enumerate(sizes) if size == resources and number not in _in_use]
    if len(free) < asked.count:
        raise NoRoom(f"no room for {asked}: the placement group of this process has {len(free)} such bundles left")
    taken = free[: asked.count]
    _in_use.update(taken)
    return taken
