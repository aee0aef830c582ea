"""What a run's rollouts would have been worth under other reward weights: nothing is generated, nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cluster.metrics_table import WIDE_ENOUGH
from cluster.run_folder import RunFolder
from cluster.saved_groups import saved_groups
from configs.load import load_recipe
from configs.schema import Rewards, RewardWeights
from rewards.mixing import Credits, Mixed, combine, credits
from rollout.trajectory import Score

_PARTS_OF_RUN = 4
_HEADERS = (
    "",
    "reward before",
    "after",
    "answer corr.",
    "turned %",
    "confidence corr.",
    "turned %",
    "best changed %",
    "groups",
    "n",
)
LEGEND = """\
corr.: between the advantages before and after, of answer and of confidence tokens. turned: responses whose
advantage changes its sign. best changed: groups in which another response has the highest reward."""


@dataclass(frozen=True, slots=True)
class Change:
    """Means over some of a run's groups, before and after."""

    groups: int
    responses: int
    reward: tuple[float, float]
    answer_correlation: float | None  # of the answers' advantages before and after; None: one of them is constant
    answer_turned: float  # share of responses whose answer was encouraged and is discouraged, or the other way round
    confidence_correlation: float | None  # the same, of the confidences' advantages
    confidence_turned: float
    best_changed: float  # share of groups in which another response has the highest reward


def rescore(run: RunFolder, changes: Sequence[str]) -> tuple[Rewards, Rewards, list[Change]]:
    """The mix of the run's recipe, the changed one, and what differs: by quarters of the run, then over all of it.

    `changes` are settings of the section `rewards` by which saved parts are mixed, such as calibration=0.5 (a weight)
    or credit=joint. Raises FileNotFoundError where the run has no rollouts, RecipeError for a change that is none.
    """
    before = load_recipe(run.recipe).rewards
    after = load_recipe(run.recipe, [_setting(change) for change in changes]).rewards
    _refuse_unscorable(before, after)
    found = [_compared(scores, before, after) for scores in scored_groups(run.stage(3).rollouts)]
    if not found:
        raise FileNotFoundError(f"{run.stage(3).rollouts} holds no group of two scored responses or more")
    quarters = np.array_split(np.arange(len(found)), min(_PARTS_OF_RUN, len(found)))
    return before, after, [_change([found[i] for i in quarter]) for quarter in quarters] + [_change(found)]


def scored_groups(folder: Path) -> list[list[Score]]:
    """Scores of the saved groups with two or more, in the order of admission, each group as it was last sampled."""
    scores = ([t.score for t in group.trajectories if t.score is not None] for group in saved_groups(folder))
    return [of_group for of_group in scores if len(of_group) > 1]


def rescore_table(before: Rewards, after: Rewards, changes: Sequence[Change]) -> str:
    """The changes as an aligned table, a row for each part of the run and one for all of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for number, change in enumerate(changes):
        name = "all" if number == len(changes) - 1 else f"part {number + 1}"
        table.add_row(name, *_cells(change))
    page = StringIO()
    Console(file=page, width=WIDE_ENOUGH, color_system=None).print(table)
    lines = [line.rstrip() for line in page.getvalue().splitlines() if line.strip()]
    return "\n".join([f"before: {_described(before)}", f"after:  {_described(after)}", *lines, LEGEND])


def _described(mix: Rewards) -> str:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in mix.weights.model_dump().items())
    return f"{weights}; credit {mix.credit}, baseline {mix.baseline}"


def _cells(change: Change) -> list[str]:
    correlations = (change.answer_correlation, change.confidence_correlation)
    answer, confidence = ("-" if found is None else f"{found:.3f}" for found in correlations)
    turned = [f"{100 * share:.1f}" for share in (change.answer_turned, change.confidence_turned, change.best_changed)]
    rewards = [f"{reward:.3f}" for reward in change.reward]
    return [*rewards, answer, turned[0], confidence, turned[1], turned[2], str(change.groups), str(change.responses)]


@dataclass(frozen=True, slots=True)
class _Compared:
    """One group under both mixes; arrays are [G]."""

    mixed: tuple[Mixed, Mixed]
    credits: tuple[Credits, Credits]


def _setting(change: str) -> str:
    name = change.partition("=")[0].strip()
    return f"rewards.{'weights.' if name in RewardWeights.model_fields else ''}{change}"


def _refuse_unscorable(before: Rewards, after: Rewards) -> None:
    """Only what happens after the raw parts can be changed afterwards."""
    fixed = ("reading", "reference", "target", "scoring_rule", "log_clip", "malformed")
    for name in fixed:
        if getattr(before, name) != getattr(after, name):
            raise ValueError(
                f"rewards.{name} decides the raw parts, and those are as they were saved: change a weight "
                f"({', '.join(RewardWeights.model_fields)}), credit or baseline"
            )


def _compared(scores: Sequence[Score], before: Rewards, after: Rewards) -> _Compared:
    parts = {name: np.array([score.parts[name] for score in scores]) for name in RewardWeights.model_fields}
    well_formed = np.array([score.malformed is None for score in scores], dtype=np.bool_)
    stated = np.array([score.confidence or 0.0 for score in scores])
    target = np.array([score.target or 0.0 for score in scores])
    mixed = [combine(parts, well_formed, mix.weights, mix.credit) for mix in (before, after)]
    gained = [credits(m, stated, target, mix.weights, mix) for m, mix in zip(mixed, (before, after), strict=True)]
    return _Compared((mixed[0], mixed[1]), (gained[0], gained[1]))


def _change(found: Sequence[_Compared]) -> Change:
    rewards = [np.concatenate([one.mixed[i].total for one in found]) for i in (0, 1)]
    answers = [np.concatenate([one.credits[i].answer for one in found]) for i in (0, 1)]
    confidences = [np.concatenate([one.credits[i].confidence for one in found]) for i in (0, 1)]
    best = [[int(one.mixed[i].total.argmax()) for one in found] for i in (0, 1)]
    return Change(
        groups=len(found),
        responses=len(rewards[0]),
        reward=(float(rewards[0].mean()), float(rewards[1].mean())),
        answer_correlation=_correlation(*answers),
        answer_turned=float((answers[0] * answers[1] < 0).mean()),
        confidence_correlation=_correlation(*confidences),
        confidence_turned=float((confidences[0] * confidences[1] < 0).mean()),
        best_changed=float(np.mean([a != b for a, b in zip(*best, strict=True)])),
    )


def _correlation(before: NDArray[np.float64], after: NDArray[np.float64]) -> float | None:
    if before.std() == 0 or after.std() == 0:
        return None
    return float(np.corrcoef(before, after)[0, 1])
