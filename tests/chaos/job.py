"""`caliber rl` on the tiny recipe, as a job of a cluster of several raylets, and the processes there are to kill.

What a test kills it finds below itself: the raylets are its children, and all that they start is theirs.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from ray.cluster_utils import Cluster

from cluster.checkpoints import CheckpointFolder
from cluster.run_folder import RunFolder, StageFolder
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.rollout_file import read_rollouts
from rollout.trajectory import Group

TINY = Path(__file__).parents[1] / "integration" / "tiny.yaml"
STORE_BYTES = 100 * 2**20  # of each raylet's object store
_RAYLET = {"object_store_memory": STORE_BYTES, "include_dashboard": False, "dashboard_port": 0}
_NODE = {"num_cpus": 3, **_RAYLET}
SETTINGS = (
    "rl.max_policy_lag=4",
    "rl.checkpoint_every_steps=2",
    "rl.kl_weight=0",
    "rl.response_tokens=64",
    "engine.cpus_per_worker=2.5",  # more than the head has, and nearly all that a node has: the learner goes elsewhere
    "learner.cpus_per_rank=0.05",
    "reward_service.cpus_per_worker=0.05",
    "engine.workers=1",  # without it the run stands still, and takes no steps while it is replaced
)
ROLLOUT, ENGINE, REWARD, LEARNER = "ray::RolloutWorker", "VLLM::EngineCore", "ray::RewardWorker", "ray::RlActor"
_SECONDS_TO_COME_TRUE = 900.0


@contextmanager
def raylets(folder: Path, nodes: int) -> Iterator[Cluster]:
    """A cluster of a head, where the driver is, and nodes that have room for an engine each and the learner beside it.

    Groups of any size lie in the object stores of the nodes, where small ones are handed to the driver else.
    """
    with patch.dict(os.environ, {"RAY_TMPDIR": str(folder)}):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "_system_config": {"max_direct_call_object_size": 256}, **_RAYLET},
        )
        try:
            for _ in range(nodes):
                cluster.add_node(**_NODE)
            yield cluster
        finally:
            cluster.shutdown()


@contextmanager
def one_raylet_more(cluster: Cluster) -> Iterator[None]:
    """A node like the others, within the block; it is killed then."""
    node = cluster.add_node(**_NODE)
    try:
        yield
    finally:
        cluster.remove_node(node, allow_graceful=False)


def processes(title: str, of: psutil.Process | None = None) -> list[psutil.Process]:
    """The running processes of a title below this one, or below another."""
    found = []
    for process in (of or psutil.Process()).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def standing(still: Sequence[psutil.Process]) -> Iterator[None]:
    """Within the block these processes stand still."""
    for process in still:
        process.suspend()
    try:
        yield
    finally:
        for process in still:
            process.resume()


@dataclass
class Job:
    """A running stage 3."""

    recipe: Recipe
    command: list[str]
    environment: Mapping[str, str]
    output: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start it, or go on with it where it has ended."""
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def stage(self) -> StageFolder:
        """Its folder."""
        return RunFolder.of(self.recipe).stage(3)

    @property
    def told(self) -> str:
        """What it has said so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Those of its log."""
        log = self.stage.path / "log.jsonl"
        written = log.read_text(encoding="utf-8") if log.exists() else ""
        return [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def step(self) -> int:
        """The last one that it has logged."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def scored(self) -> list[Group]:
        """Groups that it has scored and saved."""
        files = self.stage.rollouts.glob("*.rollouts")
        return [group for file in files for group in read_rollouts(file, strict=False)]

    @property
    def checkpoint_folder(self) -> CheckpointFolder:
        """As the job itself reads it."""
        return CheckpointFolder(self.stage.checkpoints, self.recipe.rl.checkpoints_kept)

    @property
    def checkpoints(self) -> list[Path]:
        """Those that are whole, newest first."""
        return self.checkpoint_folder.newest_first()

    def until(self, true: Callable[[], object], what: str) -> float:
        """Wait until something is true of the running job; returns the seconds that took."""
        began = time.monotonic()
        while not true():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.told}"
            assert time.monotonic() < began + _SECONDS_TO_COME_TRUE, f"not {what}:\n{self.told}"
            time.sleep(0.1)
        return time.monotonic() - began

    def until_told(self, words: str, times: int = 1) -> float:
        """Wait until the job has said these words so often; returns the seconds that took."""
        return self.until(lambda: self.told.count(words) >= times, f"{words!r}, {times} times")

    def until_stepped(self, steps: int) -> float:
        """Wait for so many more steps; returns the seconds they took."""
        wanted = self.step + steps
        return self.until(lambda: self.step >= wanted, f"step {wanted}")

    def ends_as_if_nothing_had_happened(self) -> dict[str, Any]:
        """Every step once, in order and finite; every admitted group trained on once, or dropped with a reason.

        Returns the ledger.
        """
        assert self.process.wait(_SECONDS_TO_COME_TRUE) == 0, self.told
        steps, groups = self.recipe.rl.steps, self.recipe.rl.prompts_per_step
        assert [line["step"] for line in self.lines] == list(range(1, steps + 1))
        assert all(math.isfinite(line["loss"]) for line in self.lines)
        assert max(line["lag_max"] for line in self.lines) <= self.recipe.rl.max_policy_lag
        ledger: dict[str, Any] = self.checkpoint_folder.read(self.checkpoints[0]).state["ledger"]
        assert ledger["outstanding"] == []
        assert ledger["admitted"] == steps * groups + len(ledger["dropped"])
        assert self.stage.model.exists()
        return ledger


def fine_tuned(cluster: Cluster, folder: Path) -> Path:
    """The model of the tiny recipe's first two stages, most of whose responses are well formed."""
    overrides = (f"output={folder}/fine-tuned", f"data.root={folder}/data")
    for stage in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "sft", str(TINY), f"--stage={stage}", *overrides],
            env={**os.environ, "RAY_ADDRESS": cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS_TO_COME_TRUE,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")
    return RunFolder.of(load_recipe(TINY, overrides)).stage(2).model


@contextmanager
def job(
    cluster: Cluster, folder: Path, model: Path, *settings: str, environment: Mapping[str, str] | None = None
) -> Iterator[Job]:
    """Start stage 3 from a model, in a folder of its own."""
    overrides = (f"output={folder}/out", f"data.root={folder}/data", *SETTINGS, *settings)
    recipe = load_recipe(TINY, overrides)
    shutil.copytree(model, RunFolder.of(recipe).stage(2).model)
    run = Job(
        recipe,
        command=[sys.executable, "-m", "cluster", "rl", str(TINY), *overrides],
        environment={"RAY_ADDRESS": cluster.address, **(environment or {})},
        output=folder / "told.txt",
    )
    run.start()
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def kill(process: psutil.Process) -> None:
    """As `kill -9` does."""
    process.send_signal(signal.SIGKILL)


def measured(run: Job, fault: str, **seconds: float) -> None:
    """Print how long it took to get over a fault: the parts one after the other, and then to the next step."""
    parts = {**seconds, "next step": run.until_stepped(1)}
    told = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in parts.items())
    print(f"\nMEASURED {fault}: {told}; {sum(parts.values()):.1f} s in all", flush=True)
