"""A finished request of vLLM's as an engine's output."""

from __future__ import annotations

import numpy as np
from vllm.logprobs import FlatLogprobs
from vllm.outputs import CompletionOutput, RequestOutput

from rollout.engine import EngineError, EngineOutput
from rollout.trajectory import FinishReason, VersionSpan


def engine_output(output: RequestOutput, started: float, seconds: float) -> EngineOutput:
    """Read a request that was to return one response and only the sampled tokens' log-probabilities.

    It started at `started`, seconds since the epoch, and took `seconds` by a clock that nobody sets.
    Raises EngineError where vLLM gave it up.
    """
    (completion,) = output.outputs
    if completion.finish_reason not in list(FinishReason):
        raise EngineError(f"vLLM ended the request with {completion.finish_reason!r} instead of a response")
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


def _version_spans(completion: CompletionOutput) -> tuple[VersionSpan, ...]:
    assert completion.weight_versions, "vLLM labels every token of a finished response"
    return tuple(VersionSpan(int(span.version), span.start, span.end) for span in completion.weight_versions)
