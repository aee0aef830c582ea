"""What a rollout worker does with an engine: all samples of one visit of a prompt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tokenizers import Tokenizer

from rollout.engine import Engine, EngineOutput, SamplingSettings
from rollout.prompts import Prompt
from rollout.spans import decode_with_offsets
from rollout.trajectory import FinishReason, Group, Sample, Trajectory


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of a prompt: sample it so many times."""

    group_id: int
    prompt: Prompt
    target: str | None  # what the answers will be held against
    samples: int
    admitted: float  # seconds since the epoch


async def sample_group(
    engine: Engine, tokenizer: Tokenizer, visit: Visit, sampling: SamplingSettings, worker: str
) -> Group:
    """All samples at once, so that they share the prompt's prefix; not yet scored.

    Raises EngineError as soon as one sample fails; the others are cancelled.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(engine.generate(visit.prompt, sampling)) for _ in range(visit.samples)]
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]  # the others failed with it or were cancelled
        raise first from first.__cause__
    outputs = [task.result() for task in running]
    return Group(
        group_id=visit.group_id,
        prompt_id=visit.prompt.prompt_id,
        images=visit.prompt.images,
        prompt_tokens=outputs[0].prompt_tokens,
        target=visit.target,
        admitted=visit.admitted,
        worker=worker,
        trajectories=tuple(Trajectory(_sample(output, tokenizer)) for output in outputs),
    )


def response_ids(tokens: EngineOutput | Sample) -> list[int]:
    """The tokens that make the text: all but the end token."""
    ids: list[int] = tokens.tokens.tolist()
    return ids[:-1] if tokens.finish_reason is FinishReason.STOP else ids


def _sample(output: EngineOutput, tokenizer: Tokenizer) -> Sample:
    return Sample(
        tokens=output.tokens,
        logprobs=output.logprobs,
        version_spans=output.version_spans,
        finish_reason=output.finish_reason,
        text=decode_with_offsets(tokenizer, response_ids(output)).text,
        started=output.started,
        finished=output.finished,
    )
