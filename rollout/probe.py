"""The probe: one response that learner and engines both give the log-probabilities of, at every weight version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.prompts import Prompt
from rollout.trajectory import Group

PROBE_TOKENS = 128  # at most: their mean difference is steady, and they cost no more than a short response


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A prompt and the beginning of a response to it."""

    prompt: Prompt
    tokens: NDArray[np.int32]  # [T] T >= 1


def probe_of(group: Group, prompt: Prompt, response_tokens: int) -> Probe | None:
    """The beginning of the group's longest response; None where responses have no more than one token.

    It is shorter than the `response_tokens` that an engine has room for behind each prompt: to score it, an engine
    samples one more.
    """
    longest = max((trajectory.sample.tokens for trajectory in group.trajectories), key=len)
    tokens = longest[: min(PROBE_TOKENS, response_tokens - 1)]
    return Probe(prompt, tokens) if len(tokens) else None
