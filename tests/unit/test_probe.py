"""Tests of rollout.probe: which part of which response is the probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rollout.probe import PROBE_TOKENS, probe_of
from rollout.prompts import Message, Prompt
from rollout.trajectory import Group, Trajectory
from tests.unit.groups import example_group, example_sample

PROMPT = Prompt("emoji-1", "emoji", (Message("user", "How?"),))


def group_of(responses: Sequence[Sequence[int]]) -> Group:
    samples = [replace(example_sample(), tokens=np.array(tokens, np.int32)) for tokens in responses]
    return replace(example_group(), trajectories=tuple(map(Trajectory, samples)))


def test_the_probe_is_the_groups_longest_response() -> None:
    probe = probe_of(group_of([[1], [2, 3, 0], [4, 5]]), PROMPT, response_tokens=64)

    assert probe is not None
    assert probe.prompt is PROMPT
    assert probe.tokens.tolist() == [2, 3, 0]


@pytest.mark.parametrize(("response_tokens", "left"), [(1000, PROBE_TOKENS), (64, 63)])
def test_it_is_short_and_leaves_room_for_the_token_that_an_engine_samples_behind_it(
    response_tokens: int, left: int
) -> None:
    probe = probe_of(group_of([range(900)]), PROMPT, response_tokens)

    assert probe is not None
    assert probe.tokens.tolist() == list(range(left))


def test_where_a_response_is_one_token_there_is_no_probe() -> None:
    assert probe_of(group_of([[1], [2]]), PROMPT, response_tokens=1) is None
