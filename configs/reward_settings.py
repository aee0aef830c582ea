"""What is rewarded, and by whom."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from configs.choices import Baseline, ConfidenceGradient, Credit, Preset, Reading, Reference, ScoringRule
from configs.presets import with_preset
from configs.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section, Share


class RewardService(Section):
    """Ray actors that score responses."""

    workers: PositiveInt = 1
    """Reward workers."""
    cpus_per_worker: NonNegativeFloat = 0.25
    """Ray CPUs a worker reserves."""
    seconds_per_group: PositiveFloat = 30.0
    """Time limit for scoring one group."""


class RewardWeights(Section):
    """Weights of the raw reward parts; applied after the buffer, by `rewards.mixing.combine` alone."""

    correctness: NonNegativeFloat = 1.0
    """1 for a right answer, else 0."""
    calibration: NonNegativeFloat = 1.0
    """The scoring rule's value."""
    format: NonNegativeFloat = 1.0
    """1 for a well-formed response, else 0."""


class MalformedParts(Section):
    """Raw parts of a malformed response, beside a correctness of 0."""

    calibration: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The lowest value of the scoring rule if not set."""
    format: Annotated[float, Field(le=0, allow_inf_nan=False)] = 0.0
    """Beside 1 for a well-formed one."""


class TargetMix(Section):
    """What a confidence is scored against: shares of a mixture that add up to 1."""

    outcome: Share = 1.0
    """Whether the answer was right."""
    annotators: Share = 0.0
    """The annotators' share of the answer: no luck of one annotator's draw, where the rows have counts."""
    same_answer: Share = 0.0
    """How many of those in the group who gave the same answer were right."""
    group: Share = 0.0
    """How many of the whole group were right: the probability of the prompt, not of this answer."""

    @model_validator(mode="before")
    @classmethod
    def _outcome_takes_the_rest(cls, given: object) -> object:
        if not isinstance(given, Mapping) or "outcome" in given:
            return given
        others = [share for share in given.values() if isinstance(share, int | float)]
        return {**given, "outcome": max(0.0, 1.0 - sum(others))}

    @model_validator(mode="after")
    def _adds_up(self) -> TargetMix:
        total = self.outcome + self.annotators + self.same_answer + self.group
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of rewards.target add up to {total:g}, expected 1; change one of them")
        return self


class Rewards(Section):
    """What is rewarded, and where the credit goes."""

    preset: Preset | None = None
    """The mix of a published method; settings beside it go over it."""
    reading: Reading = Reading.STRICT
    """Which rules a response is read by."""
    reference: Reference = Reference.LABEL
    """What an answer is held against."""
    target: TargetMix = TargetMix()
    """What a confidence is scored against."""
    scoring_rule: ScoringRule = ScoringRule.BRIER
    """How a stated confidence is scored."""
    log_clip: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """The log score's confidence is clipped to [log_clip, 1 - log_clip]."""
    weights: RewardWeights = RewardWeights()
    """Weights of the parts."""
    malformed: MalformedParts = MalformedParts()
    """What a malformed response is worth."""
    credit: Credit = Credit.APART
    """Which tokens a part is credited to."""
    baseline: Baseline = Baseline.MEAN
    """Baseline of the advantages."""
    divide_by_std: bool = False
    """Divide advantages by their group's standard deviation (GRPO): biases every proper score; joint credit only."""
    confidence_gradient: ConfidenceGradient = ConfidenceGradient.SAMPLED
    """Exact: no noise from the confidence that happened to be sampled, for a few more tokens in the learner."""
    confidence_token_weight: PositiveFloat = 1.0
    """Weight of a confidence token in the loss, beside 1 for every other."""
    allow_unsafe: bool = False
    """Run a mix that the safety check refuses."""

    @model_validator(mode="before")
    @classmethod
    def _over_its_preset(cls, given: object) -> object:
        return with_preset(given) if isinstance(given, Mapping) else given
