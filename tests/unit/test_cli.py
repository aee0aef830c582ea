"""The command line, in this process: what it prints, its exit codes, and that mistakes are told without a trace."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

import cluster.pipeline
import cluster.predictions
from cluster import doctor
from cluster.cli import _mistakes, main
from cluster.cli_parts import usable_recipe
from cluster.metrics_files import read_metrics
from cluster.quiet import ENVIRONMENT
from cluster.stopped import Stopped
from configs.load import RecipeError, describe
from configs.schema import Response
from rewards.parse import render
from tests.unit.score_file import score_file

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
NO_ELEMENTS = Response(reasoning_elements=())
HEAVY = ("ray", "vllm", "deepspeed", "torch", "transformers")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not refused as it should be fails its test, and trains nothing."""

    def start(*_: object) -> None:
        raise AssertionError("a job was started")

    for module, name in ((cluster.pipeline, "run_one_stage"), (cluster.pipeline, "run_pipeline"), (doctor, "examine")):
        monkeypatch.setattr(module, name, start)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_jobs: None) -> Run:
    """Runs a command in an empty folder; what it does to the environment ends with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def run(*words: object) -> Outcome:
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:  # argparse's way to end
            assert isinstance(left.code, int)
            code = left.code
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


# Help

RECIPE_WORDS = "recipe KEY=VALUE --trace"
ARGUMENTS = {
    "init": "folder --name --model --data --correctness --reference --gpus --trace",
    "check": f"{RECIPE_WORDS} --fields --cluster --address",
    "data": f"set out {RECIPE_WORDS}",
    "sft": f"{RECIPE_WORDS} --stage --from",
    "rl": f"{RECIPE_WORDS} --fresh --force --from",
    "eval": f"model data {RECIPE_WORDS} --out --temperature --without-confidence",
    "predict": (
        "model data KEY=VALUE --trace --recipe --out --samples --temperature --calibrate --risk --delta --recalibrate"
    ),
    "score": (
        "predictions --recipe --out --mode --draws --bins --seed --elements --without-confidence --trace --compare "
        "--resamples"
    ),
    "reward": "mix rows KEY=VALUE --out --trace",
    "reweight": "run WEIGHT=NUMBER --trace",
    "rescore": "run SETTING=VALUE --trace",
    "report": "run --trace --out --rollouts --live --port",
    "view": "run --trace --filter --from --search --limit",
    "pipeline": f"{RECIPE_WORDS} --stage --submit --address --runtime-env-json --fresh --force --from",
    "tune": f"{RECIPE_WORDS} --samples --seed --at-once --run-all",
    "export": "run destination --stage --form --trace",
    "submit": f"{RECIPE_WORDS} --stage --no-wait --address --runtime-env-json",
    "status": "run --address --trace",
    "doctor": "--trace",
}


@pytest.mark.parametrize("command", ARGUMENTS)
def test_help_of_a_command_explains_each_of_its_arguments(run: Run, command: str) -> None:
    told = run(command, "--help")

    explained = re.findall(r"^  ([^\s,]+).*(?:  |\n {8,})\S", told.out, re.MULTILINE)
    assert told.code == 0
    assert set(explained) == {"-h", *ARGUMENTS[command].split()}


def test_help_names_every_command_with_what_it_is_for(run: Run) -> None:
    told = run("--help")

    assert told.code == 0
    assert re.findall(r"^    (\S+)  +\S", told.out, re.MULTILINE) == list(ARGUMENTS)


def test_without_a_command_the_usage_is_told(run: Run) -> None:
    told = run()

    assert told.code == 2
    assert "COMMAND" in told.err


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["fly"], "invalid choice: 'fly'"),
        (["check"], "required: recipe"),
        (["check", DEMO, "--bogus"], "unrecognized arguments: --bogus"),
        (["check", DEMO, "--fields", "rl.steps"], "unrecognized arguments: rl.steps"),
        (["doctor", "rl.steps=3"], "unrecognized arguments: rl.steps=3"),
        (["score", "predictions.jsonl", "rl.steps=3"], "unrecognized arguments: rl.steps=3"),
        (["sft", DEMO], "required: --stage"),
        (["sft", DEMO, "--stage", "3"], "--stage: invalid choice: 3"),
        (["data", "faces", "out"], "invalid choice: 'faces'"),
    ],
)
def test_words_that_no_command_takes_are_named(run: Run, words: list[object], complaint: str) -> None:
    told = run(*words)

    assert told.code == 2
    assert complaint in told.err.splitlines()[-1]


# Recipes that are wrong


@pytest.mark.parametrize(
    "override, complaint",
    [
        ("rl.stepz=3", "override: rl.stepz: unknown key; did you mean steps?"),
        ("rl.steps=-1", "override: rl.steps: got '-1'; expected int >= 1 (Batches trained on.)"),
        ("rl.steps=[", "override: rl.steps: not valid YAML: "),
        ("rl.steps", "override: got 'rl.steps'; expected key.path=value "),
    ],
)
def test_a_wrong_override_is_one_line(run: Run, override: str, complaint: str) -> None:
    told = run("check", DEMO, override)

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"caliber check: {complaint}")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "text, complaint",
    [
        (None, "mine.yaml: cannot be read: No such file or directory"),
        ("- a\n- b\n", "mine.yaml:1: got a list; expected a mapping of a recipe's sections"),
        (f"extends: {DEMO}\nrl:\n  stepz: 3\n", "mine.yaml:3: rl.stepz: unknown key"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_place(run: Run, text: str | None, complaint: str) -> None:
    if text is not None:
        Path("mine.yaml").write_text(text)

    told = run("check", "mine.yaml")

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"caliber check: {complaint}")
    assert told.err.count("\n") == 1


def test_several_mistakes_have_a_line_each(run: Run) -> None:
    told = run("check", DEMO, "rl.stepz=3", "seeding.sauce=x")

    assert told.code == 2
    assert {line.split(": ")[-2] for line in told.err.splitlines()} == {"rl.stepz", "seeding.sauce"}


STARTERS: dict[str, list[object]] = {
    "sft": ["sft", DEMO, "--stage", 1],
    "rl": ["rl", DEMO],
    "pipeline": ["pipeline", DEMO],
}
JOINT = ["rewards.credit=joint", "rewards.weights.correctness=0.5"]


@pytest.mark.parametrize(
    "command, overrides, complaints",
    [
        ("sft", ["rl.stepz=3"], ["override: rl.stepz: unknown key"]),  # beyond an option, too
        ("rl", ["rl.stepz=3"], ["override: rl.stepz: unknown key"]),
        ("pipeline", ["rl.stepz=3"], ["override: rl.stepz: unknown key"]),
        ("sft", ["rl.response_tokens=128"], ["the recipe cannot work:", "rl.response_tokens: 128 leaves no room"]),
        (
            "pipeline",
            JOINT,
            ["the reward mix is unsafe (rewards.allow_unsafe: true", "pays to answer wrong on purpose"],
        ),
        ("rl", ["rewards.weights.format=0", *JOINT], ["the reward mix is unsafe", "on purpose", "costs nothing there"]),
    ],
)
def test_a_job_of_a_recipe_that_must_not_run_ends_before_it_starts(
    run: Run, command: str, overrides: list[str], complaints: list[str]
) -> None:
    told = run(*STARTERS[command], *overrides)

    lines = told.err.splitlines()
    assert told.code == 2
    assert lines[0].startswith(f"caliber {command}: ")
    assert [complaint in line for complaint, line in zip(complaints, lines, strict=True)] == [True] * len(complaints)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "override, relative", [("output=out", "out and outputs/emoji-data"), ("data.root=/d", "outputs/emoji")]
)
def test_a_job_on_other_storage_names_the_folders_that_are_relative(run: Run, override: str, relative: str) -> None:
    told = run("rl", DEMO, "--from", "nowhere", override)

    assert told.code == 2
    assert told.err.startswith(f"caliber rl: {relative}: relative to nowhere, which is not there: ")


def test_a_job_takes_relative_folders_from_where_it_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("place").mkdir()
    seen: list[Path] = []
    monkeypatch.setattr(cluster.pipeline, "run_one_stage", lambda recipe, number: seen.append(Path.cwd()) or 0)

    told = run("rl", DEMO, "--from", "place")

    assert (told.code, [path.name for path in seen]) == (0, ["place"])


def test_one_stage_of_the_pipeline_is_evaluated_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        cluster.pipeline, "run_one_stage", lambda recipe, number, *, evaluated: seen.append((number, evaluated)) or 0
    )

    assert run("pipeline", DEMO, "--stage", 2).code == 0
    assert seen == [(2, True)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["rl.steps=50"], "nothing to try: give a setting several values"),
        (["engine.workers=1,2"], "engine.workers=1,2: a trial is a stage 3"),
        (["rl.steps=1,two"], "override: rl.steps: got 'two'"),
        (["rl.steps=1,2", "--at-once", "0"], "--at-once: got 0, expected 1 or more"),
        (["rl.steps=1,2"], "stage2/model, which is not there: run stage 2 first"),
    ],
)
def test_a_tuning_that_cannot_be_meant_is_refused(run: Run, words: list[str], complaint: str) -> None:
    told = run("tune", DEMO, *words)

    assert told.code == 2
    assert told.err.startswith("caliber tune: ")
    assert complaint in told.err


@pytest.mark.parametrize("command", [["submit", DEMO], ["pipeline", DEMO, "--submit"]])
def test_a_recipe_that_must_not_run_is_not_submitted(run: Run, command: list[object]) -> None:
    told = run(*command, *JOINT)

    assert told.code == 2
    assert "the reward mix is unsafe" in told.err


def test_an_unsafe_mix_that_is_allowed_is_run() -> None:
    overrides = [*JOINT, "rewards.allow_unsafe=true"]

    recipe = usable_recipe(argparse.Namespace(recipe=DEMO, overrides=overrides))

    assert recipe.rewards.weights.correctness == 0.5


# Stage 3 anew


@pytest.mark.parametrize("command, job", [("rl", "run_one_stage"), ("pipeline", "run_pipeline")])
def test_fresh_starts_stage_3_anew_and_with_force_sets_aside_what_there_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, job: str
) -> None:
    monkeypatch.setattr(cluster.pipeline, job, lambda *_: 0)
    for stage in ("stage2", "stage3"):
        Path("out", stage, "checkpoints", "step-000009").mkdir(parents=True)
    words = [command, DEMO, "output=out"]

    told = [run(*words, *options) for options in ([], ["--fresh"], ["--force"])]
    before = sorted(path.name for path in Path("out").iterdir() if path.is_dir())
    forced = run(*words, "--fresh", "--force")

    assert [outcome.code for outcome in (*told, forced)] == [0, 2, 2, 0]
    assert told[1].err.startswith(f"caliber {command}: --fresh would start stage3 anew, and there is ")
    assert told[2].err == f"caliber {command}: --force says what --fresh may do, and is of no use alone: leave it out\n"
    assert before == ["stage2", "stage3"]
    assert sorted(path.name for path in Path("out").iterdir() if path.is_dir()) == ["stage2", "stage3.1"]


def test_fresh_is_refused_with_a_stage_that_it_does_not_start(run: Run) -> None:
    Path("out", "stage3", "checkpoints", "step-000009").mkdir(parents=True)

    told = run("pipeline", DEMO, "output=out", "--stage", "2", "--fresh", "--force")

    assert told.code == 2
    assert told.err.startswith("caliber pipeline: --fresh starts stage 3 anew, and --stage 2 does not come to it")
    assert [path.name for path in Path("out").iterdir()] == ["stage3"]


# Check


def test_check_prints_what_follows_from_the_recipe(run: Run) -> None:
    told = run(
        "check",
        DEMO,
        "rl.prompts_per_step=8",
        "rl.samples_per_prompt=2",
        "rl.max_policy_lag=3",
        "rl.groups_per_worker=9",
    )

    assert (told.code, told.err) == (0, "")
    assert "8 prompts x 2 samples = 16 trajectories, at most 2048 tokens" in told.out  # of 128 a sequence
    assert "at most 32 groups in flight (policy lag 3), 18 sequences a worker, 0 of them queued" in told.out
    assert "Ray      2 CPUs and 0 GPUs" in told.out
    assert "safe: no response gains by being wrong on purpose" in told.out
    assert "PROBLEM" not in told.out


def test_check_starts_nothing_and_needs_none_of_what_jobs_run_on(run: Run) -> None:
    ours = [name for name in sys.modules if name.partition(".")[0] in ("configs", "rewards", "cluster")]

    with patch.dict(sys.modules, dict.fromkeys(HEAVY)):  # whoever imports one of these fails
        for name in ours:
            del sys.modules[name]  # imported anew, and forgotten when the block ends
        from cluster.cli import main as anew

        assert anew is not main
        assert anew(["check", str(DEMO)]) == 0

    assert list(Path.cwd().iterdir()) == []


def test_check_names_what_cannot_work_and_what_is_unsafe(run: Run) -> None:
    told = run("check", DEMO, "rl.response_tokens=128", *JOINT)

    problems = [line for line in told.out.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 1
    assert problems[0].startswith("PROBLEM  rl.response_tokens: 128 leaves no room for a prompt")
    assert "unsafe: Below p = 0.500 it pays to answer wrong on purpose" in told.out
    assert "safe: no response gains" not in told.out


def test_check_names_a_scorer_that_cannot_be_made(run: Run) -> None:
    told = run("check", DEMO, "rewards.correctness=no.such.module:Scorer")

    assert "PROBLEM  rewards.correctness: the scorer no.such.module:Scorer cannot be made: " in told.out
    assert "No module named 'no'" in told.out


def test_check_lists_every_setting_with_its_default(run: Run) -> None:
    told = run("check", DEMO, "--fields")

    assert told.code == 0
    assert "rl.max_policy_lag: int >= 0 = 1\n    No token in a batch is older" in told.out
    assert "\nrl.steps: int >= 1\n" in told.out  # it has no default
    assert [found.path for found in describe() if f"{found.path}: {found.type}" not in told.out] == []
    assert [found.path for found in describe() if f"\n    {found.help}" not in told.out] == []


# Reward


@pytest.mark.parametrize("correctness", ["numeric", "tests.unit.user_scorers:Halves"])
def test_reward_holds_answers_against_the_truth_as_the_recipe_says(run: Run, correctness: str) -> None:
    response = render({}, "50%", "0.8")
    row = {"response": response, "ground_truth": "1/2"}
    Path("rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (row, row | {"ground_truth": "51%"})))
    settings = [f"rewards.correctness={correctness}", "rewards.target=null", "rewards.reference=label"]

    told = run("reward", DEMO, "rows.jsonl", "response.reasoning_elements=[]", *settings)

    assert (told.code, told.err) == (0, "")
    assert [json.loads(line)["correct"] for line in told.out.splitlines()] == [1.0, 0.0]


@pytest.mark.parametrize("command", ["reweight", "rescore"])
def test_a_command_about_a_run_takes_its_folder(run: Run, command: str) -> None:
    told = run(command, "nowhere", "calibration=0.5")

    assert told.code == 2
    assert told.err.startswith(f"caliber {command}: nowhere/recipe.yaml: cannot be read")


# Mistakes and bugs


def grouped(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("unhandled errors in a TaskGroup", errors)


@pytest.mark.parametrize(
    "error, told",
    [
        (ValueError("a bad row"), ["a bad row"]),
        (grouped(ValueError("a bad row")), ["a bad row"]),
        (grouped(grouped(ValueError("first")), FileNotFoundError("second")), ["first", "second"]),
        (grouped(ValueError("same"), grouped(ValueError("same"), ValueError("other"))), ["same", "other"]),
        (grouped(RuntimeError("a bug")), []),
        (grouped(ValueError("a bad row"), RuntimeError("a bug")), []),
        (grouped(ValueError("a bad row"), grouped(ValueError("another"), KeyError("a bug"))), []),
        (BaseExceptionGroup("", [ValueError("a bad row"), KeyboardInterrupt()]), []),
    ],
)
def test_a_group_is_of_mistakes_only_where_no_bug_is_among_them(error: BaseException, told: list[str]) -> None:
    assert _mistakes(error) == told


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command whose work ends in `error`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cluster.predictions, "read_predictions", fail)
    return ["score", "predictions.jsonl"]


def test_mistakes_in_a_group_have_a_line_each(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(*failing_with(grouped(ValueError("first"), grouped(FileExistsError("second"))), monkeypatch))

    assert told == Outcome(2, "", "caliber score: first\ncaliber score: second\n")


@pytest.mark.parametrize(
    "bug", [RuntimeError("a bug"), KeyError("a bug"), grouped(ValueError("a bad row"), RuntimeError("a bug"))]
)
def test_a_bug_keeps_its_trace(run: Run, monkeypatch: pytest.MonkeyPatch, bug: Exception) -> None:
    with pytest.raises(type(bug)) as raised:
        run(*failing_with(bug, monkeypatch))

    assert raised.value is bug


def test_trace_shows_where_a_mistake_came_from(run: Run) -> None:
    with pytest.raises(RecipeError, match="unknown key"):
        run("check", DEMO, "rl.stepz=3", "--trace")


def test_ctrl_c_is_told_as_shells_tell_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(*failing_with(KeyboardInterrupt(), monkeypatch))

    assert told == Outcome(130, "", "caliber score: interrupted\n")


def test_a_job_that_was_told_to_stop_has_not_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told = run(*failing_with(Stopped("stopped after step 3 of 9"), monkeypatch))

    assert told == Outcome(0, "stopped after step 3 of 9\n", "")


def test_libraries_are_silenced_unless_the_user_said_otherwise(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")

    run("check", DEMO)

    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["TOKENIZERS_PARALLELISM"] == ENVIRONMENT["TOKENIZERS_PARALLELISM"]


# Score


def line(answer: str, confidence: str | None = "0.75", reasoning: str = "it smiles", **truth: object) -> str:
    stated = "" if confidence is None else f"<confidence>{confidence}</confidence>"
    response = f"<think>{reasoning}</think><answer>{answer}</answer>{stated}"
    return json.dumps({"task": "emoji", "candidates": ["a", "b"], "response": response, **truth}) + "\n"


def predictions(*lines: str) -> Path:
    path = Path("predictions.jsonl").absolute()
    path.write_text("".join(lines))
    return path


def cells(told: Outcome, row: str) -> dict[str, str]:
    """The numbers of a row of the table, by the first column's names."""
    lines = told.out.splitlines()
    (found,) = [line.split() for line in lines if line.split()[:1] == [row]]
    return dict(zip(["accuracy", "best acc.", "bal. acc.", "F1"], found[1:5], strict=True)) | {"n": found[-1]}


def test_score_prints_the_metrics_of_a_file_by_task_and_overall(run: Run) -> None:
    path = predictions(
        line("a", ground_truth="a"), line("a", ground_truth="b"), line("b", ground_truth="b", task="words")
    )

    told = run("score", path, "--elements")

    assert told.code == 0
    assert (cells(told, "emoji")["accuracy"], cells(told, "emoji")["n"]) == ("0.500", "2")
    assert (cells(told, "words")["accuracy"], cells(told, "words")["n"]) == ("1.000", "1")
    assert (cells(told, "overall")["accuracy"], cells(told, "overall")["n"]) == ("0.667", "3")


def test_score_writes_what_it_prints_where_it_is_told_to(run: Run) -> None:
    path = predictions(*[line("a", counts={"a": 3, "b": 1})] * 4)

    told = run("score", path, "--elements", "--draws", 50, "--seed", 4, "--bins", 7, "--out", "metrics.json")

    written = read_metrics(Path("metrics.json"))
    assert told.code == 0
    assert written == score_file(path, NO_ELEMENTS, annotator_draws=50, seed=4, bins=7)
    assert written != score_file(path, NO_ELEMENTS, annotator_draws=50, seed=5, bins=7)
    assert cells(told, "emoji")["n"] == "200"


def test_score_wants_the_elements_of_the_reasoning_that_it_is_given(run: Run) -> None:
    path = predictions(line("a", reasoning="<mood>x</mood>", ground_truth="a"))

    accuracies = [
        cells(run("score", path, *options), "emoji")["accuracy"]
        for options in ([], ["--elements"], ["--elements", "mood"])
    ]

    # the default asks for five elements; without any, an unknown tag is text
    assert accuracies == ["0.000", "1.000", "1.000"]


def test_score_takes_responses_of_stage_1_where_it_is_told_to(run: Run) -> None:
    path = predictions(line("a", confidence=None, ground_truth="a"))

    strict, lenient = run("score", path, "--elements"), run("score", path, "--elements", "--without-confidence")

    assert cells(strict, "emoji")["accuracy"] == "0.000"
    assert cells(lenient, "emoji")["accuracy"] == "1.000"


def numbered(*rows: str) -> list[str]:
    """Rows of a prompt each."""
    return [json.dumps(json.loads(row) | {"id": str(number)}) + "\n" for number, row in enumerate(rows)]


def test_score_prints_baselines_and_intervals_of_all_tasks_together(run: Run) -> None:
    rows = [line("a", confidence, ground_truth=truth) for confidence in ("0.9", "0.6") for truth in "aaab"]
    path = predictions(*numbered(*rows))

    told = run("score", path, "--elements", "--resamples", 200)

    assert told.code == 0
    assert cells(told, "constant")["accuracy"] == "0.750"
    assert re.findall(r"^ (\+ \w+)", told.out, re.MULTILINE) == ["+ isotonic", "+ temperature"]
    assert "token probability" not in told.out  # the file does not tell
    assert re.search(r"^ accuracy +0\.750 +0\.\d{3} to [01]\.\d{3}$", told.out, re.MULTILINE)
    assert re.search(r"^ ECE +\d+\.\d +\d+\.\d to \d+\.\d$", told.out, re.MULTILINE)
    assert "All tasks, 200 resamples of the prompts" in told.out


@pytest.mark.parametrize("rows, resamples", [(4, 0), (1, 200)])
def test_intervals_can_be_left_out_and_are_where_there_is_one_prompt(run: Run, rows: int, resamples: int) -> None:
    path = predictions(*numbered(*[line("a", ground_truth="a")] * rows))

    told = run("score", path, "--elements", "--resamples", resamples)

    assert told.code == 0
    assert "resamples" not in told.out


def test_score_holds_another_run_beside_it(run: Run) -> None:
    path = predictions(*numbered(*[line("a", ground_truth="a")] * 6, *[line("b", ground_truth="a")] * 6))
    better = path.with_name("better.jsonl")
    better.write_text("".join(numbered(*[line("a", "0.95", ground_truth="a")] * 12)))

    told = run("score", path, "--elements", "--compare", better)

    assert told.code == 0
    _, comparison = told.out.split("opposed\n")
    _, accuracy, mean, *others = [line.split() for line in comparison.splitlines()]
    assert accuracy[:4] == ["accuracy", "0.500", "1.000", "+0.500"]
    assert accuracy[-1] == "0.000"
    assert mean == "mean c 0.750 0.950 +0.200 +0.200 to +0.200 0.000".split()
    assert "AUROC" not in [name for name, *_ in others]  # the other is never wrong


def test_a_run_over_other_prompts_is_one_line(run: Run) -> None:
    path = predictions(*numbered(*[line("a", ground_truth="a")] * 3))
    other = path.with_name("other.jsonl")
    other.write_text("".join(numbered(*[line("a", ground_truth="a")] * 2)))

    told = run("score", path, "--elements", "--compare", other)

    assert (told.code, told.out) == (2, "")
    assert re.fullmatch(r"caliber score: the two runs answer different prompts: 1 are in one alone, .*\n", told.err)


def test_a_run_over_other_questions_of_the_same_ids_is_one_line(run: Run) -> None:
    """Rows without ids have their lines' numbers."""
    path = predictions(*[line(truth, ground_truth=truth) for truth in "aab"])
    other = path.with_name("other.jsonl")
    other.write_text("".join(line(truth, ground_truth=truth) for truth in "baa"))

    told = run("score", path, "--elements", "--compare", other)

    assert (told.code, told.out) == (2, "")
    assert "the rows of 2 prompts are not of one question, such as those of '1', which" in told.err


def numeric(answer: str, confidence: str, reference: str) -> str:
    response = render({}, answer, None) + f"<confidence>{confidence}</confidence>"
    return json.dumps({"response": response, "ground_truth": reference}) + "\n"


def test_score_reads_responses_and_says_what_is_right_as_a_recipe_does(run: Run) -> None:
    own = ["response: {confidence_scale: percent, reasoning_elements: []}", "rewards: {correctness: numeric}"]
    Path("own.yaml").write_text("\n".join([f"extends: {DEMO}", *own, ""]))
    path = predictions(*(numeric(answer, "80%", "1/2") for answer in ("50%", "0.51")))

    told = run("score", path, "--recipe", "own.yaml")

    assert told.code == 0, told.err
    assert cells(told, "overall")["accuracy"] == "0.500"
    assert re.search(r"^ mean c +0\.800 ", told.out, re.MULTILINE)


def test_a_reference_that_the_recipes_rule_cannot_read_is_named_with_its_prompt(run: Run) -> None:
    own = ["response: {reasoning_elements: []}", "rewards: {correctness: numeric}"]
    Path("own.yaml").write_text("\n".join([f"extends: {DEMO}", *own, ""]))
    path = predictions(*numbered(*(numeric("1", "0.8", reference) for reference in ("1", "joy"))))

    told = run("score", path, "--recipe", "own.yaml")

    assert told.code == 2
    assert told.err.startswith("caliber score: prompt 1: got the reference 'joy', expected a number")


def test_a_response_that_the_scorer_fails_on_is_counted_and_the_others_are_scored(run: Run) -> None:
    own = ["response: {reasoning_elements: []}", "rewards: {correctness: 'tests.unit.user_scorers:Moody'}"]
    Path("own.yaml").write_text("\n".join([f"extends: {DEMO}", *own, ""]))

    failed, scored = numeric("raise", "0.8", "joy"), numeric("joy", "0.8", "joy")
    told = run("score", predictions(failed, scored), "--recipe", "own.yaml")
    none = run("score", predictions(failed), "--recipe", "own.yaml")

    assert told.code == 0
    assert "responses that rewards.correctness failed on (see the log), in no number here: 1\n" in told.out
    assert (none.code, none.out) == (2, "")
    assert "caliber score: rewards.correctness of own.yaml gave no verdict on any response" in none.err


def test_the_elements_are_the_recipes_where_there_is_one(run: Run) -> None:
    told = run("score", predictions(line("a", ground_truth="a")), "--recipe", DEMO, "--elements")

    assert (told.code, told.out) == (2, "")
    assert "leave out --elements or --recipe" in told.err


@pytest.mark.parametrize(
    "lines, options, complaint",
    [
        (["{\n"], [], r"\S+predictions\.jsonl:1: "),
        ([line("a")], [], r"\S+predictions\.jsonl:1: got neither ground_truth nor counts"),
        ([line("a", ground_truth="a")], ["--draws", 0], "got annotator_draws = 0, expected 1 or more"),
        ([line("a", ground_truth="a")], ["--bins", 0], "bins is 0, but a calibration error needs at least 1"),
    ],
)
def test_what_cannot_be_scored_is_one_line(run: Run, lines: list[str], options: list[object], complaint: str) -> None:
    told = run("score", predictions(*lines), "--elements", *options)

    assert (told.code, told.out) == (2, "")
    assert re.fullmatch(rf"caliber score: {complaint}.*\n", told.err)


def test_predictions_that_are_not_there_are_named(run: Run) -> None:
    told = run("score", "nowhere.jsonl")

    assert (told.code, told.out) == (2, "")
    assert re.fullmatch(r"caliber score: .*nowhere\.jsonl.*\n", told.err)


# Data

SMALL = [
    "data.emoji.sft_emoji=2",
    "data.emoji.stage2_emoji=1",
    "data.emoji.rl_emoji=1",
    "data.emoji.test_emoji=3",
    "data.emoji.stage1_pictures=1",
    "data.emoji.stage2_pictures=1",
    "data.emoji.stage3_pictures=2",
    "data.emoji.eval_pictures_per_emoji=1",
    "data.emoji.image_size=28",
]


def test_data_builds_the_emoji_set_by_its_settings(run: Run) -> None:
    told = run("data", "emoji", "set", *SMALL)

    rows = {path.stem: len(path.read_text().splitlines()) for path in Path("set").glob("*.jsonl")}
    assert told == Outcome(0, "set: 2 sft, 1 stage2, 1 rl, 3 test emoji\n", "")
    # emoji of stages 1, 2 and 3 are 2, 3 and 4; each has its pictures
    assert rows == {"stage1": 2, "stage2": 3, "stage3": 8, "seen": 2, "unseen": 3}
    assert len(list(Path("set/pictures").iterdir())) == 18


def test_data_builds_the_words_set_by_its_settings(run: Run) -> None:
    sizes = ("unseen_words=3", "stage1_words=4", "stage1_raters=2", "stage2_words=2", "stage3_words=5", "seen_words=1")

    told = run("data", "words", "set", *(f"data.words.{size}" for size in sizes))

    rows = {path.stem: len(path.read_text().splitlines()) for path in Path("set").glob("*.jsonl")}
    assert told == Outcome(0, "set: 3 unseen, 4 stage1, 2 stage2, 5 stage3 words\n", "")
    assert rows == {"stage1": 8, "stage2": 2, "stage3": 5, "seen": 1, "unseen": 3}


def test_a_recipe_of_another_set_is_refused(run: Run) -> None:
    told = run("data", "words", "set", DEMO)

    assert told.code == 2
    assert told.err.endswith("has no data.words: add it, or leave the recipe out to take the shipped one\n")


def test_data_leaves_a_folder_that_exists_as_it_is(run: Run) -> None:
    Path("set").mkdir()

    told = run("data", "emoji", "set", *SMALL)

    assert told == Outcome(2, "", "caliber data: set exists: choose another folder or remove it\n")
    assert list(Path("set").iterdir()) == []


@pytest.mark.parametrize(
    "setting, name",
    [
        ("data.emoji.sft_emojis=3", "did you mean sft_emoji?"),
        ("data.emoji.sft_emoji=0", "sft_emoji"),
        ("data.emoji.sft_emoji=[", "sft_emoji"),
        ("data.emoji=null", "has no data.emoji"),
    ],
)
def test_a_wrong_setting_of_the_set_is_named_and_nothing_built(run: Run, setting: str, name: str) -> None:
    told = run("data", "emoji", "set", setting)

    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("caliber data: ")
    assert name in told.err
    assert list(Path.cwd().iterdir()) == []


def test_more_emoji_than_there_are_is_one_line(run: Run) -> None:
    told = run("data", "emoji", "set", "data.emoji.sft_emoji=100000")

    assert told.code == 2
    assert re.fullmatch(r"caliber data: data\.emoji asks for \d+ emoji, but \d+ have .*\n", told.err)
    assert list(Path.cwd().iterdir()) == []


def test_data_takes_the_settings_of_a_recipe(run: Run) -> None:
    Path("own.yaml").write_text(f"extends: {DEMO}\ndata: {{emoji: {{test_emoji: 2}}}}\n")

    told = run("data", "emoji", "set", "own.yaml", *(s for s in SMALL if "test_emoji" not in s))

    assert told == Outcome(0, "set: 2 sft, 1 stage2, 1 rl, 2 test emoji\n", "")


def test_a_folder_in_the_place_of_a_file_is_one_line(run: Run) -> None:
    told = run("score", Path.cwd())

    assert told.code == 2
    assert re.fullmatch(r"caliber score: .*[Ii]s a directory.*\n", told.err)
