"""From a file of VECBench's result rows to the numbers of EmoCaliber's released evaluator.

The file may be a shard, the merged file, or the merged file with confidences: what a row has not been through yet is
done here (see `rewards.released.extractor`). As there, a line that is no JSON is left out; a row that the released
code crashes on stops the reading.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.predictions import PredictionsError
from rewards.released.evaluator import Evaluation, evaluate
from rewards.released.extractor import LeftOut, Row, take

NO_JSON = "the line is no JSON"


@dataclass(frozen=True, slots=True)
class ReleasedScore:
    """The evaluator's numbers, and how many lines they do not speak of, by cause."""

    evaluation: Evaluation
    left_out: Mapping[str, int]


def score_as_released(path: Path) -> ReleasedScore:
    """The released numbers of a file. Raises PredictionsError, with file and line, where there are none."""
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        taken = _take(line, f"{path}:{number}")
        if isinstance(taken, Row):
            rows.append(taken)
        else:
            left_out[taken] += 1
    try:
        return ReleasedScore(evaluate(rows), left_out)
    except ValueError as error:
        causes = "".join(f"; {count} x {cause}" for cause, count in left_out.items())
        raise PredictionsError(f"{path}: {error}{causes}") from error


def write_released(path: Path, found: ReleasedScore) -> None:
    """The numbers as JSON; undefined ones, None and nan, are null."""
    text = json.dumps(_defined(asdict(found.evaluation) | {"left_out": found.left_out}), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            return list(lines)
    except UnicodeDecodeError as error:
        raise PredictionsError(f"{path}: not UTF-8: {error}") from error


def _take(line: str, place: str) -> Row | str:
    """The line's row, or why it is left out."""
    try:
        taken = take(json.loads(line))
    except json.JSONDecodeError:
        return NO_JSON
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{place}: {error}") from error
    return taken.value if isinstance(taken, LeftOut) else taken


def _defined(value: object) -> object:
    match value:
        case Mapping():
            return {key: _defined(inner) for key, inner in value.items()}
        case tuple():
            return [_defined(inner) for inner in value]
        case float() if math.isnan(value):
            return None
    return value
