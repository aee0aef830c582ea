"""Why a visit ended without a group to train on: what sampling and scoring raise, as the ledger's reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray.exceptions import ObjectLostError

from learner.ledger import DropReason
from rollout.engine import EngineError

Reasons = Mapping[type[Exception], DropReason]

SAMPLING: Reasons = {
    ValueError: DropReason.UNANSWERABLE,
    EngineError: DropReason.GENERATION_FAILED,
    ObjectLostError: DropReason.LOST,
}
SCORING: Reasons = {
    EngineError: DropReason.SCORING_FAILED,
    ObjectLostError: DropReason.LOST,  # with the node that sampled the group, before it was scored
}


class Dropped(Exception):
    """A group that will not be trained on; what it was dropped for is the cause."""

    def __init__(self, reason: DropReason, cause: Exception) -> None:
        super().__init__(f"{reason}: {cause}")
        self.reason = reason


@contextmanager
def dropped_for(reasons: Reasons) -> Iterator[None]:
    """Raise Dropped for what has a reason here; the rest is no single group's."""
    try:
        yield
    except tuple(reasons) as error:
        reason = next(reason for kind, reason in reasons.items() if isinstance(error, kind))
        raise Dropped(reason, error) from error
