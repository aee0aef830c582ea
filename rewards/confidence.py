"""Reads a stated confidence, as strictly as the rest of a response.

    decimal   0, 0.62, 1.0     ASCII digits, at most six decimals
    percent   0%, 62%, 62.5%   the same, the sign required: 0.85 could mean either
    verbal    one of the recipe's words, compared as answers are

Signs, exponents, thousands separators, nan, other digits than ASCII's and numbers outside the range are no confidence.
"""

from __future__ import annotations

import re

from configs.choices import ConfidenceScale
from configs.response import Response
from rewards.correctness import normalise_answer

SPACE = " \t\n\r\f\v"

DECIMAL = re.compile(r"0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?")
PERCENT = re.compile(r"(?:[0-9]|[1-9][0-9])(?:\.[0-9]{1,4})?%|100(?:\.0{1,4})?%")
SAME = 1e-9  # far below the smallest step, far above the error of a division by 100


def read_confidence(content: str, form: Response) -> float | None:
    """What stands between the tags, as a number in [0, 1]; None where it is not of the form."""
    stated = content.strip(SPACE)
    if form.confidence_scale is ConfidenceScale.VERBAL:
        words = {normalise_answer(word): value for word, value in form.confidence_words.items()}
        return words.get(normalise_answer(stated))
    if form.confidence_scale is ConfidenceScale.DECIMAL:
        value = float(stated) if DECIMAL.fullmatch(stated) else None
    else:
        value = float(stated[:-1]) / 100 if PERCENT.fullmatch(stated) else None
    if value is None or form.confidence_off_grid:
        return value
    steps = value / form.confidence_step
    return value if abs(steps - round(steps)) * form.confidence_step < SAME else None
