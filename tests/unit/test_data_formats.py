"""Formats of data: each gives the same prompts for the same content, and says what is wrong with file and row."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from configs.choices import Column
from configs.schema import Data
from rollout.picture_store import FOLDER
from rollout.prompts import Message, Prompt
from rollout.readers import DataError, read_prompts
from rollout.row_files import open_rows
from rollout.rows import UnreadableFile
from tests.unit import data_formats as formats
from tests.unit.data_formats import FORMATS, Rows, as_lines, as_parquet, as_parquet_folder, as_saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in formats.SIZES:
        (tmp_path / "pictures" / f"{name}.png").write_bytes(formats.picture(name))
    return tmp_path


def read(path: Path, root: Path, columns: Mapping[Column, str] | None = None, *, response: bool = True) -> list[Prompt]:
    return read_prompts(path, root, columns=columns, need_response=response, require_reference=True)


def problems(path: Path, root: Path, columns: Mapping[Column, str] | None = None) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(path, root, columns)
    return list(caught.value.problems)


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


LABELS = {"feeling": {"_type": "ClassLabel", "names": ["joy", "fear"]}}


def test_a_class_label_is_read_by_its_name(folder: Path) -> None:
    path = as_saved(folder, [{"prompt": "Which?", "feeling": number} for number in (1, 0)], LABELS)

    prompts = read(path, folder, {Column.LABEL: "feeling"}, response=False)

    assert [prompt.label for prompt in prompts] == ["fear", "joy"]


def test_a_class_label_without_a_name_is_a_fault_and_minus_one_is_none(folder: Path) -> None:
    path = as_saved(folder, [{"prompt": "Which?", "feeling": number} for number in (0, 2, -1)], LABELS)

    with pytest.raises(DataError) as caught:
        read(path, folder, {Column.LABEL: "feeling"}, response=False)

    second = path / "data-00001-of-00002.arrow"
    assert caught.value.problems == (
        f"{second}:1: cannot be read (feeling: got 2, of 2 names of labels)",
        f"{second}:2: has no reference: give it a label, or counts of annotators' votes",
    )


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "columns"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "1"}, "id '1' is row 1"),
        ({"candidates": ["awe"]}, "is not among the candidates awe"),
        ({"system": ""}, "message 1 (system) is empty"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_in_every_format(
    folder: Path, name: str, changes: dict[str, object], said: str
) -> None:
    found = FORMATS[name]
    if "system" in changes:
        turns = found.row("2").keys() & {"messages", "prompt"}
        changes = {key: [{"role": "system", "content": ""}, *found.row("2")[key][1:]] for key in turns}  # type: ignore[index]
        if not turns:
            pytest.skip("an empty system prompt of ShareGPT's is none")

    [fault] = problems(found.write(folder, [found.row("1"), found.row("2") | changes]), folder)

    assert fault.startswith(f"{folder / found.second}: ")
    assert said in fault, fault


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


def test_bytes_in_a_table_that_are_no_picture_are_a_fault_of_their_row(folder: Path) -> None:
    rows = [formats.verl("1"), formats.verl("2") | {"images": [{"bytes": b"no picture", "path": "2.png"}]}]

    [fault] = problems(as_parquet(folder, rows), folder)

    assert fault.startswith(f"{folder / 'data.parquet'}:2: an image of 10 bytes in the row cannot be read")


def test_an_embedded_picture_of_too_many_pixels_is_refused_and_not_written(folder: Path) -> None:
    path = as_lines(folder, [formats.openai("1", formats.data_uri("1"))])

    with pytest.raises(DataError, match="has 8 x 4 pixels, expected at most 1e-05 million"):
        read_prompts(path, folder, megapixels_at_most=1e-5, need_response=True, require_reference=True)

    assert not (folder / FOLDER).exists()


def test_an_embedded_picture_is_written_once_and_not_again(folder: Path) -> None:
    path = as_lines(folder, [formats.openai(number, formats.data_uri("1")) | {"id": number} for number in ("1", "2")])

    first = read(path, folder)
    [file] = (folder / FOLDER).iterdir()
    written = file.stat().st_mtime_ns
    second = read(path, folder)

    assert first == second
    assert first[0].images == first[1].images == (str(file),)
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_a_link_in_the_place_of_embedded_pictures_leads_nothing_out(folder: Path, linked: str) -> None:
    root, outside = folder / "root", folder / "outside"
    root.mkdir(), outside.mkdir()
    (outside / "secret.png").write_bytes(formats.picture("2"))
    path = as_lines(root, [formats.openai("1", formats.data_uri("1"))])
    if linked == "folder":
        (root / FOLDER).symlink_to(outside)
        with pytest.raises(ValueError, match="is a link: remove it"):
            read(path, root)
    else:
        name = Path(read(path, root)[0].images[0]).name
        (root / FOLDER / name).unlink()
        (root / FOLDER / name).symlink_to(outside / "secret.png")

        [prompt] = read(path, root)

        assert Path(prompt.images[0]).read_bytes() == formats.picture("1")

    assert [file.name for file in outside.iterdir()] == ["secret.png"]
    assert (outside / "secret.png").read_bytes() == formats.picture("2")


def test_where_embedded_pictures_cannot_be_written_the_remedy_is_named(folder: Path) -> None:
    (folder / FOLDER).write_text("in the way")

    with pytest.raises(ValueError, match=r"let it be written to, or give the rows paths of pictures"):
        read(as_lines(folder, [formats.openai("1", formats.data_uri("1"))]), folder)


# --- columns, and what cannot be told


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


# --- files and folders


def whole(path: Path, root: Path) -> str:
    """What is wrong with a file as a whole, without its name."""
    [fault] = problems(path, root)
    return fault.removeprefix(f"{path}: ")


def test_a_folder_of_several_splits_asks_for_one(folder: Path) -> None:
    as_saved(folder, [formats.plain_messages("1"), formats.plain_messages("2")])
    (folder / "set").mkdir()
    (folder / "data").rename(folder / "set" / "train")
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')

    assert whole(folder / "set", folder) == "the folder holds the splits train: name set/train"


def test_a_folder_of_two_sets_asks_for_one(folder: Path) -> None:
    for name in ("train", "test"):
        as_parquet(folder, [formats.verl("1")]).rename(folder / f"{name}.parquet")

    assert "the folder holds files of more than one set (test.parquet, train.parquet): name one" in whole(
        folder, folder
    )


def test_a_folder_of_nothing_that_is_read_says_what_it_looked_for(folder: Path) -> None:
    assert "the folder holds neither parquet files nor what" in whole(folder / "pictures", folder)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("{", "its state.json cannot be read"),
        ("[]", "its state.json cannot be read"),
        ('{"_data_files": [{"filename": "../../secret.arrow"}]}', "names '../../secret.arrow', which is no file in"),
        ('{"_data_files": [{"filename": 3}]}', "names 3, which is no file in the folder"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i"}]}', "flatten_indices() and save it again"),
    ],
)
def test_a_saved_set_that_is_spoilt_says_so(folder: Path, state: str, said: str) -> None:
    path = as_saved(folder, [formats.plain_messages("1"), formats.plain_messages("2")])
    (path / "state.json").write_text(state)

    assert said in whole(path, folder)


def test_an_empty_table_is_an_empty_file(folder: Path) -> None:
    assert whole(as_parquet(folder, []), folder) == ("the file is empty, expected rows, such as one JSON object a line")


def test_a_table_is_read_as_its_rows_are_asked_for(folder: Path) -> None:
    path = folder / "data.arrow"
    table = pa.table({"prompt": [f"{number} + 5" for number in range(300)]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=100)
    saved = as_saved(folder, [formats.plain_messages(number) for number in formats.SIZES])
    (saved / "data-00000-of-00002.arrow").write_bytes(path.read_bytes()[:-500])  # within the last batch

    rows = open_rows(saved).rows
    first = [next(rows).number for _ in range(200)]

    assert first == list(range(1, 201))
    with pytest.raises(UnreadableFile, match=r"data-00000-of-00002\.arrow: the Arrow file cannot be read"):
        list(rows)


def test_what_a_table_holds_of_another_kind_of_text_is_a_fault_of_its_row(folder: Path) -> None:
    broken = pa.array([b"7 + 5", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"prompt": broken, "ground_truth": ["12", "1"]}), folder / "data.parquet")

    with pytest.raises(DataError) as caught:
        read(folder / "data.parquet", folder, response=False)

    [fault] = caught.value.problems
    assert fault.startswith(f"{folder / 'data.parquet'}:2: cannot be read ('utf-8'")


WRITERS = {"parquet": as_parquet, "saved": as_saved}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("kind", WRITERS)
def test_no_bytes_in_a_table_do_more_than_make_faults(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("spoilt")
    (root / "pictures").mkdir()
    path = WRITERS[kind](root, [formats.verl(number) for number in formats.SIZES])
    file = path if path.is_file() else next(path.glob("*.arrow"))
    written = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(written) - 1), min_size=1, max_size=6)):
        written[place] = data.draw(st.integers(0, 255))
    file.write_bytes(written[: data.draw(st.integers(0, len(written)))])

    try:
        read(path, root)
    except DataError as error:
        assert all(problem.startswith(str(root)) for problem in error.problems)


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


@settings(deadline=None, max_examples=30)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_an_embedded_picture_is_kept_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], kind: str
) -> None:
    root = tmp_path_factory.getbasetemp()
    Image.new("RGB", size).save(root / "drawn", kind)
    encoded = (root / "drawn").read_bytes()
    rows = [formats.verl("1") | {"images": [{"bytes": encoded, "path": None}]}]

    [prompt] = read(as_parquet(root, rows), root)

    assert Path(prompt.images[0]).read_bytes() == encoded
    assert Path(prompt.images[0]).suffix == f".{kind.lower()}"


# --- the documentation's examples

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLES = {
    block.split("`\n```json\n")[0].rpartition("`")[2]: block.split("`\n```json\n")[1]
    for block in DOCUMENT.read_text(encoding="utf-8").split("\n```\n")
    if "`\n```json\n" in block
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_documentation_is_read(folder: Path, name: str) -> None:
    Image.new("RGB", (4, 4)).save(folder / "pictures" / "1.jpg")
    written = json.loads(EXAMPLES[name])
    rows = written if isinstance(written, list) else [written]
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(written))
    columns = {
        Column.PROMPT: "question",
        Column.IMAGES: "image",
        Column.LABEL: "annotation.gold",
        Column.CANDIDATES: "options",
    }

    [prompt] = read(path, folder, columns if name.startswith("columns") else None, response=False)

    assert prompt.label in ("joy", "12")
    assert prompt.messages[-1].text.count("<image>") == len(prompt.images)


def test_the_documentation_has_an_example_of_every_format() -> None:
    assert {Path(name).stem for name in EXAMPLES} == {
        "stage1",
        "openai",
        "sharegpt",
        "vecbench",
        "verl",
        "skyrl",
        "plain",
        "columns",
    }
