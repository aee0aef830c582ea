"""The confidence that a model does not state: the probability with which it sampled its answer."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from configs.schema import Response
from rewards.parse import parse
from rollout.spans import decode_with_offsets, token_span
from rollout.trajectory import FinishReason, Sample
from rollout.worker import response_ids


def answer_probability(
    sample: Sample,
    tokenizer: Tokenizer,
    response: Response,
    candidates: tuple[str, ...],
    *,
    require_confidence: bool = True,
) -> float | None:
    """Product of the probabilities of the answer's tokens, in [0, 1]; None where the response is malformed.

    It is the probability after the reasoning that was sampled, at the temperature it was sampled at, of this spelling.
    A token that holds the answer's end and the beginning of what follows is one of the answer's.
    """
    parsed = parse(
        sample.text,
        response,
        candidates=candidates,
        truncated=sample.finish_reason is FinishReason.LENGTH,
        require_confidence=require_confidence,
    )
    if parsed.answer_span is None:
        return None
    span = token_span(decode_with_offsets(tokenizer, response_ids(sample)).offsets, *parsed.answer_span)
    assert span is not None, "a well-formed answer is not empty"
    logprobs = sample.logprobs[span.start : span.end].astype(np.float64)
    return float(np.exp(min(logprobs.sum(), 0.0)))  # engines round a certain token's to a hair above 0
