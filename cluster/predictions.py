"""`predictions.jsonl`: one row per response, with what is known of its truth.

    {"id": "…", "task": "…", "candidates": ["…"], "ground_truth": "…", "counts": {"…": 3},
     "response": "…", "truncated": false, "answer_probability": 0.4}

`ground_truth` is the label, `counts` the annotators' votes by candidate; at least one of them is
there. `answer_probability`, where it is known, is what the engine gave the answer's tokens. VECBench's
merged rows are read too: they have no `id` (the line's number stands in), and their `confidence` is
ignored for the one that the response itself states. Other keys are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rewards.correctness import is_correct, normalise_answer

ERRORS_SHOWN = 20  # bad lines named before the rest is only counted; the recipes' default

Votes = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
VisibleText = Annotated[str, Field(pattern=r"\S")]


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One response, the question's candidates, and what is known of the truth."""

    prompt_id: str  # rows of one prompt share it
    task: str
    candidates: tuple[str, ...]  # () where any answer is allowed
    label: str | None  # None only where there are counts
    counts: Mapping[str, int] = field(default_factory=dict)  # annotators' votes; {} where unknown
    response: str = ""
    truncated: bool = False  # cut by the length limit
    answer_probability: float | None = None  # of the answer's tokens, in [0, 1]; None: malformed, or unknown


class PredictionsError(ValueError):
    """A predictions file that cannot be scored; the message names every bad line up to a limit."""


def read_predictions(path: Path, errors_shown: int = ERRORS_SHOWN) -> list[PredictionRow]:
    """All rows of the file, in order.

    Raises PredictionsError where rows are bad, after reading all of them, and where there is none.
    """
    rows: list[PredictionRow] = []
    errors: list[str] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(_JsonRow.model_validate_json(line).row(number))
            except ValidationError as error:
                errors.append(f"{path}:{number}: {_explain(error)}")
    refuse_bad_lines(errors, errors_shown)
    if not rows:
        raise PredictionsError(f"{path}: got no rows, expected one JSON object a line for each response")
    return rows


def refuse_bad_lines(errors: Sequence[str], errors_shown: int = ERRORS_SHOWN) -> None:
    """Raise PredictionsError where there are errors, each of which names its line."""
    if errors:
        unnamed = len(errors) - errors_shown
        more = [f"and {unnamed} more bad lines"] if unnamed > 0 else []
        raise PredictionsError("\n".join([*errors[:errors_shown], *more]))


def what_differs(one: PredictionRow, other: PredictionRow) -> list[str]:
    """What the rows say differently of their question, by the file's keys: ground_truth, candidates, counts.

    Case, white space, order and candidates without a vote make no difference.
    """
    known = _question(other)
    return [key for key, value in _question(one).items() if value != known[key]]


def _question(row: PredictionRow) -> dict[str, object]:
    return {
        "ground_truth": None if row.label is None else normalise_answer(row.label),
        "candidates": {normalise_answer(candidate) for candidate in row.candidates},
        "counts": sorted((normalise_answer(candidate), votes) for candidate, votes in row.counts.items() if votes),
    }


def refuse_other_questions(first: Sequence[PredictionRow], second: Sequence[PredictionRow]) -> None:
    """Raise ValueError where rows of a prompt, of the two files or of one, do not tell the same of its question."""
    asked: dict[tuple[str, str], PredictionRow] = {}
    different: dict[str, list[str]] = {}
    for row in (*first, *second):
        if keys := what_differs(asked.setdefault((row.prompt_id, row.task), row), row):
            different.setdefault(row.prompt_id, keys)
    if different:
        prompt, keys = next(iter(different.items()))
        raise ValueError(
            f"the rows of {len(different)} prompts are not of one question, such as those of {prompt!r}, which "
            f"do not have the same {' and '.join(keys)}; compare runs over the same "
            "file (a row without an id is known by its line)"
        )


def write_predictions(path: Path, rows: Iterable[PredictionRow]) -> None:
    """Write the rows; a reader finds the whole file or none of it, whenever this process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(_to_json(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _JsonRow(BaseModel):
    """A line of the file."""

    model_config = ConfigDict(strict=True, frozen=True)

    id: str | int | None = None
    task: VisibleText = "all"
    candidates: list[VisibleText] = []
    ground_truth: VisibleText | None = None
    counts: dict[VisibleText, Votes] = {}
    response: str
    truncated: bool = False
    answer_probability: Probability | None = None

    @model_validator(mode="after")
    def _knows_the_truth(self) -> _JsonRow:
        if self.ground_truth is None and not self.counts:
            raise ValueError("got neither ground_truth nor counts, expected at least one of them")
        if self.counts and not sum(self.counts.values()):
            raise ValueError("got counts without a vote, expected at least one annotator")
        if self.candidates:
            given = [*self.counts] if self.ground_truth is None else [self.ground_truth, *self.counts]
            strangers = [truth for truth in given if not any(is_correct(truth, c) for c in self.candidates)]
            if strangers:
                raise ValueError(f"got the references {strangers}, expected some of {self.candidates}")
        return self

    def row(self, line: int) -> PredictionRow:
        return PredictionRow(
            prompt_id=str(line if self.id is None else self.id),
            task=self.task,
            candidates=tuple(self.candidates),
            label=self.ground_truth,
            counts=self.counts,
            response=self.response,
            truncated=self.truncated,
            answer_probability=self.answer_probability,
        )


def _to_json(row: PredictionRow) -> str:
    known = _JsonRow(
        id=row.prompt_id,
        task=row.task,
        candidates=list(row.candidates),
        ground_truth=row.label,
        counts=dict(row.counts),
        response=row.response,
        truncated=row.truncated,
        answer_probability=row.answer_probability,
    )
    return json.dumps(known.model_dump(exclude_none=True), ensure_ascii=False)


def _explain(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))} {one['msg'].removeprefix('Value error, ')}".strip() for one in found
    )
