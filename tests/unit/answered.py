"""What a pool returns for a visit, made of the responses' texts."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import numpy as np

from rollout.codec import encode_group
from rollout.trajectory import FinishReason, Group, Sample, Trajectory, VersionSpan
from rollout.worker import Visit
from tests.unit.byte_tokenizer import END, tokenizer


def answered(visit: Visit, texts: Sequence[str], reason: FinishReason = FinishReason.STOP) -> Awaitable[bytes]:
    """In place of Ray's reference to the encoded group."""
    group = Group(
        group_id=visit.group_id,
        prompt_id=visit.prompt.prompt_id,
        images=(),
        prompt_tokens=np.array([1], np.int32),
        target=visit.target,
        admitted=0.0,
        worker="rollout-0",
        trajectories=tuple(Trajectory(_sample(text, reason)) for text in texts),
    )
    return _arrived(encode_group(group))


async def _arrived(payload: bytes) -> bytes:
    return payload


def _sample(text: str, reason: FinishReason) -> Sample:
    ids = tokenizer().encode(text).ids + [END] * (reason is FinishReason.STOP)
    logprobs = np.full(len(ids), -0.5, np.float32)
    return Sample(np.array(ids, np.int32), logprobs, (VersionSpan(0, 0, len(ids)),), reason, text, 0.0, 1.0)
