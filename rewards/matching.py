"""The built-in ways to hold an answer against its reference, by their names in `rewards.correctness`.

Each is a function of the two texts alone. An answer that is not of the kind is wrong; a reference that is not is the
data's fault, and raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping

from configs.choices import Correctness
from rewards.correctness import is_correct, normalise_answer
from rewards.parts import Matcher

TOLERANCE = 1e-6  # relative: what is left of a number that was written with seven digits
LONGEST_NUMBER = 100  # characters; longer than any that is meant, and short enough to be read at once

_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = re.compile(rf"([+-]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)( ?%)?")
_FRACTION = re.compile(r"([+-]?[0-9]+)/([0-9]+)")
_LETTER = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[.):])(?:\s.*)?|([A-Za-z])", re.DOTALL)


def is_same_number(answer: str, reference: str) -> bool:
    """Whether both are the same number, to a relative difference of TOLERANCE: 0.5, 1/2, 50%, 5e-1.

    Raises ValueError for a reference that is no number (see `read_number`).
    """
    wanted = read_number(reference)
    if wanted is None:
        raise ValueError(
            f"got the reference {reference!r}, expected a number such as -1,234.5, 3/4, 12% or 1e-3, as "
            "rewards.correctness is numeric; mend the row, or set that to exact"
        )
    found = read_number(answer)
    return found is not None and math.isclose(found, wanted, rel_tol=TOLERANCE)


def is_same_choice(answer: str, reference: str) -> bool:
    """Whether both name the same letter of a multiple choice: B, b, (b), B. or "B) joy", "B: joy".

    Raises ValueError for a reference that names none.
    """
    wanted = read_letter(reference)
    if wanted is None:
        raise ValueError(
            f"got the reference {reference!r}, expected the letter of a choice such as B, (b) or B) joy, as "
            "rewards.correctness is choice; mend the row, or set that to exact"
        )
    return read_letter(answer) == wanted


def read_number(text: str) -> float | None:
    """The number that a text is, and is nothing else than; None where it is none.

    ASCII digits with a sign, a decimal point, an exponent; commas, where they part thousands; a percent sign, which
    makes it a hundredth; or a fraction of two whole numbers.
    """
    text = text.strip()
    if len(text) > LONGEST_NUMBER:
        return None
    if fraction := _FRACTION.fullmatch(text):
        above, below = map(float, fraction.groups())
        number = above / below if below else math.nan
    elif decimal := _NUMBER.fullmatch(text):
        number = float(decimal[1].replace(",", "")) / (100 if decimal[2] else 1)
    else:
        return None
    return number if math.isfinite(number) else None


def read_letter(text: str) -> str | None:
    """The letter, in upper case, of the choice that a text names; None where it names none: "A dog" does not."""
    found = _LETTER.fullmatch(text.strip())
    return None if found is None else (found[1] or found[2] or found[3]).upper()


BUILT_IN: Mapping[str, Matcher] = {
    Correctness.EXACT: is_correct,
    Correctness.NUMERIC: is_same_number,
    Correctness.CHOICE: is_same_choice,
}
_READERS: Mapping[str, Callable[[str], Hashable | None]] = {
    Correctness.NUMERIC: read_number,
    Correctness.CHOICE: read_letter,
}


def sameness(correctness: str) -> Callable[[str], Hashable]:
    """What is the same of answers that count as one, by `rewards.correctness`.

    The same number, the same letter; else, and where an answer is none, the same text but for case and white space.
    """
    reader = _READERS.get(correctness)
    if reader is None:
        return normalise_answer

    def read(answer: str) -> Hashable:
        found = reader(answer)
        return normalise_answer(answer) if found is None else found

    return read
