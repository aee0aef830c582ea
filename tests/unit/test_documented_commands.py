"""Every command of README.md and docs/ is run here on a small run, or parsed here and run whole by a named test."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli import main, parsed
from cluster.cli_parts import usable_recipe
from cluster.metrics_files import write_metrics
from cluster.predictions import PredictionRow, write_predictions
from cluster.quiet import ENVIRONMENT
from cluster.run_folder import RunFolder
from cluster.score import outcomes
from cluster.sweep import read_sweep
from cluster.trials import planned
from configs.load import load_recipe, write_resolved
from rewards.tasks import by_task
from rollout.rollout_file import RolloutWriter
from tests.unit.documented import ROOT, SHOWN, Command, blocks
from tests.unit.test_rescore import BOLD, MEEK, group

RUN_HERE = {"init", "check", "data", "score", "reward", "reweight", "rescore", "report", "view", "status"}
SMALL_SET = ("sft_emoji=2", "stage2_emoji=1", "rl_emoji=1", "test_emoji=3", "stage1_pictures=1", "stage2_pictures=1")
# The test that runs it whole: by the command and the option that makes it another, or the target.
RUN_WHOLE = {
    "caliber sft": "integration/test_ray_jobs.py::test_a_job_that_is_stopped_ends_with_a_checkpoint",
    "caliber rl": "integration/test_killed_job.py::test_a_job_whose_driver_was_killed_goes_on",
    "caliber pipeline": "integration/test_jobs.py::test_a_second_run_does_nothing_again",
    "caliber pipeline --submit": "unit/test_submit.py::test_each_stage_is_submitted_when_the_one_before",
    "caliber submit": "integration/test_ray_jobs.py::test_a_job_that_is_stopped_ends_with_a_checkpoint",
    "caliber tune": "integration/test_tune.py::test_a_tuning_that_is_stopped_goes_on",
    "caliber eval": "integration/test_jobs.py::test_a_model_is_evaluated_by_the_command_line",
    "caliber predict": "integration/test_predict.py::test_rows_are_answered_by_a_real_engine",
    "caliber export": "integration/test_export.py::test_an_export_says_in_both_libraries",
    "caliber report --live": "integration/test_report_commands.py::test_a_live_report_answers_until_ctrl_c",
    "caliber doctor": "unit/test_doctor.py::test_the_command_prints_the_report",
    "caliber check --cluster": "integration/test_ray_jobs.py::test_whether_the_cluster_has_room_for_a_recipe",
    "make chaos": "chaos/test_killed_processes.py::test_workers_that_are_killed",
    "make docs": "unit/test_site.py::test_every_page_is_built",
    "pip install": "unit/test_install.py::test_packages_are_installed",
    "ray job": "integration/test_ray_jobs.py::test_a_job_that_is_stopped_ends_with_a_checkpoint",
    "ray start": "integration/test_ray_jobs.py::test_a_job_that_is_stopped_ends_with_a_checkpoint",
    "ray list": "integration/test_dashboard_pictures.py::test_the_dashboard_shows",
    "ray get-auth-token": "integration/test_slurm.py::test_a_job_that_slurm_wants_to_end",
    "python -m tests.integration.report_pictures": "integration/test_report_browser.py::test_the_readmes_pictures",
    "python -m configs.reference": "unit/test_site.py::test_the_reference_of_recipes",
}
# Not run by a test, and why; what can be said of them without it is tested below.
NOT_RUN = {
    "make demo": "it takes twenty minutes; integration/test_jobs.py runs the same on a smaller recipe",
    "make words": "it takes most of an hour",
    "make test": "it runs this",
    "make format": "it writes into the checkout",
    "make clean": "it removes the installation",
    "python -m pytest": "it runs this",
    "wandb sync": "it needs the service",
    "wandb login": "it needs the service",
}
# Measurements: minutes to hours, by hand, with their results in docs/benchmarks.md and docs/results.md.
MEASURED_BY_HAND = re.compile(r"python -m benchmarks\.\w+")
TAKE_NO_RECIPE = {"predict", "export", "report"}  # those of the table above: it is the run's own

WEIGHTS = {f"weight/{name}": 1.0 for name in ("correctness", "calibration", "format")}
LINE = {"step": 1, "loss": 0.5, "reward": 0.5, "accuracy": 0.75, "ece": 0.1, "brier": 0.2, **WEIGHTS}


def key(command: Command) -> str:
    """What the tables above know a command by."""
    name, *words = command.words
    if name == "python":
        return f"python -m {words[1]}"
    told = f"{name} {words[0]}"
    option = {"caliber pipeline": "--submit", "caliber check": "--cluster", "caliber report": "--live"}.get(told)
    return f"{told} {option}" if option in words else told


def of_caliber(*, whole: bool) -> list[Command]:
    """The commands of ours that are shown with what they are about, those to be run here or those not."""
    found = [command for command in SHOWN if command.words[0] == "caliber"]
    about = [command for command in found if any(not word.startswith("-") for word in command.words[2:])]
    return [command for command in about if (key(command) in RUN_WHOLE) is whole]


def mentioned() -> list[str]:
    """Our commands' names as they stand in sentences."""
    return sorted({command.words[1] for command in SHOWN if command.words[0] == "caliber"})


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: their recipe, which is the quickstart's, and the run of the demo, finished."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    (mine,) = [block.text for block in blocks(ROOT / "docs" / "index.md") if block.language == "yaml"]
    (folder / "my-recipe.yaml").write_text(mine, encoding="utf-8")
    run = RunFolder(folder / "outputs" / "emoji")
    recipe = load_recipe(ROOT / "configs" / "emoji" / "demo.yaml", [])
    write_resolved(recipe, run.recipe)
    with RolloutWriter(run.stage(3).rollouts / "reward-0.rollouts") as file:
        for number in range(8):
            file.append(group(number, BOLD, MEEK))
    for number in (1, 2, 3):
        rows = [said(f"p{n}", "a" if n % 3 else "b", 0.1 + 0.02 * n + number / 10) for n in range(24)]
        evaluation = run.stage(number).evaluation("seen")
        write_predictions(evaluation / "predictions.jsonl", rows)
        write_metrics(evaluation / "metrics.json", by_task(outcomes(rows, recipe.response, 1, 0)))
        (run.stage(number).path / "log.jsonl").write_text(json.dumps(LINE) + "\n")
    shutil.copytree(run.path, folder / "outputs" / "other")
    return folder


def said(prompt: str, answer: str, confidence: float) -> PredictionRow:
    inner = "".join(f"<{tag}>it smiles</{tag}>" for tag in ("element", "human", "context", "interaction", "analysis"))
    response = f"<think>{inner}</think><answer>{answer}</answer><confidence>{confidence:.2f}</confidence>"
    return PredictionRow(prompt, "emoji", ("a", "b"), "a", {"a": 3, "b": 1}, response)


@pytest.fixture
def reader(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder, in which commands are given."""
    folder = tmp_path / "reader"
    shutil.copytree(small_run, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # no cluster of this machine's is asked
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield folder


def exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as left:
        assert isinstance(left.code, int)
        return left.code


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_every_command_is_run_here_or_names_the_test_that_runs_it(command: Command) -> None:
    known = key(command)
    here = command.words[0] == "caliber" and command.words[1] in RUN_HERE
    assert here or known in RUN_WHOLE or known in NOT_RUN or MEASURED_BY_HAND.fullmatch(known), (
        f"{command}: add it to RUN_HERE, or to RUN_WHOLE with the test that runs it whole"
    )


@pytest.mark.parametrize("command", of_caliber(whole=False), ids=str)
def test_a_command_that_is_quickly_done_is_run_as_it_is_shown(
    command: Command, reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.filled
    if words[0] == "data":
        words = [*words[:2], "new-set", *(f"data.emoji.{size}" for size in SMALL_SET if words[1] == "emoji")]

    code = exit_code(words)

    told = capsys.readouterr()
    assert code == 0, told.err
    assert told.out or "--out" in words


@pytest.mark.parametrize("command", of_caliber(whole=True), ids=str)
def test_a_command_that_takes_long_is_parsed_and_its_recipe_checked(command: Command, reader: Path) -> None:
    options = parsed(command.filled)

    if options.command == "tune":
        sweep = read_sweep(options.overrides)
        trials = planned(options.recipe, sweep, options.samples, options.seed, stopping=True)
        assert len(trials) > 1
    elif options.command not in TAKE_NO_RECIPE:
        assert usable_recipe(options).name in {"mine", "emoji", "words"}


@pytest.mark.parametrize("name", mentioned())
def test_a_command_that_a_sentence_names_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([name, "--help"]) == 0


@pytest.mark.parametrize("test", sorted(set(RUN_WHOLE.values())))
def test_the_test_that_is_said_to_run_a_command_is_there(test: str) -> None:
    file, _, name = test.partition("::")

    assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_the_tables_know_no_command_that_is_not_shown() -> None:
    shown = {key(command) for command in SHOWN}

    assert sorted({*RUN_WHOLE, *NOT_RUN} - shown) == []
