from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.response import Response
from rewards.parse import parse
from rollout.simulated import END_TOKEN
from rollout.simulated_text import ResponseWriter
from tests.unit import byte_tokenizer

ANSWERS = ("joy", "fear")
FORMS = [Response(), Response(reasoning_elements=("element",)), Response(reasoning_elements=())]


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 2**32), wanted=st.integers(1, 3000))
def test_what_is_written_is_of_the_form_whatever_its_length(form: Response, seed: int, wanted: int) -> None:
    tokenizer = byte_tokenizer.tokenizer()
    write = ResponseWriter(tokenizer, form, ANSWERS)
    shortest = len(write(np.random.default_rng(0), 1))

    ids = write(np.random.default_rng(seed), wanted).tolist()

    *tokens, end = ids
    parsed = parse(tokenizer.decode(tokens, skip_special_tokens=False), form, candidates=ANSWERS)
    assert parsed.malformed is None
    assert end == END_TOKEN
    assert END_TOKEN not in tokens
    assert abs(len(ids) - max(wanted, shortest)) <= 1 + len("fear") - len("joy")


def test_answers_and_confidences_are_drawn_evenly() -> None:
    tokenizer, form = byte_tokenizer.tokenizer(), Response(confidence_step=0.5)
    write, draws = ResponseWriter(tokenizer, form, ANSWERS), np.random.default_rng(0)

    texts = [tokenizer.decode(write(draws, 1)[:-1].tolist(), skip_special_tokens=False) for _ in range(600)]

    said = [(parsed.answer, parsed.confidence) for text in texts if (parsed := parse(text, form, candidates=ANSWERS))]
    assert set(said) == {(answer, stated) for answer in ANSWERS for stated in (0.0, 0.5, 1.0)}
    assert min(said.count(one) for one in set(said)) > 60
