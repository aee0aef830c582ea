"""What is rewarded, and by whom."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from configs.choices import Baseline, ConfidenceGradient, Correctness, Credit, Preset, Reading, Reference, ScoringRule
from configs.presets import with_preset
from configs.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section, Share

LONGEST_PAUSE = 10.0  # seconds before a request to a judge is sent again, whatever the judge asks for

_OWN_SCORER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


class RewardService(Section):
    """Ray actors that score responses."""

    workers: PositiveInt = 1
    """Reward workers."""
    cpus_per_worker: NonNegativeFloat = 0.25
    """Ray CPUs a worker reserves."""
    seconds_per_group: PositiveFloat = 120.0
    """Time limit for scoring one group; a worker that takes longer is replaced."""
    seconds_per_response: PositiveFloat = 5.0
    """Time limit of one call of a scorer of your own (rewards.correctness: package.module:Class)."""
    memory_gib_per_scorer: PositiveFloat = 4.0
    """Memory such a scorer may take beyond what it has once it is made, GiB."""


class Judge(Section):
    """A service that is sent {"answer", "reference"} and says {"score"}, a number in [0, 1]."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    """Address that takes the POST requests: https, unless it is of this machine."""
    plain_http: bool = False
    """Let answers and the token travel unencrypted to a judge on another machine."""
    token_variable: str | None = None
    """Environment variable with a bearer token for it, set wherever a reward worker runs."""
    seconds_per_request: PositiveFloat = 10.0
    """Time limit of one request."""
    attempts: PositiveInt = 3
    """Times a question is sent, where the judge is not reached, too slow, overloaded (429) or at fault (408, 5xx)."""
    seconds_of_backoff: PositiveFloat = 0.5
    """Pause before the second attempt, doubled before each one after it, up to half of it left out at random; what the
    judge asks for (Retry-After) takes its place. None is longer than 10 s."""
    requests_at_once: PositiveInt = 16
    """Requests a reward worker has under way at a time."""
    failures_before_pause: PositiveInt = 8
    """Questions without a verdict in a row after which none is asked for a while."""
    pause_seconds: PositiveFloat = 30.0
    """How long that while is; then one question is a trial."""
    cached_verdicts: PositiveInt = 10_000
    """Verdicts a reward worker remembers, those least recently asked for forgotten first."""

    @model_validator(mode="after")
    def _keeps_secrets(self) -> Judge:
        parts = urlsplit(self.url)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "rewards.judge.url holds a name or a password, and recipes are written into the run's folder and its "
                "logs; take it out, and name a variable with a token in rewards.judge.token_variable"
            )
        if parts.scheme == "http" and not self.plain_http and not _is_loopback(parts.hostname or ""):
            raise ValueError(
                f"rewards.judge.url: http to {parts.hostname} sends answers and the token unencrypted; make it https, "
                "or set rewards.judge.plain_http to true"
            )
        return self

    @property
    def seconds_at_most(self) -> float:
        """Time that one question may take."""
        return self.attempts * self.seconds_per_request + (self.attempts - 1) * LONGEST_PAUSE


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
    """How many of those in the group who gave the same answer were right: differs from the outcome where a judge or a
    scorer of your own does not say the same of equal answers."""
    group: Share = 0.0
    """How many of the whole group were right: the probability of the prompt, not of this answer."""

    @model_validator(mode="before")
    @classmethod
    def _outcome_takes_the_rest(cls, given: object) -> object:
        if not isinstance(given, Mapping) or "outcome" in given:
            return given
        try:
            others = sum(float(share) for share in given.values())  # a recipe's numbers come as text
        except (TypeError, ValueError):
            return given  # and are refused by their own fields
        return {**given, "outcome": max(0.0, 1.0 - others)}

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
    correctness: str = Correctness.EXACT.value
    """What says whether it is right: exact, numeric, choice, judge, or package.module:Class of a scorer of your own."""
    judge: Judge | None = None
    """The judge, for rewards.correctness judge."""
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
    """Divide advantages by their group's standard deviation (GRPO), the population's, plus 1e-4: biases every proper
    score; joint credit only."""
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

    @field_validator("correctness")
    @classmethod
    def _is_known_or_a_scorer(cls, given: str) -> str:
        if given not in list(Correctness) and not _OWN_SCORER.fullmatch(given):
            raise ValueError(
                f"got {given!r}, expected {', '.join(Correctness)}, or package.module:Class of a scorer of your own"
            )
        return given

    @model_validator(mode="after")
    def _has_its_judge(self) -> Rewards:
        if self.correctness == Correctness.JUDGE and self.judge is None:
            raise ValueError("rewards.correctness: judge needs the section rewards.judge; give it at least its url")
        if self.correctness != Correctness.JUDGE and self.judge is not None:
            raise ValueError(
                f"rewards.judge is never asked with rewards.correctness {self.correctness}; set that to judge, or "
                "leave the section out"
            )
        return self

    @property
    def answers_at_once(self) -> int:
        """Answers whose correctness is asked for at a time: more than one where that is to wait for a service."""
        return 1 if self.judge is None else self.judge.requests_at_once

    @property
    def own_scorer(self) -> bool:
        """Whether correctness is said by a class of the user's."""
        return self.correctness not in list(Correctness)
