"""The lines that a model card gives its readers: held against the parser that training and evaluation use."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.parsing_snippet import parsing_snippet
from configs.choices import ConfidenceScale
from configs.response import Response
from rewards.parse import OUTER_TAGS, parse

FORMS = [
    Response(),
    Response(reasoning_elements=(), confidence_step=0.05, confidence_off_grid=False),
    Response(reasoning_elements=("word",), confidence_scale=ConfidenceScale.PERCENT),
    Response(reasoning_elements=("a", "b-c"), confidence_scale=ConfidenceScale.PERCENT, confidence_off_grid=False),
    Response(reasoning_elements=("word",), confidence_scale=ConfidenceScale.VERBAL),
]
CANDIDATES = [(), ("Joy", "fear of  heights")]
STATED = ["0.62", "1.00", "0.6200001", "1.1", "62%", "62.5%", "101%", "even", "Probably  right", "nan", ""]
TEXTS = ["joy", " JOY ", "Fear of heights", "\u200b", "", "a\nb", "1 < 2", "<Think>", "</thinking>"]
SPACES = ["", "\n", " \t", "\u00a0", "!"]

Reader = Callable[[str, Sequence[str]], tuple[str, float] | None]


def reader(form: Response) -> Reader:
    found: dict[str, Any] = {}
    exec(parsing_snippet(form), found)
    return found["read"]


READERS = [reader(form) for form in FORMS]


@st.composite
def responses(draw: st.DrawFn, form: Response) -> str:
    """Of the form but for what its parts hold; every fourth with a tag added, taken away, or in another place."""
    spaces, texts = st.sampled_from(SPACES), st.sampled_from(TEXTS)
    space = draw(st.sampled_from([st.just(""), st.sampled_from(SPACES[:3]), spaces]))
    pieces = [draw(space), "<think>"]
    for name in form.reasoning_elements:
        pieces += [draw(space), f"<{name}>", draw(texts), f"</{name}>"]
    pieces += [draw(space) if form.reasoning_elements else draw(texts), "</think>", draw(space)]
    pieces += ["<answer>", draw(texts), "</answer>", draw(space)]
    stated = draw(st.sampled_from([*STATED, *form.confidences]))
    pieces += ["<confidence>", draw(space), stated, draw(space), "</confidence>", draw(space)]
    if draw(st.integers(0, 3)) == 0:
        pieces = draw(st.permutations(pieces)) if draw(st.booleans()) else pieces
        place = draw(st.integers(0, len(pieces) - 1))
        tag = draw(st.sampled_from([*OUTER_TAGS, *form.reasoning_elements]))
        pieces[place] = draw(st.sampled_from(["", f"<{tag}>", f"</{tag}>"]))
    return "".join(pieces)


@pytest.mark.parametrize("number", range(len(FORMS)))
@given(st.data())
def test_the_lines_read_what_the_parser_reads_and_nothing_else(number: int, data: st.DataObject) -> None:
    form, read = FORMS[number], READERS[number]
    response = data.draw(responses(form))

    for candidates in CANDIDATES:
        parsed = parse(response, form, candidates=candidates)

        expected = None if parsed.malformed is not None else (parsed.answer, parsed.confidence)
        assert read(response, candidates) == expected


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_every_confidence_of_the_grid_is_read_as_what_it_is_worth(number: int) -> None:
    form, read = FORMS[number], READERS[number]
    thought = "".join(f"<{name}>so</{name}>" for name in form.reasoning_elements)

    for stated, value in form.confidences.items():
        response = f"<think>{thought}</think><answer>joy</answer><confidence>{stated}</confidence>"
        assert read(response, ()) == ("joy", pytest.approx(value))


@pytest.mark.parametrize("form", FORMS)
def test_they_need_the_standard_library_s_re_alone(form: Response) -> None:
    tree = ast.parse(parsing_snippet(form))

    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import re"]
