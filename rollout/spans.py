"""From sampled tokens to text and back: which characters a token made, which tokens a range needs.

The text comes from the sampled ids by incremental decoding, and is never tokenised again: that
would give other tokens than the sampled ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from rollout.trajectory import Span

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of a part of a character
_TOKENS_KEPT = 2**18  # more than the largest vocabularies have


@dataclass(frozen=True, slots=True, eq=False)
class TokenOffsets:
    """A response's text, and where in it each token is.

    Token t covers characters [offsets[t], offsets[t + 1]). A token that ends within a character covers
    nothing; the one that completes the character covers it. A token without text covers nothing either.
    """

    text: str
    offsets: NDArray[np.int64]  # [T + 1] characters; not decreasing, from 0 to len(text)


def decode_with_offsets(tokenizer: Tokenizer, tokens: Sequence[int] | NDArray[np.int32]) -> TokenOffsets:
    """Decode token by token; special tokens are part of the text.

    `tokenizer` is a `tokenizers.Tokenizer`, the `backend_tokenizer` of a fast tokenizer of transformers.
    Bytes that never become UTF-8 are replacement characters, as `tokenizer.decode` has them.
    For a tokenizer whose decoder changes earlier text when later tokens come this raises ValueError,
    or the stream raises its own Exception ("Invalid prefix").
    """
    ids = [int(token) for token in tokens]
    whole: str = tokenizer.decode(ids, skip_special_tokens=False)
    texts = [_alone(tokenizer, token) for token in ids]
    if _REPLACEMENT not in whole and "".join(texts) == whole:  # as nearly always: every token is text by itself
        return TokenOffsets(whole, np.array([0, *accumulate(map(len, texts))], dtype=np.int64))
    return TokenOffsets(whole, _streamed_offsets(tokenizer, ids, whole))


def token_span(offsets: NDArray[np.int64], start_char: int, end_char: int) -> Span | None:
    """All tokens that had a part in characters [start_char, end_char); None for an empty range.

    A token that reaches over either end counts, and so does one before the range that holds nothing but the first bytes
    of a character in it. `offsets` are those of `TokenOffsets`, [T + 1].
    """
    length = int(offsets[-1])
    if not 0 <= start_char <= end_char <= length:
        raise ValueError(f"got characters [{start_char}, {end_char}), expected a range within [0, {length}]")
    if start_char == end_char:
        return None
    first, end = (int(t) for t in np.searchsorted(offsets[:-1], (start_char, end_char), side="left"))
    reaches_over = offsets[first] > start_char  # offsets[first] is where token first - 1 ends
    return Span(first - 1 if reaches_over else first, end)


def _streamed_offsets(tokenizer: Tokenizer, ids: Sequence[int], whole: str) -> NDArray[np.int64]:
    """[T + 1] of any tokens, ten times slower than to look up what each is by itself."""
    stream = DecodeStream(skip_special_tokens=False)
    text = ""
    offsets = [0]  # of the tokens that have their text; the others wait for the end of a character
    for position, token in enumerate(ids):
        chunk = stream.step(tokenizer, token)
        if chunk is None:
            continue
        text += chunk
        waiting = position + 1 - len(offsets)
        own = _own_text(tokenizer, token, chunk) if waiting else chunk
        offsets += [offsets[-1]] * (waiting - 1) + [len(text) - len(own)] * (waiting > 0) + [len(text)]
    _check_decoder(text, whole, complete=len(offsets) == len(ids) + 1)
    waiting = len(ids) + 1 - len(offsets)
    offsets += [len(text)] * (waiting - 1) + [len(whole)] * (waiting > 0)
    return np.array(offsets, dtype=np.int64)


@lru_cache(maxsize=_TOKENS_KEPT)
def _alone(tokenizer: Tokenizer, token: int) -> str:
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    return text


def _own_text(tokenizer: Tokenizer, token: int, chunk: str) -> str:
    """The part of a chunk that its last token made, where the tokens before it left bytes open.

    Where that token is a text by itself, what comes before it is what the others failed to complete,
    and theirs: so a tag after a broken character keeps its exact place.
    """
    alone = _alone(tokenizer, token)
    return alone if chunk.endswith(alone) else chunk


def _check_decoder(text: str, whole: str, *, complete: bool) -> None:
    if whole.startswith(text) and not (complete and text != whole):
        return
    raise ValueError(
        f"the tokenizer's decoder gives {text!r:.80} token by token but {whole!r:.80} at once; expected one"
        " that leaves earlier text as it is when later tokens come (byte-level and sentencepiece decoders do)"
    )
