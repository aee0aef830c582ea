"""Exports of a run with a tiny model: their files and their card. A stand-in says what the libraries make of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

import cluster.export_evaluation
from cluster.card_training import training
from cluster.cli import main
from cluster.export import Form, export
from cluster.export_check import Checked, ExportDiffers, Question
from cluster.export_source import Source
from cluster.metrics_files import write_metrics
from cluster.predictions import read_predictions
from cluster.run_folder import RunFolder
from cluster.score import outcomes
from configs.load import load_recipe
from configs.schema import Engine, Recipe
from learner.adapter_files import Adapter
from learner.architecture import size_of
from rewards.parse import parse
from rewards.parts import MatchError
from rewards.tasks import OVERALL, by_task
from rollout.chat import ChatFormat
from tests.unit.finished_run import CANDIDATES, DEMO, LIMITS, RESPONSES, finished_run

FOUND = Checked("vLLM", "0.0", {"text": 1e-7, "picture": 2e-7}, "a log-probability", 1e-3)


class Check:
    """Finds nothing wrong, and keeps what it was given."""

    def __call__(
        self,
        folder: Path,
        kind: str,
        chat: ChatFormat,
        questions: Sequence[Question],
        engine: Engine,
        adapter: Adapter | None,
    ) -> list[Checked]:
        self.folder, self.kind, self.questions, self.adapter = folder, kind, questions, adapter
        return [FOUND]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Recipe:
    return finished_run(tmp_path_factory.mktemp("export"), tiny_model)


@pytest.fixture(scope="module")
def exported(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "my-model"
    export(Source.of(Path(recipe.output), None), folder, Form.MERGED, Check())
    return folder


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def code(folder: Path, after: str, language: str) -> str:
    """The first block of code after these words."""
    found = re.search(rf"```{language}\n(.*?)\n```", card(folder).split(after, 1)[1], re.DOTALL)
    assert found is not None
    return found[1]


# --- files


def test_the_weights_are_the_stage_s_and_what_stands_around_them_is_whole(recipe: Recipe, exported: Path) -> None:
    model = RunFolder.of(recipe).stage(3).model

    assert (exported / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert (exported / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert {path.name for path in exported.iterdir()} == {
        *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("processor_config.json", "chat_template.jinja", "README.md", "reliability-seen.svg", "ATTRIBUTION.txt"),
    }
    assert (exported.stat().st_mode & 0o777) == 0o755


def test_pictures_are_scaled_as_the_recipe_has_it_by_whoever_loads_the_processor(exported: Path) -> None:
    size = AutoProcessor.from_pretrained(exported).image_processor.size

    low, high = (int(limit.partition("=")[2]) for limit in LIMITS)
    assert (size["shortest_edge"], size["longest_edge"]) == (low, high)


def test_the_generation_settings_are_the_evaluation_s(exported: Path, recipe: Recipe) -> None:
    settings = json.loads((exported / "generation_config.json").read_text())

    config = json.loads((exported / "config.json").read_text())
    assert settings["do_sample"] is True
    assert (settings["temperature"], settings["top_p"], settings["top_k"]) == (1.0, 1.0, 0)
    assert settings["max_new_tokens"] == recipe.evaluation.response_tokens
    assert settings["eos_token_id"] == config["text_config"]["eos_token_id"]
    assert config["image_token_id"] in settings["suppress_tokens"]


def test_a_greedy_evaluation_makes_a_greedy_default(tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, "evaluation.temperature=0")

    export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, Check())

    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["do_sample"] is False and "temperature" not in settings
    assert "SamplingParams(temperature=0," in card(tmp_path / "out")


# --- what is asked of the libraries


def test_a_text_and_a_picture_are_asked_about_with_what_the_model_says_of_them(recipe: Recipe, tmp_path: Path) -> None:
    check = Check()

    export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, check)

    assert [question.kind for question in check.questions] == ["text", "picture"]
    assert check.kind == "AutoModelForImageTextToText"
    for question in check.questions:
        assert len(question.expected.prompt_logprobs) == len(question.expected.token_ids) - 1
        assert question.expected.logits.isfinite().all()
    text, picture = check.questions
    assert len(picture.expected.token_ids) > len(text.expected.token_ids) + 2  # a token for each feature


def test_a_refused_export_is_left_under_another_name_and_said_where(recipe: Recipe, tmp_path: Path) -> None:
    def differs(*given: Any) -> list[Checked]:
        raise ExportDiffers("it says something else")

    with pytest.raises(ExportDiffers, match="something else") as refused:
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, differs)

    (aside,) = tmp_path.iterdir()
    assert str(refused.value).endswith(f"left in {aside}")
    assert aside.name.startswith(".out-") and (aside / "model.safetensors").exists()


def test_an_export_that_fails_or_is_interrupted_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    def interrupted(*given: Any) -> list[Checked]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, interrupted)

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    with pytest.raises(FileExistsError, match="mine exists: choose another"):
        export(Source.of(Path(recipe.output), None), tmp_path / "mine", Form.MERGED, Check())

    assert list((tmp_path / "mine").iterdir()) == []


def test_the_command_tells_a_mistake_in_a_line(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", recipe.output, str(tmp_path)]) == 2

    assert capsys.readouterr().err == (
        f"caliber export: {tmp_path} exists: choose another folder, nothing is overwritten\n"
    )


# --- the card


def test_the_front_matter_is_yaml_that_the_hub_knows(exported: Path) -> None:
    _, front, _ = card(exported).split("---\n", 2)

    read = yaml.safe_load(front)
    assert read["library_name"] == "transformers"
    assert read["pipeline_tag"] == "image-text-to-text"
    assert "base_model" not in read  # random weights have no name
    (result,) = read["model-index"][0]["results"]
    assert result["dataset"]["name"] == "seen"
    assert {metric["type"] for metric in result["metrics"]} >= {"accuracy", "brier_score"}


def test_the_base_model_is_named_where_it_has_a_hub_id(tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, "model.scratch=null", "model.path=some/model-7b")

    export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.MERGED, Check())

    assert yaml.safe_load(card(tmp_path / "out").split("---\n")[1])["base_model"] == "some/model-7b"
    assert "Base model: some/model-7b." in card(tmp_path / "out")


def test_the_prompt_is_what_the_model_reads(recipe: Recipe, exported: Path) -> None:
    messages = json.loads(code(exported, "## Prompt", "json"))
    read = code(exported, "The chat template", "")

    processor = AutoProcessor.from_pretrained(RunFolder.of(recipe).stage(3).model)
    made = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert read == made.removesuffix("\n")
    assert messages[0]["content"][0] == {"type": "image"}


def test_its_lines_of_python_read_the_evaluation_s_responses_as_the_parser_does(recipe: Recipe, exported: Path) -> None:
    read: dict[str, Any] = {}

    exec(code(exported, "standard library", "python"), read)

    for response in RESPONSES:
        parsed = parse(response, recipe.response, candidates=CANDIDATES)
        expected = None if parsed.malformed else (parsed.answer, parsed.confidence)
        assert read["read"](response, CANDIDATES) == expected
    assert read["read"](RESPONSES[1], CANDIDATES) == ("neutral", 0.35)


def test_its_code_for_transformers_answers_a_question(exported: Path) -> None:
    messages = json.loads(code(exported, "## Prompt", "json"))
    messages[0]["content"][0]["image"] = Image.new("RGB", (60, 60))
    names: dict[str, Any] = {"messages": messages}

    torch.manual_seed(0)
    exec(code(exported, "## Use", "python").replace('"FOLDER"', repr(str(exported))), names)

    assert isinstance(names["response"], str) and names["response"]


def test_the_metrics_are_those_that_the_evaluation_has(recipe: Recipe, exported: Path, tmp_path: Path) -> None:
    settings = recipe.evaluation
    file = RunFolder.of(recipe).stage(3).evaluation("seen") / "predictions.jsonl"
    held = outcomes(read_predictions(file), recipe.response, settings.annotator_draws, settings.seed)
    overall = by_task(held, settings.bins)[OVERALL]
    write_metrics(tmp_path / "metrics.json", {OVERALL: overall})

    shown = card(exported)
    assert overall.accuracy is not None and overall.brier is not None and overall.ece is not None
    assert f"| accuracy | {overall.accuracy:.3f} | " in shown
    assert f"| Brier | {overall.brier:.3f} | " in shown
    assert f"| ECE | {100 * overall.ece:.1f} | " in shown
    assert "Prompts: 12; " in shown and "50.0% of them" in shown
    assert "![Reliability diagram](reliability-seen.svg)" in shown
    assert len(ElementTree.parse(exported / "reliability-seen.svg").findall("./{*}g")) == 2  # 0.35 and 0.80


def test_responses_without_a_verdict_are_counted_beside_the_numbers(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def matches(answer: str, reference: str, /) -> float:
        if reference == "neutral":
            raise MatchError("no verdict on what is neutral")
        return float(answer == reference)

    monkeypatch.setattr(cluster.export_evaluation, "opened", lambda *_: nullcontext(matches))

    export(Source.of(Path(recipe.output), None), tmp_path / "exported", Form.MERGED, Check())

    assert "Other responses, on which there is no verdict, in no number here: 2." in card(tmp_path / "exported")


def test_the_rewards_are_those_of_the_log_and_a_change_of_weights_is_told(exported: Path) -> None:
    shown = card(exported)

    assert "Weights from step 1 on: correctness 1, calibration 1, format 4." in shown
    assert "Weights from step 4 on: correctness 1, calibration 0.5, format 4." in shown
    assert shown.count("Weights from step") == 2
    assert "scored by the brier score against: outcome 1." in shown
    assert str(FOUND) in shown


@pytest.mark.parametrize(
    ("recipe_s", "trained", "told"),
    [
        (0.5, (2.0, 2.0, 0.5), ["UNSAFE with the weights from step 1 on: Below p = 0.500 it pays"]),
        (2.0, (0.5, 0.5, 0.5), []),
    ],
)
def test_the_mixes_that_are_called_unsafe_are_those_that_steps_were_trained_with(
    tmp_path: Path, recipe_s: float, trained: Sequence[float], told: list[str]
) -> None:
    joint = load_recipe(DEMO, ["rewards.credit=joint", f"rewards.weights.calibration={recipe_s}"])
    source = Source(RunFolder(tmp_path), 3, joint)
    weights = [{"weight/correctness": 1.0, "weight/calibration": one, "weight/format": 4.0} for one in trained]
    source.stage.path.mkdir()
    lines = [json.dumps({"step": step, **mix}) + "\n" for step, mix in enumerate(weights, start=1)]
    (source.stage.path / "log.jsonl").write_text("".join(lines))

    (rewards,) = [part for part in training(source, "base") if "Weights from step" in part]

    assert re.findall(r"UNSAFE.* it pays", rewards) == told


def test_a_recipe_that_was_changed_since_is_told(recipe: Recipe, tmp_path: Path, tiny_model: Path) -> None:
    assert list(Source.of(Path(recipe.output), None).doubts()) == []
    changed = finished_run(tmp_path, tiny_model)
    text = RunFolder.of(changed).recipe.read_text()
    RunFolder.of(changed).recipe.write_text(text.replace("kl_weight: 0.3", "kl_weight: 0.1"))

    (doubt,) = Source.of(Path(changed.output), None).doubts()

    assert doubt.startswith("The run's recipe has other settings now than stage 3 was trained with")


def test_a_run_that_has_moved_is_no_other_run(tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model)
    moved = Path(recipe.output).rename(tmp_path / "elsewhere")

    assert list(Source.of(moved, None).doubts()) == []


def test_stage_1_states_no_confidence_and_its_card_none_either(recipe: Recipe, tmp_path: Path) -> None:
    export(Source.of(Path(recipe.output), 1), tmp_path / "out", Form.MERGED, Check())

    shown = card(tmp_path / "out")
    assert "without a confidence" in shown
    assert "<confidence>` the" not in shown and "import re" not in shown
    assert "Brier |" not in shown and not list((tmp_path / "out").glob("*.svg"))
    assert "### Rewards" not in shown and "at temperature 0.2" in shown


# --- which model


def test_the_last_finished_stage_is_taken_or_the_one_that_is_named(recipe: Recipe, tmp_path: Path) -> None:
    run = RunFolder.of(recipe)

    assert Source.of(run.path, None).number == 3
    assert Source.of(run.path, 2).number == 2
    assert Source.of(run.stage(2).model, None).number == 2
    with pytest.raises(ValueError, match="not the model of a run's stage 3"):
        Source.of(run.stage(2).model, 3)
    with pytest.raises(FileNotFoundError, match="neither a run's folder"):
        Source.of(tmp_path, None)


def test_a_stage_that_is_not_finished_is_not_exported(tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, stages=2)

    assert Source.of(Path(recipe.output), None).number == 2
    with pytest.raises(FileNotFoundError, match="stage 3 is not finished"):
        Source.of(Path(recipe.output), 3)


# --- adapters


def test_the_adapter_form_holds_what_all_stages_added(tmp_path: Path, tiny_model: Path) -> None:
    recipe = finished_run(tmp_path, tiny_model, "learner.lora={rank: 2, alpha: 3}")
    check = Check()

    export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.ADAPTER, check)

    read = Adapter.read(tmp_path / "out")
    assert (read.rank, read.alpha) == (6, 9)
    assert read.base == str(RunFolder.of(recipe).starting_model)
    assert check.adapter is not None and read.tensors.keys() == check.adapter.tensors.keys()
    assert not (tmp_path / "out" / "config.json").exists()
    told = card(tmp_path / "out")
    assert "the adapter of stage 3" in told and 'LLM("BASE", dtype="float32", ' in told and "LoRARequest" in told
    # Against the model with all of them merged, which is what it stands for.
    merged = Check()
    export(Source.of(Path(recipe.output), None), tmp_path / "merged", Form.MERGED, merged)
    assert not (tmp_path / "merged" / "adapter").exists()
    for one, other in zip(check.questions, merged.questions, strict=True):
        torch.testing.assert_close(one.expected.logits, other.expected.logits, rtol=1e-4, atol=1e-4)


def test_a_run_without_adapters_has_no_adapter_form(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stage 1 was trained without learner\.lora, or .* --form merged"):
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.ADAPTER, Check())

    assert list(tmp_path.iterdir()) == []


def test_adapters_that_vllm_would_not_take_together_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = finished_run(tmp_path, tiny_model, "learner.lora={rank: 2}")
    monkeypatch.setattr("cluster.export_files.LARGEST_ADAPTER_RANK", 5)

    with pytest.raises(ValueError, match="3 stages together have rank 6, and vLLM takes ranks up to 5"):
        export(Source.of(Path(recipe.output), None), tmp_path / "out", Form.ADAPTER, Check())


def test_the_tiny_model_s_weights_come_whole(exported: Path, tiny_model: Path) -> None:
    weights = load_file(exported / "model.safetensors")

    assert sum(tensor.numel() for tensor in weights.values()) == size_of(tiny_model, None).parameters
