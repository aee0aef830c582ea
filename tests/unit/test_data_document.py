"""docs/data.md: its examples are read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from configs.choices import Column
from tests.unit.data_formats import read, with_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_pictures(tmp_path)


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
        "alpaca",
        "verl",
        "skyrl",
        "plain",
        "columns",
    }
