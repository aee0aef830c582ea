"""Room on the cluster's nodes for actors, held for them before they are made and from one actor to its successor.

It is a placement group of Ray's. Where a node is lost, Ray looks for room elsewhere for what was on it.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
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
        resources = {
            name: amount for name, amount in (("CPU", asked.bundle.cpus), ("GPU", asked.bundle.gpus)) if amount
        }
        bundles = [resources] * asked.count
        name = next_name(f"room of {asked.who}")
        self._group = placement_group(bundles, "PACK", name) if resources and not _is_held_already() else None

    async def held(self, limit: asyncio.Timeout) -> None:
        """Wait until it is there, or is there again, and tell of the wait in the log; once where there is no limit.

        Raises NoRoom where `limit` ends it; whoever has set the limit may change it meanwhile.
        """
        if self._group is None:
            return
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
        return {**amounts, "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, number)}

    def nodes(self) -> list[str]:
        """The node that each actor is on, by its id; the same "" for all where nothing is reserved here."""
        if self._group is None:
            return [""] * self._asked.count
        on = placement_group_table(self._group)["bundles_to_node_id"]
        return [on[number] for number in range(self._asked.count)]

    def remove(self) -> None:
        """Give it up; actors that are in it end."""
        if self._group is not None:
            remove_placement_group(self._group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def _lack(self) -> str:
        return f"room for {self._asked}: the cluster has {free_here()} free, and {in_words(nodes_here())}"


def _is_held_already() -> bool:
    """Whether this process is in a placement group, as a trial of Ray Tune is: its actors are placed there by Ray."""
    return ray.is_initialized() and ray.util.get_current_placement_group() is not None
