"""An engine whose weights are split over two processes, on the CPU, held against transformers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from PIL import Image

from rollout.chat import ChatFormat
from rollout.checksum import checksum
from rollout.engine import EngineOutput, SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.vllm_engine import VllmEngine
from tests.integration.test_vllm_engine import (
    LIMITS,
    QUESTION,
    SETTINGS,
    TEXT_PROMPT,
    TOLERANCE,
    logprobs_by_transformers,
    model_with,
    sample,
    weights_of,
)

SPLIT = SETTINGS.model_copy(update={"tensor_parallel": 2})
SAMPLING = SamplingSettings(1.0, 24)


def test_a_split_engine_samples_and_takes_up_new_weights_as_a_whole_one_does(tiny_model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    picture = Prompt("picture", "test", (Message("user", QUESTION),), (str(tmp_path / "picture.png"),))
    prompts = [picture, TEXT_PROMPT]
    old, new = model_with(tiny_model), model_with(tiny_model, seed=10)

    async def before_and_after() -> tuple[list[EngineOutput], str, list[EngineOutput]]:
        engine = await VllmEngine.start(str(tiny_model), SPLIT, LIMITS)
        try:
            before = await sample(engine, prompts, SAMPLING)
            received = await engine.update_weights(1, weights_of(new))
            return before, received, await sample(engine, prompts, SAMPLING)
        finally:
            await engine.close()

    before, received, after = asyncio.run(before_and_after())

    assert received == checksum(weights_of(new))
    chat = ChatFormat(str(tiny_model), LIMITS)
    for prompt, first, second in zip(prompts, before, after, strict=True):
        expected = logprobs_by_transformers(old, chat, prompt, first, temperature=1.0)
        np.testing.assert_allclose(first.logprobs, expected, atol=TOLERANCE)
        expected = logprobs_by_transformers(new, chat, prompt, second, temperature=1.0)
        np.testing.assert_allclose(second.logprobs, expected, atol=TOLERANCE)
