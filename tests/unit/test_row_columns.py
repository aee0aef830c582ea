"""`data.columns`, and rows whose format cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.choices import Column
from configs.schema import Data
from rollout.prompts import Message
from tests.unit import data_formats as formats
from tests.unit.data_formats import as_lines, problems, read, with_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_pictures(tmp_path)


def test_two_questions_are_an_error_until_the_recipe_says_which(folder: Path) -> None:
    path = as_lines(folder, [formats.chat("1") | {"prompt": "Which?"}])

    [fault] = problems(path, folder)
    [prompt] = read(path, folder, {Column.MESSAGES: "messages"})

    assert fault == (
        f"{path}:1: has `messages` and `prompt`, each of which could be the question: say which, "
        "data.columns: {messages: messages}"
    )
    assert prompt.messages[-1].text == "<image>Which emotion?"


@pytest.mark.parametrize(
    ("row", "near"),
    [
        ({"n": "7", "dialogue": [{"role": "user", "content": "Hi"}]}, "{messages: dialogue}"),
        ({"n": "7", "chat": [{"from": "human", "value": "Hi"}]}, "{conversations: chat}"),
        ({"n": "7", "question": "How many?", "answer": 3}, "{prompt: question}"),
    ],
)
def test_an_unknown_shape_is_answered_with_its_keys_and_the_nearest_format(
    folder: Path, row: dict[str, object], near: str
) -> None:
    [fault] = problems(as_lines(folder, [row]), folder)

    assert f"only the keys {', '.join(map(repr, row))}. " in fault
    assert fault.endswith(f"if it is the question, data.columns: {near}")


def test_the_remedy_that_is_named_is_one(folder: Path) -> None:
    path = as_lines(folder, [{"n": "7", "dialogue": [{"role": "user", "content": "Hi"}], "ground_truth": "Ho"}])

    [prompt] = read(path, folder, {Column.MESSAGES: "dialogue"}, response=False)

    assert prompt.messages == (Message("user", "Hi"),)


def test_a_column_that_no_row_has_is_an_error_unless_ours_is_there(folder: Path) -> None:
    path = as_lines(folder, [formats.chat("1")])

    found = problems(path, folder, {Column.LABEL: "gold", Column.COUNTS: "votes"})

    assert found == [
        f"{path}: data.columns takes `counts` from `votes`, which no row has: mend the name, or leave it out"
    ]


def test_a_label_that_would_stand_in_no_object_is_a_fault(folder: Path) -> None:
    [fault] = problems(
        as_lines(folder, [formats.chat("1") | {"reference": "joy", "gold": "fear"}]), folder, {Column.LABEL: "gold"}
    )

    assert ":1: `reference` is no object, and data.columns puts `label` into it" in fault


def test_a_recipe_names_one_question() -> None:
    with pytest.raises(ValueError, match=r"data\.columns names messages and prompt, and each holds the question"):
        Data(root="data", columns={"messages": "a", "prompt": "b"})  # type: ignore[dict-item]
