from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from hypothesis import given
from hypothesis import strategies as st
from wandb.errors import AuthenticationError, UsageError
from wandb.proto.wandb_internal_pb2 import Record

from cluster import wandb_service
from cluster.run_log import Column, Metrics, RunLog
from cluster.stopped import Stopped
from configs.load import load_recipe
from configs.schema import Recipe, WandbMode
from tests.unit.full_disk import files_of_at_most
from tests.unit.wandb_file import defined, exit_codes, leveldb_records, wandb_records

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
COLUMNS = (
    Column("reward", "reward", 3),
    Column("ece", "ECE pt", 1, 100),
    Column("tokens_per_second", "learner tokens/s", 0),
)


def recipe(mode: WandbMode = WandbMode.DISABLED) -> Recipe:
    return load_recipe(DEMO, [f"wandb.mode={mode}", "wandb.project=trials"])


def log(folder: Path, *lines: Metrics, first: int = 1) -> None:
    with RunLog(folder, "stage3", COLUMNS, recipe()) as run:
        for step, metrics in enumerate(lines, start=first):
            run.log(metrics, step)


def on_disk(folder: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


# The console


def test_what_is_to_be_warned_of_then_stands_above_every_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    with RunLog(tmp_path, "stage3", COLUMNS, recipe(), lambda: said) as run:
        for step in range(1, 62):
            if step in (21, 61):  # of the second and of the fourth header
                said[:] = [] if said else ["UNSAFE REWARD MIX: it pays to be wrong"]
            run.log({"reward": 1.0}, step)

    lines = printed(capsys)
    headers = [number for number, line in enumerate(lines) if "ECE pt" in line]
    assert len(headers) == 4
    assert ["UNSAFE" in lines[number - 1] for number in headers] == [False, True, True, False]


@pytest.mark.parametrize("reward", [0.0, 1.23456, -1234.567, 9999.999])
def test_values_stand_right_aligned_under_their_headers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: float
) -> None:
    log(tmp_path, {"reward": reward, "ece": 0.5, "tokens_per_second": 12345.6})

    header, line = printed(capsys)
    ends = [header.index(column.header) + len(column.header) for column in COLUMNS]
    assert [line[:end].split()[-1] for end in ends] == [f"{reward:.3f}", "50.0", "12346"]
    assert [line[end : end + 1] for end in ends] == [" ", " ", ""]
    assert len(line) == len(header)


def test_a_line_starts_with_its_step_and_the_header_with_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(tmp_path, {}, first=9999)

    header, line = printed(capsys)
    assert header.split()[0] == "stage3"
    assert line.split()[0] == "9999"
    assert header.index("stage3") + len("stage3") == line.index("9999") + len("9999")


def test_the_header_comes_again_every_twenty_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, *[{"reward": 0.5}] * 41)

    starts = [line.split()[0] for line in printed(capsys)]
    assert [number for number, start in enumerate(starts) if start == "stage3"] == [0, 21, 42]
    assert [start for start in starts if start != "stage3"] == [str(step) for step in range(1, 42)]


def test_what_is_undefined_is_a_dash_and_zero_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, {"reward": None, "tokens_per_second": 0.0})

    assert printed(capsys)[1].split() == ["1", "-", "-", "0"]


def test_a_metric_without_a_column_is_in_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, {"learning_rate": 0.0625})

    assert "0.06" not in "".join(printed(capsys))
    assert on_disk(tmp_path) == [{"step": 1, "learning_rate": 0.0625}]


# The file

FINITE = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "step"), FINITE), max_size=4))
def test_lines_of_the_file_are_what_was_logged(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, float | None]]
) -> None:
    folder = tmp_path_factory.mktemp("run")

    log(folder, *lines)

    assert on_disk(folder) == [{"step": step, **metrics} for step, metrics in enumerate(lines, start=1)]


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with RunLog(tmp_path / "new" / "stage3", "stage3", COLUMNS, recipe()) as run:
        run.log({"reward": 0.5}, 1)

        assert on_disk(tmp_path / "new" / "stage3") == [{"step": 1, "reward": 0.5}]


@pytest.mark.usefixtures("capsys")
def test_lines_that_a_full_disk_did_not_take_come_with_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunLog(tmp_path, "stage3", COLUMNS, recipe()) as run:
        run.log({"reward": 0.1}, 1)
        with files_of_at_most((tmp_path / "log.jsonl").stat().st_size + 10):
            run.log({"reward": 0.2}, 2)
            run.log({"reward": 0.3}, 3)
        assert on_disk(tmp_path) == [{"step": 1, "reward": 0.1}]
        run.log({"reward": 0.4}, 4)

    assert on_disk(tmp_path) == [{"step": step, "reward": step / 10} for step in (1, 2, 3, 4)]
    assert "2 lines of the log wait for the disk" in caplog.text


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, {"reward": 0.1}, {"reward": 0.2})
    printed(capsys)

    log(tmp_path, {"reward": 0.3}, first=3)

    assert on_disk(tmp_path) == [{"step": step, "reward": step / 10} for step in (1, 2, 3)]
    assert printed(capsys)[0].split()[:2] == ["stage3", "reward"]


@pytest.mark.parametrize("tail", ["", '{"step": 4, "rew', '{"step": 4}', '{"step": 4, "rew{"step": 4}\n{"step": 2}\n'])
def test_a_run_that_goes_back_forgets_the_lines_of_later_steps_and_what_was_cut_off(tmp_path: Path, tail: str) -> None:
    log(tmp_path, *[{"ß": 0.5}] * 3)
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(tail)

    for step in (5, 2):
        with RunLog(tmp_path, "stage3", COLUMNS, recipe()) as run:
            run.back_to(step)
            run.log({"reward": 0.25}, step + 1)

        before = [{"step": number, "ß": 0.5} for number in range(1, min(step, 3) + 1)]
        assert on_disk(tmp_path) == [*before, {"step": step + 1, "reward": 0.25}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_refused_by_name_and_the_lines_before_it_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    with pytest.raises(ValueError, match=r"stage3, step 2: loss, grad_norm not finite: training has diverged"):
        log(tmp_path, {"loss": 0.5}, {"loss": value, "reward": None, "ece": 0.1, "grad_norm": value})

    assert on_disk(tmp_path) == [{"step": 1, "loss": 0.5}]
    assert len(printed(capsys)) == 2


def test_after_the_end_nothing_more_is_logged(tmp_path: Path) -> None:
    with RunLog(tmp_path, "stage3", COLUMNS, recipe()) as run:
        pass

    with pytest.raises(ValueError, match="closed file"):
        run.log({"reward": 0.5}, 1)


# Weights & Biases, for real and offline


def test_a_run_without_wandb_does_not_import_it_and_writes_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # its import fails

    log(tmp_path, {"reward": 0.5})

    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.usefixtures("only_here")
def test_an_offline_run_of_wandb_holds_the_recipe_and_every_defined_metric(tmp_path: Path) -> None:
    offline = recipe(WandbMode.OFFLINE)

    with RunLog(tmp_path / "run", "stage3", COLUMNS, offline) as run:
        run.log({"reward": 0.5, "ece": None}, 3)
        run.log({"reward": 0.25, "ece": 0.125}, 4)

    records = wandb_records(tmp_path / "run")
    (begun,) = [record.run for record in records if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in begun.config.update if item.key != "_wandb"}
    assert (begun.project, begun.display_name) == ("trials", "emoji-stage3")
    assert Recipe.model_validate(config) == offline
    assert [(record.history.step.num, defined(record)) for record in records if record.HasField("history")] == [
        (3, {"reward": 0.5}),
        (4, {"reward": 0.25, "ece": 0.125}),
    ]
    assert exit_codes(records) == [0]
    assert on_disk(tmp_path / "run")[0] == {"step": 3, "reward": 0.5, "ece": None}


@pytest.mark.usefixtures("only_here")
def test_a_resumed_run_goes_on_in_the_same_run_of_wandb_and_another_folder_is_another_run(tmp_path: Path) -> None:
    for folder, step in (("run", 1), ("run", 2), ("other", 1)):
        with RunLog(tmp_path / folder, "stage3", COLUMNS, recipe(WandbMode.OFFLINE)) as run:
            run.log({"reward": 0.5}, step)
        wandb.teardown()

    begun = [
        record.run.run_id
        for folder in ("run", "other")
        for file in sorted((tmp_path / folder).glob("wandb/offline-run-*/run-*.wandb"))
        for record in map(Record.FromString, leveldb_records(file.read_bytes()))
        if record.HasField("run")
    ]
    assert len(begun) == 3
    assert begun[0] == begun[1] == (tmp_path / "run" / "wandb_run_id").read_text() != begun[2]


@pytest.mark.usefixtures("only_here")
@pytest.mark.parametrize("in_ray_job", [False, True])
def test_where_wandb_cannot_be_reached_the_run_goes_on_and_its_lines_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_ray_job: bool
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.5")
    monkeypatch.setattr(wandb_service, "submission_id", lambda: "a-job" if in_ray_job else None)
    wandb.teardown()
    monkeypatch.setenv("WANDB_SERVICE", "")  # so that what the run sets does not stay
    monkeypatch.delenv("WANDB_SERVICE")

    with RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.ONLINE)) as run:
        run.log({"reward": 0.5}, 1)

    assert "WEIGHTS & BIASES CANNOT BE REACHED" in caplog.text
    records = wandb_records(tmp_path / "run")
    assert [defined(record) for record in records if record.HasField("history")] == [{"reward": 0.5}]
    assert exit_codes(records) == [0]


@pytest.mark.usefixtures("only_here")
@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (subprocess.TimeoutExpired("wandb", 60.0), "timed out after 60.0 seconds"),
        (subprocess.CompletedProcess([], 1, "", "no port is free"), "failed: no port is free"),
    ],
)
def test_where_wandbs_service_does_not_start_the_run_goes_on_without_and_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outcome: Exception | subprocess.CompletedProcess[str],
    cause: str,
) -> None:
    def started(*_: object, timeout: float, **__: object) -> subprocess.CompletedProcess[str]:
        assert timeout <= 60  # nothing else is done meanwhile
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(wandb_service, "submission_id", lambda: "a-job")
    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.delenv("WANDB_SERVICE", raising=False)

    with RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.OFFLINE)) as run:
        run.log({"reward": 0.5}, 1)

    assert "stage3: WEIGHTS & BIASES DOES NOT START" in caplog.text
    assert cause in caplog.text
    assert [line["step"] for line in on_disk(tmp_path / "run")] == [1]


@pytest.mark.usefixtures("only_here")
def test_a_run_that_wandb_refuses_is_logged_without_but_a_wrong_key_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**_: object) -> None:
        raise errors.pop()

    errors = [AuthenticationError("who are you?"), UsageError("no such project")]
    monkeypatch.setattr(wandb, "init", refused)

    with RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.OFFLINE)) as run:
        run.log({"reward": 0.5}, 1)
    assert "UsageError: no such project" in caplog.text

    with pytest.raises(AuthenticationError, match="who are you"):
        RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.OFFLINE))


@pytest.mark.usefixtures("only_here")
def test_wandb_is_told_of_a_run_that_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not finite"),
        RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.OFFLINE)) as run,
    ):
        run.log({"reward": math.nan}, 1)

    assert exit_codes(wandb_records(tmp_path / "run")) == [1]


@pytest.mark.usefixtures("only_here")
def test_wandb_is_not_told_that_a_run_failed_which_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(Stopped), RunLog(tmp_path / "run", "stage3", COLUMNS, recipe(WandbMode.OFFLINE)):
        raise Stopped("after step 3 of 9")

    assert exit_codes(wandb_records(tmp_path / "run")) == [0]
