"""The learner's log-probabilities against the model's own: many models scale or cap what the last layer gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from configs.schema import Learner, Precision
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.policy import ResponseLogprobs, load_model
from learner.tree import Branches, ConfidenceTree
from rollout.chat import Expanded

VOCABULARY, BARRED, TEMPERATURE = 64, [3], 0.7
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
MODELS: dict[str, dict[str, object]] = {
    "llama": {},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.25},
    "gemma2": {"final_logit_softcapping": 0.5},
    "falcon_h1": {
        "lm_head_multiplier": 0.1,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 2,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
    },
}
CHANGED = sorted(MODELS.keys() - {"llama"})
TREE = ConfidenceTree(  # a confidence of token 5, then 6 or 7
    before=9,
    confidences=np.array([0.0, 1.0]),
    tokens=np.array([5], np.int32),
    depths=np.array([1]),
    visible=np.ones((1, 1), dtype=np.bool_),
    edge_nodes=np.array([0, 1, 1]),
    edge_tokens=np.array([5, 6, 7]),
    paths=np.array([[0, 1], [0, 2]]),
)


def saved(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **MODELS[kind]))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)  # so that scaling and capping matter
    model.save_pretrained(folder)
    return folder


def responses() -> list[TrainingSequence]:
    rng = np.random.default_rng(1)
    return [
        TrainingSequence(
            Expanded(rng.integers(10, VOCABULARY, prompt).astype(np.int32), None, None),
            rng.integers(10, VOCABULARY, length).astype(np.int32),
            np.ones(length, np.float32),
        )
        for prompt, length in ((4, 6), (7, 3))
    ]


def row(sequence: TrainingSequence) -> MicroBatch:
    return collate([[sequence]], pad_token_id=0, image_token_id=None)


def by_the_model(model: PreTrainedModel, sequence: TrainingSequence, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of tokens behind the sequence's prompt, from the logits that the model itself returns."""
    ids = torch.tensor([*sequence.prompt.token_ids.tolist(), *tokens])
    logits = model(input_ids=ids[None]).logits[0, -len(tokens) - 1 : -1].float() / TEMPERATURE
    logits[:, BARRED] = -torch.inf
    return logits.log_softmax(-1)[torch.arange(len(tokens)), ids[-len(tokens) :]]


@pytest.mark.parametrize("fp32_head", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_the_model_s_own_logits(kind: str, fp32_head: bool, tmp_path: Path) -> None:
    learner = Learner(precision=Precision.FP32, fp32_head=fp32_head)
    model = load_model(str(saved(tmp_path, kind)), learner).eval()
    module = ResponseLogprobs(model, BARRED, TEMPERATURE)

    with torch.no_grad():
        for sequence in responses():
            found = module(row(sequence))
            torch.testing.assert_close(found, by_the_model(model, sequence, sequence.response_tokens.tolist()))


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "falcon_h1"])  # recurrent: it takes no branches
def test_so_are_those_of_the_confidences_it_could_have_stated(kind: str, tmp_path: Path) -> None:
    model = load_model(str(saved(tmp_path, kind)), Learner(precision=Precision.FP32)).eval()
    tokens = [20, TREE.before, 5, 7, 21]
    sequence = responses()[0]
    branched = TrainingSequence(
        sequence.prompt, np.array(tokens, np.int32), np.ones(5, np.float32), branches=Branches(TREE, 1, np.ones(2), 1.0)
    )

    with torch.no_grad():
        edges = ResponseLogprobs(model, BARRED, TEMPERATURE)(row(branched))[len(tokens) :]
        stated = [by_the_model(model, sequence, [*tokens[:2], 5, last])[2:] for last in (6, 7)]

    torch.testing.assert_close(edges, torch.stack([stated[0][0], stated[0][1], stated[1][1]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CHANGED)
def test_the_last_layer_s_own_output_would_be_another_policy(kind: str, tmp_path: Path) -> None:
    model = load_model(str(saved(tmp_path, kind)), Learner(precision=Precision.FP32)).eval()
    ids = torch.from_numpy(responses()[0].prompt.token_ids).long()[None]

    with torch.no_grad():
        plain = model.get_output_embeddings()(model.model(input_ids=ids).last_hidden_state)

        assert (plain.log_softmax(-1) - model(input_ids=ids).logits.log_softmax(-1)).abs().max() > 0.1
