"""A request that vLLM gives up is given again: the engine around a fake of vLLM's AsyncLLM."""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vllm import SamplingParams
from vllm.logprobs import FlatLogprobs, Logprob
from vllm.outputs import CompletionOutput, RequestOutput, WeightVersionSpan
from vllm.v1.engine.exceptions import EngineDeadError

from rollout import vllm_engine
from rollout.chat import ChatFormat, ImageLimits
from rollout.engine import EngineDied, EngineError, EngineOutput, SamplingSettings
from rollout.occupancy import OccupancyMeter
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.trajectory import FinishReason
from rollout.vllm_engine import VllmEngine
from tests.unit.full_disk import files_of_at_most

SAMPLING = SamplingSettings(temperature=1.0, response_tokens=8, seed=3)


@dataclass
class FakeLlm:
    """Ends each request with the next of `endings`; all but "error" and "abort" come with two tokens."""

    endings: list[str]
    requests: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[SamplingParams] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # seconds since the epoch
    closed: bool = False

    @property
    def output_processor(self) -> Any:
        return SimpleNamespace(propagate_error=lambda _: None)

    def shutdown(self, seconds: float) -> None:
        self.closed = True

    @property
    def vllm_config(self) -> Any:
        return SimpleNamespace(parallel_config=SimpleNamespace(world_size=1))

    @property
    def renderer(self) -> FakeLlm:
        return self

    async def render_cmpl_async(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [dict(prompt) for prompt in prompts]

    async def generate(
        self, request: dict[str, Any], parameters: SamplingParams, request_id: str, lora_request: None
    ) -> AsyncIterator[RequestOutput]:
        self.requests.append(request)
        self.parameters.append(parameters)
        self.ids.append(request_id)
        self.times.append(time.time())
        ending = self.endings.pop(0)
        if ending == "death":
            raise EngineDeadError
        yield finished(request, ending, len(self.ids))


class FakeLlmOfNewWeights(FakeLlm):
    """Weight version 1 comes while the first request runs."""

    engine: VllmEngine

    async def generate(self, *arguments: Any, **named: Any) -> AsyncIterator[RequestOutput]:
        if not self.requests:
            await self.engine.update_weights(1, {})
        async for output in super().generate(*arguments, **named):
            yield output

    async def collective_rpc(self, method: str, args: tuple[str]) -> list[str]:
        return [f"{method} {Path(args[0]).exists()}"]

    async def pause_generation(self, mode: str, clear_cache: bool) -> None: ...

    async def reset_encoder_cache(self) -> None: ...

    async def update_weight_version(self, version: str) -> None: ...

    async def resume_generation(self) -> None: ...


def finished(request: dict[str, Any], ending: str, number: int) -> RequestOutput:
    """The output of the `number`th request: that many times the token `number`, and the end token.

    The log-probability of the prompt's second token is -0.5, of its third -1, and so on.
    """
    tokens = [] if ending in ("error", "abort") else [number] * number + [0]
    logprobs = FlatLogprobs()
    for token in tokens:
        logprobs.append({token: Logprob(-0.5)})
    spans = [WeightVersionSpan(request["cache_salt"], 0, len(tokens))] if tokens else []
    completion = CompletionOutput(0, "", tokens, None, logprobs, finish_reason=ending, weight_versions=spans)
    of_prompt = FlatLogprobs()
    of_prompt.append(None)
    for place, token in enumerate(request["prompt_token_ids"][1:], start=1):
        of_prompt.append({token: Logprob(-0.5 * place)})
    return RequestOutput(str(number), None, request["prompt_token_ids"], of_prompt, [completion], finished=True)


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> ChatFormat:
    return ChatFormat(str(tiny_model), ImageLimits())


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    Image.new("RGB", (56, 56), "red").save(tmp_path / "1.png")
    return Prompt("p7", "emoji", (Message("user", "<image>How?"),), images=(str(tmp_path / "1.png"),))


def generate(llm: FakeLlm, chat: ChatFormat, prompt: Prompt) -> EngineOutput:
    return asyncio.run(engine_on(llm, chat).generate(prompt, SAMPLING))


def engine_on(llm: FakeLlm, chat: ChatFormat) -> VllmEngine:
    stand_in: Any = llm
    engine = VllmEngine(stand_in, chat, 64, version=0, meter=OccupancyMeter(), adapters=None)
    if isinstance(llm, FakeLlmOfNewWeights):
        llm.engine = engine
    return engine


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH])
def test_a_request_that_is_answered_is_sent_once(chat: ChatFormat, prompt: Prompt, reason: FinishReason) -> None:
    llm = FakeLlm([reason.value])

    output = generate(llm, chat, prompt)

    assert output.finish_reason is reason
    assert output.tokens.tolist() == [1, 0]
    assert len(llm.ids) == 1


@pytest.mark.parametrize("errors", [1, 2])
def test_a_request_that_ended_in_error_is_sent_again_and_its_answer_returned(
    chat: ChatFormat, prompt: Prompt, errors: int
) -> None:
    llm = FakeLlm(["error"] * errors + ["stop"])

    output = generate(llm, chat, prompt)

    assert output.finish_reason is FinishReason.STOP
    assert output.tokens.tolist() == [errors + 1] * (errors + 1) + [0]
    assert output.logprobs.tolist() == [-0.5] * len(output.tokens)
    assert len(set(llm.ids)) == errors + 1  # vLLM knows requests by their ids


def test_what_is_sent_again_asks_the_same_with_its_picture(chat: ChatFormat, prompt: Prompt) -> None:
    llm = FakeLlm(["error", "stop"])

    generate(llm, chat, prompt)

    first, again = llm.requests
    assert first["prompt_token_ids"] == again["prompt_token_ids"] == list(chat.render(prompt).token_ids)
    assert llm.parameters[0] == llm.parameters[1]
    for request in (first, again):
        (picture,) = request["multi_modal_data"]["image"]
        assert np.array_equal(picture, np.broadcast_to([255, 0, 0], (56, 56, 3)))


def test_a_request_that_ends_in_error_each_time_is_given_up_and_may_go_elsewhere(
    chat: ChatFormat, prompt: Prompt
) -> None:
    llm = FakeLlm(["error"] * 9)

    with pytest.raises(EngineError, match="vLLM ended the request with 'error' instead of a response") as raised:
        generate(llm, chat, prompt)

    assert not isinstance(raised.value, EngineDied)  # the engine is alive
    assert len(llm.ids) == 3


def test_a_request_that_was_aborted_is_not_sent_again(chat: ChatFormat, prompt: Prompt) -> None:
    llm = FakeLlm(["abort", "stop"])

    with pytest.raises(EngineError, match="with 'abort'"):
        generate(llm, chat, prompt)

    assert len(llm.ids) == 1


def test_an_engine_that_dies_between_two_attempts_is_not_asked_a_third_time(chat: ChatFormat, prompt: Prompt) -> None:
    llm = FakeLlm(["error", "death", "stop"])

    with pytest.raises(EngineDied, match="prompt p7: vLLM's engine process is gone"):
        generate(llm, chat, prompt)

    assert len(llm.ids) == 2


def test_a_picture_that_is_not_there_for_the_moment_may_be_read_elsewhere_and_a_broken_one_nowhere(
    chat: ChatFormat, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as broken:
        broken.setattr(ChatFormat, "load_images", stale)
        with pytest.raises(EngineError, match=r"prompt p7: .*Stale file handle") as raised:
            generate(FakeLlm(["stop"]), chat, prompt)
    assert not isinstance(raised.value, EngineDied)

    (path,) = map(Path, prompt.images)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"1\.png: the picture cannot be read"):
        generate(FakeLlm(["stop"]), chat, prompt)


def test_the_time_of_a_response_counts_from_its_first_attempt(chat: ChatFormat, prompt: Prompt) -> None:
    llm = FakeLlm(["error", "stop"])

    output = generate(llm, chat, prompt)

    assert output.started <= llm.times[0] <= llm.times[1] <= output.finished


def test_a_clock_that_is_set_back_makes_no_response_end_before_it_began(
    chat: ChatFormat, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(1e9, -3600.0)
    monkeypatch.setattr(vllm_engine, "time", SimpleNamespace(time=lambda: next(now), monotonic=time.monotonic))

    output = generate(FakeLlm(["error", "stop"]), chat, prompt)

    assert 0 <= output.finished - output.started < 3600


def test_what_is_sent_again_after_an_update_reads_no_cache_of_the_old_weights(chat: ChatFormat, prompt: Prompt) -> None:
    llm = FakeLlmOfNewWeights(["error", "stop"])

    output = generate(llm, chat, prompt)

    assert [request["cache_salt"] for request in llm.requests] == ["0", "1"]
    assert [span.version for span in output.version_spans] == [1]


def test_weights_are_summed_up_while_requests_still_run(chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def pause(self: FakeLlm, mode: str, clear_cache: bool) -> None:
        order.append("requests stand still")

    def summed(path: Path) -> str:
        order.append(f"{path.name} is there: {path.exists()}")
        return "the sum"

    monkeypatch.setattr(FakeLlmOfNewWeights, "pause_generation", pause)
    monkeypatch.setattr(vllm_engine, "checksum_of_file", summed)

    found = asyncio.run(engine_on(FakeLlmOfNewWeights([]), chat).update_weights(1, {}))

    assert found == "the sum"
    assert order == ["weights.safetensors is there: True", "requests stand still"]


def test_weights_that_find_no_room_close_the_engine(chat: ChatFormat) -> None:
    llm = FakeLlm([])

    with files_of_at_most(16), pytest.raises(EngineDied, match=r"version 1 was not loaded.* could not be written"):
        asyncio.run(engine_on(llm, chat).update_weights(1, {"a": torch.ones(4096)}))

    assert llm.closed


# The probe


def test_a_probe_is_a_prompt_that_the_engine_gives_the_last_log_probabilities_of(
    chat: ChatFormat, prompt: Prompt
) -> None:
    llm, before = FakeLlm(["error", "length"]), len(chat.render(prompt).token_ids)

    found = asyncio.run(engine_on(llm, chat).logprobs(Probe(prompt, np.array([7, 8, 9], np.int32)), 0))

    assert found is not None
    assert found.tolist() == [-0.5 * (before + place) for place in range(3)]
    for request, parameters in zip(llm.requests, llm.parameters, strict=True):
        assert request["prompt_token_ids"] == [*chat.render(prompt).token_ids, 7, 8, 9]
        assert request["cache_salt"] == "0"
        assert len(request["multi_modal_data"]["image"]) == 1
        assert (parameters.max_tokens, parameters.prompt_logprobs) == (1, 0)
        assert parameters.skip_reading_prefix_cache


def test_a_probe_that_new_weights_came_under_or_before_has_no_value(chat: ChatFormat, prompt: Prompt) -> None:
    probe = Probe(prompt, np.array([7], np.int32))

    for version, llm in ((0, FakeLlmOfNewWeights(["length"])), (1, FakeLlmOfNewWeights(["length"]))):
        assert asyncio.run(engine_on(llm, chat).logprobs(probe, version)) is None


def test_a_probe_that_vllm_gives_up_is_an_error(chat: ChatFormat, prompt: Prompt) -> None:
    with pytest.raises(EngineError, match="with 'abort'"):
        asyncio.run(engine_on(FakeLlm(["abort"]), chat).logprobs(Probe(prompt, np.array([7], np.int32)), 0))
