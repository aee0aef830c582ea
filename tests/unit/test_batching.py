from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batching import TrainingSequence, collate, row_length, share_prompts, split_by_length
from rollout.chat import Expanded

IMAGE, PAD = 9, 0


def sequence(prompt: list[int], response: list[int], patches: int = 0) -> TrainingSequence:
    pixels = torch.full((patches, 4), float(prompt[0])) if patches else None
    grid = torch.tensor([[1, 2, patches // 2]]) if patches else None
    tokens = np.array(response, np.int32)
    return TrainingSequence(
        Expanded(np.array(prompt, np.int32), pixels, grid),
        tokens,
        weights=np.arange(len(response), dtype=np.float32),
        advantages=-tokens.astype(np.float32),
    )


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_every_sequence_is_in_one_micro_batch_and_only_a_single_one_may_exceed_the_limit(
    lengths: list[int], limit: int
) -> None:
    groups = split_by_length(lengths, limit)

    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or max(lengths[i] for i in group) * len(group) <= limit


def test_each_response_token_is_predicted_by_the_position_before_it() -> None:
    batch = collate([[sequence([1, 2, 3], [4, 5])], [sequence([6], [7, 8, 2])]], pad_token_id=PAD, image_token_id=IMAGE)

    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 2, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.targets.tolist() == [4, 5, 7, 8, 2]
    assert torch.equal(batch.input_ids[batch.rows, batch.positions + 1], batch.targets)
    assert batch.weights.tolist() == [0, 1, 0, 1, 2]
    assert batch.advantages.tolist() == [-4, -5, -7, -8, -2]
    assert batch.behaviour_logprobs.tolist() == [0] * 5


def test_pictures_come_in_the_order_of_their_sequences_and_placeholders_are_marked() -> None:
    pictured = [sequence([5, IMAGE, IMAGE], [1], patches=8), sequence([7, IMAGE], [1], patches=4)]

    batch = collate([[pictured[0]], [sequence([6], [2])], [pictured[1]]], pad_token_id=PAD, image_token_id=IMAGE)

    assert batch.pixel_values is not None and batch.image_grid_thw is not None
    assert batch.pixel_values[:, 0].tolist() == [5.0] * 8 + [7.0] * 4
    assert batch.image_grid_thw.tolist() == [[1, 2, 4], [1, 2, 2]]
    assert batch.image_mask.sum(dim=1).tolist() == [2, 0, 1]


def test_a_dummy_weighs_nothing_and_is_the_same_forward_pass() -> None:
    batch = collate([[sequence([1, 2], [3, 4, 5])]], pad_token_id=PAD, image_token_id=None)

    dummy = batch.as_dummy()

    assert dummy.weights.sum() == dummy.divisor == 0 < batch.weights.sum() == batch.divisor
    assert torch.equal(dummy.input_ids, batch.input_ids)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=40), st.integers(1, 40))
def test_rows_hold_sequences_of_one_prompt_up_to_the_limit(drawn: list[tuple[int, int]], limit: int) -> None:
    prompts = [Expanded(np.array([1] * (2 + n), np.int32), None, None) for n in range(4)]
    sequences = [replace(sequence([1], [5] * length), prompt=prompts[number]) for number, length in drawn]

    rows = share_prompts(sequences, limit)

    assert sorted(map(id, chain(*rows))) == sorted(map(id, sequences))
    for number, row in enumerate(rows):
        assert len({id(member.prompt) for member in row}) == 1
        assert len(row) == 1 or row_length(row) <= limit
        following = next((later for later in rows[number + 1 :] if later[0].prompt is row[0].prompt), None)
        # no row is begun while the one before has room for its first
        assert following is None or row_length(row) + following[0].own_length > limit


def test_responses_stand_side_by_side_behind_their_prompt() -> None:
    first = sequence([1, IMAGE], [4, 5], patches=4)
    second = replace(sequence([1], [6, 7, 8]), prompt=first.prompt)

    batch = collate([[first, second]], pad_token_id=PAD, image_token_id=IMAGE)

    assert batch.input_ids.tolist() == [[1, IMAGE, 4, 5, 6, 7, 8]]
    assert batch.pixel_values is not None and len(batch.pixel_values) == 4
    assert batch.targets.tolist() == [4, 5, 6, 7, 8]
    assert batch.positions.tolist() == [1, 2, 1, 4, 5]
    assert batch.weights.tolist() == [0, 1, 0, 1, 2]
    assert batch.layout is not None
    assert batch.layout.depths.tolist() == [1, 2, 1, 2, 3]
    assert batch.layout.attention[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 1],
    ]
