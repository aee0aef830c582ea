"""From sequences to the padded micro-batches that go through the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.tree import Branches
from rollout.chat import Expanded


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSequence:
    """A prompt and a response, and what the loss needs of each response token."""

    prompt: Expanded  # ids [P] with image placeholders expanded, and the pictures' pixel values
    response_tokens: NDArray[np.int32]  # [T]
    weights: NDArray[np.float32]  # [T] weight of the token in the loss
    advantages: NDArray[np.float32] | None = None  # [T] (RL)
    behaviour_logprobs: NDArray[np.float32] | None = None  # [T] as the engine sampled them (RL)
    confidence_mask: NDArray[np.bool_] | None = None  # [T] tokens of the confidence (RL)
    versions: NDArray[np.int64] | None = None  # [T] weight version it was sampled under (RL)
    branches: Branches | None = None  # the confidences it could have stated (RL, exact gradient)
    counts_as: float | None = None  # what it adds to the divisor of the loss's mean; None: its tokens' weights

    @property
    def divisor(self) -> float:
        """What it adds to the divisor of the loss's mean."""
        return float(self.weights.sum(dtype=np.float64)) if self.counts_as is None else self.counts_as

    @property
    def own_tokens(self) -> NDArray[np.int64]:
        """The response and its branches, as they stand behind the prompt."""
        branched = [] if self.branches is None else [self.branches.tree.tokens]
        return np.concatenate([self.response_tokens, *branched]).astype(np.int64)

    @property
    def own_length(self) -> int:
        """Tokens of response and branches."""
        return len(self.response_tokens) + (0 if self.branches is None else len(self.branches.tree.tokens))


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What sees what, and from where, in rows that branch behind their prompt: T tokens stand there in all."""

    attention: torch.Tensor  # [B, 1, L, L] bool, whether a query sees a key
    rows: torch.Tensor  # [T] row of each token that follows a prompt
    places: torch.Tensor  # [T] its place in the row
    anchors: torch.Tensor  # [T] place of the prompt's last token
    depths: torch.Tensor  # [T] its distance from there, as the model is to see it


@dataclass(frozen=True, slots=True, eq=False)
class TreeBatch:
    """The branches of a micro-batch: U nodes and E edges of all trees, and M confidences as paths of edges."""

    node_rows: torch.Tensor  # [U] row of each node, anchors included
    node_positions: torch.Tensor  # [U] its place
    edge_nodes: torch.Tensor  # [E] the node whose output predicts the edge's token
    edge_tokens: torch.Tensor  # [E]
    paths: torch.Tensor  # [M, D] edges of each confidence; E stands for none
    values: torch.Tensor  # [M] its reward
    weights: torch.Tensor  # [M] its weight in the loss; all 0 in a dummy

    def expected(self, edge_logprobs: torch.Tensor) -> torch.Tensor:
        """The weighted sum of rewards times probabilities, given the log-probabilities [E] of the edges."""
        padded = torch.cat([edge_logprobs, edge_logprobs.new_zeros(1)])
        return (self.weights * self.values * padded[self.paths].sum(dim=1).exp()).sum()


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows padded to one length, each a prompt with one response or more. N counts the response tokens of all."""

    input_ids: torch.Tensor  # [B, L] right-padded
    attention_mask: torch.Tensor  # [B, L] 1 for tokens, 0 for padding
    image_mask: torch.Tensor  # [B, L] 1 at image placeholders
    pixel_values: torch.Tensor | None  # [patches of all pictures, values of a patch]
    image_grid_thw: torch.Tensor | None  # [pictures, 3]
    rows: torch.Tensor  # [N] row of each response token
    positions: torch.Tensor  # [N] position whose output predicts the token
    targets: torch.Tensor  # [N] the token
    weights: torch.Tensor  # [N] weight in the loss; all 0 in a dummy
    advantages: torch.Tensor  # [N] 0 where there are none (SFT)
    behaviour_logprobs: torch.Tensor  # [N] 0 where there are none (SFT)
    confidence_mask: torch.Tensor  # [N] bool
    versions: torch.Tensor  # [N] weight version it was sampled under; 0 where there is none (SFT)
    sequence: torch.Tensor  # [N] number of the response it is of, from 0; a row may hold several
    divisor: float  # what the micro-batch adds to the divisor of the loss's mean; 0 in a dummy
    layout: Layout | None  # None where every row is a prompt and a response and nothing else
    tree: TreeBatch | None  # the branches' share; None where no sequence has any
    proximal_logprobs: torch.Tensor | None = None  # [N] under the batch's first weights, where they were asked for

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        layout = None if self.layout is None else replace(self.layout, **_moved(self.layout, device))
        tree = None if self.tree is None else replace(self.tree, **_moved(self.tree, device))
        return replace(self, **_moved(self, device), layout=layout, tree=tree)

    def as_dummy(self) -> MicroBatch:
        """The same forward pass with no weight in the loss: keeps ZeRO-3 ranks in lockstep."""
        tree = None if self.tree is None else replace(self.tree, weights=torch.zeros_like(self.tree.weights))
        return replace(self, weights=torch.zeros_like(self.weights), divisor=0.0, tree=tree)


def _moved(tensors: MicroBatch | Layout | TreeBatch, device: torch.device) -> dict[str, Any]:
    values = {name: getattr(tensors, name) for name in tensors.__slots__}
    return {n: value.to(device, non_blocking=True) for n, value in values.items() if isinstance(value, torch.Tensor)}


def split_by_length(lengths: Sequence[int], tokens_per_micro_batch: int) -> list[list[int]]:
    """Indices grouped so that each group, padded to its longest, holds at most so many tokens.

    Sorted by length first, which keeps padding low. A sequence longer than the limit is a group alone.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # The first member is the longest, so the padded size is known without a second pass.
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= tokens_per_micro_batch:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def share_prompts(sequences: Sequence[TrainingSequence], tokens_per_row: int) -> list[list[TrainingSequence]]:
    """Rows of sequences that hold the very same prompt, each of at most so many tokens or of one sequence.

    A row's prompt, and its pictures, go through the model once for all of its responses.
    """
    rows: list[list[TrainingSequence]] = []
    newest: dict[int, list[TrainingSequence]] = {}  # of each prompt
    for sequence in sequences:
        row = newest.get(id(sequence.prompt))
        if row is None or row_length(row) + sequence.own_length > tokens_per_row:
            row = newest[id(sequence.prompt)] = []
            rows.append(row)
        row.append(sequence)
    return rows


def row_length(row: Sequence[TrainingSequence]) -> int:
    """Tokens of the prompt, of every response and of its branches."""
    return len(row[0].prompt.token_ids) + sum(sequence.own_length for sequence in row)


def collate(rows: Sequence[Sequence[TrainingSequence]], *, pad_token_id: int, image_token_id: int | None) -> MicroBatch:
    """Pad rows into one micro-batch; the sequences of a row share its first one's prompt."""
    placed = [_Placed(number, start, s) for number, row in enumerate(rows) for start, s in _starts(row)]
    sequences = [p.sequence for p in placed]
    longest = max(map(row_length, rows))
    input_ids = torch.full((len(rows), longest), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        tokens = np.concatenate([row[0].prompt.token_ids, *(sequence.own_tokens for sequence in row)])
        input_ids[number, : len(tokens)] = torch.from_numpy(tokens)
        attention_mask[number, : len(tokens)] = 1
    lengths = [len(sequence.response_tokens) for sequence in sequences]
    is_image = input_ids == image_token_id if image_token_id is not None else torch.zeros_like(input_ids)
    branched = any(s.branches is not None for s in sequences)
    return MicroBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        image_mask=is_image.long(),
        pixel_values=_stacked([row[0].prompt.pixel_values for row in rows]),
        image_grid_thw=_stacked([row[0].prompt.image_grid_thw for row in rows]),
        rows=torch.from_numpy(np.repeat([p.row for p in placed], lengths)),
        positions=torch.from_numpy(np.concatenate([p.predicted_from for p in placed])),
        targets=_per_token(sequences, lambda s: s.response_tokens, torch.long),
        weights=_per_token(sequences, lambda s: s.weights),
        advantages=_per_token(sequences, lambda s: s.advantages),
        behaviour_logprobs=_per_token(sequences, lambda s: s.behaviour_logprobs),
        confidence_mask=_per_token(sequences, lambda s: s.confidence_mask, torch.bool),
        versions=_per_token(sequences, lambda s: s.versions, torch.long),
        sequence=torch.from_numpy(np.repeat(np.arange(len(sequences)), lengths)),
        divisor=sum(sequence.divisor for sequence in sequences),
        layout=_layout(placed, attention_mask) if branched or len(sequences) > len(rows) else None,
        tree=_tree_batch(placed) if branched else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A sequence in a row: its response begins at `start`, its branches stand behind it."""

    row: int
    start: int
    sequence: TrainingSequence

    @property
    def prompt_end(self) -> int:
        return len(self.sequence.prompt.token_ids)

    @property
    def branches_start(self) -> int:
        return self.start + len(self.sequence.response_tokens)

    @property
    def predicted_from(self) -> NDArray[np.int64]:
        """The position whose output predicts each response token: the first one's is the prompt's last."""
        return np.concatenate([[self.prompt_end - 1], np.arange(self.start, self.branches_start - 1)])


def _starts(row: Sequence[TrainingSequence]) -> Iterator[tuple[int, TrainingSequence]]:
    start = len(row[0].prompt.token_ids)
    for sequence in row:
        yield start, sequence
        start += sequence.own_length


def _per_token(
    sequences: Sequence[TrainingSequence],
    get: Callable[[TrainingSequence], NDArray[np.generic] | None],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """One value for each response token of all sequences [N]; 0 where a sequence has none."""
    arrays = [get(sequence) for sequence in sequences]
    filled = [
        np.zeros(len(sequence.response_tokens)) if array is None else array
        for sequence, array in zip(sequences, arrays, strict=True)
    ]
    return torch.from_numpy(np.concatenate(filled)).to(dtype)


def _stacked(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None


def _layout(placed: Sequence[_Placed], attention_mask: torch.Tensor) -> Layout:
    """A response sees the prompt and itself; a branch also the response up to the token its tree hangs on."""
    longest = attention_mask.shape[1]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    attention = causal & attention_mask.bool()[:, None, :]
    parts: dict[str, list[NDArray[np.int64]]] = {"rows": [], "places": [], "anchors": [], "depths": []}
    for p in placed:
        own = slice(p.start, p.start + p.sequence.own_length)
        attention[p.row, own, p.prompt_end : p.start] = False
        depths = np.arange(1, 1 + len(p.sequence.response_tokens))
        if (branches := p.sequence.branches) is not None:
            tree = slice(p.branches_start, own.stop)
            attention[p.row, tree, p.start + branches.anchor + 1 : p.branches_start] = False
            attention[p.row, tree, tree] = torch.from_numpy(branches.tree.visible)
            depths = np.concatenate([depths, 1 + branches.anchor + branches.tree.depths])
        parts["rows"].append(np.full(len(depths), p.row))
        parts["places"].append(np.arange(own.start, own.stop))
        parts["anchors"].append(np.full(len(depths), p.prompt_end - 1))
        parts["depths"].append(depths)
    made = {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}
    return Layout(attention=attention[:, None], **made)


def _tree_batch(placed: Sequence[_Placed]) -> TreeBatch:
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in TreeBatch.__slots__}
    found = [(p, p.sequence.branches) for p in placed if p.sequence.branches is not None]
    all_edges = sum(len(branches.tree.edge_tokens) for _, branches in found)
    nodes = edges = 0
    for p, branches in found:
        tree = branches.tree
        places = np.concatenate([[p.start + branches.anchor], p.branches_start + np.arange(len(tree.tokens))])
        parts["node_rows"].append(np.full(len(places), p.row))
        parts["node_positions"].append(places)
        parts["edge_nodes"].append(tree.edge_nodes + nodes)
        parts["edge_tokens"].append(tree.edge_tokens)
        parts["paths"].append(np.where(tree.paths < len(tree.edge_tokens), tree.paths + edges, all_edges))
        parts["values"].append(branches.values.astype(np.float32))
        parts["weights"].append(np.full(len(branches.values), branches.weight, dtype=np.float32))
        nodes, edges = nodes + len(places), edges + len(tree.edge_tokens)
    return TreeBatch(**{name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()})
