"""A recipe before it is checked: a tree of text that knows where every key was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key was written."""

    source: str  # a file as it was given, or "override"
    line: int | None = None  # counted from 1; None: no line is to blame

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a recipe."""

    place: Place
    key: str  # dotted path; "" for the whole file
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.key, self.text) if part)


class RecipeError(ValueError):
    """Everything that is wrong with a recipe, one line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the place of its key."""

    value: str | tuple[Node, ...] | Mapping[str, Node] | None
    place: Place

    def place_of(self, path: Sequence[str | int]) -> Place:
        """The place of `path`, or of its innermost part that was written."""
        node = self
        for key in path:
            child = node.child(key)
            if child is None:
                break
            node = child
        return node.place

    @property
    def children(self) -> Mapping[str, Node]:
        """The values of a mapping by key; empty where this is none."""
        return self.value if isinstance(self.value, Mapping) else {}

    def child(self, key: str | int) -> Node | None:
        """The value under a key of a mapping or at an index of a list; None where there is none."""
        if isinstance(self.value, tuple) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return self.children.get(str(key))


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: mappings merge deeply, everything else is replaced."""
    if not (isinstance(base.value, Mapping) and isinstance(over.value, Mapping)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, over.place)


def put(tree: Node, keys: Sequence[str], node: Node) -> Node:
    """`tree` with `node` merged in at a path; the places of the mappings above it stay."""
    if not keys:
        return merge(tree, node)
    below = tree.children.get(keys[0], Node({}, node.place))
    return Node({**tree.children, keys[0]: put(below, keys[1:], node)}, tree.place)
