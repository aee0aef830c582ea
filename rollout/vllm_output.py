"""A finished request of vLLM's as an engine's output."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from vllm.logprobs import FlatLogprobs
from vllm.outputs import CompletionOutput, RequestOutput

from rollout.engine import EngineError, EngineOutput
from rollout.trajectory import FinishReason, VersionSpan


def engine_output(output: RequestOutput, started: float, seconds: float) -> EngineOutput:
    """Read a request that was to return one response and only the sampled tokens' log-probabilities.

    It started at `started`, seconds since the epoch, and took `seconds` by a clock that nobody sets.
    Raises EngineError where vLLM gave it up.
    """
    _refuse_unfinished(output)
    (completion,) = output.outputs
    assert output.prompt_token_ids is not None
    assert isinstance(completion.logprobs, FlatLogprobs)
    return EngineOutput(
        prompt_tokens=np.array(output.prompt_token_ids, dtype=np.int32),
        tokens=np.array(completion.token_ids, dtype=np.int32),
        logprobs=np.array(completion.logprobs.logprobs, dtype=np.float32),
        version_spans=_version_spans(completion),
        finish_reason=FinishReason(completion.finish_reason),
        started=started,
        finished=started + seconds,
    )


def last_prompt_logprobs(output: RequestOutput, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Log-probabilities [T] of the `tokens` [T] that a request's prompt ends in. Raises as `engine_output` does."""
    _refuse_unfinished(output)
    assert isinstance(output.prompt_logprobs, FlatLogprobs)
    found = output.prompt_logprobs[-len(tokens) :]
    assert found.token_ids == tokens.tolist(), "one for each token of the prompt but its first"
    return np.array(found.logprobs, dtype=np.float32)


def _refuse_unfinished(output: RequestOutput) -> None:
    (completion,) = output.outputs
    if completion.finish_reason not in list(FinishReason):
        raise EngineError(f"vLLM ended the request with {completion.finish_reason!r} instead of a response")


def _version_spans(completion: CompletionOutput) -> tuple[VersionSpan, ...]:
    assert completion.weight_versions, "vLLM labels every token of a finished response"
    return tuple(VersionSpan(int(span.version), span.start, span.end) for span in completion.weight_versions)
