"""What the controller keeps of a scored group: small, while the group itself stays in the object store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.trajectory import FinishReason, Group, Sample, Span, Trajectory


# No slots here: with them Python 3.11 pickles a frozen dataclass field by field, three times as slowly, and the record
# of every group goes from a reward worker to the controller.
@dataclass(frozen=True)
class SampleRecord:
    """What the controller keeps of a scored trajectory."""

    answer: str | None
    confidence: float | None
    malformed: str | None
    correct: float | None
    parts: Mapping[str, float]  # {} where scoring failed
    response_tokens: int
    truncated: bool
    token_versions: tuple[tuple[int, int], ...]  # (weight version, tokens) of each span
    failure: str | None
    answer_version: int | None = None  # weight version of the answer's first token; None: no answer was found
    confidence_version: int | None = None  # the same of the confidence


@dataclass(frozen=True)
class GroupRecord:
    """What the controller keeps of a scored group; the group itself stays in the object store."""

    group_id: int
    prompt_id: str
    target: str | None
    worker: str
    oldest_version: int
    samples: tuple[SampleRecord, ...]
    generation_seconds: float
    written: bool = True  # to the rollout file; a full disk takes no more

    @property
    def scored(self) -> tuple[SampleRecord, ...]:
        """Samples that have a score."""
        return tuple(sample for sample in self.samples if sample.failure is None)

    @property
    def response_tokens(self) -> int:
        """Tokens of all responses."""
        return sum(sample.response_tokens for sample in self.samples)


def record_of(group: Group) -> GroupRecord:
    """The controller's record of a scored group."""
    return GroupRecord(
        group_id=group.group_id,
        prompt_id=group.prompt_id,
        target=group.target,
        worker=group.worker,
        oldest_version=group.oldest_version,
        samples=tuple(map(_sample_record, group.trajectories)),
        generation_seconds=max(t.sample.finished for t in group.trajectories)
        - min(t.sample.started for t in group.trajectories),
    )


def _sample_record(trajectory: Trajectory) -> SampleRecord:
    sample, score = trajectory.sample, trajectory.score
    return SampleRecord(
        answer=score.answer if score else None,
        confidence=score.confidence if score else None,
        malformed=score.malformed if score else None,
        correct=score.correct if score else None,
        parts=dict(score.parts) if score else {},
        response_tokens=len(sample.tokens),
        truncated=sample.finish_reason is FinishReason.LENGTH,
        token_versions=tuple((span.version, span.end - span.start) for span in sample.version_spans),
        failure=trajectory.failure if score is None else None,
        answer_version=_first_version(sample, score.answer_span if score else None),
        confidence_version=_first_version(sample, score.confidence_span if score else None),
    )


def _first_version(sample: Sample, span: Span | None) -> int | None:
    return None if span is None else sample.version_of(span.start)
