"""The real vLLM with a tiny random Qwen2.5-VL, in fp32 on the CPU, held against transformers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedModel
from vllm.outputs import RequestOutput

from configs.schema import Engine, Precision
from rollout import vllm_engine
from rollout.broadcast import Meeting, layout_of, send
from rollout.chat import ChatFormat, ImageLimits
from rollout.checksum import checksum
from rollout.engine import EngineDied, EngineError, EngineOutput, SamplingSettings
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.trajectory import FinishReason, VersionSpan
from rollout.vllm_engine import VllmEngine, _read
from rollout.vllm_output import engine_output
from rollout.vllm_settings import engine_environment

Result = TypeVar("Result")


class Run(Protocol):
    def __call__(self, work: Coroutine[Any, Any, Result], /) -> Result: ...


SETTINGS = Engine(
    precision=Precision.FP32,
    threads_per_worker=1,
    tokens_per_sequence=512,
    sequences_at_once=64,
    kv_cache_gib=0.25,
)
LIMITS = ImageLimits(min_pixels=56 * 56, max_pixels=84 * 84)
QUESTION = "<image>What feeling does this picture carry? Choose one of: positive, neutral, negative."
BLOCK = 32  # tokens of a block of the prefix cache
TOLERANCE = 1e-3  # between two implementations of the same model in fp32


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs coroutines of all tests in one event loop, the engine's."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.mark.parametrize("told, threads", [(None, len(os.sched_getaffinity(0))), (3, 3)])
def test_on_cpus_an_engines_threads_share_the_cores_there_are(told: int | None, threads: int) -> None:
    with engine_environment(Engine(threads_per_worker=told)):
        own = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")}

    assert own == {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture(scope="module")
def engine(run: Run, tiny_model: Path) -> Iterator[VllmEngine]:
    """One engine for all tests: each uses weight versions of its own. Only the last may break it."""
    engine = run(VllmEngine.start(str(tiny_model), SETTINGS, LIMITS, watched=True))
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> ChatFormat:
    return ChatFormat(str(tiny_model), LIMITS)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Thirty-two questions, each about a picture of its own; sizes 56x56 and 84x56."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    asked = []
    for number in range(32):
        path = folder / f"{number}.png"
        pixels = generator.integers(0, 256, (56, 56 + 28 * (number % 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        asked.append(Prompt(f"picture-{number}", "test", (Message("user", QUESTION),), (str(path),)))
    return asked


TEXT_PROMPT = Prompt("text", "test", (Message("system", "Answer."), Message("user", "Which feeling?")))


def model_with(tiny_model: Path, seed: int | None = None) -> PreTrainedModel:
    """The tiny model in transformers, its weights moved at random where a seed is given."""
    model = AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.float32).eval()
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Named as the learner names them."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def logprobs_by_transformers(
    model: PreTrainedModel,
    chat: ChatFormat,
    prompt: Prompt,
    output: EngineOutput,
    temperature: float,
    barred: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """What the learner computes: a forward pass over prompt and response, barred tokens masked."""
    expanded = chat.expand(prompt)
    assert expanded.token_ids.tolist() == output.prompt_tokens.tolist()
    ids = torch.from_numpy(np.concatenate([output.prompt_tokens, output.tokens]).astype(np.int64))[None]
    inputs = {"input_ids": ids, "mm_token_type_ids": torch.eq(ids, chat.image_token_id or -1).long()}
    if expanded.pixel_values is not None and expanded.image_grid_thw is not None:
        inputs |= {"pixel_values": expanded.pixel_values, "image_grid_thw": expanded.image_grid_thw}
    with torch.no_grad():
        logits = model(**inputs).logits[0, len(output.prompt_tokens) - 1 : -1].float() / temperature
    logits[:, list(chat.barred_token_ids() if barred is None else barred)] = -torch.inf
    chosen = torch.from_numpy(output.tokens.astype(np.int64))
    return logits.log_softmax(-1)[torch.arange(len(chosen)), chosen].numpy()


async def sample(engine: VllmEngine, prompts: list[Prompt], settings: SamplingSettings) -> list[EngineOutput]:
    return list(await asyncio.gather(*(engine.generate(prompt, settings) for prompt in prompts)))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_transformers(
    engine: VllmEngine,
    run: Run,
    chat: ChatFormat,
    prompts: list[Prompt],
    tiny_model: Path,
    temperature: float,
) -> None:
    asked = [*prompts[:4], TEXT_PROMPT]

    outputs = run(sample(engine, asked, SamplingSettings(temperature, 24)))

    model = model_with(tiny_model)
    for prompt, output in zip(asked, outputs, strict=True):
        expected = logprobs_by_transformers(model, chat, prompt, output, temperature)
        np.testing.assert_allclose(output.logprobs, expected, atol=TOLERANCE)


def test_greedy_sampling_takes_the_likeliest_token(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt], tiny_model: Path
) -> None:
    first, second = run(sample(engine, [prompts[0]] * 2, SamplingSettings(0.0, 8)))

    assert first.tokens.tolist() == second.tokens.tolist()
    expected = logprobs_by_transformers(model_with(tiny_model), chat, prompts[0], first, temperature=1.0)
    np.testing.assert_allclose(first.logprobs, expected, atol=TOLERANCE)


def test_a_seed_decides_the_response(engine: VllmEngine, run: Run) -> None:
    settings = [SamplingSettings(1.0, 16, seed) for seed in (1, 1, 2)]

    one, same, other = (run(engine.generate(TEXT_PROMPT, each)) for each in settings)

    assert one.tokens.tolist() == same.tokens.tolist() != other.tokens.tolist()


def test_barred_tokens_are_never_sampled(engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt]) -> None:
    barred = set(chat.barred_token_ids())

    # A random model is almost uniform: without the bar about 70 of these 6,400 tokens would be barred.
    outputs = run(sample(engine, prompts * 4, SamplingSettings(2.0, 50)))

    assert len(barred) == 4
    assert not any(barred & set(output.tokens.tolist()) for output in outputs)


def test_a_response_ends_with_the_end_token_or_at_the_limit(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt]
) -> None:
    outputs = run(sample(engine, prompts * 2, SamplingSettings(2.0, 200)))

    assert {output.finish_reason for output in outputs} == {FinishReason.STOP, FinishReason.LENGTH}
    for output in outputs:
        stopped = output.finish_reason is FinishReason.STOP
        assert (output.tokens[-1] == chat.tokenizer.eos_token_id) == stopped
        assert len(output.tokens) == 200 or stopped
        assert chat.tokenizer.eos_token_id not in output.tokens[:-1]


def test_weights_change_while_requests_run(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt], tiny_model: Path
) -> None:
    model = model_with(tiny_model, seed=10)
    lengths = [20 + 8 * number for number in range(len(prompts))]  # when the first is done, the others are on their way

    async def update_in_flight() -> tuple[str, list[EngineOutput], list[EngineOutput]]:
        asked = zip(prompts, lengths, strict=True)
        running = [asyncio.create_task(engine.generate(one, SamplingSettings(1.0, length))) for one, length in asked]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        received = await engine.update_weights(10, weights_of(model))
        after = await sample(engine, prompts[:4], SamplingSettings(1.0, 24))
        return received, list(await asyncio.gather(*running)), after

    received, running, after = run(update_in_flight())

    assert received == checksum(weights_of(model))
    assert len(running) == 32
    for output in running:
        assert output.version_spans[0].start == 0
        assert output.version_spans[-1].end == len(output.tokens)
    assert any(len(output.version_spans) == 2 for output in running)
    for prompt, output in zip(prompts[:4], after, strict=True):
        assert output.version_spans == (VersionSpan(10, 0, len(output.tokens)),)
        expected = logprobs_by_transformers(model, chat, prompt, output, temperature=1.0)
        np.testing.assert_allclose(output.logprobs, expected, atol=TOLERANCE)


def test_samples_asked_for_together_share_their_prompts_reading_and_prefix_until_the_weights_change(
    engine: VllmEngine, run: Run, prompts: list[Prompt], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Prompt("shared", "test", (Message("user", QUESTION + " Think well." * 20),), prompts[1].images)
    read: list[Prompt] = []
    cached: list[int | None] = []

    def counted_read(chat: ChatFormat, prompt: Prompt) -> Any:
        read.append(prompt)
        return _read(chat, prompt)

    def noted_output(output: RequestOutput, started: float, seconds: float) -> EngineOutput:
        cached.append(output.num_cached_tokens)
        return engine_output(output, started, seconds)

    monkeypatch.setattr(vllm_engine, "_read", counted_read)
    monkeypatch.setattr(vllm_engine, "engine_output", noted_output)

    async def two_groups() -> int:
        outputs = await sample(engine, [asked] * 6, SamplingSettings(1.0, 4))
        await engine.update_weights(15, weights_of(model_with(tiny_model)))
        await sample(engine, [asked] * 6, SamplingSettings(1.0, 4))
        return len(outputs[0].prompt_tokens)

    length = run(two_groups())

    whole_blocks = (length - 1) // BLOCK * BLOCK  # the last token's logits are always computed
    assert read == [asked] * 2
    assert sorted(cached[:6]) == sorted(cached[6:]) == [0, *[whole_blocks] * 5]


def test_no_cache_outlives_its_weights(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt], tiny_model: Path
) -> None:
    # Long enough for several blocks of the prefix cache; the picture is in the encoder's cache too.
    long = Prompt("long", "test", (Message("user", QUESTION + " Think well." * 40),), prompts[0].images)
    settings = SamplingSettings(1.0, 4)
    model = model_with(tiny_model, seed=20)

    async def ask_before_and_after() -> tuple[EngineOutput, EngineOutput]:
        before = (await sample(engine, [long] * 4, settings))[-1]
        await engine.update_weights(20, weights_of(model))
        return before, await engine.generate(long, settings)

    before, after = run(ask_before_and_after())

    assert before.prompt_tokens.tolist() == after.prompt_tokens.tolist()
    expected = logprobs_by_transformers(model, chat, long, after, temperature=1.0)
    np.testing.assert_allclose(after.logprobs, expected, atol=TOLERANCE)


def test_weights_come_bucket_by_bucket_from_a_sender_that_the_engine_meets(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt], tiny_model: Path
) -> None:
    model = model_with(tiny_model, seed=25)
    weights = list(weights_of(model).items())
    buckets = [dict(weights[0::2]), dict(weights[1::2])]  # every layer that the engine fuses in two
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = Meeting("127.0.0.1", probe.getsockname()[1], engine.processes + 1, seconds=120.0)

    async def send_and_receive() -> str:
        sending = asyncio.create_task(asyncio.to_thread(send, meeting, buckets, torch.device("cpu")))
        received = await engine.receive_weights(25, meeting, layout_of(buckets))
        await sending
        return received

    received = run(send_and_receive())
    outputs = run(sample(engine, prompts[:2], SamplingSettings(1.0, 24)))

    assert received == checksum(weights_of(model))
    for prompt, output in zip(prompts, outputs, strict=False):
        assert output.version_spans == (VersionSpan(25, 0, len(output.tokens)),)
        expected = logprobs_by_transformers(model, chat, prompt, output, temperature=1.0)
        np.testing.assert_allclose(output.logprobs, expected, atol=TOLERANCE)


def test_a_probe_is_scored_under_the_weights_of_its_version_by_no_cache_and_with_no_token_barred(
    engine: VllmEngine, run: Run, chat: ChatFormat, prompts: list[Prompt], tiny_model: Path
) -> None:
    # Long enough for several blocks of the prefix cache, which others with the same prompt have filled.
    long = Prompt("long", "test", (Message("user", QUESTION + " Think well." * 20),), prompts[0].images)
    model = model_with(tiny_model, seed=27)

    async def under_load() -> list[tuple[Prompt, EngineOutput, NDArray[np.float32] | None]]:
        await sample(engine, [long] * 2, SamplingSettings(1.0, 4))
        await engine.update_weights(27, weights_of(model))
        loading = [asyncio.create_task(engine.generate(one, SamplingSettings(1.0, 60))) for one in prompts]
        asked = [long, TEXT_PROMPT]
        outputs = await sample(engine, asked, SamplingSettings(0.7, 24))
        assert await engine.logprobs(Probe(long, outputs[0].tokens), 26) is None
        found = [await engine.logprobs(Probe(p, o.tokens), 27) for p, o in zip(asked, outputs, strict=True)]
        await asyncio.gather(*loading)
        return list(zip(asked, outputs, found, strict=True))

    for prompt, output, found in run(under_load()):
        assert found is not None
        expected = logprobs_by_transformers(model, chat, prompt, output, temperature=1.0, barred=())
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_watched_engine_tells_of_its_requests_its_queue_and_its_cache(engine: VllmEngine, run: Run) -> None:
    async def burst() -> list[Occupancy]:
        engine.occupancy()
        settings = SamplingSettings(1.0, 200)
        running = [asyncio.create_task(engine.generate(TEXT_PROMPT, settings)) for _ in range(100)]
        await asyncio.sleep(0)  # all of them begin
        seen = [engine.occupancy()]
        while not all(request.done() for request in running):
            await asyncio.sleep(0.05)
            seen.append(engine.occupancy())
        return [*seen, engine.occupancy()]

    seen = run(burst())

    assert max(found.unfinished for found in seen) == 100
    assert sum(found.finished for found in seen) == 100
    assert 0 < max(found.waiting for found in seen) <= 36  # its batch has 64 places
    assert 0 < max(found.kv_use for found in seen) <= 1
    assert (seen[-1].unfinished, seen[-1].preempted) == (0, 0)


def test_a_version_that_is_not_newer_is_refused(engine: VllmEngine, run: Run, tiny_model: Path) -> None:
    weights = weights_of(model_with(tiny_model))
    run(engine.update_weights(30, weights))

    with pytest.raises(ValueError, match="the engine holds 30 already"):
        run(engine.update_weights(30, weights))


def test_a_prompt_that_leaves_no_room_is_refused(engine: VllmEngine, run: Run) -> None:
    with pytest.raises(ValueError, match=r"engine\.tokens_per_sequence is 512"):
        run(engine.generate(TEXT_PROMPT, SamplingSettings(1.0, 500)))


def test_a_cancelled_request_frees_its_place(engine: VllmEngine, run: Run, prompts: list[Prompt]) -> None:
    async def cancel_all_but_one() -> EngineOutput:
        settings = SamplingSettings(1.0, 20)
        running = [asyncio.ensure_future(engine.generate(prompts[0], settings)) for _ in range(4)]
        await asyncio.sleep(0)
        for request in running[1:]:
            request.cancel()
        return await running[0]

    assert len(run(cancel_all_but_one()).tokens) > 0


def test_weights_that_do_not_fit_close_the_engine(
    engine: VllmEngine, run: Run, prompts: list[Prompt], tiny_model: Path
) -> None:
    weights = weights_of(model_with(tiny_model))
    del weights[next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))]

    async def send_while_requests_run() -> list[BaseException]:
        async def ask_again_and_again() -> NoReturn:  # a single request might end by chance before the update
            while True:
                await engine.generate(prompts[0], SamplingSettings(1.0, 400))

        await engine.generate(prompts[0], SamplingSettings(1.0, 4))  # the picture is read: the next ones start at once
        running = [asyncio.ensure_future(ask_again_and_again()) for _ in range(4)]
        await asyncio.sleep(0.2)
        with pytest.raises(EngineDied, match="1 layers are incomplete"):
            await engine.update_weights(40, weights)
        return await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 30)

    errors = run(send_while_requests_run())
    assert [error for error in errors if not isinstance(error, EngineError)] == []
    with pytest.raises(EngineDied):
        run(engine.generate(prompts[0], SamplingSettings(1.0, 4)))


def test_an_engine_whose_process_is_killed_as_it_loads_weights_is_dead_at_once(run: Run, tiny_model: Path) -> None:
    async def kill_while_it_loads() -> None:
        others = engine_processes()
        engine = await VllmEngine.start(str(tiny_model), SETTINGS, LIMITS)
        (process,) = engine_processes() - others
        process.suspend()
        loading = asyncio.create_task(engine.update_weights(1, weights_of(model_with(tiny_model))))
        await asyncio.sleep(1)  # the call is on its way, and nothing else would notice
        process.kill()
        with pytest.raises(EngineDied, match="version 1 was not loaded"):
            await asyncio.wait_for(loading, 60)

    run(kill_while_it_loads())


def test_an_engine_whose_process_is_killed_as_it_starts_is_dead(run: Run, tiny_model: Path) -> None:
    others, over = engine_processes(), threading.Event()

    def kill_the_new_one() -> None:
        while not over.wait(0.05):
            for process in engine_processes() - others:
                with suppress(psutil.NoSuchProcess):  # it has ended since
                    process.kill()

    killer = threading.Thread(target=kill_the_new_one)  # the start holds the event loop
    killer.start()
    try:
        with pytest.raises(EngineDied, match="Engine core initialization failed"):
            run(VllmEngine.start(str(tiny_model), SETTINGS, LIMITS))
    finally:
        over.set()
        killer.join()


def engine_processes() -> set[psutil.Process]:
    """Of this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since
            if "EngineCor" in process.name():
                found.add(process)
    return found
