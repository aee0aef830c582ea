"""`caliber init`: what it writes can work, what it asks, and what it leaves alone."""

from __future__ import annotations

import builtins
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from cluster.check import describe_recipe
from cluster.cli import main
from cluster.prompt_lengths import refuse_too_long
from cluster.starter import OWN, SCRATCH, Answers, write_starter
from configs.choices import Correctness, Precision, Reference
from configs.derive import problems
from configs.load import load_recipe
from rewards.safety import refuse_unsafe

RIGHT = [OWN, *(str(how) for how in Correctness if how is not Correctness.JUDGE)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with nobody at the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    return tmp_path


def answers(**changes: object) -> Answers:
    given = {
        "name": "mine",
        "model": SCRATCH,
        "data": "data",
        "correctness": OWN,
        "reference": Reference.LABEL,
        "gpus": 0,
    }
    return Answers(**(given | changes))  # type: ignore[arg-type]


def test_without_a_terminal_or_flags_a_recipe_is_written_that_passes_the_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my moods"]) == 0
    assert sorted(file.name for file in (folder / "my moods").iterdir()) == [
        "recipe.yaml",
        "scorer.py",
        "test_scorer.py",
    ]

    monkeypatch.chdir("my moods")
    told = describe_recipe(load_recipe("recipe.yaml"))  # makes the scorer, in its process

    assert "next: cd 'my moods' && caliber check recipe.yaml && python -m pytest" in capsys.readouterr().out
    assert "recipe my-moods, output run" in told
    assert "answers against the label (scorer:Scorer)" in told
    assert "safe: no response gains" in told
    assert "PROBLEM" not in told


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=folder, capture_output=True, text=True
    )


def test_the_test_that_is_written_is_green_and_red_where_the_scorer_is_broken(folder: Path) -> None:
    write_starter(folder / "mine", answers())
    scorer = folder / "mine" / "scorer.py"

    before = run_tests(folder / "mine")
    scorer.write_text(scorer.read_text().replace("given | wanted)", "wanted)"))
    after = run_tests(folder / "mine")

    assert (before.returncode, after.returncode) == (0, 1), before.stdout + after.stdout
    assert "7 passed" in before.stdout


@pytest.mark.parametrize(
    ("correctness", "reference", "gpus", "model"),
    list(itertools.product(RIGHT, Reference, (0, 2, 8), (SCRATCH, "Qwen/Qwen2.5-VL-3B-Instruct"))),
)
def test_whatever_is_answered_the_recipe_can_work_and_is_safe(
    folder: Path, correctness: str, reference: Reference, gpus: int, model: str
) -> None:
    write_starter(
        folder / "mine", answers(correctness=correctness, reference=reference, gpus=gpus, model=model, data="my data")
    )

    recipe = load_recipe(folder / "mine" / "recipe.yaml")

    assert problems(recipe) == []
    refuse_unsafe(recipe.rewards)
    assert recipe.rewards.correctness == ("scorer:Scorer" if correctness == OWN else correctness)
    assert recipe.rewards.reference is reference
    assert (recipe.name, recipe.data.root) == ("mine", "my data")
    assert (recipe.model.path or SCRATCH) == model
    assert (
        recipe.learner.ranks * recipe.learner.gpus_per_rank + recipe.engine.workers * recipe.engine.gpus_per_worker
        == gpus
    )
    assert recipe.learner.precision is (Precision.BF16 if gpus else Precision.FP32)


@pytest.mark.parametrize("gpus", [0, 2])
@pytest.mark.parametrize("size", [(640, 480), (4000, 3000)])
def test_an_ordinary_photograph_leaves_room_for_a_question_and_a_response(
    folder: Path, tiny_model: Path, gpus: int, size: tuple[int, int]
) -> None:
    write_starter(folder, answers(gpus=gpus))
    (folder / "data").mkdir()
    Image.new("RGB", size).save(folder / "data" / "photo.jpg")
    row = {"prompt": "What feeling does this picture carry?", "image": "photo.jpg", "ground_truth": "joy"}
    for name in ("stage2", "stage3", "test"):
        (folder / "data" / f"{name}.jsonl").write_text(json.dumps(row))
    recipe = load_recipe("recipe.yaml")

    refuse_too_long(str(tiny_model), recipe, (2, 3), evaluated=True)


@pytest.mark.parametrize("odd", ['two "words"', "true", "a: b # c", "$HOME", "naïve"])
def test_text_of_any_kind_comes_through_as_it_is(folder: Path, odd: str) -> None:
    write_starter(folder / "mine", answers(name=odd, data=odd, model=odd))

    recipe = load_recipe(folder / "mine" / "recipe.yaml")

    assert (recipe.name, recipe.data.root, recipe.model.path) == (odd, odd, odd)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """Somebody at the terminal who types these lines; returns what is left of them."""
    left = list(lines)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(builtins, "input", lambda *_: left.pop(0))
    return left


def test_at_a_terminal_it_asks_for_what_no_flag_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = typed(monkeypatch, "sums", "", "rows", "sum", "numeric", "0")

    main(["init", "mine", "--reference", "label"])

    recipe = load_recipe("mine/recipe.yaml")
    asked = capsys.readouterr().out
    assert left == []
    assert "What answers are held against" not in asked
    assert "Please select one of the available options" in asked  # of `sum`
    assert (recipe.name, recipe.data.root, recipe.rewards.correctness) == ("sums", "rows", "numeric")
    assert recipe.model.scratch is not None


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((path.name, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: path.mkdir() or (path / ".hidden").write_text("")]
)
def test_a_folder_may_be_there_if_it_is_empty(
    folder: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    make(folder / "mine")
    empty = not list(files(folder))

    code = main(["init", "mine"])

    assert code == (0 if empty else 2)
    if not empty:
        assert (
            capsys.readouterr().err == "caliber init: mine is not empty: name a new folder, nothing is written over\n"
        )
        assert [name for name, _ in files(folder)] == [".hidden"]


def test_a_folder_that_is_full_is_refused_before_anything_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine").write_text("a file")
    left = typed(monkeypatch, "sums")

    assert main(["init", "mine"]) == 2

    assert left == ["sums"]
    assert "mine is not empty" in capsys.readouterr().err
    assert list(files(folder)) == [("mine", b"a file")]


def test_one_gpu_and_fewer_than_none_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, -1):
        assert main(["init", "mine", "--gpus", str(number)]) == 2
        assert f"got {number} GPUs, expected 0, or at least 2" in capsys.readouterr().err
    assert not (folder / "mine").exists()
