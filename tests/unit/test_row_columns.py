"""`data.columns`, and rows whose format cannot be told."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from configs.choices import Column
from configs.schema import Data
from rollout.prompts import Message, Prompt
from rollout.readers import read_prompts
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


def test_one_mapping_serves_the_files_of_all_stages_and_rows_that_are_to_be_predicted(tmp_path: Path) -> None:
    columns = {Column.PROMPT: "question", Column.RESPONSE: "completion", Column.LABEL: "gold", Column.COUNTS: "votes"}
    rows = {
        "stage1": {"question": "Is it wet?", "completion": "yes"},
        "stage2": {"question": "Is it wet?"},
        "stage3": {"question": "Is it wet?", "gold": "yes"},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))

    def prompts(name: str, *, response: bool = False, reference: bool = False) -> list[Prompt]:
        path = tmp_path / f"{name}.jsonl"
        return read_prompts(path, tmp_path, columns=columns, need_response=response, require_reference=reference)

    [first], [second], [third] = prompts("stage1", response=True), prompts("stage2"), prompts("stage3", reference=True)

    assert first.messages == second.messages == third.messages == (Message("user", "Is it wet?"),)
    assert (first.response, second.response, third.label) == ("yes", None, "yes")


NEEDED: list[tuple[dict[str, object], dict[Column, str], list[str]]] = [
    ({"prompt": "?", "ground_truth": "a"}, {Column.RESPONSE: "out", Column.LABEL: "gold"}, ["`response` from `out`"]),
    (
        {"prompt": "?", "response": "a"},
        {Column.LABEL: "gold", Column.COUNTS: "votes"},
        ["`label` from `gold`", "`counts` from `votes`"],
    ),
    ({"instruction": "?", "ground_truth": "a"}, {Column.OUTPUT: "out", Column.INPUT: "in"}, ["`output` from `out`"]),
    ({"prompt": "?", "response": "a", "ground_truth": "a"}, {Column.MESSAGES: "chat"}, ["`messages` from `chat`"]),
    ({"prompt": "<image>?", "response": "a", "ground_truth": "a"}, {Column.IMAGES: "pics"}, ["`images` from `pics`"]),
    (
        {"prompt": "?", "response": "a", "reference": {"counts": {"a": 1}}},
        {Column.CANDIDATES: "options"},
        ["`candidates` from `options`"],
    ),
]


@pytest.mark.parametrize(("row", "columns", "named"), NEEDED)
def test_a_column_that_no_row_has_is_an_error_where_the_file_needs_what_it_stands_for(
    folder: Path, row: dict[str, object], columns: dict[Column, str], named: list[str]
) -> None:
    path = as_lines(folder, [row])

    found = problems(path, folder, columns)

    remedy = "which no row has: mend the name, or leave it out"
    assert found[: len(named)] == [f"{path}: data.columns takes {one}, {remedy}" for one in named]
    assert not any("data.columns" in fault for fault in found[len(named) :])


def test_a_column_that_no_row_has_and_the_file_can_do_without_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = as_lines(folder, [formats.chat("1")])

    with caplog.at_level(logging.INFO, "rollout.readers"):
        read(path, folder, {Column.LABEL: "gold", Column.COUNTS: "votes", Column.TASK: "set", Column.SYSTEM: "before"})

    assert caplog.messages == [
        f"{path}: 1 rows, messages (JSON lines), none with `votes` for `counts` or `before` for `system`"
    ]


def test_an_alpaca_file_may_have_any_names_for_its_columns(folder: Path) -> None:
    row = {"task_text": "Which?", "context": "Of two.", "answer": "joy", "turns": [["Who?", "A child."]], "gold": "joy"}
    columns = {
        Column.INSTRUCTION: "task_text",
        Column.INPUT: "context",
        Column.OUTPUT: "answer",
        Column.HISTORY: "turns",
        Column.LABEL: "gold",
    }

    [prompt] = read(as_lines(folder, [row]), folder, columns)

    said = [("user", "Who?"), ("assistant", "A child."), ("user", "Which?\nOf two.")]
    assert [(message.role, message.text) for message in prompt.messages] == said
    assert (prompt.response, prompt.label) == ("joy", "joy")


def test_an_instruction_beside_another_question_is_the_question_where_the_recipe_names_it(folder: Path) -> None:
    path = as_lines(folder, [{"prompt": "Be brief.", "instruction": "Which?", "output": "joy", "ground_truth": "joy"}])

    [prompt] = read(path, folder, {Column.INSTRUCTION: "instruction"})

    assert (prompt.messages, prompt.response) == ((Message("user", "Which?"),), "joy")


def test_a_label_that_would_stand_in_no_object_is_a_fault(folder: Path) -> None:
    [fault] = problems(
        as_lines(folder, [formats.chat("1") | {"reference": "joy", "gold": "fear"}]), folder, {Column.LABEL: "gold"}
    )

    assert ":1: `reference` is no object, and data.columns puts `label` into it" in fault


@pytest.mark.parametrize(("one", "other"), [("messages", "prompt"), ("prompt", "instruction")])
def test_a_recipe_names_one_question(one: str, other: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.columns names {one} and {other}, and each holds the question"):
        Data(root="data", columns={one: "a", other: "b"})  # type: ignore[dict-item]
