"""What rows are kept in: lists, tables, shards, and how they are spoilt."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.choices import Column
from rollout.readers import DataError
from rollout.row_files import open_rows
from rollout.rows import UnreadableFile
from tests.unit import data_formats as formats
from tests.unit.data_formats import as_parquet, as_saved, problems, read, with_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_pictures(tmp_path)


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
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "names '../secret.arrow', which is no file in"),
        ('{"_data_files": [{"filename": 3}]}', "names 3, which is no file in the folder"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i"}]}', "flatten_indices() and save it again"),
    ],
)
def test_a_saved_set_that_is_spoilt_says_so(folder: Path, state: str, said: str) -> None:
    path = as_saved(folder, [formats.plain_messages("1"), formats.plain_messages("2")])
    (path / "state.json").write_text(state)
    (folder / "secret.arrow").write_bytes((path / "data-00000-of-00002.arrow").read_bytes())

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
