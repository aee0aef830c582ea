"""What held-out prompts with references say of a model's confidences: a threshold for a risk, and a better scale.

Both may be fitted on the same prompts. The threshold is one of the confidence as it was stated or voted, which no map
has touched: its guarantee does not ask for a map that was fitted on other prompts. Nothing is lost by that, as no map
reverses the order of two confidences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.matchers import opened
from cluster.predictions import PredictionRow
from cluster.score import hold
from cluster.voted import Voted
from configs.choices import Reference
from configs.schema import Recipe
from rewards.abstention import Guarantee, Threshold, guaranteed_threshold
from rewards.outcomes import Outcomes
from rewards.recalibration import Fit, Recalibrate, isotonic, temperature
from rollout.prompts import Prompt

MAPS: Mapping[str, Fit] = {"isotonic": isotonic, "temperature": temperature}


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is done with a confidence."""

    rows: int = 0  # held-out prompts
    guarantee: Guarantee | None = None  # None: no answer is withheld
    threshold: Threshold | None = None  # None: there is none that keeps the guarantee
    recalibrate: Recalibrate | None = None

    def abstains(self, confidence: float | None) -> bool | None:
        """Whether an answer with this confidence is withheld; None where that is not asked."""
        if self.guarantee is None:
            return None
        return self.threshold is None or not self.threshold.keeps(confidence)

    def better(self, confidence: float) -> float:
        """The confidence after the map; itself where there is none."""
        return confidence if self.recalibrate is None else float(self.recalibrate(np.array([confidence]))[0])

    def told(self) -> str | None:
        """A line on the threshold; None where none is asked for."""
        if self.guarantee is None:
            return None
        risk, sure = f"{self.guarantee.risk:g}", f"{1 - self.guarantee.delta:g}"
        if self.threshold is None:
            return (
                f"every row abstains: of {self.rows} held-out rows no threshold keeps answers with a risk of at most "
                f"{risk} with probability {sure}; even with none wrong it takes {self.guarantee.rows_needed} that are "
                "kept: take more rows, or a larger risk"
            )
        found = self.threshold
        above = "any confidence" if found.above == -np.inf else f"a confidence above {found.above:.4g}"
        return (
            f"kept are answers with {above}: {found.kept} of {self.rows} held-out rows, {found.wrong} of them wrong; "
            f"with probability {sure} the risk is at most {found.bound:.3f}"
        )


def fit(
    recipe: Recipe,
    prompts: Sequence[Prompt],
    voted: Sequence[Voted],
    guarantee: Guarantee | None,
    scale: str | None,
) -> Fitted:
    """Fit what is asked for on prompts with references, and what was voted for each.

    Raises ValueError where a map is asked for and there is no confidence to fit it on, and as the matcher does.
    """
    held = _outcomes(recipe, prompts, voted)
    threshold = None
    if guarantee is not None:
        threshold = guaranteed_threshold(held.confidence, held.correct, guarantee)
    recalibrate = None
    if scale is not None:
        readable = held.where(held.confident)
        if not len(readable):
            raise ValueError(f"no response to {len(prompts)} held-out rows is well formed: there is nothing to fit")
        recalibrate = MAPS[scale](readable.confidence, readable.correct)
    return Fitted(len(held), guarantee, threshold, recalibrate)


def _outcomes(recipe: Recipe, prompts: Sequence[Prompt], voted: Sequence[Voted]) -> Outcomes:
    """One outcome a prompt, held against what the recipe's `rewards.reference` says.

    That is the label; or one annotator drawn for each prompt, in which case an answer's chance of being right is the
    share of them who give it.
    """
    by_label = recipe.rewards.reference is Reference.LABEL
    rows = [PredictionRow(p.prompt_id, p.task, p.candidates, p.label, {} if by_label else p.counts) for p in prompts]
    with opened(recipe.rewards, recipe.reward_service) as matches:
        return hold(rows, [one.reading for one in voted], 1, recipe.evaluation.seed, matches=matches)
