"""Whether a cluster's nodes have room for actors each of which must be on one of them; from numbers alone.

Parts of GPUs are added up: that three actors of 0.6 do not share two GPUs is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.bundles import Asked, Bundle

_ROUNDING = 1e-6  # of sums of parts of CPUs


@dataclass(frozen=True, slots=True)
class Fit:
    """Who has found room where."""

    placed: tuple[tuple[Asked, Mapping[int, int]], ...]  # how many on which node
    left: tuple[Bundle, ...]  # of each node

    @property
    def missing(self) -> list[tuple[Asked, int]]:
        """Who has not, and how many of them."""
        short = [(asked, asked.count - sum(on.values())) for asked, on in self.placed]
        return [(asked, number) for asked, number in short if number]


def fit(asked: Sequence[Asked], nodes: Sequence[Bundle]) -> Fit:
    """Each actor in turn, those with most GPUs first, on the node with room for it that has least left."""
    left = list(nodes)
    found: dict[Asked, Counter[int]] = {each: Counter() for each in asked}
    for each in sorted(asked, key=lambda each: _size(each.bundle), reverse=True):
        for _ in range(each.count):
            having_room = [number for number, room in enumerate(left) if _holds(room, each.bundle)]
            if not having_room:
                break
            node = min(having_room, key=lambda number: _size(left[number]))
            left[node] = Bundle(left[node].cpus - each.bundle.cpus, left[node].gpus - each.bundle.gpus)
            found[each][node] += 1
    return Fit(tuple(found.items()), tuple(left))


def in_words(nodes: Sequence[Bundle]) -> str:
    """Nodes that are alike are told together."""
    alike = Counter(nodes).most_common()
    told = ", ".join(f"{number} of {node}" for node, number in alike)
    return f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}: {told}"


def _holds(room: Bundle, bundle: Bundle) -> bool:
    return room.cpus >= bundle.cpus - _ROUNDING and room.gpus >= bundle.gpus - _ROUNDING


def _size(bundle: Bundle) -> tuple[float, float]:
    return bundle.gpus, bundle.cpus
