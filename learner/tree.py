"""The confidences a policy could have stated, as a tree of tokens that hangs on the place where it states one.

A response says one confidence; the policy gave a probability to all of them. The short continuations that
spell the others share everything before the number, so under a tree mask they fit into the same forward pass as the
response: a few tokens behind its end, each of which sees the response up to the number, its own ancestors, and nothing
else. Their log-probabilities give the expected score, and its gradient without the noise of having sampled one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

_BEFORE, _AFTER = "</answer><confidence>", "</confidence>"


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceTree:
    """K confidences as paths of tokens. Node 0 is the last token before the number, nodes 1 to M the tree's own tokens.

    A path's last token is no node: nothing that follows it is asked for.
    """

    confidences: NDArray[np.float64]  # [K]
    before: int  # the token that node 0 must be
    tokens: NDArray[np.int64]  # [M] of nodes 1 to M
    depths: NDArray[np.int64]  # [M] tokens from node 0
    visible: NDArray[np.bool_]  # [M, M] whether node 1 + i sees node 1 + j: itself and its ancestors
    edge_nodes: NDArray[np.int64]  # [E] the node an edge leaves
    edge_tokens: NDArray[np.int64]  # [E] the token it says
    paths: NDArray[np.int64]  # [K, D] edges of each confidence; E stands for none

    def leaves(self, tokens: NDArray[np.int32]) -> int | None:
        """Which of a response's tokens behind node 0 is the first that is on no path; None: they begin with a path."""
        spelt = np.append(self.edge_tokens, -1)[self.paths]  # [K, D] -1 behind a path's end
        depth = min(spelt.shape[1], len(tokens))
        kept = np.cumprod((spelt[:, :depth] == tokens[:depth]) | (spelt[:, :depth] < 0), axis=1)
        return None if kept[:, -1].any() else int(kept.sum(axis=1).max())


def confidence_tree(tokenizer: PreTrainedTokenizerBase, grid: Mapping[str, float]) -> ConfidenceTree:
    """The tree of a grid's confidences, by how they are stated, spelt as the tokenizer spells them inside their tags.

    A token that holds the tag's end and the number's begin, or the number's end and the closing tag's begin, is
    part of the path; where one confidence begins another, as words do, each path goes on to the closing tag.
    Raises ValueError where two confidences are the same tokens.
    """
    spelt = [_spell(tokenizer, text) for text in grid]
    common = 0
    while len({tuple(ids[: common + 1]) for ids, _, _ in spelt}) == 1 and common < min(first for _, first, _ in spelt):
        common += 1
    if common == 0:
        raise ValueError(f"in tokens, {_BEFORE} has no beginning that {', '.join(grid)} share; the tree hangs on it")
    paths = [ids[common:end] for ids, _, end in spelt]
    if _overlap(paths):
        paths = [ids[common : end + 1] for ids, _, end in spelt]
    if _overlap(paths):
        raise ValueError(f"in tokens, {', '.join(grid)} are not different: change response's confidences")
    return _grow(paths, spelt[0][0][common - 1], [*grid.values()])


def _spell(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], int, int]:
    """Token ids of a confidence in its tags, which of them is the first in the number, and how many reach its end."""
    made = tokenizer(f"{_BEFORE}{text}{_AFTER}", add_special_tokens=False, return_offsets_mapping=True)
    begin, ends = len(_BEFORE), [end for _, end in made["offset_mapping"]]
    first = next(i for i, end in enumerate(ends) if end > begin)
    last = next(i for i, end in enumerate(ends) if end >= begin + len(text))
    return list(made["input_ids"]), first, last + 1


def _overlap(paths: Sequence[list[int]]) -> bool:
    """Whether a path is another, or begins it: their probabilities would not add up."""
    whole = {tuple(path) for path in paths}
    begun = {tuple(path[:length]) for path in paths for length in range(1, len(path))}
    return len(whole) < len(paths) or not whole.isdisjoint(begun)


def _grow(paths: Sequence[list[int]], before: int, confidences: Sequence[float]) -> ConfidenceTree:
    inner = sorted({tuple(path[:length]) for path in paths for length in range(1, len(path))}, key=len)
    nodes = {(): 0} | {node: number for number, node in enumerate(inner, start=1)}
    edges = sorted({tuple(path[: length + 1]) for path in paths for length in range(len(path))})
    number_of = {edge: number for number, edge in enumerate(edges)}
    table = np.full((len(paths), max(map(len, paths))), len(edges))
    for row, path in enumerate(paths):
        table[row, : len(path)] = [number_of[tuple(path[: length + 1])] for length in range(len(path))]
    return ConfidenceTree(
        confidences=np.array(confidences),
        before=before,
        tokens=np.array([node[-1] for node in inner], dtype=np.int64),
        depths=np.array([len(node) for node in inner], dtype=np.int64),
        visible=np.array([a[: len(b)] == b for a in inner for b in inner], np.bool_).reshape(len(inner), len(inner)),
        edge_nodes=np.array([nodes[edge[:-1]] for edge in edges]),
        edge_tokens=np.array([edge[-1] for edge in edges]),
        paths=table,
    )


@dataclass(frozen=True, slots=True)
class OffTree:
    """A confidence that a response spells as the tree does not."""

    place: int  # among the response's tokens: the first that is on no path
    value: float  # its reward


@dataclass(frozen=True, slots=True, eq=False)
class Branches:
    """A tree on one response, and what each of its confidences is worth there."""

    tree: ConfidenceTree
    anchor: int  # place of node 0 among the response's tokens
    values: NDArray[np.float64]  # [K] reward of each confidence
    weight: float  # of the expected reward in the loss
    off_tree: OffTree | None = None  # what the response states; None: one of the K
