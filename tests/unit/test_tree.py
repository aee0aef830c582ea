from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from configs.schema import Learner, Precision, Response
from learner.batching import MicroBatch, TrainingSequence, collate
from learner.policy import ResponseLogprobs, load_model
from learner.scratch import train_tokenizer
from learner.tree import Branches, ConfidenceTree, confidence_tree
from rollout.chat import Expanded

GRID = Response(confidence_step=0.05).confidences
SOME = {text: float(text) for text in ("0.00", "0.05", "0.55", "0.90", "1.00")}
BARRED, TEMPERATURE = [3], 0.7


@pytest.fixture(scope="session")
def digits() -> PreTrainedTokenizerBase:
    """Digit by digit, each tag one token."""
    return train_tokenizer(["<answer>joy</answer><confidence>0.62</confidence>"], ("answer", "confidence"), 300)


@pytest.fixture(scope="session")
def merged() -> PreTrainedTokenizerBase:
    """Pairs of characters that are frequent are tokens, across the edges of tags and numbers too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [f">{c}<" for c in GRID if c.startswith("0.")]
    trainer = trainers.BpeTrainer(vocab_size=264, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(params=["digits", "merged"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = request.getfixturevalue(request.param)
    return found


def path_tokens(tree: ConfidenceTree, number: int) -> list[int]:
    return [int(tree.edge_tokens[edge]) for edge in tree.paths[number] if edge < len(tree.edge_tokens)]


def test_every_path_spells_its_confidence(tokenizer: PreTrainedTokenizerBase) -> None:
    tree = confidence_tree(tokenizer, GRID)

    for number, text in enumerate(GRID):
        spelt = tokenizer.decode([tree.before, *path_tokens(tree, number)])
        assert spelt.rpartition(">")[2].partition("<")[0] == text
    assert tree.confidences.tolist() == [*GRID.values()]


def test_tokens_may_reach_over_the_numbers_edges(merged: PreTrainedTokenizerBase) -> None:
    tree = confidence_tree(merged, GRID)

    assert any(merged.decode(path_tokens(tree, k)) != text for k, text in enumerate(GRID))


def test_shared_beginnings_are_computed_once(digits: PreTrainedTokenizerBase) -> None:
    tree = confidence_tree(digits, GRID)

    # "0", "0.", "0.0" to "0.9", and "1", "1.", "1.0"; their last digits are no nodes.
    assert len(tree.tokens) == 15
    assert sorted(tree.depths.tolist()) == [1, 1, 2, 2, *[3] * 11]
    assert len(tree.edge_tokens) == 15 + len(GRID)


def test_confidences_of_one_token_each_need_no_tokens_of_the_trees_own(digits: PreTrainedTokenizerBase) -> None:
    tree = confidence_tree(digits, {"0": 0.0, "1": 1.0})

    assert (tree.tokens.shape, tree.visible.shape) == ((0,), (0, 0))
    assert (tree.edge_nodes.tolist(), tree.paths.tolist()) == ([0, 0], [[0], [1]])


def test_a_confidence_that_begins_another_is_told_apart_by_the_closing_tag(digits: PreTrainedTokenizerBase) -> None:
    tree = confidence_tree(digits, {"0": 0.0, "0.5": 0.5})

    assert [digits.decode(path_tokens(tree, k)) for k in range(2)] == ["0</confidence>", "0.5</confidence>"]


class Alike:
    """A tokenizer to which all words are the same one."""

    def __call__(self, text: str, **_: object) -> dict[str, list[object]]:
        begin, end = text.index("ce>") + 3, text.rindex("</")
        return {"input_ids": [7, 8, 9], "offset_mapping": [(0, begin), (begin, end), (end, len(text))]}


def test_confidences_of_the_same_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="in tokens, even, odd are not different"):
        confidence_tree(cast(PreTrainedTokenizerBase, Alike()), {"even": 0.5, "odd": 0.4})


# --- in a forward pass


def sequence(
    rng: np.random.Generator, prompt: Expanded, tree: ConfidenceTree, vocabulary: int, *, branched: bool
) -> TrainingSequence:
    """A response that states some confidence, and goes on behind it."""
    before, after = (rng.integers(5, vocabulary, size=n).tolist() for n in rng.integers(1, 6, size=2))
    stated = path_tokens(tree, int(rng.integers(len(tree.confidences))))
    tokens = np.array([*before, tree.before, *stated, *after], np.int32)
    branches = Branches(tree, len(before), rng.uniform(0, 2, len(tree.confidences)), 3.0) if branched else None
    return TrainingSequence(prompt, tokens, np.ones(len(tokens), np.float32), branches=branches)


def text_case(tokenizer: PreTrainedTokenizerBase, attention: str) -> tuple[PreTrainedModel, list[TrainingSequence]]:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_implementation=attention,
    )
    rng, tree = np.random.default_rng(1), confidence_tree(tokenizer, SOME)
    prompts = [Expanded(rng.integers(5, len(tokenizer), n).astype(np.int32), None, None) for n in (4, 7, 2)]
    branched = (True, False, True)
    made = [sequence(rng, p, tree, len(tokenizer), branched=b) for p, b in zip(prompts, branched, strict=True)]
    return Qwen2ForCausalLM(config).double(), made


def picture_case(tiny_model: Path) -> tuple[PreTrainedModel, list[TrainingSequence], int]:
    from rollout.chat import ChatFormat, ImageLimits

    chat = ChatFormat(str(tiny_model), ImageLimits())
    model = AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.float64)
    assert chat.image_token_id is not None
    rng, tree = np.random.default_rng(2), confidence_tree(chat.tokenizer, SOME)
    prompts = []
    for height, width in ((4, 4), (8, 4)):  # patches; two by two are one token
        ids = [11, 12, *[chat.image_token_id] * (height * width // 4), 13]
        pixels = torch.from_numpy(rng.normal(size=(height * width, 3 * 2 * 14 * 14)))
        prompts.append(Expanded(np.array(ids, np.int32), pixels, torch.tensor([[1, height, width]])))
    made = [sequence(rng, p, tree, 200, branched=b) for p, b in zip(prompts, (True, True), strict=True)]
    return model, made, chat.image_token_id


def collated(sequences: list[TrainingSequence], image_token_id: int | None = None) -> MicroBatch:
    return collate([[made] for made in sequences], pad_token_id=0, image_token_id=image_token_id)


def one_by_one(module: ResponseLogprobs, sequences: list[TrainingSequence], image_token_id: int | None) -> torch.Tensor:
    """The expected reward, each confidence put through the model as a response of its own."""
    total = torch.zeros((), dtype=torch.float64)
    for made in sequences:
        if (branches := made.branches) is None:
            continue
        for number, value in enumerate(branches.values):
            path = path_tokens(branches.tree, number)
            tokens = np.array([*made.response_tokens[: branches.anchor + 1], *path], np.int32)
            weights = np.ones(len(tokens), np.float32)
            batch = collated([TrainingSequence(made.prompt, tokens, weights)], image_token_id)
            total = total + branches.weight * value * module(batch)[-len(path) :].sum().exp()
    return total


def gradients(model: PreTrainedModel, value: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_value_and_gradients(model: PreTrainedModel, value: torch.Tensor, reference: torch.Tensor) -> None:
    assert value.item() == pytest.approx(reference.item(), rel=1e-5)
    found, right = gradients(model, value), gradients(model, reference)
    assert found.keys() == right.keys()
    for name in right:
        torch.testing.assert_close(found[name], right[name], rtol=1e-4, atol=1e-6)


def assert_same(model: PreTrainedModel, sequences: list[TrainingSequence], image_token_id: int | None = None) -> None:
    module = ResponseLogprobs(model, BARRED, TEMPERATURE)
    batch = collated(sequences, image_token_id)
    assert batch.tree is not None

    expected = batch.tree.expected(module(batch)[len(batch.targets) :])
    reference = one_by_one(module, sequences, image_token_id)

    assert_same_value_and_gradients(model, expected, reference)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_expected_reward_and_its_gradient_are_those_of_every_confidence_by_itself(
    tokenizer: PreTrainedTokenizerBase, attention: str
) -> None:
    model, sequences = text_case(tokenizer, attention)

    assert_same(model, sequences)


def test_so_they_are_with_pictures_whose_tokens_have_positions_in_three_dimensions(tiny_model: Path) -> None:
    model, sequences, image_token_id = picture_case(tiny_model)

    assert_same(model, sequences, image_token_id)


def test_the_sampled_tokens_do_not_see_the_branches(tiny_model: Path) -> None:
    model, sequences, image_token_id = picture_case(tiny_model)
    module = ResponseLogprobs(model, BARRED, TEMPERATURE)
    with_branches = collated(sequences, image_token_id)
    without = collated([replace(made, branches=None) for made in sequences], image_token_id)

    with torch.no_grad():
        found = module(with_branches)[: len(with_branches.targets)]
        torch.testing.assert_close(found, module(without), rtol=1e-5, atol=1e-6)


def test_a_dummy_expects_nothing(digits: PreTrainedTokenizerBase) -> None:
    model, sequences = text_case(digits, "sdpa")
    dummy = collated(sequences).as_dummy()
    assert dummy.tree is not None

    edges = ResponseLogprobs(model, BARRED, TEMPERATURE)(dummy)[len(dummy.targets) :]

    assert dummy.tree.expected(edges).item() == 0


# --- a group in one row


def groups_of(
    sequences: list[TrainingSequence], tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> list[list[TrainingSequence]]:
    """Three responses to each prompt: the one given, one without branches, one with."""
    rng, tree = np.random.default_rng(3), confidence_tree(tokenizer, SOME)
    more = [[sequence(rng, s.prompt, tree, vocabulary, branched=b) for b in (False, True)] for s in sequences]
    return [[first, *others] for first, others in zip(sequences, more, strict=True)]


def assert_prompts_can_be_shared(
    model: PreTrainedModel, groups: list[list[TrainingSequence]], image_token_id: int | None = None
) -> None:
    module = ResponseLogprobs(model, BARRED, TEMPERATURE)
    shared = collate(groups, pad_token_id=0, image_token_id=image_token_id)
    apart = collated([*chain(*groups)], image_token_id)
    assert len(shared.input_ids) == len(groups) < len(apart.input_ids)
    rng = np.random.default_rng(4)
    advantages = torch.from_numpy(rng.normal(size=len(apart.targets)))

    def loss(batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        found = module(batch)
        logprobs, edges = found[: len(batch.targets)], found[len(batch.targets) :]
        assert batch.tree is not None
        return logprobs.detach(), (advantages * logprobs).sum() - batch.tree.expected(edges)

    found, shared_loss = loss(shared)
    right, apart_loss = loss(apart)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    assert_same_value_and_gradients(model, shared_loss, apart_loss)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_group_that_shares_its_prompt_has_the_losses_and_gradients_of_its_responses_one_by_one(
    digits: PreTrainedTokenizerBase, attention: str
) -> None:
    model, sequences = text_case(digits, attention)

    assert_prompts_can_be_shared(model, groups_of(sequences, digits, len(digits)))


def test_so_it_has_with_pictures_which_are_encoded_once(tiny_model: Path) -> None:
    model, sequences, image_token_id = picture_case(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    assert_prompts_can_be_shared(model, groups_of(sequences, tokenizer, 200), image_token_id)


def test_what_is_recomputed_in_the_backward_pass_gives_the_same_gradients_of_shared_rows_with_pictures(
    tiny_model: Path,
) -> None:
    _, sequences, image_token_id = picture_case(tiny_model)
    groups = groups_of(sequences, AutoTokenizer.from_pretrained(tiny_model), 200)
    batch = collate(groups, pad_token_id=0, image_token_id=image_token_id)
    tree, tokens = batch.tree, len(batch.targets)
    assert tree is not None and batch.pixel_values is not None

    def found(gradient_checkpointing: bool) -> tuple[int, dict[str, torch.Tensor]]:
        """How often the first layers of both towers were gone through, and the gradients."""
        passes: list[torch.nn.Module] = []
        settings = Learner(precision=Precision.FP32, gradient_checkpointing=gradient_checkpointing)
        model = load_model(str(tiny_model), settings).double().train()
        for attention in (model.model.language_model.layers[0].self_attn, model.model.visual.blocks[0].attn):
            attention.register_forward_pre_hook(lambda module, _: passes.append(module))
        logprobs = ResponseLogprobs(model, BARRED, TEMPERATURE)(batch)
        made = gradients(model, logprobs[:tokens].sum() + tree.expected(logprobs[tokens:]))
        return len(passes), made

    (once, right), (twice, recomputed) = found(False), found(True)

    assert recomputed.keys() == right.keys()
    for name in right:
        torch.testing.assert_close(recomputed[name], right[name])
    assert (once, twice) == (2, 4)
