"""Reads a response's form. One strict parser for training and evaluation, and its inverse.

    response   = space <think> reasoning </think> space <answer> text </answer> space
                 <confidence> space confidence space </confidence> space
    reasoning  = (space <name> text </name>)* space   one pair for each reasoning element, in order
               | text                                 where there are no reasoning elements
    confidence = what `rewards.confidence` reads: 0.62, 62% or a word, by the recipe's scale
    space      = any amount of ASCII white space

No text may hold one of the grammar's own tags, so that a form quoted in the reasoning can never
pass for the answer. Tags are matched to the letter: `<Think>` and `<think >` are text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import islice, pairwise

from configs.response import Response
from rewards.confidence import SPACE, read_confidence
from rewards.correctness import normalise_answer

MAX_CHARACTERS = 1_000_000  # far above any response of a sane length limit; keeps the cost of a parse bounded
OUTER_TAGS = ("think", "answer", "confidence")

_ELEMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

CharSpan = tuple[int, int]  # characters [start, end)


class Malformed(StrEnum):
    """Why a response does not have the required form; the first cause that holds, in this order."""

    TRUNCATED = "truncated"  # cut by the length limit, whatever its text looks like
    TOO_LONG = "too_long"  # more than MAX_CHARACTERS
    REPEATED_TAG = "repeated_tag"
    REPEATED_ELEMENT = "repeated_element"
    MISSING_TAG = "missing_tag"
    MISSING_ELEMENT = "missing_element"
    WRONG_ORDER = "wrong_order"  # every tag once, but elsewhere: swapped, interleaved or nested
    TEXT_OUTSIDE_TAGS = "text_outside_tags"  # around the tags, or between reasoning elements
    EMPTY_ELEMENT = "empty_element"  # no visible character
    EMPTY_ANSWER = "empty_answer"  # no visible character
    NOT_A_CANDIDATE = "not_a_candidate"
    BAD_CONFIDENCE = "bad_confidence"
    NOT_AS_RELEASED = "not_as_released"  # by the rules of a released code, which tell no causes apart


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """What a response says. Where it is malformed, `malformed` says why and all else is None."""

    malformed: Malformed | None
    reasoning: str | None = None  # all that <think> holds, its elements' tags included
    answer: str | None = None  # the candidate as the data spells it; the stripped text where any answer goes
    confidence: float | None = None  # in [0, 1]; None also where none was stated nor required
    reasoning_span: CharSpan | None = None  # content of <think>
    answer_span: CharSpan | None = None  # content of <answer>
    confidence_span: CharSpan | None = None  # content of <confidence>


def parse(
    text: str,
    form: Response,
    *,
    candidates: Sequence[str],
    truncated: bool = False,
    require_confidence: bool = True,
) -> ParsedResponse:
    """Read a response of the form; never raises on its text, and takes time linear in it.

    With no `candidates` any visible answer goes. Without `require_confidence` (stage 1) the confidence
    may be absent; one that is there must still be valid. Raises ValueError for elements that cannot be tags.
    """
    if truncated:
        return ParsedResponse(Malformed.TRUNCATED)
    if len(text) > MAX_CHARACTERS:
        return ParsedResponse(Malformed.TOO_LONG)
    contents = _contents(text, form.reasoning_elements, require_confidence)
    if isinstance(contents, Malformed):
        return ParsedResponse(contents)
    answer = _answer(text[slice(*contents["answer"])], candidates)
    if isinstance(answer, Malformed):
        return ParsedResponse(answer)
    confidence_span = contents.get("confidence")
    confidence = read_confidence(text[slice(*confidence_span)], form) if confidence_span else None
    if confidence_span and confidence is None:
        return ParsedResponse(Malformed.BAD_CONFIDENCE)
    return ParsedResponse(
        malformed=None,
        reasoning=text[slice(*contents["think"])],
        answer=answer,
        confidence=confidence,
        reasoning_span=contents["think"],
        answer_span=contents["answer"],
        confidence_span=confidence_span,
    )


def render(reasoning: Mapping[str, str], answer: str, confidence: str | None) -> str:
    """The canonical form of a response; `reasoning` holds the elements' texts in order.

    Writes only what `parse` reads: raises ValueError for empty texts, texts with tags of the grammar
    in them, and confidences that are not plain decimals in [0, 1].
    """
    inner = "".join(f"<{name}>{content}</{name}>" for name, content in reasoning.items())
    text = f"<think>{inner}</think><answer>{answer}</answer>"
    if confidence is not None:
        text += f"<confidence>{confidence}</confidence>"
    form = Response(reasoning_elements=tuple(reasoning))
    parsed = parse(text, form, candidates=(), require_confidence=confidence is not None)
    if parsed.malformed is not None:
        raise ValueError(
            f"got parts that render to a malformed response ({parsed.malformed}): {text[:200]!r}; expected "
            "visible texts without the response's own tags, and a confidence such as '0.62' or none"
        )
    return text


@lru_cache(maxsize=64)
def _tag_pattern(elements: tuple[str, ...]) -> re.Pattern[str]:
    """Matches every tag of the grammar; group 1 is its name."""
    bad = [name for name in elements if not _ELEMENT_NAME.fullmatch(name) or name in OUTER_TAGS]
    if bad or len(set(elements)) < len(elements):
        raise ValueError(
            f"got the reasoning elements {list(elements)}, expected distinct names of ASCII letters, digits, "
            f"_ and - other than {', '.join(OUTER_TAGS)}; change response.reasoning_elements"
        )
    return re.compile(f"</?({'|'.join((*OUTER_TAGS, *elements))})>")


def _required_tags(elements: tuple[str, ...], with_confidence: bool) -> list[str]:
    inner = [tag for name in elements for tag in (f"<{name}>", f"</{name}>")]
    tags = ["<think>", *inner, "</think>", "<answer>", "</answer>"]
    return [*tags, "<confidence>", "</confidence>"] if with_confidence else tags


def _contents(text: str, elements: tuple[str, ...], require_confidence: bool) -> dict[str, CharSpan] | Malformed:
    """Where the content of each tag lies, by name; or what is wrong with the tags and around them."""
    # One tag more than there are in the longest form proves a repetition, so the scan can stop there.
    tag_limit = len(_required_tags(elements, with_confidence=True)) + 1
    tags = list(islice(_tag_pattern(elements).finditer(text), tag_limit))
    states_confidence = any(tag[1] == "confidence" for tag in tags)
    required = _required_tags(elements, require_confidence or states_confidence)
    found = [tag[0] for tag in tags]
    if found != required:
        return _wrong_tags(found, required, elements)

    contents, outside = _split(text, tags)
    if any(piece.strip(SPACE) for piece in outside):
        return Malformed.TEXT_OUTSIDE_TAGS
    if not all(_is_visible(text[slice(*contents[name])]) for name in elements):
        return Malformed.EMPTY_ELEMENT
    return contents


def _split(text: str, tags: Sequence[re.Match[str]]) -> tuple[dict[str, CharSpan], list[str]]:
    """The content of each tag by name, and the text that belongs to none, for tags in the required order."""
    think_end = next(tag.start() for tag in tags if tag[0] == "</think>")
    contents = {"think": (tags[0].end(), think_end)}
    outside = [text[: tags[0].start()], text[tags[-1].end() :]]
    for left, right in pairwise(tags):
        if left[1] == right[1]:  # an opening tag and its closing one
            contents[left[1]] = (left.end(), right.start())
        else:
            outside.append(text[left.end() : right.start()])
    return contents, outside


def _wrong_tags(found: Sequence[str], required: Sequence[str], elements: Sequence[str]) -> Malformed:
    counts = Counter(found)
    for tag in required:
        if counts[tag] > 1:
            return Malformed.REPEATED_ELEMENT if tag.strip("</>") in elements else Malformed.REPEATED_TAG
    for tag in required:
        if counts[tag] == 0:
            return Malformed.MISSING_ELEMENT if tag.strip("</>") in elements else Malformed.MISSING_TAG
    return Malformed.WRONG_ORDER


def _answer(content: str, candidates: Sequence[str]) -> str | Malformed:
    if not _is_visible(content):
        return Malformed.EMPTY_ANSWER
    if not candidates:
        return content.strip()
    answer = normalise_answer(content)
    matching = (candidate for candidate in candidates if normalise_answer(candidate) == answer)
    return next(matching, Malformed.NOT_A_CANDIDATE)


def _is_visible(content: str) -> bool:
    """Whether a reader would see anything: zero-width and control characters do not count."""
    return any(character.isprintable() and character != " " for character in content)
