"""The engine on vLLM: AsyncLLM behind `rollout.engine.Engine`.

Weights change in flight: requests are frozen, not aborted, and go on under the new weights with the
keys and values they have. A request's prefix cache belongs to the version it was submitted under
(`cache_salt`). The cache of encoded pictures knows no salt and is emptied at each update, but where
adapters alone are new, which pictures are encoded without; the cache of processed pictures does not
depend on weights and stays.

vllm is imported by this file, `vllm_settings`, `vllm_adapters`, `vllm_output`, `vllm_stats` and `weight_receiver`
alone. Its interface moves every few versions: this is 0.32's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from vllm import SamplingParams, TokensPrompt
from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.inputs import EngineInput
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from configs.schema import Engine as EngineSettings
from configs.schema import Lora
from rollout.broadcast import Layout, Meeting
from rollout.chat import ChatFormat, ImageLimits, Rendered, too_long
from rollout.engine import EngineDied, EngineError, EngineOutput, SamplingSettings, Weights
from rollout.occupancy import Occupancy, OccupancyMeter
from rollout.probe import Probe
from rollout.prompts import Prompt
from rollout.staging import checksum_of_file, staged
from rollout.vllm_adapters import adapter_request, staged_adapter
from rollout.vllm_output import engine_output, last_prompt_logprobs
from rollout.vllm_settings import engine_arguments, engine_environment
from rollout.vllm_stats import stats_for, stats_for_ray

_T = TypeVar("_T")
_SECONDS_TO_CLOSE = 1.0  # then the engine's process is killed: it has nothing to save
_SECONDS_BETWEEN_LOOKS = 1.0  # at whether the engine's process is there, while a call waits for it
_RETRYABLE = "error"  # such as a processed picture that the engine's cache has lost: the next request carries it
_ATTEMPTS = 3
_DEAD = "vLLM's engine process is gone (its log says why; VLLM_LOGGING_LEVEL=INFO shows more)"


class VllmEngine:
    """Implements `rollout.engine.Engine`; `start` makes one."""

    def __init__(
        self,
        llm: AsyncLLM,
        chat: ChatFormat,
        tokens_per_sequence: int,
        version: int,
        meter: OccupancyMeter,
        adapters: Lora | None,
    ) -> None:
        self._llm = llm
        self._meter = meter
        self._adapters = adapters
        self._chat = chat
        self._tokens_per_sequence = tokens_per_sequence
        self._version = version
        # A bias of minus infinity removes a token before the log-softmax: the others are renormalised.
        self._logit_bias = dict.fromkeys(chat.barred_token_ids(), -math.inf)
        self._request_numbers = itertools.count()
        self._reading: dict[tuple[object, ...], asyncio.Task[tuple[Rendered, list[Image.Image]]]] = {}
        self._updating = asyncio.Lock()
        self._closed = False
        self.processes: int = llm.vllm_config.parallel_config.world_size  # that hold a share of the model each

    @classmethod
    async def start(
        cls,
        model_dir: str,
        settings: EngineSettings,
        limits: ImageLimits,
        *,
        seed: int = 0,
        version: int = 0,
        watched: bool = False,
        exported_as: str | None = None,
        adapters: Lora | None = None,
    ) -> VllmEngine:
        """Load the Hugging Face model in `model_dir` as weight version `version`; watched, it tells all of `occupancy`.

        With `exported_as` vLLM's own metrics go to Ray, which must be running, under this name of a model.
        With `adapters` these weights stay, and updates bring adapters of that kind, named as in peft's files.
        Takes seconds to minutes, during which the event loop stands still. The engine runs in a
        process started by `spawn`: a script that calls this needs an `if __name__ == "__main__"` guard.
        Raises EngineDied where that process ends as it starts, ValueError for settings that vLLM refuses before.
        """
        chat = ChatFormat(model_dir, limits)
        logging.getLogger("vllm").setLevel(logging.ERROR)
        meter = OccupancyMeter()
        arguments = engine_arguments(model_dir, settings, chat, seed, adapters)
        arguments.served_model_name = exported_as
        told = [*([stats_for(meter)] if watched else []), *([stats_for_ray()] if exported_as is not None else [])]
        with _dead_where_it_fails():
            with engine_environment(settings):
                llm = AsyncLLM.from_engine_args(arguments, stat_loggers=told)
            await _while_it_lives(llm, llm.collective_rpc("end_with", args=(os.getpid(),)))
            if adapters is not None:
                await _while_it_lives(llm, llm.collective_rpc("begin_without_adapters", args=(version, adapters.rank)))
            await llm.update_weight_version(str(version))
            await llm.get_supported_tasks()  # remembered: no request waits for it between its salt and its sending
            engine = cls(llm, chat, settings.tokens_per_sequence, version, meter, adapters)
            await engine._warm_up()
        return engine

    async def generate(self, prompt: Prompt, sampling: SamplingSettings) -> EngineOutput:
        """See `rollout.engine.Engine`. Raises ValueError for a prompt this model can never answer."""
        started, began = time.time(), time.monotonic()
        with self._meter.request(), self._as_engine_errors(prompt):
            output = await self._answer(prompt, self._sampling_parameters(sampling))
            return engine_output(output, started, time.monotonic() - began)

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """See `rollout.engine.Engine`. Raises ValueError for a probe that this model has no room for."""
        with self._meter.request(), self._as_engine_errors(probe.prompt):
            if self._version != version:
                return None
            output = await self._answer(probe.prompt, _scoring_parameters(), probe.tokens.tolist())
            return last_prompt_logprobs(output, probe.tokens) if self._version == version else None

    def occupancy(self) -> Occupancy:
        """See `rollout.engine.Engine`. An engine that is not watched knows nothing of its queue and its cache."""
        if self._closed:
            raise EngineDied("the engine is closed")
        return self._meter.read()

    async def update_weights(self, version: int, tensors: Weights) -> str:
        """See `rollout.engine.Engine`. Takes torch tensors on the CPU, all of the model's or all of its adapters'.

        The checksum is of the file that the engine's processes map; it is taken before requests stand still. Raises
        EngineDied where they do not fit, or no file takes them, and closes the engine: the model may be half loaded.
        """
        found, adapters = _torch_only(tensors), self._adapters
        async with self._updating:
            try:
                async with staged(found) if adapters is None else staged_adapter(adapters, found) as path:
                    held = await asyncio.to_thread(checksum_of_file, path)
                    if adapters is None:
                        await self._load(version, "receive_weights", str(path))
                    else:
                        await self._load(version, "receive_adapters", str(path), version)
            except OSError as error:
                await self._close()
                raise EngineDied(f"version {version} was not loaded, the engine is closed: {error}") from error
        return held

    async def receive_weights(self, version: int, meeting: Meeting, layout: Layout) -> str:
        """The same of tensors that a sender broadcasts to the engine's processes at `meeting`, the model's all.

        Raises EngineDied where they do not come.
        """
        async with self._updating:
            checksums = await self._load(version, "receive_broadcast", meeting, layout)
            if len(set(checksums)) != 1:
                await self._close()
                raise EngineDied(f"the engine's processes read different weights, checksums {checksums}")
        return checksums[0]

    async def close(self) -> None:
        """See `rollout.engine.Engine`. Waits for an update that is under way."""
        async with self._updating:
            await self._close()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._llm.output_processor.propagate_error(EngineDeadError())  # else requests in flight wait for ever
        await asyncio.to_thread(self._llm.shutdown, _SECONDS_TO_CLOSE)

    async def _load(self, version: int, method: str, *given: object) -> list[Any]:
        """Let each of the engine's processes take up new weights by a method of `WeightReceiver`; returns answers."""
        if self._closed:
            raise EngineDied(f"version {version} was not loaded: the engine is closed")
        if version <= self._version:
            raise ValueError(f"version {version} came, the engine holds {self._version} already")
        try:
            return await _while_it_lives(self._llm, self._load_frozen(version, method, given))
        except BaseException as error:
            await self._close()
            if isinstance(error, Exception):  # what fails in the engine's process comes as a bare one
                raise EngineDied(f"version {version} was not loaded, the engine is closed: {error}") from error
            raise

    async def _load_frozen(self, version: int, method: str, given: tuple[object, ...]) -> list[Any]:
        # The salt changes before the pause is sent: what carries the new one reaches the engine after
        # the pause, what carries the old one before it. So no request reads what older weights cached.
        self._version = version
        await self._llm.pause_generation(mode="keep", clear_cache=False)
        answers = await self._llm.collective_rpc(method, args=given)
        if self._adapters is None:
            await self._llm.reset_encoder_cache()
        await self._llm.update_weight_version(str(version))
        await self._llm.resume_generation()
        return answers

    async def _warm_up(self) -> None:
        """Sample two tokens: an engine's first steps take longer, seconds where kernels are compiled.

        Nothing is left of it: the prompt fills no block of the prefix cache, and the seed is the request's own.
        """
        parameters = self._sampling_parameters(SamplingSettings(1.0, 2, seed=0))
        tokens = TokensPrompt(prompt_token_ids=[self._chat.tokenizer.eos_token_id])
        async for _ in self._llm.generate(tokens, parameters, "warm-up"):
            pass

    async def _answer(self, prompt: Prompt, parameters: SamplingParams, begun: Sequence[int] = ()) -> RequestOutput:
        for _ in range(_ATTEMPTS):
            output = await self._sample(prompt, parameters, begun)
            if output.outputs[0].finish_reason != _RETRYABLE:
                break
        return output

    async def _sample(self, prompt: Prompt, parameters: SamplingParams, begun: Sequence[int]) -> RequestOutput:
        request = await self._request(prompt, parameters.max_tokens or 1, begun)
        number = str(next(self._request_numbers))
        adapter = None if self._adapters is None else adapter_request(self._version)
        async for output in self._llm.generate(request, parameters, number, lora_request=adapter):
            if output.finished:
                return output
        raise EngineError("the request ended without an output")

    async def _request(self, prompt: Prompt, response_tokens: int, begun: Sequence[int]) -> EngineInput:
        """A prompt, behind it the tokens of a response that has `begun`, and room for `response_tokens` more."""
        rendered, images = await self._read(prompt)
        tokens = TokensPrompt(prompt_token_ids=[*rendered.token_ids, *begun])
        if images:
            tokens["multi_modal_data"] = {"image": images}
        (request,) = await self._llm.renderer.render_cmpl_async([tokens])
        length = len(request["prompt_token_ids"])
        if fault := too_long(prompt, length, response_tokens, self._tokens_per_sequence):
            raise ValueError(fault)
        request["cache_salt"] = str(self._version)
        return request

    async def _read(self, prompt: Prompt) -> tuple[Rendered, list[Image.Image]]:
        """Render a prompt and read its pictures, once for all samples that are asked for together."""
        key = (prompt.prompt_id, prompt.messages, prompt.images)
        if key not in self._reading:
            task = asyncio.create_task(asyncio.to_thread(_read, self._chat, prompt))
            task.add_done_callback(lambda _: self._reading.pop(key))
            self._reading[key] = task
        return await asyncio.shield(self._reading[key])  # one sample's cancellation is not the others'

    @contextmanager
    def _as_engine_errors(self, prompt: Prompt) -> Iterator[None]:
        asked = f"prompt {prompt.prompt_id}"
        if self._closed:
            raise EngineDied(f"{asked}: the engine is closed")
        try:
            yield
        except EngineDeadError as error:
            raise EngineDied(f"{asked}: {_DEAD}") from error
        except VLLMServerError as error:
            raise EngineError(f"{asked}: vLLM failed ({error.__cause__ or error})") from error
        except VLLMClientError as error:
            raise ValueError(f"{asked}: vLLM refuses the request ({error})") from error
        except RuntimeError as error:
            if self._closed:  # while vLLM was preparing the request
                raise EngineDied(f"{asked}: the engine was closed") from error
            raise

    def _sampling_parameters(self, sampling: SamplingSettings) -> SamplingParams:
        # Neither top-p and top-k nor penalties: the log-probabilities are those of the policy itself.
        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.response_tokens,
            seed=sampling.seed,
            logprobs=0,  # the sampled token's alone
            flat_logprobs=True,
            logit_bias=self._logit_bias,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )


def _scoring_parameters() -> SamplingParams:
    # vLLM computes log-probabilities of a prompt's tokens before temperature and barred tokens, whatever its
    # logprobs_mode, and reads no prefix cache for them. One token is the least that it samples.
    return SamplingParams(
        max_tokens=1,
        prompt_logprobs=0,  # the prompt's own tokens' alone
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def _read(chat: ChatFormat, prompt: Prompt) -> tuple[Rendered, list[Image.Image]]:
    try:
        return chat.render(prompt), chat.load_images(prompt)
    except OSError as error:  # which another attempt, or another node, may not meet
        raise EngineError(f"prompt {prompt.prompt_id}: {error}") from error


def _torch_only(weights: Weights) -> dict[str, torch.Tensor]:
    tensors = {name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
    if others := weights.keys() - tensors.keys():
        raise TypeError(f"vLLM takes weights as torch tensors, got others for {sorted(others)[:5]}")
    return tensors


@contextmanager
def _dead_where_it_fails() -> Iterator[None]:
    """A start's failures that another attempt may mend, as EngineDied: the process has ended, or is not up in time."""
    try:
        yield
    except (RuntimeError, TimeoutError, VLLMServerError) as error:
        raise EngineDied(f"{_DEAD}: {error}") from error


async def _while_it_lives(llm: AsyncLLM, work: Coroutine[None, None, _T]) -> _T:
    """Its result. Raises EngineDeadError where the engine's process ends before: a call of vLLM's would never end."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_SECONDS_BETWEEN_LOOKS)
            if not task.done() and llm.errored:
                raise llm.dead_error
        return await task
    finally:
        task.cancel()
