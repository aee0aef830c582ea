"""Formats of data: each gives the same prompts for the same content, and says what is wrong with file and row."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.choices import Column
from rollout.prompts import Message, Prompt
from rollout.readers import DataError, read_prompts
from tests.unit import data_formats as formats
from tests.unit.data_formats import (
    FORMATS,
    Rows,
    as_lines,
    as_parquet,
    as_parquet_folder,
    as_saved,
    problems,
    read,
    with_pictures,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_pictures(tmp_path)


def without_paths(prompt: Prompt) -> tuple[object, ...]:
    """A prompt with its pictures' bytes in the place of where they lie."""
    pictures = tuple(Path(image).read_bytes() for image in prompt.images)
    return (
        prompt.prompt_id,
        prompt.task,
        prompt.messages,
        prompt.candidates,
        prompt.label,
        dict(prompt.counts),
        prompt.response,
        pictures,
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_prompts_for_the_same_content(folder: Path, name: str) -> None:
    found = FORMATS[name]
    path = found.write(folder, [found.row(number) for number in formats.SIZES])

    prompts = read(path, folder, found.columns)

    assert [without_paths(prompt) for prompt in prompts] == [
        (
            number,
            "faces",
            (Message("system", "Look."), Message("user", "<image>Which emotion?")),
            ("joy", "fear"),
            label,
            {},
            f"<answer>{label}</answer>",
            (formats.picture(number),),
        )
        for number, label in formats.LABELS.items()
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_is_said_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    found = FORMATS[name]
    path = found.write(folder, [found.row(number) for number in formats.SIZES])

    with caplog.at_level(logging.INFO, "rollout.readers"):
        read(path, folder, found.columns)

    assert caplog.messages == [f"{path}: 3 rows, {found.said}"]


@pytest.mark.parametrize("write", [as_lines, as_parquet, as_parquet_folder, as_saved])
def test_rows_without_ids_have_the_same_ones_however_they_are_kept(
    folder: Path, write: Callable[[Path, Rows], Path]
) -> None:
    rows = [{"prompt": "7 + 5", "ground_truth": "12"}] * 3

    prompts = read(write(folder, rows), folder, response=False)

    assert [prompt.prompt_id for prompt in prompts] == ["data:1", "data:2", "data:3"]


def test_counts_in_a_table_leave_out_what_is_null(folder: Path) -> None:
    rows = [
        {"prompt": "Which?", "candidates": ["joy", "fear"], "reference": {"counts": counts}}
        for counts in ({"joy": 3, "fear": 1}, {"fear": 2})
    ]

    first, second = read(as_parquet(folder, rows), folder, response=False)

    assert (first.counts, second.counts) == ({"joy": 3, "fear": 1}, {"joy": 0, "fear": 2})


def test_votes_may_be_a_map_of_arrows(folder: Path) -> None:
    counts = pa.array([[("joy", 3), ("fear", 1)]], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"prompt": ["Which?"], "candidates": [["joy", "fear"]], "votes": counts})
    pq.write_table(table, folder / "data.parquet")

    [prompt] = read_prompts(
        folder / "data.parquet", folder, columns={Column.COUNTS: "votes"}, need_response=False, require_reference=True
    )

    assert prompt.counts == {"joy": 3, "fear": 1}


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "columns"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [({"id": "1"}, "id '1' is row 1"), ({"candidates": ["awe"]}, "is not among the candidates awe")],
)
def test_a_row_that_makes_no_sense_is_named_in_every_format(
    folder: Path, name: str, changes: dict[str, object], said: str
) -> None:
    found = FORMATS[name]

    [fault] = problems(found.write(folder, [found.row("1"), found.row("2") | changes]), folder)

    assert fault.startswith(f"{folder / found.second}: ")
    assert said in fault, fault


WITH_ROLES = [
    (name, key)
    for name, found in FORMATS.items()
    for key in ("messages", "prompt")
    if name != "columns" and key in found.row("2")
]


@pytest.mark.parametrize(("name", "key"), WITH_ROLES)
def test_an_empty_system_prompt_is_named_where_turns_have_roles(folder: Path, name: str, key: str) -> None:
    found = FORMATS[name]
    changes = {key: [{"role": "system", "content": ""}, *found.row("2")[key][1:]]}  # type: ignore[index]

    [fault] = problems(found.write(folder, [found.row("1"), found.row("2") | changes]), folder)

    assert fault.startswith(f"{folder / found.second}: ")
    assert "message 1 (system) is empty" in fault, fault


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("columns", "openai paths", "openai data")])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"path": "pictures/no.png"}, "image 'pictures/no.png' is missing"),
        ({"path": "../../no.png"}, "leads out of the data folder"),
        ({"path": "https://x.org/1.png"}, "is an address, and nothing is fetched"),
        ({"bytes": "no picture", "path": None}, "image 'no picture' is missing"),
        ({"size": 3}, "got an object of 'size'"),
    ],
)
def test_a_picture_that_is_none_is_named_in_every_format(
    folder: Path, name: str, image: dict[str, object], said: str
) -> None:
    found = FORMATS[name]
    rows = [found.row("1") | {"images": [{"path": "pictures/1.png"}]}, found.row("2") | {"images": [image]}]

    [fault] = problems(found.write(folder, rows), folder)

    assert fault.startswith(f"{folder / found.second}: ")
    assert said in fault, fault


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://x.org/1.png", "url: 'https://x.org/1.png' is an address, and nothing is fetched"),
        ("s3://bucket/1.png", "url: 's3://bucket/1.png' is an address"),
        ("file:///etc/passwd", "image '/etc/passwd' is an absolute path"),
        ("pictures/%2e%2e/../../x.png", "is missing: there is no file"),
        ("file:pictures/%2e%2e/../x.png", "leads out of the data folder"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "an image of 6 bytes in the row cannot be read"),
        ("data:text/html,hello", "is no data URI in base64"),
    ],
)
def test_what_openais_parts_may_not_name_is_refused_with_its_row(folder: Path, url: str, said: str) -> None:
    [fault] = problems(as_lines(folder, [formats.openai("1", formats.path("1")), formats.openai("2", url)]), folder)

    assert fault.startswith(f"{folder / 'data.jsonl'}:2: ")
    assert said in fault


def test_pictures_are_in_one_place_of_a_row(folder: Path) -> None:
    rows = [formats.openai("1", formats.path("1")) | {"images": [formats.path("1")]}]

    [fault] = problems(as_lines(folder, rows), folder)

    assert "got pictures in both `images` and the content's parts: keep one of them" in fault


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=6)
    | st.sampled_from(["<image>", "data:;base64,"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("role content type text url image image_url bytes ground_truth".split()), inner
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(
    changes=st.dictionaries(
        st.sampled_from([*formats.verl("1"), "system", "response", "reference"]), values, max_size=4
    ),
    named=st.dictionaries(st.sampled_from(Column), st.sampled_from(["prompt", "x", "extra_info.split"]), max_size=3),
)
def test_no_row_and_no_columns_do_more_than_make_faults(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object], named: dict[Column, str]
) -> None:
    root = tmp_path_factory.getbasetemp()
    row = formats.verl("1") | {"images": ["no.png"]} | changes

    try:
        read(as_lines(root, [row]), root, named)
    except DataError as error:
        assert all(problem.startswith(f"{root}/data.jsonl:") for problem in error.problems)


def test_an_instruction_has_its_input_below_it_and_its_history_before_it(folder: Path) -> None:
    turns = {"history": [["Who is it?", "A child."]], "instruction": "Which emotion?", "input": "Look at the eyes."}
    row = {"id": "1", **turns, "output": "joy", "images": ["pictures/1.png"], "ground_truth": "joy"}

    [prompt] = read(as_lines(folder, [row]), folder)

    assert [(message.role, message.text) for message in prompt.messages] == [
        ("user", "Who is it?"),
        ("assistant", "A child."),
        ("user", "<image>Which emotion?\nLook at the eyes."),
    ]
    assert prompt.response == "joy"


def test_pictures_of_an_instruction_stay_where_its_history_has_them(folder: Path) -> None:
    turns = {"history": [["<image>Who is it?", "A child."]], "instruction": "Which emotion?", "output": ""}
    row = {"id": "1", **turns, "images": ["pictures/1.png"], "ground_truth": "joy"}

    [prompt] = read(as_lines(folder, [row]), folder, response=False)

    assert [message.text for message in prompt.messages] == ["<image>Who is it?", "A child.", "Which emotion?"]
    assert prompt.response is None


def test_an_instruction_beside_a_question_is_left_alone(folder: Path) -> None:
    row = {"id": "1", "prompt": "Which emotion?", "instruction": "Be short.", "ground_truth": "joy"}

    [prompt] = read(as_lines(folder, [row]), folder, response=False)

    assert [message.text for message in prompt.messages] == ["Which emotion?"]
