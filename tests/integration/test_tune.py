"""A tuning with the real Ray Tune, vLLM and DeepSpeed: stopped in the first of two trials, then both side by side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cluster.checkpoints import CheckpointFolder
from cluster.job_book import entries
from cluster.run_folder import RunFolder, StageFolder

TINY = Path(__file__).parent / "tiny.yaml"
STEPS = 40  # more than are taken before the job sees that it is to stop
SETTINGS = (
    f"rl.steps={STEPS}",
    "rl.kl_weight=0",
    "rl.response_tokens=32",
    "evaluation.response_tokens=32",
    "learner.ranks=1",
    "learner.zero_stage=0",
    "engine.workers=1",
)
TRIALS = ("calibration-0.25", "calibration-1")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


@contextmanager
def tuning(folder: Path, told: Path, at_once: int) -> Iterator[subprocess.Popen[bytes]]:
    """`caliber tune`, whose output goes to a file, on a Ray cluster that ends with it."""
    words = [
        str(TINY),
        f"output={folder}/out",
        f"data.root={folder}/data",
        *SETTINGS,
        "rewards.weights.calibration=0.25,1",
        f"--at-once={at_once}",
    ]
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster", "tune", *words],
            env={**os.environ, "RAY_TMPDIR": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def steps(stage: StageFolder) -> list[int]:
    """What the log has."""
    log = stage.path / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []


def test_a_tuning_that_is_stopped_goes_on_and_ends_in_the_trade_off_of_its_trials(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("r")
    run = RunFolder(folder / "out")
    shutil.copytree(tiny_model, run.stage(2).model)
    tune = run.path / "tune"
    first, second = (RunFolder(tune / name).stage(3) for name in TRIALS)

    told = folder / "told.txt"
    with tuning(folder, told, at_once=1) as process:
        while not steps(first) and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=600)

    assert code == 0, told.read_text()
    assert "tuning stopped, 0 of 2 trials have ended; the same command goes on" in told.read_text()
    reached = steps(first)[-1]
    assert reached < STEPS
    saved = CheckpointFolder(first.checkpoints, 2)
    assert saved.read(saved.newest_first()[0]).step == reached
    assert not second.path.exists()

    with tuning(folder, told, at_once=2) as process:
        code = process.wait(timeout=900)

    assert code == 0, told.read_text()
    assert f"resumed at step {reached}" in told.read_text()
    resumed, begun = (entries(RunFolder(tune / name).path) for name in TRIALS)
    assert begun[0].time < resumed[-1].time and resumed[-1].doing == "ended"
    assert [steps(stage) for stage in (first, second)] == [list(range(1, STEPS + 1))] * 2
    mixes = [json.loads((stage.path / "log.jsonl").read_text().splitlines()[-1]) for stage in (first, second)]
    assert [mix["weight/calibration"] for mix in mixes] == [0.25, 1.0]
    record = json.loads((tune / "trade_off.json").read_text())
    assert [(one["trial"], one["state"]) for one in record["trials"]] == [(name, "finished") for name in TRIALS]
    for name, measured in record["evaluation"].items():
        assert [set(one["found"]) >= {"accuracy"} for one in measured] == [True, True]
        ElementTree.parse(tune / f"trade_off-{name}.svg")
        assert f"\n{name}\n" in told.read_text()
