"""Stage 3 as a job of its own whose driver is killed on the way, a group half written, and which is started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.checkpoints import Checkpoint, CheckpointFolder
from cluster.run_folder import RunFolder, StageFolder
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.rollout_file import read_rollouts

TINY = Path(__file__).parent / "tiny.yaml"
SETTINGS = (
    "rl.steps=60",  # one checkpoint of them will keep groups
    "rl.max_policy_lag=3",
    "rl.checkpoint_every_steps=2",
    "rl.checkpoints_kept=30",  # none is removed as it is looked at
    "rl.kl_weight=0",
    "rl.response_tokens=32",
    "learner.ranks=1",
    "engine.workers=1",
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@contextmanager
def started(folder: Path, name: str, *settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`caliber rl` in a process of its own, on a Ray cluster that ends with it; and the file of what it says."""
    told = folder / f"{name}.txt"
    with told.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster", "rl", str(TINY), *settings],
            env={**os.environ, "RAY_TMPDIR": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, told
    finally:
        process.kill()
        process.wait()


def test_a_job_whose_driver_was_killed_goes_on_as_if_nothing_had_happened(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("r")
    settings = (f"output={folder}/out", f"data.root={folder}/data", *SETTINGS)
    recipe = load_recipe(TINY, settings)
    stage = RunFolder.of(recipe).stage(3)
    shutil.copytree(tiny_model, RunFolder.of(recipe).stage(2).model)

    with started(folder, "killed", *settings) as (process, told):
        while not any(map(groups_in, stage.checkpoints.glob("step-*"))):
            assert process.poll() is None, told.read_text()
            time.sleep(0.05)
        process.kill()  # SIGKILL
    written = stage.rollouts / "reward-0.rollouts"
    while is_open(written):  # its processes end after it
        time.sleep(0.1)
    with written.open("ab") as file:
        file.write(b"torn")  # what a writer leaves that is killed in the middle of a group
    left = written.read_bytes()
    while not (kept := groups_in((newest := newest_checkpoint(stage)).folder)):  # came between the look and the kill
        shutil.rmtree(newest.folder)
    before = logged(stage)
    with started(folder, "resumed", *settings) as (process, told):
        began = time.monotonic()
        while process.poll() is None and (stage.path / "log.jsonl").read_bytes().count(b"\n") <= len(before):
            time.sleep(0.1)
        print(f"\nMEASURED driver killed: a new step {time.monotonic() - began:.1f} s after the command was repeated")
        assert process.wait() == 0, told.read_text()

    assert newest.step <= len(before) < recipe.rl.steps
    assert kept
    assert f"resumed at step {newest.step}: {len(kept)} complete groups are taken up" in told.read_text()
    assert logged(stage) == list(range(1, recipe.rl.steps + 1))
    ledger = newest_checkpoint(stage).state["ledger"]
    assert ledger == {"admitted": groups_of(recipe), "last_step": recipe.rl.steps - 1, "outstanding": [], "dropped": []}
    sampled = sampled_groups(stage)
    assert sorted(sampled) == list(range(groups_of(recipe)))
    assert {sampled[group] for group in kept} == {1}
    assert written.read_bytes() == left


def is_open(path: Path) -> bool:
    """Whether a process has this file open."""
    files = (file for process in psutil.process_iter(["open_files"]) for file in process.info["open_files"] or ())
    return any(file.path == str(path) for file in files)


def groups_in(checkpoint: Path) -> list[int]:
    """Those that it keeps for their training."""
    return [group.group_id for file in checkpoint.glob("*.rollouts") for group in read_rollouts(file)]


def groups_of(recipe: Recipe) -> int:
    return recipe.rl.steps * recipe.rl.prompts_per_step


def logged(stage: StageFolder) -> list[int]:
    """The steps of the log's lines."""
    return [json.loads(line)["step"] for line in (stage.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def newest_checkpoint(stage: StageFolder) -> Checkpoint:
    checkpoints = CheckpointFolder(stage.checkpoints, 2)
    return checkpoints.read(checkpoints.newest_first()[0])


def sampled_groups(stage: StageFolder) -> Counter[int]:
    """How often each group was sampled and scored."""
    files = stage.rollouts.glob("*.rollouts")
    return Counter(group.group_id for file in files for group in read_rollouts(file, strict=False))
