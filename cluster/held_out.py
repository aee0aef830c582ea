"""What held-out prompts with references say of a model's confidences: a threshold for a risk, and a better scale.

Both may be fitted on the same prompts. The threshold is one of the confidence as it was stated or voted, which no map
has touched: its guarantee does not ask for a map that was fitted on other prompts. Nothing is lost by that, as no map
reverses the order of two confidences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.matchers import opened, refuse_unreadable
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

    rows: int = 0  # held-out prompts that it rests on
    left_out: int = 0  # others, whose answers were not judged
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
        """A line on the threshold, where one is asked for, behind one on what was left out; None: there is neither."""
        return "\n".join(line for line in (self._left_out(), self._kept()) if line is not None) or None

    def _left_out(self) -> str | None:
        if not self.left_out:
            return None
        return (
            f"{self.left_out} of {self.left_out + self.rows} held-out rows are left out: rewards.correctness failed on "
            "their answers, as the log says"
        )

    def _kept(self) -> str | None:
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


def refuse_unfit(recipe: Recipe, file: str, prompts: Sequence[Prompt]) -> None:
    """Try the matcher on the references of a file's held-out prompts, before a response is sampled.

    Raises what `refuse_unreadable` raises.
    """
    refuse_unreadable(recipe, file, prompts, by_votes=not _by_label(recipe))


def fit(
    recipe: Recipe,
    prompts: Sequence[Prompt],
    voted: Sequence[Voted],
    guarantee: Guarantee | None,
    scale: str | None,
) -> Fitted:
    """Fit what is asked for on prompts with references, and what was voted for each.

    A prompt on whose answer the matcher comes to no verdict is left out. Raises ValueError where a map is asked for and
    there is no confidence to fit it on, and where the matcher can be used no more.
    """
    held = _outcomes(recipe, prompts, voted)
    threshold = None
    if guarantee is not None:
        threshold = guaranteed_threshold(held.confidence, held.correct, guarantee)
    recalibrate = None
    if scale is not None:
        readable = held.where(held.confident)
        if not len(readable):
            raise ValueError(
                f"no response to {len(prompts)} held-out rows is well formed and was judged: there is nothing to fit"
            )
        recalibrate = MAPS[scale](readable.confidence, readable.correct)
    return Fitted(len(held), len(held.unscored), guarantee, threshold, recalibrate)


def _outcomes(recipe: Recipe, prompts: Sequence[Prompt], voted: Sequence[Voted]) -> Outcomes:
    """One outcome a prompt that can be judged, held against what the recipe's `rewards.reference` says.

    That is the label; or one annotator drawn for each prompt, in which case an answer's chance of being right is the
    share of them who give it.
    """
    by_label, readings = _by_label(recipe), [one.reading for one in voted]
    rows = [PredictionRow(p.prompt_id, p.task, p.candidates, p.label, {} if by_label else p.counts) for p in prompts]
    with opened(recipe.rewards, recipe.reward_service) as matches:
        at_once = recipe.rewards.answers_at_once
        return hold(rows, readings, 1, recipe.evaluation.seed, matches=matches, at_once=at_once)


def _by_label(recipe: Recipe) -> bool:
    return recipe.rewards.reference is Reference.LABEL
