"""Which rank trains on which of a batch's groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from learner.buffer import Entry

Payload = TypeVar("Payload")


def deal(batch: Sequence[Entry[Payload]], ranks: int, minibatches: int) -> list[list[list[Payload]]]:
    """The payloads of a batch by rank and minibatch, given in the order of admission.

    Each minibatch gets as many groups, of all ages; each rank a group of it, and about as many tokens as its peers.
    """
    by_minibatch = [_by_rank(batch[number::minibatches], ranks) for number in range(minibatches)]
    return [list(shares) for shares in zip(*by_minibatch, strict=True)]


def _by_rank(groups: Sequence[Entry[Payload]], ranks: int) -> list[list[Payload]]:
    shares: list[list[Entry[Payload]]] = [[] for _ in range(ranks)]
    for entry in sorted(groups, key=lambda entry: -entry.tokens):
        min(shares, key=lambda share: (sum(e.tokens for e in share), len(share))).append(entry)
    return [[entry.payload for entry in sorted(share, key=lambda entry: entry.group_id)] for share in shares]
