"""The metrics that are our own code against those of torchmetrics and relplot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewards.bins import calibration_error, equal_width_bins
from rewards.smooth_ece import smooth_ece

MISSING = "is not installed here: `make install` brings it"
SIZES = (5, 50, 500, 3000)


def overconfident(n: int, low: float = 0.02) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences inside [low, 1 - low], right with their square."""
    rng = np.random.default_rng(n)
    confidence = rng.uniform(low, 1 - low, n)
    return confidence, rng.random(n) < confidence**2


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_torchmetrics(n: int, bins: int) -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification", reason=f"torchmetrics {MISSING}")
    confidence, correct = overconfident(n)

    expected = theirs.binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), bins, "l1")

    assert calibration_error(confidence, correct, equal_width_bins(confidence, bins)) == pytest.approx(float(expected))


@pytest.mark.parametrize("n", SIZES)
def test_the_smooth_ece_is_relplots_but_for_its_grid(n: int) -> None:
    theirs = pytest.importorskip("relplot.metrics", reason=f"relplot {MISSING}")
    confidence, correct = overconfident(n)

    expected = theirs.smECE(confidence, correct.astype(np.float64))

    assert smooth_ece(confidence, correct) == pytest.approx(expected, abs=1e-3)  # to which it seeks its bandwidth


def test_mass_at_zero_and_one_weighs_as_much_as_any_and_half_of_that_in_relplot() -> None:
    theirs = pytest.importorskip("relplot.metrics", reason=f"relplot {MISSING}")
    confidence = np.repeat([0.0, 0.5, 1.0], 100)
    correct = np.concatenate([np.arange(100) < 20, np.arange(100) < 50, np.arange(100) < 80])

    for_ends = theirs.smECE(confidence, correct.astype(np.float64))
    moved = theirs.smECE(np.clip(confidence, 0.005, 0.995), correct.astype(np.float64))

    assert smooth_ece(confidence, correct) == pytest.approx(moved, abs=5e-3)
    assert for_ends < moved - 5e-3
