"""The same rows, written in every format that is read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.choices import Column
from rollout.prompts import Prompt
from rollout.readers import DataError, read_prompts

SIZES = {"1": (8, 4), "2": (4, 8), "3": (5, 5)}  # of each row's picture
LABELS = {"1": "joy", "2": "fear", "3": "joy"}
Rows = Sequence[Mapping[str, object]]


def picture(name: str) -> bytes:
    """The file of a row's picture."""
    file = io.BytesIO()
    Image.new("RGB", SIZES[name], (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def shared(name: str) -> dict[str, object]:
    """What rows of all formats have beside turns, pictures and truth."""
    return {"id": name, "task": "faces", "candidates": ["joy", "fear"]}


def row(name: str, **own: object) -> dict[str, object]:
    return {**shared(name), **own}


def path(name: str) -> str:
    return f"pictures/{name}.png"


def embedded(name: str) -> dict[str, object]:
    """As Hugging Face and verl have a picture in a table."""
    return {"bytes": picture(name), "path": f"{name}.png"}


QUESTION = "<image>Which emotion?"
SYSTEM = "Look."


def response(name: str) -> str:
    return f"<answer>{LABELS[name]}</answer>"


def messages(question: object, name: str) -> list[dict[str, object]]:
    turns = {"system": SYSTEM, "user": question, "assistant": response(name)}
    return [{"role": role, "content": content} for role, content in turns.items()]


def chat(name: str) -> dict[str, object]:
    content = [{"type": "image"}, {"type": "text", "text": "Which emotion?"}]
    return row(name, messages=messages(content, name), images=[path(name)], reference={"label": LABELS[name]})


def plain_messages(name: str) -> dict[str, object]:
    return row(name, messages=messages(QUESTION, name), images=[path(name)], ground_truth=LABELS[name])


def openai(name: str, url: str) -> dict[str, object]:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Which emotion?"}]
    return row(name, messages=messages(content, name), reference={"label": LABELS[name]})


def data_uri(name: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture(name)).decode()}"


def sharegpt(name: str) -> dict[str, object]:
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": response(name)}]
    return row(name, system=SYSTEM, conversations=turns, images=[path(name)], ground_truth=LABELS[name])


def verl(name: str) -> dict[str, object]:
    rest = {key: value for key, value in shared(name).items() if key != "task"}
    return rest | {
        "data_source": "faces",
        "prompt": messages(QUESTION, name),
        "images": [embedded(name)],
        "ability": "emotion",
        "reward_model": {"style": "rule", "ground_truth": LABELS[name]},
        "extra_info": {"split": "train", "index": int(name)},
    }


def skyrl(name: str) -> dict[str, object]:
    return row(
        name,
        prompt=messages(QUESTION, name),
        images=[{"image": path(name)}],
        env_class="faces",
        reward_spec={"method": "rule", "ground_truth": LABELS[name]},
    )


def alpaca(name: str) -> dict[str, object]:
    return row(
        name,
        system=SYSTEM,
        instruction="Which emotion?",
        input="",
        output=response(name),
        images=[path(name)],
        ground_truth=LABELS[name],
    )


def columns(name: str) -> dict[str, object]:
    """Columns of other names, and a label that is a number."""
    return {
        "key": int(name),
        "question": "Which emotion?",
        "instructions": SYSTEM,
        "picture": embedded(name),
        "out": response(name),
        "meta": {"gold": LABELS[name], "set": "faces"},
        "options": ["joy", "fear"],
    }


COLUMNS = {
    Column.ID: "key",
    Column.TASK: "meta.set",
    Column.PROMPT: "question",
    Column.SYSTEM: "instructions",
    Column.IMAGES: "picture",
    Column.RESPONSE: "out",
    Column.LABEL: "meta.gold",
    Column.CANDIDATES: "options",
}


def as_lines(folder: Path, rows: Rows) -> Path:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data.jsonl"


def as_list(folder: Path, rows: Rows) -> Path:
    (folder / "data.json").write_text(json.dumps(rows, indent=1))
    return folder / "data.json"


def as_parquet(folder: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "data.parquet", row_group_size=2)
    return folder / "data.parquet"


def as_parquet_folder(folder: Path, rows: Rows) -> Path:
    """In two shards whose order as text is not that of their numbers; rows name pictures from beside them."""
    (folder / "data").mkdir()
    (folder / "data" / "pictures").symlink_to("../pictures")
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table.slice(0, 1), folder / "data" / "part-9.parquet")
    pq.write_table(table.slice(1), folder / "data" / "part-10.parquet")
    return folder / "data"


def as_saved(folder: Path, rows: Rows, features: Mapping[str, object] | None = None) -> Path:
    """As `datasets` 4 saves a set to disk: two shards, each a stream of record batches."""
    saved = folder / "data"
    saved.mkdir()
    (saved / "pictures").symlink_to("../pictures")
    table = pa.Table.from_pylist(list(rows))
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for name, part in zip(names, (table.slice(0, 1), table.slice(1)), strict=True):
        with pa.OSFile(str(saved / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(part, max_chunksize=1)
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    (saved / "state.json").write_text(json.dumps(state))
    (saved / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return saved


@dataclass(frozen=True, slots=True)
class Format:
    """Rows in one format, and what is said of it."""

    write: Callable[[Path, Rows], Path]
    row: Callable[[str], dict[str, object]]
    said: str
    second: str  # the second row's place
    columns: Mapping[Column, str] | None = None


FORMATS = {
    "chat": Format(as_lines, chat, "messages (JSON lines)", "data.jsonl:2"),
    "messages in a list": Format(as_list, plain_messages, "messages (a list in JSON)", "data.json:2"),
    "openai paths": Format(
        as_lines,
        lambda name: openai(name, path(name)),
        "messages with OpenAI's content parts (JSON lines)",
        "data.jsonl:2",
    ),
    "openai data": Format(
        as_list,
        lambda name: openai(name, data_uri(name)),
        "messages with OpenAI's content parts (a list in JSON)",
        "data.json:2",
    ),
    "sharegpt": Format(as_list, sharegpt, "ShareGPT's conversations (a list in JSON)", "data.json:2"),
    "verl": Format(as_parquet, verl, "verl's prompts (parquet)", "data.parquet:2"),
    "verl shards": Format(as_parquet_folder, verl, "verl's prompts (parquet, 2 files)", "data/part-10.parquet:1"),
    "skyrl": Format(as_parquet, skyrl, "SkyRL's prompts (parquet)", "data.parquet:2"),
    "saved": Format(
        as_saved,
        plain_messages,
        "messages (a Hugging Face dataset on disk, 2 files)",
        "data/data-00001-of-00002.arrow:1",
    ),
    "saved sharegpt": Format(
        as_saved,
        sharegpt,
        "ShareGPT's conversations (a Hugging Face dataset on disk, 2 files)",
        "data/data-00001-of-00002.arrow:1",
    ),
    "alpaca": Format(as_list, alpaca, "Alpaca's instructions (a list in JSON)", "data.json:2"),
    "columns": Format(
        as_saved,
        columns,
        "prompts (a Hugging Face dataset on disk, 2 files)",
        "data/data-00001-of-00002.arrow:1",
        COLUMNS,
    ),
}


def with_pictures(folder: Path) -> Path:
    """The folder, with the rows' pictures in it."""
    (folder / "pictures").mkdir()
    for name in SIZES:
        (folder / path(name)).write_bytes(picture(name))
    return folder


def read(path: Path, root: Path, columns: Mapping[Column, str] | None = None, *, response: bool = True) -> list[Prompt]:
    return read_prompts(path, root, columns=columns, need_response=response, require_reference=True)


def problems(path: Path, root: Path, columns: Mapping[Column, str] | None = None) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(path, root, columns)
    return list(caught.value.problems)
