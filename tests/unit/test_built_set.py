"""What all sets have in common, with a set of one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.schema import Response, WordsData
from rollout.built_set import BuiltSet, sft_response, write_rows

Write = Callable[[Path], dict[str, int]]


def write_one(folder: Path) -> dict[str, int]:
    write_rows(folder / "stage1.jsonl", [{"id": "ä"}])
    return {"stage1": 1, "test": 0}


def small(form: Response | None = None, *, seed: int = 0, write: Write = write_one) -> BuiltSet:
    return BuiltSet("words", WordsData(seed=seed), form or Response(), write)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_set_is_built_where_others_may_read_it_and_told_in_words(tmp_path: Path) -> None:
    told = small().build(tmp_path / "deep" / "set")

    assert told == "1 stage1, 0 test words"
    assert (tmp_path / "deep" / "set").stat().st_mode & 0o777 == 0o755
    assert sorted(contents(tmp_path / "deep" / "set")) == ["settings.json", "stage1.jsonl"]


def test_a_folder_that_is_there_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")

    with pytest.raises(ValueError, match="exists: choose another folder or remove it"):
        small().build(tmp_path)

    assert contents(tmp_path) == {"precious": b"x"}


def test_of_a_set_that_fails_half_way_nothing_is_left(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        write_one(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(write=fail).build(tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_a_set_passes_the_check_of_its_own_settings_alone(tmp_path: Path) -> None:
    small().build(tmp_path / "set")
    refused = pytest.raises(ValueError, match=r"not built from this recipe's settings: remove it .* data\.root")

    small().check(tmp_path / "set")
    small(Response(confidence_step=0.05)).check(tmp_path / "set")  # the grid is no business of a set's
    with refused:
        small(seed=1).check(tmp_path / "set")
    with refused:
        small(Response(reasoning_elements=("word",))).check(tmp_path / "set")
    with refused:
        BuiltSet("emoji", WordsData(), Response(), write_one).check(tmp_path / "set")


def test_a_folder_that_is_no_set_does_not_pass_the_check_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")

    with pytest.raises(ValueError, match="not built from this recipe's settings"):
        small().check(tmp_path)

    assert contents(tmp_path) == {"precious": b"x"}


def test_a_response_holds_the_wanted_elements_in_their_order() -> None:
    texts = {"word": "joy", "root": "jo"}

    both = sft_response(texts, ("root", "word"), "glad")
    none = sft_response(texts, (), "glad")

    assert both == "<think><root>jo</root><word>joy</word></think><answer>glad</answer>"
    assert none == "<think></think><answer>glad</answer>"
    with pytest.raises(ValueError, match=r"no text for .* \['mood'\]; it has \['word', 'root'\]: change response"):
        sft_response(texts, ("mood", "word"), "a")
