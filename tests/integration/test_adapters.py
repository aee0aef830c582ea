"""Adapters alone in the real vLLM, a Qwen2.5-VL and a Llama in fp32: held against transformers with peft's layers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForCausalLM, PreTrainedModel
from vllm.config.lora import MaxLoRARanks

from configs.derive import LARGEST_ADAPTER_RANK
from configs.schema import Lora, Precision
from learner.architecture import with_targets
from learner.gguf_model import unpack_gguf
from learner.lora import adapter_parameters, add_adapters
from rollout.chat import ChatFormat, ImageLimits
from rollout.checksum import checksum
from rollout.engine import EngineDied, EngineOutput, SamplingSettings
from rollout.probe import Probe
from rollout.prompts import Message, Prompt
from rollout.trajectory import VersionSpan
from rollout.vllm_engine import VllmEngine
from tests.integration import test_text_only as text_only
from tests.integration.test_vllm_engine import (
    LIMITS,
    QUESTION,
    SETTINGS,
    TEXT_PROMPT,
    TOLERANCE,
    Run,
    logprobs_by_transformers,
    model_with,
    sample,
)
from tests.unit.gguf_file import small_llama, write_gguf

pytestmark = pytest.mark.integration

LORA = Lora(rank=4, alpha=6)  # scaled by 1.5, and of a rank between those that vLLM makes room for
Expected = Callable[[Prompt, EngineOutput], NDArray[np.float32]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def engine(run: Run, tiny_model: Path) -> Iterator[VllmEngine]:
    """One engine for all tests: each uses weight versions of its own, in their order. Only the last may break it."""
    engine = run(VllmEngine.start(str(tiny_model), SETTINGS, LIMITS, adapters=with_targets(LORA, tiny_model)))
    yield engine
    run(engine.close())


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    path = tmp_path_factory.mktemp("pictures") / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)).save(path)
    # Long enough for several blocks of the prefix cache; the picture is in the encoder's cache too.
    return Prompt("picture", "test", (Message("user", QUESTION + " Think well." * 20),), (str(path),))


def adapted(model: PreTrainedModel, lora: Lora, seed: int) -> PreTrainedModel:
    """The model with adapters as if they had been trained."""
    add_adapters(model, lora)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for found in adapter_parameters(model):
            found.parameter.copy_(0.3 * torch.randn(found.parameter.shape, generator=generator))
    return model.eval()


def sent(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What the learner sends."""
    return {found.name: found.merged() for found in adapter_parameters(model)}


def by_transformers(tiny_model: Path, seed: int | None, barred: Sequence[int] | None = None) -> Expected:
    """Log-probabilities of the model itself, or of the model with adapters."""
    model, chat = model_with(tiny_model), ChatFormat(str(tiny_model), LIMITS)
    if seed is not None:
        adapted(model, LORA, seed)
    return lambda prompt, output: logprobs_by_transformers(model, chat, prompt, output, 1.0, barred)


def test_requests_in_flight_go_on_under_the_new_adapters_and_their_spans_say_so(
    engine: VllmEngine, run: Run, picture: Prompt, tiny_model: Path
) -> None:
    weights = sent(adapted(model_with(tiny_model), LORA, seed=1))
    base = by_transformers(tiny_model, None)
    prompts = [picture, TEXT_PROMPT] * 4

    async def update_in_flight() -> tuple[str, list[EngineOutput]]:
        await engine.generate(picture, SamplingSettings(1.0, 4))  # the picture is read: the next ones start at once
        running = [
            asyncio.create_task(engine.generate(prompt, SamplingSettings(1.0, length)))
            for prompt, length in zip(prompts, range(20, 180, 20), strict=True)
        ]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)  # the others are on their way
        received = await engine.update_weights(1, weights)
        return received, list(await asyncio.gather(*running))

    received, outputs = run(update_in_flight())

    assert received == checksum(weights)
    crossing = [output for output in outputs if len(output.version_spans) == 2]
    assert crossing
    moved = []
    for prompt, output in zip(prompts, outputs, strict=True):
        if output in crossing:
            first, second = output.version_spans
            assert (first, second) == (VersionSpan(0, 0, first.end), VersionSpan(1, first.end, len(output.tokens)))
            expected = base(prompt, output)
            np.testing.assert_allclose(output.logprobs[: first.end], expected[: first.end], atol=TOLERANCE)
            moved.append(np.abs(output.logprobs[first.end :] - expected[first.end :]))
    assert np.concatenate(moved).max() > 100 * TOLERANCE  # of all: a single output may have few tokens left


@pytest.mark.parametrize("version", [2, 3])
def test_after_an_update_logprobs_are_those_of_the_model_with_its_adapters_and_no_cache_is_older(
    engine: VllmEngine, run: Run, picture: Prompt, tiny_model: Path, version: int
) -> None:
    run(sample(engine, [picture] * 2, SamplingSettings(1.0, 4)))  # caches under the version before

    run(engine.update_weights(version, sent(adapted(model_with(tiny_model), LORA, seed=version))))
    outputs = run(sample(engine, [picture, TEXT_PROMPT], SamplingSettings(1.0, 24)))
    probed = run(engine.logprobs(Probe(picture, outputs[0].tokens), version))

    assert probed is not None
    expected = by_transformers(tiny_model, version)
    plain = by_transformers(tiny_model, version, barred=())
    np.testing.assert_allclose(probed, plain(picture, outputs[0]), atol=TOLERANCE)
    for prompt, output in zip([picture, TEXT_PROMPT], outputs, strict=True):
        assert output.version_spans == (VersionSpan(version, 0, len(output.tokens)),)
        np.testing.assert_allclose(output.logprobs, expected(prompt, output), atol=TOLERANCE)


def test_adapters_that_fit_no_layer_close_the_engine(
    engine: VllmEngine, run: Run, picture: Prompt, tiny_model: Path
) -> None:
    weights = sent(adapted(model_with(tiny_model), LORA, seed=4))
    elsewhere = {name.replace("layers.1.", "layers.7."): tensor for name, tensor in weights.items()}

    with pytest.raises(EngineDied, match=r"values are in a layer .* none for .*layers\.7\."):
        run(engine.update_weights(4, elsewhere))
    with pytest.raises(EngineDied):
        run(engine.generate(picture, SamplingSettings(1.0, 4)))


def test_a_text_only_model_takes_adapters_of_some_of_its_layers(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", small_llama())
    folder = tmp_path / "model"
    unpack_gguf(tmp_path / "small.gguf", folder, Precision.FP32)
    lora = Lora(rank=9, targets=("q_proj", "v_proj", "down_proj"))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = adapted(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), lora, seed=1)

    async def before_and_after() -> tuple[list[EngineOutput], list[EngineOutput]]:
        engine = await VllmEngine.start(str(folder), text_only.SETTINGS, ImageLimits(), adapters=lora)
        try:
            before = await sample(engine, text_only.PROMPTS, SamplingSettings(1.0, 24))
            await engine.update_weights(1, sent(model))
            return before, await sample(engine, text_only.PROMPTS, SamplingSettings(1.0, 24))
        finally:
            await engine.close()

    for held, outputs in zip((base, model), asyncio.run(before_and_after()), strict=True):
        for output in outputs:
            np.testing.assert_allclose(output.logprobs, text_only.by_transformers(held, output), atol=TOLERANCE)


def test_the_largest_rank_that_recipes_may_have_is_vllms() -> None:
    assert max(get_args(MaxLoRARanks)) == LARGEST_ADAPTER_RANK
