"""A text-only model, out of a GGUF file, in the real vLLM: held against transformers, before and after an update."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from configs.schema import Engine, Learner, Precision
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.gguf_model import unpack_gguf
from learner.policy import ResponseLogprobs, load_model
from rollout.chat import ChatFormat, Expanded, ImageLimits
from rollout.engine import EngineOutput, SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.vllm_engine import VllmEngine
from tests.unit.gguf_file import small_llama, write_gguf

pytestmark = pytest.mark.integration

SETTINGS = Engine(
    precision=Precision.FP32,
    tokens_per_sequence=128,
    sequences_at_once=8,
    kv_cache_gib=0.25,
)
PROMPTS = [Prompt(word, "words", (Message("system", "Which?"), Message("user", word))) for word in ("joy", "gloom")]
TOLERANCE = 1e-3  # between two implementations of the same model in fp32


def test_a_text_only_models_logprobs_are_those_of_transformers_and_follow_its_weights(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", small_llama())
    folder = tmp_path / "model"
    unpack_gguf(tmp_path / "small.gguf", folder, Precision.FP32)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = ChatFormat(str(folder), ImageLimits())

    before, after = asyncio.run(sampled_before_and_after(folder, moved(model)))

    for prompt, output in zip(PROMPTS, before, strict=True):
        assert output.prompt_tokens.tolist() == chat.expand(prompt).token_ids.tolist()
        np.testing.assert_allclose(output.logprobs, by_transformers(model, output), atol=TOLERANCE)
    for output in after:
        np.testing.assert_allclose(output.logprobs, by_transformers(moved(model), output), atol=TOLERANCE)
        assert np.abs(output.logprobs - by_transformers(model, output)).max() > 10 * TOLERANCE


def test_an_fp32_head_s_logprobs_are_the_learner_s(tmp_path: Path) -> None:
    """With layers that add nothing engine and learner differ in their heads alone."""
    model = small_llama()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    write_gguf(tmp_path / "small.gguf", model)
    folder = tmp_path / "model"
    unpack_gguf(tmp_path / "small.gguf", folder, Precision.BF16)
    module = ResponseLogprobs(load_model(str(folder), Learner(precision=Precision.BF16, fp32_head=True)), (), 1.0)

    apart = {}
    for fp32_head in (False, True):
        settings = SETTINGS.model_copy(update={"precision": Precision.BF16, "fp32_head": fp32_head})
        outputs = asyncio.run(sampled(folder, settings))
        with torch.no_grad():
            apart[fp32_head] = max(np.abs(module(row(o)).numpy() - o.logprobs).max() for o in outputs)

    assert apart[True] < 1e-5 < 1e-3 < apart[False]


def test_in_bf16_engine_and_learner_differ_by_no_more_than_their_own_rounding(tmp_path: Path) -> None:
    write_gguf(tmp_path / "small.gguf", small_llama())
    folder = tmp_path / "model"
    unpack_gguf(tmp_path / "small.gguf", folder, Precision.BF16)
    outputs = asyncio.run(sampled(folder, SETTINGS.model_copy(update={"precision": Precision.BF16}), PROMPTS * 8))

    found = {}
    for precision in (Precision.BF16, Precision.FP32):
        module = ResponseLogprobs(load_model(str(folder), Learner(precision=precision)), (), 1.0)
        with torch.no_grad():
            found[precision] = np.concatenate([module(row(output)).numpy() for output in outputs])

    sampled_with = np.concatenate([output.logprobs for output in outputs])
    apart, rounding = (np.abs(found[Precision.BF16] - other).mean() for other in (sampled_with, found[Precision.FP32]))
    assert len(sampled_with) > 500
    assert 0 < apart < 2 * rounding < 0.1  # were they independent, 1.4 times


async def sampled(folder: Path, settings: Engine, prompts: Sequence[Prompt] = PROMPTS) -> list[EngineOutput]:
    engine = await VllmEngine.start(str(folder), settings, ImageLimits())
    try:
        return await asyncio.gather(*(engine.generate(prompt, SamplingSettings(1.0, 48)) for prompt in prompts))
    finally:
        await engine.close()


def row(output: EngineOutput) -> MicroBatch:
    """The learner's input for one response."""
    prompt = Expanded(output.prompt_tokens, None, None)
    sequence = TrainingSequence(prompt, output.tokens, np.ones(len(output.tokens), np.float32))
    return collate([[sequence]], pad_token_id=0, image_token_id=None)


async def sampled_before_and_after(
    folder: Path, other: PreTrainedModel
) -> tuple[list[EngineOutput], list[EngineOutput]]:
    engine = await VllmEngine.start(str(folder), SETTINGS, ImageLimits())
    try:
        settings = SamplingSettings(1.0, 24)
        before = [await engine.generate(prompt, settings) for prompt in PROMPTS]
        # Named as the learner names them: tied embeddings come once.
        await engine.update_weights(1, {name: parameter.detach() for name, parameter in other.named_parameters()})
        return before, [await engine.generate(prompt, settings) for prompt in PROMPTS]
    finally:
        await engine.close()


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """The same with every weight moved a little."""
    other = AutoModelForCausalLM.from_config(model.config)
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return other.eval()


def by_transformers(model: PreTrainedModel, output: EngineOutput) -> NDArray[np.float32]:
    """Log-probabilities of the sampled tokens."""
    ids = torch.from_numpy(np.concatenate([output.prompt_tokens, output.tokens]).astype(np.int64))
    with torch.no_grad():
        table = model(ids[None]).logits[0, len(output.prompt_tokens) - 1 : -1].float().log_softmax(-1)
    return table[torch.arange(len(output.tokens)), ids[len(output.prompt_tokens) :]].numpy()
