"""From sequences to the padded micro-batches that go through the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    branches: Branches | None = None  # the confidences it could have stated (RL, exact gradient)

    @property
    def length(self) -> int:
        """Tokens of prompt, response and branches."""
        return len(self.prompt.token_ids) + len(self.response_tokens) + self._branched

    @property
    def _branched(self) -> int:
        return 0 if self.branches is None else len(self.branches.tree.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class TreeBatch:
    """The branches of a micro-batch: U nodes and E edges of all trees, and M confidences as paths of edges."""

    attention: torch.Tensor  # [B, 1, L, L] bool, whether a query sees a key; for all tokens, branches or not
    rows: torch.Tensor  # [T] sequence of each branch token
    positions: torch.Tensor  # [T] its place in the sequence
    anchors: torch.Tensor  # [T] place of the token that its tree hangs on
    depths: torch.Tensor  # [T] its distance from there, as the model is to see it
    node_rows: torch.Tensor  # [U] sequence of each node, anchors included
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
    """Sequences padded to one length. N counts the response tokens of all of them."""

    input_ids: torch.Tensor  # [B, L] right-padded
    attention_mask: torch.Tensor  # [B, L] 1 for tokens, 0 for padding
    image_mask: torch.Tensor  # [B, L] 1 at image placeholders
    pixel_values: torch.Tensor | None  # [patches of all pictures, values of a patch]
    image_grid_thw: torch.Tensor | None  # [pictures, 3]
    rows: torch.Tensor  # [N] sequence of each response token
    positions: torch.Tensor  # [N] position whose output predicts the token
    targets: torch.Tensor  # [N] the token
    weights: torch.Tensor  # [N] weight in the loss; all 0 in a dummy
    advantages: torch.Tensor  # [N] 0 where there are none (SFT)
    behaviour_logprobs: torch.Tensor  # [N] 0 where there are none (SFT)
    confidence_mask: torch.Tensor  # [N] bool
    tree: TreeBatch | None  # the branches' share; None where no sequence has any

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        tree = None if self.tree is None else replace(self.tree, **_moved(self.tree, device))
        return replace(self, **_moved(self, device), tree=tree)

    def as_dummy(self) -> MicroBatch:
        """The same forward pass with no weight in the loss: keeps ZeRO-3 ranks in lockstep."""
        tree = None if self.tree is None else replace(self.tree, weights=torch.zeros_like(self.tree.weights))
        return replace(self, weights=torch.zeros_like(self.weights), tree=tree)


def _moved(tensors: MicroBatch | TreeBatch, device: torch.device) -> dict[str, Any]:
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


def collate(sequences: Sequence[TrainingSequence], *, pad_token_id: int, image_token_id: int | None) -> MicroBatch:
    """Pad `sequences` into one micro-batch."""
    longest = max(sequence.length for sequence in sequences)
    input_ids = torch.full((len(sequences), longest), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        tokens = np.concatenate([sequence.prompt.token_ids, sequence.response_tokens])
        if sequence.branches is not None:
            tokens = np.concatenate([tokens, sequence.branches.tree.tokens])
        input_ids[row, : len(tokens)] = torch.from_numpy(tokens)
        attention_mask[row, : len(tokens)] = 1
    is_image = input_ids == image_token_id if image_token_id is not None else torch.zeros_like(input_ids)
    rows = np.repeat(np.arange(len(sequences)), [len(s.response_tokens) for s in sequences])
    return MicroBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        image_mask=is_image.long(),
        pixel_values=_stacked([s.prompt.pixel_values for s in sequences]),
        image_grid_thw=_stacked([s.prompt.image_grid_thw for s in sequences]),
        rows=torch.from_numpy(rows),
        # The first response token is predicted by the prompt's last position.
        positions=_per_token(
            sequences, lambda s: np.arange(len(s.response_tokens)) + len(s.prompt.token_ids) - 1, torch.long
        ),
        targets=_per_token(sequences, lambda s: s.response_tokens, torch.long),
        weights=_per_token(sequences, lambda s: s.weights),
        advantages=_per_token(sequences, lambda s: s.advantages),
        behaviour_logprobs=_per_token(sequences, lambda s: s.behaviour_logprobs),
        confidence_mask=_per_token(sequences, lambda s: s.confidence_mask, torch.bool),
        tree=_tree_batch(sequences, attention_mask) if any(s.branches is not None for s in sequences) else None,
    )


def _tree_batch(sequences: Sequence[TrainingSequence], attention_mask: torch.Tensor) -> TreeBatch:
    longest = attention_mask.shape[1]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    attention = causal & attention_mask.bool()[:, None, :]
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in TreeBatch.__slots__ if name != "attention"}
    nodes = edges = 0
    all_edges = sum(len(s.branches.tree.edge_tokens) for s in sequences if s.branches is not None)
    for row, sequence in enumerate(sequences):
        if (branches := sequence.branches) is None:
            continue
        tree, anchor = branches.tree, len(sequence.prompt.token_ids) + branches.anchor
        own = slice(sequence.length - len(tree.tokens), sequence.length)
        places = np.arange(own.start, own.stop)
        attention[row, own, anchor + 1 :] = False
        attention[row, own, own] = torch.from_numpy(tree.visible)
        parts["rows"].append(np.full(len(places), row))
        parts["positions"].append(places)
        parts["anchors"].append(np.full(len(places), anchor))
        parts["depths"].append(tree.depths)
        parts["node_rows"].append(np.full(1 + len(places), row))
        parts["node_positions"].append(np.array([anchor, *places]))
        parts["edge_nodes"].append(tree.edge_nodes + nodes)
        parts["edge_tokens"].append(tree.edge_tokens)
        parts["paths"].append(np.where(tree.paths < len(tree.edge_tokens), tree.paths + edges, all_edges))
        parts["values"].append(branches.values.astype(np.float32))
        parts["weights"].append(np.full(len(branches.values), branches.weight, dtype=np.float32))
        nodes, edges = nodes + 1 + len(places), edges + len(tree.edge_tokens)
    made = {name: torch.from_numpy(np.concatenate(arrays)) for name, arrays in parts.items()}
    return TreeBatch(attention=attention[:, None], **made)
