"""What each mix of rewards teaches, on a policy small enough to know the best one in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.table_policy import IDEAL_BRIER, P, learnt
from benchmarks.what_mixes_teach import MIXES
from configs.schema import Rewards
from rewards.safety import sabotage_threshold, unsafe

SAFE = ("apart, Brier", "apart, Brier, exact", "apart, log", "jointly, Brier, a = b")
BY_STD, _ = MIXES["the same, divided by the std"]
TWICE_CALIBRATION, _ = MIXES["jointly, Brier, a = 1, b = 2"]
PAPERS, _ = MIXES["jointly, log, a = 1, b = 2"]


@pytest.mark.parametrize("name", SAFE)
def test_a_safe_mix_teaches_to_answer_honestly_and_to_state_the_truth(name: str) -> None:
    settings, exact = MIXES[name]

    found = learnt(settings, exact=exact)

    assert unsafe(Rewards.model_validate(settings)) == []
    assert found.accuracy >= 0.495
    assert found.brier - IDEAL_BRIER <= 0.005


def test_dividing_by_the_groups_standard_deviation_drives_confidences_to_the_extremes() -> None:
    found = learnt(BY_STD)

    assert unsafe(Rewards.model_validate(BY_STD)) != []
    assert found.accuracy >= 0.495
    assert found.brier - IDEAL_BRIER > 0.01
    assert found.bias[P > 0.5].mean() > 0.08
    assert found.bias[P < 0.5].mean() < -0.08


@pytest.mark.parametrize(
    ("settings", "accuracy", "up_to"),
    [(TWICE_CALIBRATION, (0.33, 0.45), (0.3, 0.55)), (PAPERS, (0.0, 0.25), (0.7, 0.9))],
    ids=["Brier, a = 1 and b = 2", "EmoCaliber's"],
)
def test_an_unsafe_mix_teaches_sabotage_below_its_threshold_and_the_brier_score_looks_superb(
    settings: Mapping[str, object], accuracy: tuple[float, float], up_to: tuple[float, float]
) -> None:
    found = learnt(settings)

    sabotaged = P[found.honesty < 0.5]
    threshold = sabotage_threshold(Rewards.model_validate(settings))
    assert unsafe(Rewards.model_validate(settings)) != []
    assert accuracy[0] < found.accuracy < accuracy[1]
    assert found.brier < IDEAL_BRIER - 0.05
    assert up_to[0] < sabotaged.max() < up_to[1]
    assert sabotaged.max() < threshold + 0.1
