"""What a batch of groups says: the numbers of one line of stage 3's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from cluster.records import GroupRecord, SampleRecord
from cluster.run_log import Column
from configs.schema import Rewards, RewardWeights
from rewards.bins import calibration_error, equal_width_bins
from rewards.decomposition import decompose
from rewards.matching import sameness
from rewards.mixing import combine
from rewards.scoring import Floats
from rewards.suspicion import SURELY_WRONG, entropy, sabotage_rate, values_in_use, weighted_mean

COLUMNS = (
    Column("reward", "reward", 3),
    Column("part/correctness", "correct", 3),
    Column("part/calibration", "calib", 3),
    Column("part/format", "format", 3),
    Column("accuracy", "acc", 3),
    Column("confidence", "conf", 3),
    Column("confidence_sd", "sd", 3),
    Column("distinct_confidences", "values", 0),
    Column("ece", "ECE pt", 1, 100),
    Column("brier", "Brier", 3),
    Column("malformed", "malf %", 1, 100),
    Column("lag_mean", "lag", 2),
    Column("lag_max", "max", 0),
    Column("rollout_tokens_per_second", "roll/s", 0),
    Column("learner_tokens_per_second", "learn/s", 0),
    Column("learner_wait_seconds", "wait L", 1),
    Column("rollout_wait_seconds", "wait R", 1),
    Column("behaviour_kl", "KL e-l", 4),
)

_BINS = 10


def batch_metrics(
    records: Sequence[GroupRecord], version: int, weights: RewardWeights, rewards: Rewards
) -> dict[str, float | None]:
    """Rewards under the mix they are trained with, calibration, and policy lag, over a batch.

    Lag is counted in weight versions between a token's sampling and `version`, the learner's.
    """
    samples = [sample for record in records for sample in record.scored]
    return {
        **_reward_metrics(samples, weights, rewards),
        **_calibration_metrics(samples),
        "sabotage": _sabotage_rate(records, sameness(rewards.correctness)),
        **_lag_metrics(records, version),
        "truncated": _mean([sample.truncated for sample in samples]),
        "response_tokens": _mean([sample.response_tokens for sample in samples]),
        "generation_seconds": _mean([record.generation_seconds for record in records]),
        "unscored": float(sum(len(record.samples) - len(record.scored) for record in records)),
    }


def totals(samples: Sequence[SampleRecord], weights: RewardWeights, rewards: Rewards) -> Floats:
    """[N] what each scored sample is worth; of one sample at least."""
    parts = {name: np.array([sample.parts[name] for sample in samples]) for name in samples[0].parts}
    well_formed = np.array([sample.malformed is None for sample in samples])
    return combine(parts, well_formed, weights, rewards.credit).total


def malformed_causes(records: Sequence[GroupRecord]) -> Counter[str]:
    """Malformed responses by cause."""
    return Counter(s.malformed for record in records for s in record.scored if s.malformed is not None)


def _reward_metrics(
    samples: Sequence[SampleRecord], weights: RewardWeights, rewards: Rewards
) -> dict[str, float | None]:
    if not samples:
        return {"reward": None}
    parts = {name: float(np.mean([sample.parts[name] for sample in samples])) for name in samples[0].parts}
    return {
        "reward": float(totals(samples, weights, rewards).mean()),
        **{f"part/{name}": part for name, part in parts.items()},
    }


def _calibration_metrics(samples: Sequence[SampleRecord]) -> dict[str, float | None]:
    stated = [s for s in samples if s.confidence is not None and s.correct is not None]
    found: dict[str, float | None] = {
        "malformed": _mean([s.malformed is not None for s in samples]),
        "accuracy": _mean([s.correct or 0.0 for s in samples]),
    }
    if not stated:
        return found
    confidence = np.array([s.confidence for s in stated], dtype=np.float64)
    correct = np.array([s.correct for s in stated], dtype=np.float64)
    parts = decompose(confidence, correct)
    return found | {
        "confidence": float(confidence.mean()),
        "confidence_sd": float(confidence.std()),
        "confidence_right": weighted_mean(confidence, correct),
        "confidence_wrong": weighted_mean(confidence, 1 - correct),
        "confidence_entropy": entropy(confidence),
        "distinct_confidences": float(values_in_use(confidence, len(samples))),
        "surely_wrong": float((confidence < SURELY_WRONG).sum()) / len(samples),
        "ece": calibration_error(confidence, correct, equal_width_bins(confidence, _BINS)),
        "brier": float(np.mean((confidence - correct) ** 2)),
        "reliability": parts.reliability,
        "resolution": parts.resolution,
    }


def _sabotage_rate(records: Sequence[GroupRecord], same: Callable[[str], Hashable]) -> float | None:
    named = [(number, sample) for number, record in enumerate(records) for sample in record.scored]
    return sabotage_rate(
        [number for number, _ in named],
        [sample.answer for _, sample in named],
        np.array([np.nan if sample.confidence is None else sample.confidence for _, sample in named]),
        same,
    )


def _lag_metrics(records: Sequence[GroupRecord], version: int) -> dict[str, float | None]:
    spans = [span for record in records for sample in record.samples for span in sample.token_versions]
    lags = np.array([version - sampled for sampled, _ in spans])
    tokens = np.array([count for _, count in spans])
    mixed = [len(sample.token_versions) > 1 for record in records for sample in record.samples]
    return {
        "lag_mean": float((lags * tokens).sum() / tokens.sum()),
        "lag_max": float(lags.max()),
        "mixed_version_share": _mean(mixed),  # responses that weights changed under
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
