"""A group to encode, and equality of groups, for the tests of what is on the wire and on disk."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np

from rollout.trajectory import FinishReason, Group, Sample, Score, Span, Trajectory, VersionSpan


def same(left: object, right: object) -> bool:
    """Equality that looks into arrays, with their types, and into records."""
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left)
        )
    if isinstance(left, tuple):
        return isinstance(right, tuple) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def example_sample() -> Sample:
    return Sample(
        tokens=np.array([5, 6, 7, 0], np.int32),
        logprobs=np.array([-0.5, -0.25, 0.0, -2.0], np.float32),
        version_spans=(VersionSpan(3, 0, 2), VersionSpan(4, 2, 4)),
        finish_reason=FinishReason.STOP,
        text="<answer>joy</answer>",
        started=1.5,
        finished=2.5,
    )


def example_group() -> Group:
    score = Score("joy", 0.75, None, 1.0, 0.5, {"correctness": 1.0}, None, Span(0, 2), Span(2, 4))
    return Group(
        group_id=7,
        prompt_id="emoji-1",
        images=("/data/1.png",),
        prompt_tokens=np.array([1, 2, 3], np.int32),
        target="joy",
        admitted=1.0,
        worker="rollout-0",
        trajectories=(Trajectory(example_sample(), score), Trajectory(example_sample(), None, "timed out")),
        meters={"scoring_seconds": 0.5},
    )
