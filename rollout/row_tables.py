"""Rows of parquet files and of Hugging Face datasets on disk, a few at a time, as the objects JSON would have.

What is null in a table is absent from its row. Numbers of a `ClassLabel` become its names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.rows import RowError, UnreadableFile, shortened

ROWS_AT_ONCE = 64  # of a table, pictures and all, in memory
_STATE = "state.json"
SAVED_SETS = (_STATE, "dataset_dict.json")  # what save_to_disk leaves beside the shards, or beside its splits

LabelNames = Mapping[str, list[str]]


def parquet_rows(path: Path) -> Iterator[Mapping[str, object] | RowError]:
    """The rows of a parquet file. Raises UnreadableFile."""
    try:
        with pq.ParquetFile(path) as file:
            names = _label_names(file.schema_arrow)
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from _rows(batch, names)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, f"the parquet file cannot be read ({_first_line(error)})") from None


def arrow_rows(path: Path) -> Iterator[Mapping[str, object] | RowError]:
    """The rows of a shard that `save_to_disk` wrote, which is mapped and not loaded. Raises UnreadableFile."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            names = _label_names(stream.schema)
            for batch in stream:
                batch.validate(full=True)  # offsets that a file from anywhere names may lead out of it
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    yield from _rows(batch.slice(start, ROWS_AT_ONCE), names)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, f"the Arrow file cannot be read ({_first_line(error)})") from None


def saved_shards(folder: Path) -> list[Path]:
    """The shards of a set that `save_to_disk` wrote, in its order. Raises UnreadableFile."""
    if not (folder / _STATE).is_file():
        splits = sorted(path.parent.name for path in folder.glob(f"*/{_STATE}"))
        example = f"{folder.name}/{splits[0]}" if splits else "the folder of one"
        raise UnreadableFile(folder, f"the folder holds the splits {', '.join(splits) or 'of a set'}: name {example}")
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        names = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UnreadableFile(folder, f"its {_STATE} cannot be read ({error!r}): save the dataset again") from None
    if state.get("_indices_data_files"):  # of old versions
        raise UnreadableFile(folder, "its rows have an order kept beside them: flatten_indices() and save it again")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise UnreadableFile(folder, f"its {_STATE} names {shortened(name)}, which is no file in the folder")
    return [folder / name for name in names]


def _rows(batch: pa.RecordBatch, names: LabelNames) -> Iterator[Mapping[str, object] | RowError]:
    for number in range(batch.num_rows):
        try:
            (row,) = batch.slice(number, 1).to_pylist(maps_as_pydicts="strict")
            yield _named({key: _without_nulls(value) for key, value in row.items() if value is not None}, names)
        except (ValueError, KeyError, OverflowError) as error:  # no UTF-8, a key twice, a year beyond Python's
            yield RowError([f"cannot be read ({_first_line(error)})"])


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _named(row: dict[str, object], names: LabelNames) -> Mapping[str, object]:
    for column in names.keys() & row.keys():
        number = row.pop(column)
        if number == -1:  # Hugging Face's mark of no label
            continue
        if not isinstance(number, int) or not 0 <= number < len(names[column]):
            raise ValueError(f"{column}: got {shortened(number)}, of {len(names[column])} names of labels")
        row[column] = names[column][number]
    return row


def _label_names(schema: pa.Schema) -> LabelNames:
    """Names of the labels of each column that is Hugging Face's `ClassLabel`."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, RecursionError, TypeError, AttributeError):
        return {}  # other tools write there what they like


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
