"""A few lines of Python for whoever has a model and not Caliber: from a response to its answer and confidence.

They read the one form that a recipe sets, by the grammar of `rewards.parse`, with nothing but the standard library.
"""

from __future__ import annotations

from configs.choices import ConfidenceScale
from configs.response import Response
from rewards.confidence import DECIMAL, PERCENT, SAME
from rewards.correctness import normalise_answer
from rewards.parse import OUTER_TAGS

_CONFIDENCES = {
    ConfidenceScale.DECIMAL: f'r"{DECIMAL.pattern}"',
    ConfidenceScale.PERCENT: f'r"{PERCENT.pattern}"',
    ConfidenceScale.VERBAL: "TEXT",
}


def parsing_snippet(form: Response) -> str:
    """The lines: `read(response, candidates)` gives (answer, confidence), or None for what has not the form."""
    return "\n".join([*_grammar(form), "", "", *_reader(form)]) + "\n"


def _grammar(form: Response) -> list[str]:
    elements = form.reasoning_elements
    inner = [rf'    rf"\s*<{name}>({{TEXT}})</{name}>"' for name in elements] or ['    rf"{TEXT}"']
    lines = [
        "import re",
        "",
        f'TEXT = r"(?:(?!</?(?:{"|".join((*OUTER_TAGS, *elements))})>).)*"  # holds none of the tags',
        f"CONFIDENCE = {_CONFIDENCES[form.confidence_scale]}",
        "FORM = re.compile(",
        r'    r"\s*<think>"',
        *inner,
        r'    rf"\s*</think>\s*<answer>({TEXT})</answer>"',
        r'    rf"\s*<confidence>\s*({CONFIDENCE})\s*</confidence>\s*",',
        "    re.ASCII | re.DOTALL,",
        ")",
    ]
    if form.confidence_scale is ConfidenceScale.VERBAL:
        lines.append(f"WORDS = { ({normalise_answer(word): value for word, value in form.confidence_words.items()})!r}")
    return lines


def _reader(form: Response) -> list[str]:
    return [
        "def plain(text):",
        '    return " ".join(text.casefold().split())',
        "",
        "",
        "def read(response, candidates=()):",
        '    """(answer, confidence in [0, 1]); None where the response does not have the form."""',
        "    match = FORM.fullmatch(response)",
        "    if match is None:",
        "        return None",
        "    *texts, stated = match.groups()",
        '    if not all(any(c.isprintable() and c != " " for c in text) for text in texts):',
        "        return None  # something is empty",
        "    answer = texts[-1].strip()",
        "    if candidates:",
        "        answer = next((c for c in candidates if plain(c) == plain(answer)), None)",
        "    if answer is None:",
        "        return None",
        *_number(form),
    ]


def _number(form: Response) -> list[str]:
    """Lines that make a number of what is stated, and end the function."""
    if form.confidence_scale is ConfidenceScale.VERBAL:
        return ["    return (answer, WORDS[plain(stated)]) if plain(stated) in WORDS else None"]
    percent = form.confidence_scale is ConfidenceScale.PERCENT
    lines = ["    confidence = float(stated[:-1]) / 100" if percent else "    confidence = float(stated)"]
    if not form.confidence_off_grid:
        step = form.confidence_step
        lines += [
            f"    steps = confidence / {step}",
            f"    if abs(steps - round(steps)) * {step} >= {SAME}:",
            "        return None  # between the steps",
        ]
    return [*lines, "    return answer, confidence"]
