"""What an evaluation says in a model card: metrics with intervals, the reliability diagram, a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.export_source import Source
from cluster.matchers import opened
from cluster.predictions import PredictionRow, read_predictions
from cluster.reliability_picture import picture
from cluster.score import outcomes
from rewards.bootstrap import RESAMPLES, Interval, distinct_prompts, intervals
from rewards.outcomes import Outcomes
from rewards.parse import parse
from rewards.reliability import reliability


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """An evaluation file's part of the card."""

    name: str
    held: Outcomes
    metrics: Mapping[str, Interval]
    diagram: str | None  # the SVG; None where no confidence was read
    response: str | None  # the first well-formed one

    @property
    def diagram_file(self) -> str:
        """Name of the picture's file."""
        return f"reliability-{self.name}.svg"


def read_evaluations(source: Source) -> list[Evaluated]:
    """Of every evaluation of the stage that there is, scored as its metrics were: the same draws, bins and matcher.

    One of a single prompt, which gives no intervals, is left out. A judge is asked again.
    """
    found = []
    with opened(source.recipe.rewards, source.recipe.reward_service) as matches:
        for name in source.recipe.data.evaluation:
            file = source.stage.evaluation(name) / "predictions.jsonl"
            if not file.exists():
                continue
            rows, settings = read_predictions(file), source.recipe.evaluation
            held = outcomes(
                rows,
                source.recipe.response,
                settings.annotator_draws,
                settings.seed,
                require_confidence=source.states_confidence,
                matches=matches,
                at_once=source.recipe.rewards.answers_at_once,
            )
            if len(distinct_prompts(held)) > 1:
                found.append(_evaluated(source, name, rows, held))
    return found


def _evaluated(source: Source, name: str, rows: Sequence[PredictionRow], held: Outcomes) -> Evaluated:
    bins = source.recipe.evaluation.bins
    return Evaluated(
        name=name,
        held=held,
        metrics=intervals(held, RESAMPLES, 0, bins),
        diagram=picture(name, reliability(held, bins)) if held.confident.any() else None,
        response=next((row.response for row in rows if _is_well_formed(source, row)), None),
    )


def _is_well_formed(source: Source, row: PredictionRow) -> bool:
    form, asked = source.recipe.response, source.states_confidence
    parsed = parse(row.response, form, candidates=row.candidates, truncated=row.truncated, require_confidence=asked)
    return parsed.malformed is None
