"""What the page's browser of responses reads: compact JSON, with everything that repeats written once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cluster.report.filters import Filter
from cluster.report.responses import ResponseRow, question
from cluster.report.run_data import RunData
from cluster.report.thumbnails import Thumbnails
from rewards.parse import CharSpan
from rewards.parts import PARTS


def browser_data(runs: Sequence[tuple[str, RunData]], rollouts: int) -> dict[str, Any]:
    """Rows, prompts, pictures and mixes of runs, each under the name that stands before its sources ("": none).

    Of a run's rollouts at most `rollouts` are taken, whole groups at equal distances.
    """
    packed = _Packed()
    for name, run in runs:
        packed.take(name, run, rollouts)
    return {
        "parts": PARTS,
        "filters": [{"name": one, "title": one.heading, "meaning": one.meaning} for one in Filter],
        "sources": packed.sources,
        "notes": packed.notes,
        "mixes": packed.mixes,
        "prompts": packed.prompts,
        "pictures": packed.pictures,
        "rows": packed.rows,
    }


def script_json(data: object) -> str:
    """JSON that may stand within a `script` element: nothing in it can end that, or begin a comment."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


class _Packed:
    """The lists that rows point into."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.notes: list[str] = []
        self.mixes: list[dict[str, float]] = []
        self.prompts: list[dict[str, Any]] = []
        self.pictures: list[str] = []
        self.rows: list[list[Any]] = []
        self._places: dict[str, int] = {}

    def take(self, name: str, run: RunData, rollouts: int) -> None:
        thumbnails = Thumbnails(run.recipe.data.image_megapixels_at_most)
        rows = _thinned(run.rollouts, rollouts)
        if len(rows) < len(run.rollouts):
            self.notes.append(f"{name} {len(rows):,} of {len(run.rollouts):,} rollouts, in equal distances".strip())
        rows += [row for one in run.evaluations for row in one.rows]
        first, prompts = len(self.pictures), {}
        for row in rows:
            if row.asked not in prompts:
                prompts[row.asked] = len(self.prompts)
                self.prompts.append(_prompt(row, run, thumbnails, first))
            self.rows.append(self._row(name, row, prompts[row.asked]))
        self.pictures += thumbnails.uris
        if thumbnails.left_out:
            self.notes.append(f"{name} {thumbnails.left_out:,} pictures cannot be shown".strip())

    def _row(self, run: str, row: ResponseRow, prompt: int) -> list[Any]:
        """As `responses.js` reads it, by place."""
        worth = row.worth
        return [
            _place(self.sources, f"{run} · {row.source}" if run else row.source, self._places),
            prompt,
            row.group,
            row.target,
            row.text,
            row.answer,
            row.confidence,
            row.correct,
            row.malformed,
            _utf16(row.text, row.answer_span),
            _utf16(row.text, row.confidence_span),
            sum(1 << bit for bit, one in enumerate(Filter) if one.keeps(row)),
            None if worth is None else [round(worth.parts[part], 6) for part in PARTS],
            None if worth is None else _place(self.mixes, worth.weights.model_dump(), self._places),
            None if worth is None else round(worth.total, 6),
            [[span.version, span.start, span.end] for span in row.versions],
            row.failure,
            None if row.majority_total is None else round(row.majority_total, 6),
        ]


def _thinned(rows: list[ResponseRow], at_most: int) -> list[ResponseRow]:
    groups = list(dict.fromkeys(row.group for row in rows))
    kept = set(groups[:: -(-len(rows) // at_most)]) if len(rows) > at_most else set(groups)
    return [row for row in rows if row.group in kept]


def _prompt(row: ResponseRow, run: RunData, thumbnails: Thumbnails, first: int) -> dict[str, Any]:
    prompt = run.prompts.get(row.asked)
    if prompt is None:
        return {"id": row.prompt_id, "text": None, "pictures": [], "candidates": [], "reference": None}
    numbers = [thumbnails.number(path) for path in prompt.images]
    votes = ", ".join(f"{candidate} {count}" for candidate, count in prompt.counts.items())
    return {
        "id": row.prompt_id,
        "text": question(prompt),
        "pictures": [first + number for number in numbers if number is not None],
        "candidates": prompt.candidates,
        "reference": f"annotators: {votes}" if votes else prompt.label,
    }


def _place(known: list[Any], value: Any, places: dict[str, int]) -> int:
    """Where in `known` a value is; it is added where it is not."""
    key = repr(value)
    if key not in places:
        places[key] = len(known)
        known.append(value)
    return places[key]


def _utf16(text: str, span: CharSpan | None) -> CharSpan | None:
    """A range of characters as JavaScript counts them."""
    if span is None:
        return None
    start, end = (len(text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in span)
    return start, end
