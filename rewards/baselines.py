"""What a model's confidences must beat to have been worth their training."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import numpy as np

from rewards.correctness import normalise_answer
from rewards.metrics import Metrics, metrics
from rewards.outcomes import Outcomes
from rewards.recalibration import constant_at_base_rate, cross_fitted, isotonic, temperature

CONSTANT = "constant"
TOKEN_PROBABILITY = "token probability"
ISOTONIC = "+ isotonic"
TEMPERATURE = "+ temperature"


def baselines(
    outcomes: Outcomes, bins: int = 10, same: Callable[[str], Hashable] = normalise_answer
) -> dict[str, Metrics]:
    """Metrics of the same answers with other confidences, by name; one that these outcomes do not allow is left out.

    "constant": the share of right answers. "token probability": that of the answer's tokens, to two decimals as it
    would be stated. "+ isotonic" and "+ temperature": the stated confidences recalibrated. All but the second are
    learned from the other half of the prompts.
    """
    others = {
        CONSTANT: constant_at_base_rate(outcomes),
        TOKEN_PROBABILITY: _by_token_probability(outcomes),
        ISOTONIC: cross_fitted(outcomes, isotonic),
        TEMPERATURE: cross_fitted(outcomes, temperature),
    }
    return {name: metrics(found, bins, same) for name, found in others.items() if found is not None}


def _by_token_probability(outcomes: Outcomes) -> Outcomes | None:
    if outcomes.token_probability is None:
        return None
    found = replace(outcomes, confidence=np.round(outcomes.token_probability, 2))
    return found if found.confident.any() else None
