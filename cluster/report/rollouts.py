"""Stage 3's rollouts as rows to look at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.report.mixes import Mixes
from cluster.report.responses import ResponseRow, Worth
from cluster.report.suspects import with_suspects
from configs.choices import Reading
from configs.schema import Recipe
from rewards.matching import sameness
from rewards.mixing import combine
from rewards.parse import ParsedResponse, parse
from rewards.readings import read_released
from rollout.trajectory import Group, Trajectory

ROLLOUTS = "rollouts"


def rollout_rows(groups: list[Group], recipe: Recipe, mixes: Mixes) -> list[ResponseRow]:
    """A row for each response of the groups, in order; totals are under the weights it can first have met."""
    rows = [row for group in groups for row in _rows(group, recipe, mixes)]
    return with_suspects(rows, sameness(recipe.rewards.correctness))


def _rows(group: Group, recipe: Recipe, mixes: Mixes) -> Iterator[ResponseRow]:
    worth = _worth(group, recipe, mixes)
    for number, trajectory in enumerate(group.trajectories):
        score, sample, parsed = trajectory.score, trajectory.sample, _parsed(trajectory, group, recipe)
        yield ResponseRow(
            source=ROLLOUTS,
            file=recipe.data.stage3,
            group=str(group.group_id),
            prompt_id=group.prompt_id,
            target=group.target,
            text=sample.text,
            answer=score.answer if score else None,
            confidence=score.confidence if score else None,
            correct=score.correct if score else None,
            malformed=score.malformed if score else None,
            answer_span=parsed.answer_span if parsed else None,
            confidence_span=parsed.confidence_span if parsed else None,
            failure=None if score else trajectory.failure,
            worth=worth.get(number),
            versions=sample.version_spans,
        )


def _worth(group: Group, recipe: Recipe, mixes: Mixes) -> dict[int, Worth]:
    """What each scored response of a group earned, by its number."""
    scored = [(number, t.score) for number, t in enumerate(group.trajectories) if t.score is not None]
    if not scored:
        return {}
    weights = mixes.first_met(group)
    parts = {name: np.array([score.parts[name] for _, score in scored]) for name in scored[0][1].parts}
    well_formed = np.array([score.malformed is None for _, score in scored])
    totals = combine(parts, well_formed, weights, recipe.rewards.credit).total
    return {
        number: Worth(score.parts, weights, float(total)) for (number, score), total in zip(scored, totals, strict=True)
    }


def _parsed(trajectory: Trajectory, group: Group, recipe: Recipe) -> ParsedResponse | None:
    """Where in the text answer and confidence are, read as the reward service read them; None: malformed."""
    score, text = trajectory.score, trajectory.sample.text
    if score is None or score.malformed is not None:
        return None
    reading, form = recipe.rewards.reading, recipe.response
    if reading is Reading.STRICT:
        return parse(text, form, candidates=())  # whether it is a candidate has been looked at
    return read_released(text, group.target or "", reading, form.reasoning_elements)[0]
