"""How long requests stand still for new weights, and how long the reload alone takes.

A stream of one request's tokens, one by one, among as many others as the engine takes at once; meanwhile an update goes
the way it goes in a rollout worker, but for the network. In turns with `receive_weights` called on the idle, paused
engine and nothing else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from itertools import cycle, islice

from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind

from benchmarks.step_times import Pause, standstill
from cluster.quiet import quiet
from cluster.receiver import Receiver
from cluster.weight_update import Stored, WeightsId, WeightUpdate, pack
from configs.schema import Recipe
from learner.lora import mergeable_parameters
from learner.policy import load_model
from rollout.chat import ChatFormat, ImageLimits
from rollout.checksum import checksum
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.staging import staged
from rollout.vllm_engine import VllmEngine

_TOKENS_BEFORE = 20  # of the stream, for what is usual between two


def pauses(model_dir: str, recipe: Recipe, prompts: Sequence[Prompt], repeats: int) -> list[Pause]:
    """So many updates, after one that warms up. In a process of its own."""
    return asyncio.run(_Measurement(model_dir, recipe, prompts).run(repeats))


class _Measurement:
    def __init__(self, model_dir: str, recipe: Recipe, prompts: Sequence[Prompt]) -> None:
        quiet()
        self._model_dir = model_dir
        self._recipe = recipe
        self._limits = ImageLimits.of(recipe.model, recipe.data)
        self._chat = ChatFormat(model_dir, self._limits)
        self._prompts = prompts
        model = load_model(model_dir, recipe.learner)
        self._weights = {found.name: found.merged() for found in mergeable_parameters(model)}
        self._receiver = Receiver()

    async def run(self, repeats: int) -> list[Pause]:
        self._engine = await VllmEngine.start(self._model_dir, self._recipe.engine, self._limits)
        self._llm = self._engine._llm  # the engine offers nothing less than a whole update
        try:
            return [await self._pause(version) for version in range(1, repeats + 2)][1:]
        finally:
            await self._engine.close()

    async def _pause(self, version: int) -> Pause:
        reload = await self._reload()
        others = [asyncio.create_task(self._busy(number)) for number in range(1, self._recipe.engine.sequences_at_once)]
        times: list[float] = []
        stream = asyncio.create_task(self._stream(times, f"stream-{version}"))
        while len(times) < _TOKENS_BEFORE:
            await asyncio.sleep(0.001)
        begun = time.perf_counter()
        await self._receiver.load(await self._update(version), self._engine)
        ended = time.perf_counter()
        await stream
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert times[-1] > ended, "the stream was over before the update: make responses longer"
        longest, lost = standstill(times, begun, ended)
        return Pause(longest, lost, ended - begun, reload)

    async def _reload(self) -> float:
        async with staged(self._weights) as path:
            await self._llm.pause_generation(mode="keep", clear_cache=False)
            begun = time.perf_counter()
            await self._llm.collective_rpc("receive_weights", args=(str(path),))
            seconds = time.perf_counter() - begun
            await self._llm.resume_generation()
        return seconds

    async def _update(self, version: int) -> WeightUpdate:
        there: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        there.set_result(pack(self._weights))
        nbytes = sum(tensor.nbytes for tensor in self._weights.values())
        return WeightUpdate(Stored(WeightsId(version, checksum(self._weights)), None, (there,), nbytes))

    async def _busy(self, number: int) -> None:
        """Requests, one after the other."""
        sampling = SamplingSettings(self._recipe.rl.temperature, self._recipe.rl.response_tokens)
        for prompt in islice(cycle(self._prompts), number, None):
            await self._engine.generate(prompt, sampling)

    async def _stream(self, times: list[float], name: str) -> None:
        prompt = self._prompts[0]
        tokens = TokensPrompt(
            prompt_token_ids=list(self._chat.render(prompt).token_ids),
            multi_modal_data={"image": self._chat.load_images(prompt)},
        )
        (request,) = await self._llm.renderer.render_cmpl_async([tokens])
        sampling = SamplingParams(
            max_tokens=self._recipe.rl.response_tokens,
            logit_bias=dict.fromkeys(self._chat.barred_token_ids(), -math.inf),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        async for output in self._llm.generate(request, sampling, name):
            times += [time.perf_counter()] * len(output.outputs[0].token_ids)  # several where this loop was held up
