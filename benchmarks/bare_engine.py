"""vLLM alone: a run's requests through `AsyncLLM`, with the run's engine arguments and nothing of ours around it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from PIL import Image
from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from benchmarks.step_times import seconds_per_step
from cluster.quiet import quiet
from configs.schema import Recipe
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Prompt
from rollout.vllm_settings import engine_arguments, engine_environment


def generate(model_dir: str, recipe: Recipe, prompts: Sequence[Prompt], warm_up: int, steps: int) -> float:
    """Seconds for the responses of a step, of so many after `warm_up` (1 at least).

    The prompts are a run's, in its order, one for each group, with a step's more than are measured: the last one ends
    with all in flight. The groups in flight and how responses are sampled are the recipe's. Pictures are read and
    prompts rendered before. In a process of its own.
    """
    return asyncio.run(_generate(model_dir, recipe, prompts, warm_up, steps))


async def _generate(model_dir: str, recipe: Recipe, prompts: Sequence[Prompt], warm_up: int, steps: int) -> float:
    quiet()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    chat, rl = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data)), recipe.rl
    with engine_environment(recipe.engine):
        llm = AsyncLLM.from_engine_args(engine_arguments(model_dir, recipe.engine, chat, recipe.seed + 1, None))
    asked = [_read(chat, prompt) for prompt in prompts]
    sampling = SamplingParams(
        temperature=rl.temperature,
        max_tokens=rl.response_tokens,
        logprobs=0,
        flat_logprobs=True,
        logit_bias=dict.fromkeys(chat.barred_token_ids(), -math.inf),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )
    at_once = rl.groups_per_worker
    room = asyncio.Semaphore((at_once if isinstance(at_once, int) else len(asked)) * recipe.engine.workers)
    done: list[float] = []

    async def sample(group: int, number: int) -> None:
        ids, images = asked[group]
        tokens = TokensPrompt(prompt_token_ids=ids)
        if images:
            tokens["multi_modal_data"] = {"image": images}
        (request,) = await llm.renderer.render_cmpl_async([tokens])  # as vLLM's own server does
        async for output in llm.generate(request, sampling, f"{group}-{number}"):
            assert not output.finished or len(output.outputs[0].token_ids) == rl.response_tokens

    async def visit(group: int) -> None:
        async with room:
            await asyncio.gather(*(sample(group, number) for number in range(rl.samples_per_prompt)))
        done.append(time.perf_counter())

    try:
        await asyncio.gather(*(visit(group) for group in range(len(asked))))
    finally:
        llm.shutdown(1.0)  # seconds; then its process is killed, which has nothing to save
    return seconds_per_step(done, rl.prompts_per_step, warm_up, steps)


def _read(chat: ChatFormat, prompt: Prompt) -> tuple[list[int], list[Image.Image]]:
    return list(chat.render(prompt).token_ids), chat.load_images(prompt)
