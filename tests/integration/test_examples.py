"""The example that trains, with fewer steps: `examples/own-data` through its stages and into use, Ray and vLLM real."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.cli import main
from tests.integration.card_code import LIBRARIES, printed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-data"
STEPS = 3  # of stage 3, of which a user has more


@pytest.fixture(scope="module")
def finished(own_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example's folder, in which its pipeline ran; commands are given in it."""
    folder = tmp_path_factory.mktemp("examples") / "own-data"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("run", "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        subprocess.run([sys.executable, "weather.py"], check=True)
        assert main(["pipeline", "recipe.yaml", f"rl.steps={STEPS}"]) == 0
        yield folder


def test_own_data_go_through_all_three_stages(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "recipe.yaml", f"rl.steps={STEPS}"]) == 0  # nothing is done again

    table = capsys.readouterr().out
    assert all(f"stage{number}" in table for number in (1, 2, 3)), table
    assert len((finished / "run" / "stage3" / "log.jsonl").read_text().splitlines()) >= STEPS


def test_answers_are_withheld_below_a_threshold_that_held_out_rows_gave(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held_out = ["--risk", "0.5", "--calibrate", "data/stage2.jsonl", "--recalibrate", "isotonic"]

    code = main(["predict", "run", "data/test.jsonl", "--samples", "3", *held_out, "--out", "predictions.jsonl"])

    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    told = capfd.readouterr().err
    assert code == 0
    assert len(rows) == len((finished / "data" / "test.jsonl").read_text().splitlines())
    line = r"^(every row abstains|kept are answers with (any|a) confidence(?: above (\S+))?): "
    said = re.search(line, told, re.MULTILINE)
    assert said is not None, told  # which of them it is the model's luck decides: it has seen three steps of stage 3
    threshold = math.inf if said[2] is None else float(said[3] or -1) + 1e-4  # as it is rounded there
    stated = [row for row in rows if row["answer"] is not None]
    assert [not row["abstained"] for row in stated] == [row["raw_confidence"] > threshold for row in stated]
    assert len(stated) > len(rows) / 2
    by_raw = sorted((row["raw_confidence"], row["confidence"]) for row in stated)
    assert [better for _, better in by_raw] == sorted(better for _, better in by_raw)  # recalibrated in their order


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_code_on_an_exports_card_runs_as_it_stands(exported: Path, library: str) -> None:
    greedily = {"temperature=1": "temperature=0", "(**inputs)": "(**inputs, do_sample=False)"}  # whatever the seed
    named = {"FOLDER": str(exported), **greedily}

    told = printed(exported / "README.md", library, "'said', read(response)", named)

    (said,) = re.findall(r"^said \('(dry|drizzle|rain)', (.+)\)$", told, re.MULTILINE)
    assert 0 <= float(said[1]) <= 1


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's last model, for others."""
    folder = tmp_path_factory.mktemp("exported") / "weather"
    assert main(["export", "run", str(folder)]) == 0
    return folder
