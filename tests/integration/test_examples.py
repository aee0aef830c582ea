"""The example that trains, with fewer steps: `examples/own-data` through all three stages, on real Ray and vLLM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.cli import main

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-data"
FEWER = (
    "stage1.steps=120",
    "stage2.steps=80",
    "seeding.samples_per_prompt=4",
    "seeding.rows_per_prompt=2",
    "rl.steps=3",
)


def test_own_data_go_through_all_three_stages(
    own_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "own-data", ignore=shutil.ignore_patterns("run", "data"))
    monkeypatch.chdir(tmp_path / "own-data")
    subprocess.run([sys.executable, "weather.py"], check=True)

    code = main(["pipeline", "recipe.yaml", *FEWER])

    assert code == 0
    table = capsys.readouterr().out
    assert all(f"stage{number}" in table for number in (1, 2, 3)), table
    assert len((tmp_path / "own-data" / "run" / "stage3" / "log.jsonl").read_text().splitlines()) >= 3
