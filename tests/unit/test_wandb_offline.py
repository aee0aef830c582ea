"""What an offline run of Weights & Biases holds beside the lines of the log, read back from its files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import ArtifactRecord, Record

from cluster import wandb_service
from cluster.evaluation import Evaluated
from cluster.predictions import PredictionRow
from cluster.run_log import Column, RunLog
from cluster.score import outcomes
from cluster.telling_rollouts import ROWS_OF_A_KIND
from cluster.wandb_evaluation import tell_wandb
from configs.load import load_recipe
from configs.schema import Recipe
from rewards.parts import MatchError
from rewards.tasks import by_task
from tests.unit.wandb_file import exit_codes, leveldb_records, wandb_records

ROOT = Path(__file__).parents[2]
COLUMNS = (Column("reward", "reward", 3),)
DRAWS = 3

pytestmark = pytest.mark.usefixtures("only_here")


def recipe(mode: str = "offline", *overrides: str) -> Recipe:
    own = ["response.reasoning_elements=[]", f"evaluation.annotator_draws={DRAWS}", f"wandb.mode={mode}"]
    return load_recipe(ROOT / "configs" / "emoji" / "demo.yaml", [*own, *overrides])


def logged(folder: Path) -> list[Record]:
    """The records of a run of two steps."""
    with RunLog(folder, "stage3", COLUMNS, recipe()) as run:
        run.log({"reward": 0.5}, 1)
        run.log({"reward": 0.25, "brier": 0.2}, 2)
    return wandb_records(folder)


def said(prompt: str, answer: str, confidence: float | None, truth: str | None = None) -> PredictionRow:
    """A response; without a truth its judges are divided, 3 to 1 for a."""
    stated = "" if confidence is None else f"<confidence>{confidence:.2f}</confidence>"
    response = f"<think>it smiles</think><answer>{answer}</answer>{stated}"
    return PredictionRow(prompt, "emoji", ("a", "b"), truth, {} if truth else {"a": 3, "b": 1}, response)


def evaluated(rows: Sequence[PredictionRow], *, require_confidence: bool = True) -> Evaluated:
    held = outcomes(rows, recipe().response, DRAWS, 0, require_confidence=require_confidence)
    return Evaluated(rows, held, by_task(held))


def evaluation(folder: Path, found: Evaluated) -> tuple[dict[str, object], int, Path]:
    """The line of history that an evaluation makes, its step, and the folder that its files are in."""
    tell_wandb(folder, "stage3", 40, recipe(), {"seen": found})
    (line,) = [record.history for record in wandb_records(folder) if record.HasField("history")]
    (files,) = folder.glob("wandb/offline-run-*/files")
    found_keys: dict[str, object] = {}
    for item in line.item:
        key, *inner = item.nested_key
        value = json.loads(item.value_json)
        found_keys[key] = {**found_keys.get(key, {}), inner[0]: value} if inner else value  # type: ignore[dict-item]
    return found_keys, line.step.num, files


def table(line: dict[str, object], key: str, files: Path) -> list[dict[str, object]]:
    """The rows of a table, by column."""
    value = line[key]
    assert isinstance(value, dict)
    assert value["_type"] == "table-file"
    held = json.loads((files / str(value["path"])).read_text(encoding="utf-8"))
    return [dict(zip(held["columns"], row, strict=True)) for row in held["data"]]


# What a chart has for its axis, and a run for its summary


def test_losses_are_summed_up_by_their_least_and_rewards_by_their_most(tmp_path: Path) -> None:
    metrics = {record.metric.name: record.metric for record in logged(tmp_path) if record.HasField("metric")}

    brier, reward = metrics["brier"].summary, metrics["reward"].summary
    assert (brier.min, brier.max, brier.last) == (True, False, True)
    assert (reward.min, reward.max, reward.last) == (False, True, True)


def test_an_evaluation_has_an_axis_of_its_own(tmp_path: Path) -> None:
    metrics = [record.metric for record in logged(tmp_path) if record.HasField("metric")]

    axes = {metric.glob_name or metric.name: metric.step_metric for metric in metrics}
    assert axes["evaluation/*"] == "evaluation/step"
    assert axes["brier"] == ""  # the stage's step, which is wandb's own


# The code and the recipe


def source(records: Sequence[Record]) -> ArtifactRecord:
    (found,) = [record.artifact for record in records if record.HasField("artifact")]
    return found


def test_the_code_and_the_complete_recipe_are_saved(tmp_path: Path) -> None:
    saved = source(logged(tmp_path / "run"))

    files = {entry.path: Path(entry.local_path) for entry in saved.manifest.contents}
    assert saved.type == "source"
    assert {"cluster/controller.py", "cluster/report/page.js", "configs/emoji/demo.yaml", "recipe.yaml"} <= set(files)
    assert not any(path.endswith(".pyc") for path in files)
    assert files["learner/losses.py"].read_bytes() == (ROOT / "learner" / "losses.py").read_bytes()
    assert load_recipe(files["recipe.yaml"], []) == recipe()


# An evaluation


def test_an_evaluation_is_a_line_behind_the_steps_with_the_step_it_is_of(tmp_path: Path) -> None:
    found = evaluated([said("p", "a", 0.75, "a"), said("p", "b", 0.25, "a")])

    line, step, _ = evaluation(tmp_path, found)

    assert (step, line["evaluation/step"]) == (41, 40)
    assert line["evaluation/seen/accuracy"] == 0.5
    assert line["evaluation/seen/brier"] == pytest.approx((0.25**2 + 0.25**2) / 2)


def test_a_stage_and_its_evaluation_are_one_run(tmp_path: Path) -> None:
    logged(tmp_path)

    tell_wandb(tmp_path, "stage3", 2, recipe(), {"seen": evaluated([said("p", "a", 0.75, "a")])})

    wandb.teardown()
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    records = [Record.FromString(one) for file in files for one in leveldb_records(file.read_bytes())]
    assert len(files) == 2
    assert len({record.run.run_id for record in records if record.HasField("run")}) == 1
    assert exit_codes(records) == [0, 0]


def test_the_rollouts_that_tell_most_are_a_table_of_fixed_size_with_a_prompt_once_a_kind(tmp_path: Path) -> None:
    right = [said(f"right-{n}", "a", 0.5 + n / 100, "a") for n in range(20) for _ in range(2)]
    wrong = [said(f"wrong-{n}", "b", 0.5 + n / 100, "a") for n in range(20)]
    broken = [said("broken", "a", None, "a")]
    divided = [said("divided", "a", 0.9)]

    line, _, files = evaluation(tmp_path, evaluated([*right, *wrong, *broken, *divided]))

    rows = table(line, "evaluation/seen/rollouts", files)
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("best", "worst", "overconfident")}
    assert {kind: len(found) for kind, found in kinds.items()} == dict.fromkeys(kinds, ROWS_OF_A_KIND)
    assert [row["prompt_id"] for row in kinds["best"]][:2] == ["right-19", "right-18"]
    assert [row["prompt_id"] for row in kinds["worst"]][:2] == ["broken", "wrong-19"]
    assert (kinds["worst"][0]["malformed"], kinds["worst"][0]["brier"]) == ("missing_tag", None)
    assert [row["prompt_id"] for row in kinds["overconfident"]][:2] == ["wrong-19", "wrong-18"]
    assert "it smiles" in str(kinds["best"][0]["response"])


def test_a_response_without_a_verdict_is_counted_and_the_others_keep_their_own(tmp_path: Path) -> None:
    def matches(answer: str, reference: str, /) -> float:
        if answer == "b":
            raise MatchError("no verdict on b")
        return float(answer == reference)

    rows = [said("none", "b", 0.7), said("right", "a", 0.8, "a"), said("wrong", "a", 0.9, "b")]
    held = outcomes(rows, recipe().response, DRAWS, 0, matches=matches)

    line, _, files = evaluation(tmp_path, Evaluated(rows, held, by_task(held)))

    shown = table(line, "evaluation/seen/rollouts", files)
    assert {str(row["prompt_id"]): row["right"] for row in shown} == {"right": 1.0, "wrong": 0.0}
    assert line["evaluation/seen/unscored"] == 1


def test_a_response_that_divides_its_judges_has_a_share_of_them(tmp_path: Path) -> None:
    line, _, files = evaluation(tmp_path, evaluated([said("divided", "a", 1.0), said("other", "b", 0.5, "a")]))

    (row,) = [row for row in table(line, "evaluation/seen/rollouts", files) if row["prompt_id"] == "divided"][:1]
    assert row["right"] in {n / DRAWS for n in range(DRAWS + 1)}
    assert row["brier"] == pytest.approx(1 - float(str(row["right"])))  # of a confidence of 1


def test_an_overconfident_prompt_is_one_whose_responses_are_right_less_often_than_they_say(tmp_path: Path) -> None:
    half = [said("half", "a", 0.9, "a"), said("half", "b", 0.9, "a")]
    never = [said("never", "b", 0.6, "a"), said("never", "b", 0.6, "a")]

    line, _, files = evaluation(tmp_path, evaluated([*half, *never, said("shy", "a", 0.3, "a")]))

    found = [r for r in table(line, "evaluation/seen/rollouts", files) if r["kind"] == "overconfident"]
    assert [(row["prompt_id"], row["excess"]) for row in found] == [
        ("never", pytest.approx(0.6)),
        ("half", pytest.approx(0.4)),
    ]


def test_the_reliability_diagram_is_a_table_whose_bins_add_up_to_the_ece(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [said(f"p{n}", "ab"[int(rng.integers(2))], round(float(rng.random()), 2), "a") for n in range(60)]

    line, _, files = evaluation(tmp_path, evaluated(rows))

    bins = table(line, "evaluation/seen/reliability_bins", files)
    gaps = [int(str(b["n"])) * abs(float(str(b["confidence"])) - float(str(b["accuracy"]))) for b in bins]
    assert sum(int(str(b["n"])) for b in bins) == 60
    assert all(float(str(b["low"])) <= float(str(b["confidence"])) <= float(str(b["high"])) for b in bins)
    assert math.fsum(gaps) / 60 == pytest.approx(line["evaluation/seen/ece"])


def test_the_reliability_diagram_is_a_picture_with_a_point_where_each_bin_is(tmp_path: Path) -> None:
    line, _, files = evaluation(tmp_path, evaluated([said("p", "a", 0.25, "a"), said("q", "b", 0.85, "a")]))

    value = line["evaluation/seen/reliability_diagram"]
    assert isinstance(value, dict)
    with Image.open(files / value["path"]) as picture:
        pixels = picture.convert("RGB")
    (width, height), red = pixels.size, (192, 57, 43)
    assert (value["width"], value["height"]) == (width, height)
    assert [pixels.getpixel(at) for at in ((60 + 100, 40), (60 + 340, 40 + 400))] == [red, red]
    assert pixels.getpixel((60 + 100, 40 + 200)) != red


def test_a_stage_without_confidences_has_numbers_alone(tmp_path: Path) -> None:
    found = evaluated([said("p", "a", None, "a")], require_confidence=False)

    line, _, _ = evaluation(tmp_path, found)

    assert line["evaluation/seen/accuracy"] == 1.0
    assert not [key for key in line if "reliability_" in key or key.endswith("rollouts")]


def test_an_evaluation_that_wandb_cannot_take_is_not_lost_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(**_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(wandb, "Table", full)

    tell_wandb(tmp_path, "stage3", 40, recipe(), {"seen": evaluated([said("p", "a", 0.75, "a")])})

    assert "WEIGHTS & BIASES FAILED" in caplog.text
    assert "No space left on device" in caplog.text


def test_without_wandb_an_evaluation_writes_nothing(tmp_path: Path) -> None:
    tell_wandb(tmp_path, "stage3", 40, recipe("disabled"), {"seen": evaluated([said("p", "a", 0.75, "a")])})

    assert list(tmp_path.iterdir()) == []


# Keys and services


def test_an_online_run_without_a_key_is_an_offline_one_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("API_KEY", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nothing listens
    wandb.teardown()

    with RunLog(tmp_path / "run", "stage3", COLUMNS, recipe("online")) as run:
        run.log({"reward": 0.5}, 1)

    assert "HAS NO KEY" in caplog.text
    assert exit_codes(wandb_records(tmp_path / "run")) == [0]


def is_of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process, of those listed with their environment, was started by a test that has this folder."""
    return (process.info["environ"] or {}).get("WANDB_DATA_DIR") == str(folder / "elsewhere")


def test_in_a_ray_job_a_run_does_not_count_on_the_service_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_service, "submission_id", lambda: "a-job")
    monkeypatch.setenv("WANDB_SERVICE", "")  # so that what the run sets does not stay
    monkeypatch.delenv("WANDB_SERVICE")
    wandb.teardown()

    logged(tmp_path / "first")
    services = [process for process in psutil.process_iter(["environ"]) if is_of(process, tmp_path)]
    for process in services:  # those that are idle end by themselves after a minute
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()
    records = logged(tmp_path / "second")

    assert services
    assert exit_codes(records) == [0]
