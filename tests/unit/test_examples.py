"""The folders of examples/: their recipes pass the check, their code works on real responses, their READMEs are true.

`tests/integration/test_examples.py` trains one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.check import describe_recipe
from cluster.cli import _parser, main
from cluster.pipeline import check_data
from configs.load import load_recipe
from rewards.parse import parse

ROOT = Path(__file__).parents[2]
EXAMPLES = ("own-data", "custom-correctness", "remote-judge")
RESPONSES = "../own-data/responses.jsonl"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be written into; the judge's token is set."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("run", "data", "__pycache__")
    )
    monkeypatch.setenv("JUDGE_TOKEN", "a-secret")
    return tmp_path / "examples"


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)


def test_every_example_is_a_folder_with_a_readme_and_the_readme_leads_there() -> None:
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}

    assert folders == set(EXAMPLES)
    for name in EXAMPLES:
        assert (ROOT / "examples" / name / "README.md").is_file()
        assert f"examples/{name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_examples_recipe_passes_the_check(examples: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(examples / name)

    told = describe_recipe(load_recipe("recipe.yaml"))

    assert "safe: no response gains" in told
    assert "PROBLEM" not in told


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rows_that_are_made_are_read_for_every_example(
    examples: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = python(examples / "own-data", "weather.py")
    monkeypatch.chdir(examples / name)

    check_data(load_recipe("recipe.yaml"))  # raises for a row that is wrong, and for a scorer that cannot be made

    assert made.returncode == 0, made.stderr
    first = json.loads((examples / "own-data" / "data" / "stage1.jsonl").open().readline())
    shown = (examples / "own-data" / "README.md").read_text().split("```json\n")[1].split("```")[0]
    assert json.loads(shown) == first


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_of_an_examples_readme_is_one(examples: Path, name: str) -> None:
    text = (examples / name / "README.md").read_text(encoding="utf-8")
    commands = [line.split("#")[0].split() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]

    for command in commands:
        match command:
            case ["cd", folder]:
                assert (examples.parent / folder).is_dir()
            case ["caliber", *words]:
                _parser().parse_args(words)  # ends the test where it does not know them
            case ["python", "-m", "pytest"] | ["export", _] | ["POST", *_]:
                pass
            case ["python", script, *_] | ["(cd", _, "&&", "python", script]:
                assert (examples / ("own-data" if command[0] == "(cd" else name) / script.rstrip(")")).is_file()
            case _:
                pytest.fail(f"{command} is none that is known")


def test_the_custom_scorers_own_tests_are_green(examples: Path) -> None:
    done = python(examples / "custom-correctness", "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def rewarded(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, object]]:
    """What `caliber reward` says of the responses, a row each."""
    capsys.readouterr()
    assert main(["reward", "recipe.yaml", RESPONSES, *overrides]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stated() -> list[str | None]:
    """The answer of each response, None where it is malformed."""
    form = load_recipe(ROOT / "examples" / "own-data" / "recipe.yaml").response
    rows = [json.loads(line) for line in (ROOT / "examples" / "own-data" / "responses.jsonl").open()]
    parsed = [
        parse(row["response"], form, candidates=tuple(row["candidates"]), truncated=row["truncated"]) for row in rows
    ]
    return [None if found.malformed else found.answer for found in parsed]


WEATHER = ("dry", "drizzle", "rain")


def test_the_custom_scorer_gives_real_responses_halves_that_exact_does_not(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(examples / "custom-correctness")

    near = rewarded(capsys)
    exact = rewarded(capsys, "rewards.correctness=exact")

    assert [row["answer"] for row in near if row["answer"] is not None] != []
    assert {row["parts"]["correctness"] for row in exact} == {0.0, 1.0}  # type: ignore[index]
    assert {0.5, 1.0} <= {row["parts"]["correctness"] for row in near} <= {0.0, 0.5, 1.0}  # type: ignore[index]
    for answer, one, other in zip(stated(), near, exact, strict=True):
        worth, right = one["parts"]["correctness"], other["parts"]["correctness"]  # type: ignore[index]
        assert worth >= right
        assert answer is not None or worth == 0


@pytest.fixture
def judge(examples: Path) -> Iterator[str]:
    """The judge's address, while it runs."""
    process = subprocess.Popen(
        [sys.executable, "judge.py", "0"], cwd=examples / "remote-judge", stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("judging at ").strip()
    finally:
        process.terminate()
        process.wait()


def test_the_judge_is_asked_about_real_responses(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], judge: str
) -> None:
    monkeypatch.chdir(examples / "remote-judge")

    found = rewarded(capsys, f"rewards.judge.url={judge}")

    assert not any("failure" in row for row in found)
    worths = {row["parts"]["correctness"] for row in found}  # type: ignore[index]
    assert {0.0, 1.0} < worths <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}


def test_who_does_not_know_the_judges_token_is_told_nothing(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], judge: str
) -> None:
    monkeypatch.chdir(examples / "remote-judge")
    monkeypatch.setenv("JUDGE_TOKEN", "another")

    found = rewarded(capsys, f"rewards.judge.url={judge}", "rewards.judge.failures_before_pause=1")

    failures = {str(row["failure"]) for row in found if "failure" in row}
    assert any("answered 401" in failure for failure in failures)


def asked(address: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(address, body, headers, method="POST")
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_judge_refuses_what_is_no_question(judge: str) -> None:
    known = {"Authorization": "Bearer a-secret"}

    assert asked(judge, b'{"answer": "dry", "reference": "dry"}', **known) == 200
    assert asked(judge, b'{"answer": "dry"}', **known) == 400
    assert asked(judge, b"[" * 50_000, **known) == 400
    assert asked(judge, b" " * 100_000, **known) == 413
    assert asked(judge, b'{"answer": "dry", "reference": "dry"}') == 401


def test_the_judge_listens_on_this_machine_alone_and_not_without_a_token(
    examples: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_TOKEN")

    refused = python(examples / "remote-judge", "judge.py", "0")

    assert judge.startswith("http://127.0.0.1:")
    assert (refused.returncode, refused.stderr) == (
        1,
        "judge.py: set JUDGE_TOKEN to a secret of your own, here and where Caliber runs\n",
    )
    assert "JUDGE_TOKEN" not in os.environ
