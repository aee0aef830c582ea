"""What a trial reports to Ray Tune at each step: numbers of its log that mean the same whatever the reward mix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# What trials are stopped by. The reward will not do: its scale is the mix's. Nor will the Brier score alone, which is
# best for a model that answers wrong on purpose and says so.
SCORE = "score"
WINDOW = 10  # steps; one batch alone would have a trial stopped, or kept, by luck

Line = Mapping[str, float | None]


def progress(lines: Sequence[Line]) -> dict[str, float]:
    """Means over the last steps of those given, of what is defined in them; see `_score`."""
    window = lines[-WINDOW:]
    series = {name: [line.get(name) for line in window] for name in ("reward", "accuracy", "brier")}
    series[SCORE] = [_score(line) for line in window]
    known = {name: [value for value in values if value is not None] for name, values in series.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def _score(line: Line) -> float | None:
    """Mean of correct - (confidence - correct)^2 over a step's responses, a malformed one counting 0.

    It is the reward of RLCR (arXiv 2507.16806, eq. 3): proper, and highest where the likeliest answer is given with
    its probability. None where the step has no scored response.
    """
    accuracy, brier, malformed = line.get("accuracy"), line.get("brier"), line.get("malformed")
    if accuracy is None:
        return None
    return accuracy - (brier or 0.0) * (1.0 - (malformed or 0.0))


def read_lines(log: Path) -> list[Line]:
    """The whole lines of a log, the steps' in order; none where there is no log yet."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n")[:-1]]
