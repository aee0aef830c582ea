"""What a run's rollouts would have been worth under other reward weights: nothing is generated, nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cluster.live_weights import shown, with_weights
from cluster.metrics_table import WIDE_ENOUGH
from cluster.report.mixes import Mixes, MixSpan, first_step
from cluster.run_folder import RunFolder
from cluster.saved_groups import saved_groups
from configs.load import load_recipe, refuse_null
from configs.schema import Rewards, RewardWeights
from rewards.mixing import Credits, Mixed, combine, credits
from rewards.safety import unsafe
from rollout.trajectory import Group, Score

_PARTS_OF_RUN = 4
_CHANGEABLE = ("credit", "baseline", "divide_by_std")
_LEARNERS = "is about the learner's step, and no reward or advantage depends on it"
_UNSCORABLE = {
    "preset": "stands for settings that a run's recipe has one by one, and would change none of them",
    "weights": "are changed one by one",
    "confidence_gradient": _LEARNERS,
    "confidence_token_weight": _LEARNERS,
    "allow_unsafe": "lets a job start, and none is started here",
}
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
before: each group under the weights that it can first have been trained with, the recipe's or `caliber reweight`'s.
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


@dataclass(frozen=True, slots=True)
class Rescored:
    """A run's rollouts under the weights that it was trained with, and under changed ones."""

    before: tuple[Rewards, Sequence[MixSpan]]  # the mix but for its weights, and those
    after: tuple[Rewards, Sequence[MixSpan]]
    changes: Sequence[Change]  # by quarters of the run, then over all of it

    @property
    def unsafe(self) -> list[str]:
        """What makes the changed mix unsafe, with any of its weights."""
        rewards, spans = self.after
        return list(dict.fromkeys(told for span in spans for told in unsafe(with_weights(rewards, span.weights))))


def rescore(run: RunFolder, changes: Sequence[str]) -> Rescored:
    """What differs under other settings of the section `rewards`, each as NAME=VALUE.

    They are those by which saved parts are mixed: weights, such as calibration=0.5, credit, baseline and divide_by_std.
    All else stays as it was, the weights step by step. Raises FileNotFoundError where the run has no rollouts,
    RecipeError for a change that is none, ValueError for one that no saved rollout can tell of.
    """
    before, after, changed = _mixes(run, changes)
    groups, trained = scored_groups(run.stage(3).rollouts), Mixes.of_run(run)
    if not groups:
        raise FileNotFoundError(f"{run.stage(3).rollouts} holds no group of two scored responses or more")
    found = []
    for group, scores in groups:
        weights = trained.first_met(group)
        others = weights.model_copy(update=changed)
        found.append(_compared(scores, with_weights(before, weights), with_weights(after, others)))
    spans = trained.spans(max(first_step(group) for group, _ in groups))
    quarters = np.array_split(np.arange(len(found)), min(_PARTS_OF_RUN, len(found)))
    return Rescored(
        before=(before, spans),
        after=(after, [replace(span, weights=span.weights.model_copy(update=changed)) for span in spans]),
        changes=[*(_change([found[i] for i in quarter]) for quarter in quarters), _change(found)],
    )


def _mixes(run: RunFolder, changes: Sequence[str]) -> tuple[Rewards, Rewards, dict[str, float]]:
    """The recipe's mix, the changed one, and the weights among the changes."""
    names = [change.partition("=")[0].strip().removeprefix("weights.") for change in changes]
    settings = [f"rewards.{_setting(change)}" for change in changes]
    before, after = load_recipe(run.recipe).rewards, load_recipe(run.recipe, settings).rewards
    refuse_null(settings)
    _refuse_unscorable(names)
    return before, after, {name: weight for name, weight in after.weights.model_dump().items() if name in names}


def scored_groups(folder: Path) -> list[tuple[Group, list[Score]]]:
    """The saved groups with two scores or more, in the order of admission, each as it was last sampled."""
    scores = [(group, [t.score for t in group.trajectories if t.score is not None]) for group in saved_groups(folder)]
    return [(group, of_group) for group, of_group in scores if len(of_group) > 1]


def rescore_table(found: Rescored) -> str:
    """The changes as an aligned table, a row for each part of the run and one for all of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for number, change in enumerate(found.changes):
        name = "all" if number == len(found.changes) - 1 else f"part {number + 1}"
        table.add_row(name, *_cells(change))
    page = StringIO()
    Console(file=page, width=WIDE_ENOUGH, color_system=None).print(table)
    lines = [line.rstrip() for line in page.getvalue().splitlines() if line.strip()]
    return "\n".join([f"before: {_described(*found.before)}", f"after:  {_described(*found.after)}", *lines, LEGEND])


def _described(mix: Rewards, spans: Sequence[MixSpan]) -> str:
    alike = all(span.weights == spans[0].weights for span in spans)
    by_steps = [f"{shown(span.weights)} ({span.shown})" for span in spans]
    weights = shown(spans[0].weights) if alike else "; ".join(by_steps)
    divided = ", divide_by_std true" if mix.divide_by_std else ""
    return f"{weights}; credit {mix.credit}, baseline {mix.baseline}{divided}"


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
    return f"weights.{change}" if change.partition("=")[0].strip() in RewardWeights.model_fields else change


def _refuse_unscorable(names: Sequence[str]) -> None:
    """Only what happens after the raw parts, and before the learner, can be changed afterwards."""
    weights = RewardWeights.model_fields
    for name in names:
        if name not in (*weights, *_CHANGEABLE):
            section = name.partition(".")[0]
            why = _UNSCORABLE.get(section, "decides the raw parts, and those are as they were saved")
            raise ValueError(
                f"rewards.{section} {why}: change a weight ({', '.join(weights)}), {', '.join(_CHANGEABLE)}; "
                "`caliber reward` scores responses anew under any mix"
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
