"""From sequences to the padded micro-batches that go through the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt.token_ids) + len(self.response_tokens)


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

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            if isinstance(value := getattr(self, name), torch.Tensor)
            else value
            for name in self.__slots__
        }
        return MicroBatch(**moved)

    def as_dummy(self) -> MicroBatch:
        """The same forward pass with no weight in the loss: keeps ZeRO-3 ranks in lockstep."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return MicroBatch(**(values | {"weights": torch.zeros_like(self.weights)}))


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
    )
