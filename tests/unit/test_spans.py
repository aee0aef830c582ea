from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from rollout.spans import TokenOffsets, _streamed_offsets, decode_with_offsets, token_span
from rollout.trajectory import Span

END, ANSWER, ANSWER_END = "<|im_end|>", "<answer>", "</answer>"


@cache
def tokenizer() -> Tokenizer:
    """Byte-level BPE; tags and the end token are tokens, most emoji are two or more."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["a happy face 😀 joy, sadness 😢, 0.62, über alles, 日本語"] * 4, trainer)
    made.add_tokens([AddedToken(tag, normalized=False) for tag in (ANSWER, ANSWER_END)])
    return made


def decoded(text: str) -> tuple[list[int], TokenOffsets]:
    ids = tokenizer().encode(text).ids
    return ids, decode_with_offsets(tokenizer(), ids)


def pieces(offsets: TokenOffsets) -> list[str]:
    return [offsets.text[start:end] for start, end in pairwise(offsets.offsets)]


def covered(offsets: TokenOffsets, inner: str) -> Span | None:
    start = offsets.text.index(inner)
    return token_span(offsets.offsets, start, start + len(inner))


BITS = (
    ANSWER,
    ANSWER_END,
    END,
    "😀",
    "👩🏽‍🚀",
    "é",
    "日本",
    "joy",
    " ",
    "0.5",
    "\n",
    "\N{REPLACEMENT CHARACTER}",
)
TEXTS = st.lists(st.sampled_from(BITS) | st.text(max_size=4)).map("".join)
TOKENS = st.lists(st.integers(0, 320), max_size=40)  # some above the vocabulary, as an engine may sample


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_encoded_text_comes_back_with_every_character_in_one_token(text: str) -> None:
    ids, offsets = decoded(text)

    assert offsets.text == text
    assert "".join(pieces(offsets)) == text
    assert len(offsets.offsets) == len(ids) + 1


@given(TOKENS)
@settings(max_examples=300, deadline=None)
def test_any_tokens_at_all_give_the_tokenizers_own_text_and_offsets_that_grow(tokens: list[int]) -> None:
    offsets = decode_with_offsets(tokenizer(), np.array(tokens, np.int32))

    assert offsets.text == tokenizer().decode(tokens, skip_special_tokens=False)
    assert len(offsets.offsets) == len(tokens) + 1
    assert offsets.offsets[0] == 0
    assert offsets.offsets[-1] == len(offsets.text)
    assert (np.diff(offsets.offsets) >= 0).all()


@given(TOKENS | TEXTS.map(lambda text: tokenizer().encode(text).ids))
@settings(max_examples=300, deadline=None)
def test_tokens_looked_up_one_by_one_have_the_offsets_that_decoding_in_order_gives(tokens: list[int]) -> None:
    found = decode_with_offsets(tokenizer(), tokens)

    assert found.offsets.tolist() == _streamed_offsets(tokenizer(), tokens, found.text).tolist()


@given(TOKENS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_span_holds_the_tokens_that_overlap_the_range_and_no_others(tokens: list[int], data: st.DataObject) -> None:
    offsets = decode_with_offsets(tokenizer(), tokens)
    length = len(offsets.text)
    start, end = sorted((data.draw(st.integers(0, length)), data.draw(st.integers(0, length))))

    span = token_span(offsets.offsets, start, end)

    bounds = offsets.offsets
    overlapping = [t for t in range(len(tokens)) if bounds[t] < end and bounds[t + 1] > start]
    without_text = [t for t in range(len(tokens)) if start <= bounds[t] == bounds[t + 1] < end]
    wanted = sorted({*overlapping, *without_text}) if start < end else []
    assert (list(range(span.start, span.end)) if span else []) == wanted


def test_a_tag_that_is_one_token_is_found_exactly() -> None:
    ids, offsets = decoded("so <answer>joy</answer><|im_end|>")

    span = covered(offsets, ANSWER)

    assert span is not None
    assert ids[span.start : span.end] == [tokenizer().token_to_id(ANSWER)]


def test_a_tag_that_straddles_tokens_is_covered_whole() -> None:
    _, offsets = decoded("a<confidence>0.62</confidence>")

    span = covered(offsets, "<confidence>")

    assert span is not None
    assert span.end - span.start > 1
    assert "<confidence>" in "".join(pieces(offsets)[span.start : span.end])
    assert "<confidence>" not in "".join(pieces(offsets)[span.start + 1 : span.end])
    assert "<confidence>" not in "".join(pieces(offsets)[span.start : span.end - 1])


def test_an_emoji_of_several_tokens_is_covered_from_its_first_byte() -> None:
    ids, offsets = decoded("<answer>🦖</answer>")
    assert len(ids) > 3

    assert covered(offsets, "🦖") == Span(1, len(ids) - 1)
    assert covered(offsets, ANSWER_END) == Span(len(ids) - 1, len(ids))


def test_a_tag_after_a_broken_character_keeps_its_place() -> None:
    start_of_emoji = tokenizer().encode("🦖").ids[0]
    tokens = [start_of_emoji, tokenizer().token_to_id(ANSWER_END)]

    offsets = decode_with_offsets(tokenizer(), tokens)

    assert pieces(offsets) == ["\N{REPLACEMENT CHARACTER}", ANSWER_END]
    assert covered(offsets, "\N{REPLACEMENT CHARACTER}") == Span(0, 1)
    assert covered(offsets, ANSWER_END) == Span(1, 2)


def test_a_character_cut_off_at_the_end_is_a_replacement_and_belongs_to_its_tokens() -> None:
    tokens = tokenizer().encode("joy 🦖").ids[:-1]

    offsets = decode_with_offsets(tokenizer(), tokens)

    assert offsets.text == "joy \N{REPLACEMENT CHARACTER}"
    span = covered(offsets, "\N{REPLACEMENT CHARACTER}")
    assert span is not None
    assert span.end == len(tokens)


def test_no_tokens_are_no_text() -> None:
    offsets = decode_with_offsets(tokenizer(), [])

    assert (offsets.text, offsets.offsets.tolist()) == ("", [0])
    assert token_span(offsets.offsets, 0, 0) is None


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 4)])
def test_a_range_that_is_not_in_the_text_is_refused(start: int, end: int) -> None:
    _, offsets = decoded("joy")

    with pytest.raises(ValueError, match=r"expected a range within \[0, 3\]"):
        token_span(offsets.offsets, start, end)


class Shouting:
    """A decoder that spells in capitals once there are more than three tokens."""

    def decode_chain(self, tokens: list[str]) -> list[str]:
        return [token.upper() for token in tokens] if len(tokens) > 3 else tokens


def test_a_decoder_that_changes_earlier_text_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    words.decoder = decoders.Decoder.custom(Shouting())

    assert decode_with_offsets(words, [0, 1, 1]).text == "abb"
    with pytest.raises(ValueError, match="'abba' token by token but 'ABBA' at once"):
        decode_with_offsets(words, [0, 1, 1, 0])
