"""`caliber reward`: what a mix of rewards makes of responses that exist already, so that it can be tried on paper.

Rows of one `id` are a group, as the samples of one visit are in training: what a confidence is scored against may
depend on the others. Each row is answered with one of JSON:

    {"id", "total", "parts": {correctness, calibration, format}, "credited": {answer, confidence},
     "answer", "confidence", "malformed", "correct", "target", "released": the parts by a released code's own names}

`credited` is what answer and confidence tokens are rewarded with, before a baseline is subtracted. Of a row that cannot
be scored `failure` says why: in training such a response costs itself and is never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cluster.predictions import PredictionRow, read_predictions, refuse_bad_lines, what_differs
from configs.derive import reward_problems
from configs.load import load_recipe
from configs.schema import Preset, Reference, Response, Rewards, RewardService
from rewards.correctness import draw_annotator, majority
from rewards.mixing import combine
from rewards.parts import PARTS, Judged, Matcher, MatchError, Scored, Truth, judge, score
from rewards.readings import released_parts


def mix_of(name: str, overrides: Sequence[str]) -> tuple[Rewards, Response, RewardService]:
    """The mix of a preset or of a recipe, the form its responses have, and the limits of its scorers.

    Raises RecipeError for a recipe that is wrong, ValueError for one whose rewards cannot work and for a name that is
    neither.
    """
    if name in list(Preset):
        if overrides:
            raise ValueError(f"{name} is a preset, which is what was published: give a recipe to change settings of")
        return Rewards(preset=Preset(name)), Response(), RewardService()
    if not Path(name).exists():
        raise ValueError(f"got {name!r}, expected a preset ({', '.join(Preset)}) or the file of a recipe")
    recipe = load_recipe(Path(name), overrides)
    if found := list(reward_problems(recipe)):
        raise ValueError("the recipe's rewards cannot work:\n" + "\n".join(f"  {problem}" for problem in found))
    return recipe.rewards, recipe.response, recipe.reward_service


def reward_rows(
    path: Path, rewards: Rewards, form: Response, matches: Matcher, seed: int = 0
) -> Iterator[dict[str, object]]:
    """The answer to each row, in the file's order. Raises PredictionsError for a bad file, before the first answer."""
    rows = read_predictions(path)
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.prompt_id, []).append(number)
    refuse_bad_lines([error for members in groups.values() for error in _strangers(path, rows, members)])
    answers: list[dict[str, object]] = [{}] * len(rows)
    for visit, members in enumerate(groups.values()):
        target = _target(rows[members[0]], rewards.reference, np.random.default_rng([seed, 3, visit]))
        made = _group([rows[i] for i in members], target, rewards, form, matches)
        for number, answer in zip(members, made, strict=True):
            answers[number] = answer
    yield from answers


def _strangers(path: Path, rows: Sequence[PredictionRow], members: Sequence[int]) -> Iterator[str]:
    """Rows of a group that are of another question than its first: all are held against that one's truth."""
    first, *others = members
    for number in others:
        if keys := what_differs(rows[first], rows[number]):
            yield (
                f"{path}:{number + 1}: not the {' and '.join(keys)} of line {first + 1}, which has the same id "
                f"{rows[first].prompt_id!r} (a row without one has its line's number): give each question its own"
            )


def _target(row: PredictionRow, reference: Reference, rng: np.random.Generator) -> str:
    if row.counts and (reference is Reference.ANNOTATOR or row.label is None):
        return draw_annotator(row.counts, rng) if reference is Reference.ANNOTATOR else majority(row.counts)
    assert row.label is not None, "a row without counts has a label"
    return row.label


def _group(
    rows: Sequence[PredictionRow], target: str, rewards: Rewards, form: Response, matches: Matcher
) -> list[dict[str, object]]:
    judged: dict[int, Judged] = {}
    failures: dict[int, str] = {}
    for number, row in enumerate(rows):
        truth = Truth(target, row.candidates, row.counts)
        try:
            judged[number] = judge(row.response, truth, form, rewards, matches, truncated=row.truncated)
        except (ValueError, MatchError) as error:
            failures[number] = str(error)
    scored = dict(zip(judged, score(list(judged.values()), rewards), strict=True))
    answers = []
    for number, row in enumerate(rows):
        found = {"failure": failures[number]} if number in failures else _mixed(judged[number], scored[number], rewards)
        released = released_parts(row.response, target, rewards.reading, form.reasoning_elements)
        answers.append({"id": row.prompt_id, **found, **({"released": released} if released else {})})
    return answers


def _mixed(judged: Judged, scored: Scored, rewards: Rewards) -> dict[str, object]:
    parsed = judged.parsed
    well_formed = np.array([parsed.malformed is None])
    parts = {name: np.array([scored.parts[name]]) for name in PARTS}
    mixed = combine(parts, well_formed, rewards.weights, rewards.credit)
    return {
        "total": float(mixed.total[0]),
        "parts": dict(scored.parts),
        "credited": {"answer": float(mixed.answer[0]), "confidence": float(mixed.confidence[0])},
        "answer": parsed.answer,
        "confidence": parsed.confidence,
        "malformed": None if parsed.malformed is None else parsed.malformed.value,
        "correct": judged.correct,
        "target": scored.target,
    }
