"""`caliber predict` with the real Ray and vLLM, and a tiny model of random weights: what it says has no form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cluster.cli import main
from configs.load import load_recipe, write_resolved

TINY = Path(__file__).parent / "tiny.yaml"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture
def finished(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a run whose stage 3 ended in the tiny model."""
    run = tmp_path / "run"
    shutil.copytree(tiny_model, run / "stage3" / "model")
    recipe = load_recipe(TINY, [f"output={run}", f"data.root={tmp_path}/none", "engine.workers=1"])
    write_resolved(recipe, run / "recipe.yaml")
    return run


def test_rows_are_answered_by_a_real_engine_and_one_that_it_cannot_take_says_why(
    own_ray: None, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (84, 84), "yellow").save(tmp_path / "face.png")
    questions = {"text": "What feeling?", "picture": "<image>What feeling?", "long": "What feeling? " * 200}
    rows = [
        {"id": name, "messages": [{"role": "user", "content": text}], "images": ["face.png"] * (name == "picture")}
        for name, text in questions.items()
    ]
    data, out = tmp_path / "mine.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    code = main(["predict", str(finished), str(data), "--samples", "3", "--out", str(out)])

    found = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert code == 1
    assert found.keys() == questions.keys()
    assert "tokens" in found["long"]["error"] and found["long"]["answer"] is None
    for name in ("text", "picture"):
        assert len(found[name]["malformed"]) == 3 and found[name]["response"]
    assert "1 of 3 rows cannot be answered" in capfd.readouterr().err
