"""What each metric of the log is called as a gauge of Ray's, and what it says: the only list there is.

`{…}` in a metric stands for what becomes the gauge's tag of that name: `dropped/stale` is exported as
`caliber_dropped_by_reason{reason="stale"}`, `worker/rollout-0/groups` as `caliber_worker_groups{worker="rollout-0"}`.
Ray puts `ray_` before all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TOKENS = {
    "mismatch": "mean difference of engine's and learner's log-probabilities, nats",
    "behaviour_kl": "KL from engine to learner, nats a token",
    "importance_ratio": "mean importance ratio before any correction",
    "capped_share": "share of the tokens whose ratio was capped or clipped",
    "masked_share": "share of the tokens left out for their ratio",
    "reference_kl": "KL to the model stage 3 started from, nats a token",
}
_LAG = {
    "n": "responses",
    "accuracy": "share of right answers",
    "confidence": "mean confidence",
    "ece": "expected calibration error, fraction of 1",
    "brier": "Brier score",
}
_GROUPS = {
    "groups": "groups",
    "accuracy": "share of right answers",
    "confidence": "mean confidence",
    "malformed": "share of malformed responses",
    "response_tokens": "mean tokens of a response",
    "generation_seconds": "mean seconds of a group's generation",
    "reward": "mean total reward",
}
_AGES = {
    "groups": "groups",
    "seconds": "mean seconds since they began",
    "lag_mean": "mean versions since they began",
    "lag_max": "most versions since one began",
}

DESCRIPTIONS: Mapping[str, str] = {
    "step": "Steps taken",
    "phase/{name}": "1 for what the job does now, 0 for the rest",
    # What a batch was worth
    "reward": "Mean total reward, under the weights of the step",
    "part/{name}": "Mean of a raw reward part, before its weight",
    "weight/{name}": "Weight of a reward part",
    # Calibration
    "accuracy": "Share of right answers; a malformed response is a wrong one",
    "confidence": "Mean confidence",
    "confidence_sd": "Standard deviation of the confidences",
    "confidence_right": "Mean confidence of right answers",
    "confidence_wrong": "Mean confidence of wrong answers",
    "confidence_entropy": "Entropy of the confidences, nats",
    "distinct_confidences": "Different confidences in use",
    "ece": "Expected calibration error, fraction of 1",
    "brier": "Brier score",
    "reliability": "Reliability, the part of the Brier score that calibration can remove",
    "resolution": "Resolution, how far confidences tell right from wrong answers",
    "sabotage": "Share of answers outside their group's majority with a confidence under 0.1",
    "surely_wrong": "Share of responses with a confidence under 0.1",
    "warning/{kind}": "1 while the job warns of it, judged over windows of steps",
    **{f"lag/{{versions}}/{name}": f"By versions since the confidence: {text}" for name, text in _LAG.items()},
    # Form
    "malformed": "Share of malformed responses",
    "malformed/{cause}": "Malformed responses by cause",
    "truncated": "Share of responses cut by the limit",
    "unscored": "Responses of the batch without a score",
    "unscored/{cause}": "Responses without a score since the start, by the error",
    "response_tokens": "Mean tokens of a response",
    # Policy lag, and what it selects
    "lag_mean": "Mean policy lag of a token, versions",
    "lag_max": "Largest policy lag of a token, versions",
    "mixed_version_share": "Share of the responses that new weights came under",
    "dropped/{reason}": "Groups dropped since the run began, by reason",
    **{f"running/{name}": f"Passed over by the batch: {text}" for name, text in _AGES.items()},
    **{f"dropped_unfinished/{name}": f"Dropped before they were complete: {text}" for name, text in _AGES.items()},
    **{f"finished_late/{name}": f"Missed by an earlier batch: {text}" for name, text in _GROUPS.items()},
    **{f"dropped_complete/{name}": f"Dropped when they were complete: {text}" for name, text in _GROUPS.items()},
    # The learner
    "loss": "Loss",
    "evaluation_loss": "Loss on the rows held out",
    "grad_norm": "Norm of the gradient before it is clipped",
    "learning_rate": "Learning rate",
    "exact_share": "Share of the confidences with the exact gradient",
    "parity": "The mismatch under the learner's own weights: engine and learner compute differently",
    "probe": "The same of one response of the run, which is scored again at every weight version",
    **{name: f"All tokens: {text}" for name, text in _TOKENS.items()},
    **{f"confidence_tokens/{name}": f"Confidence tokens: {text}" for name, text in _TOKENS.items()},
    # Speed, waits and pauses
    "seconds": "Seconds of an SFT step",
    "tokens_per_second": "Tokens a second of an SFT step",
    "step_seconds": "Seconds from one step's end to the next one's",
    "learner_seconds": "Seconds of the learner's step",
    "learner_tokens_per_second": "Tokens a second of the learner's step",
    "learner_wait_seconds": "Seconds the learner had no batch",
    "rollout_tokens_per_second": "Response tokens a second, of all workers",
    "rollout_wait_seconds": "Seconds no worker had a prompt",
    "stale_wait_seconds": "Seconds a full batch was held back for slow groups",
    "stale_wait_groups": "Groups it was held back for, at most",
    "generation_seconds": "Mean seconds of a group's generation",
    "update_seconds": "Seconds until all workers held the newest weights",
    "update_megabytes": "Megabytes of the newest weights' update, for each worker",
    "in_flight_at_update": "Groups being generated when it began",
    # Buffer, queues, workers
    "buffer/complete": "Complete groups that wait for their training",
    "buffer/running": "Groups in generation or scoring",
    "queue/{service}": "Groups that wait for a worker with room",
    "live/{service}": "Workers that are there",
    "worker/{worker}/groups": "Groups a worker has",
    "worker/{worker}/starts": "Times a worker was started",
    "checkpoints_failed": "Checkpoints that could not be written since the start",
    "groups_unwritten": "Groups that the rollout files lack since the start: the disk did not take them",
    "worker_restarts": "Rollout workers replaced since the start",
    "reward_worker_restarts": "Reward workers replaced since the start",
    "engine/groups_at_most": "Groups a worker may have at once, mean",
    "engine/groups": "Groups a worker has, mean",
    "engine/waiting": "Requests in the queue before an engine's batch, mean",
    "engine/kv_use": "Share of the KV cache in use, mean",
    "engine/preempted": "Requests put back since the step before for want of KV cache",
}

_EXPRESSIONS = {pattern: re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)) for pattern in DESCRIPTIONS}


@dataclass(frozen=True, slots=True)
class Named:
    """A metric as a gauge."""

    gauge: str
    description: str
    tags: Mapping[str, str]  # those the metric's own name gives


def gauge_of(metric: str) -> Named | None:
    """How a metric is exported; None for one that is not."""
    for pattern, expression in _EXPRESSIONS.items():
        if found := expression.fullmatch(metric):
            return Named(gauge_name(pattern), DESCRIPTIONS[pattern], found.groupdict())
    return None


def gauge_name(pattern: str) -> str:
    """The gauge of an entry of DESCRIPTIONS, without Ray's prefix."""
    by_tag = re.sub(r"/{(\w+)}$", r"_by_\1", pattern)
    return "caliber_" + re.sub(r"{\w+}/", "", by_tag).replace("/", "_")
