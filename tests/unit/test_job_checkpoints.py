"""A job's checkpoints on real files; a fake stands for the ranks, which write a shard each."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from cluster.checkpoints import CheckpointError, CheckpointFolder
from cluster.job_checkpoints import JobCheckpoints, Resumed
from learner.file_sums import found_sums, write_summed
from tests.unit import virtual_time

STATE = {"cursor": 7, "window": [0.5, None]}


@dataclass
class FakeLearners:
    """Two ranks. `full` is the one whose disk is full; groups are texts, and so are the references to them."""

    size: int = 2
    full: int | None = None
    loaded: list[str] = field(default_factory=list)
    summed: list[list[str]] = field(default_factory=list)

    begun: dict[int, tuple[str, dict[str, str]]] = field(default_factory=dict)  # folder and files by rank
    seconds: float = 0.0  # that their files take

    async def call_each(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        assert len(arguments) == self.size
        return [getattr(self, method)(rank, *own) for rank, own in enumerate(arguments)]

    async def call(self, method: str) -> list[Any]:
        assert method == "checkpoint_files"
        await asyncio.sleep(self.seconds)
        return [self.checkpoint_files(rank, *self.begun.pop(rank)) for rank in range(self.size)]

    def save_checkpoint(self, rank: int, folder: str, groups_file: str, groups: list[str]) -> None:
        files = {f"shard-{rank}": f"weights of {rank}"} | ({groups_file: json.dumps(groups)} if groups else {})
        self.begun[rank] = folder, files

    def checkpoint_files(self, rank: int, folder: str, files: dict[str, str]) -> dict[str, Any]:
        if rank == self.full:
            Path(folder, f"shard-{rank}").write_text("wei")
            raise OSError(errno.ENOSPC, "No space left on device")
        return {
            str(path): write_summed(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
            for name, text in files.items()
            for path in [Path(folder, name)]
        }

    def checkpoint_sums(self, rank: int, folder: str, names: list[str]) -> dict[str, Any]:
        self.summed.append(names)
        return found_sums(Path(folder), names)

    def load_checkpoint(self, rank: int, folder: str, groups_files: list[str]) -> list[str]:
        self.loaded.append(folder)
        return [group for name in groups_files for group in json.loads(Path(folder, name).read_text())]


def job(folder: Path, *, kept: int = 2, **of_learners: Any) -> tuple[JobCheckpoints, FakeLearners]:
    learners = FakeLearners(**of_learners)
    return JobCheckpoints(CheckpointFolder(folder, kept), learners), learners  # type: ignore[arg-type]


def write(folder: Path, *steps: int, groups: tuple[str, ...] = ()) -> None:
    for step in steps:
        virtual_time.run(saved(job(folder)[0], step, groups))


async def saved(checkpoints: JobCheckpoints, step: int, groups: tuple[str, ...] = ()) -> None:
    """A checkpoint that is waited for."""
    await checkpoints.save(step, {**STATE, "step": step}, groups)  # type: ignore[arg-type]
    await checkpoints.written()


def restored(folder: Path, **of_learners: Any) -> tuple[Resumed | None, list[str]]:
    """What is resumed from, and the names of the folders that ranks loaded."""
    checkpoints, learners = job(folder, **of_learners)
    return virtual_time.run(checkpoints.restore()), [Path(loaded).name for loaded in learners.loaded]


def restored_step(folder: Path) -> int:
    newest, *_ = CheckpointFolder(folder, 2).newest_first()
    return int(newest.name.removeprefix("step-"))


def in_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_job_without_checkpoints_starts_from_the_beginning(tmp_path: Path) -> None:
    assert restored(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_newest_is_taken_up_by_every_rank_with_its_groups_whatever_the_number_of_ranks(
    tmp_path: Path, ranks: int
) -> None:
    write(tmp_path, 3, 6, groups=("a", "b", "c"))

    found, loaded = restored(tmp_path, size=ranks)

    assert found is not None
    assert (found.step, found.state) == (6, {**STATE, "step": 6})
    assert sorted(found.groups) == ["a", "b", "c"]  # type: ignore[type-var]
    assert loaded == ["step-000006"] * ranks


def test_ranks_share_the_reading_of_the_files_and_leave_none_out(tmp_path: Path) -> None:
    write(tmp_path, 3, groups=("a",))
    checkpoints, learners = job(tmp_path)

    virtual_time.run(checkpoints.restore())

    first, second = learners.summed
    assert abs(len(first) - len(second)) <= 1
    assert sorted(first + second) == ["groups-0.rollouts", "shard-0", "shard-1", "state.json"]


def test_a_step_whose_checkpoint_is_good_keeps_it_and_one_that_is_damaged_gets_another(tmp_path: Path) -> None:
    write(tmp_path, 3, 6)
    before = in_all(tmp_path)

    async def resumed_and_stopped() -> None:
        checkpoints, _ = job(tmp_path, full=0)  # nothing could be written
        await checkpoints.restore()
        await checkpoints.save(6, STATE, last=True)

    virtual_time.run(resumed_and_stopped())
    assert in_all(tmp_path) == before
    flip(tmp_path / "step-000006" / "shard-0")
    checkpoints, _ = job(tmp_path)
    virtual_time.run(checkpoints.restore())
    virtual_time.run(saved(checkpoints, 6))

    assert restored(tmp_path)[1] == ["step-000006"] * 2


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit that flipped": (
        lambda folder: flip(folder / "shard-1"),
        r"shard-1: expected 12 bytes with CRC-32 \w{8}, found 12 bytes with CRC-32 ",
    ),
    "a file that was cut": (
        lambda folder: (folder / "shard-0").write_text("weig"),
        r"shard-0: expected 12 bytes with CRC-32 \w{8}, found 4 bytes with",
    ),
    "a file that is gone": (
        lambda folder: (folder / "groups-0.rollouts").unlink(),
        r"groups-0.rollouts: expected \d+ bytes .*, found No such file or directory",
    ),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        r"manifest.json: expected what was written, found No such file or directory",
    ),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:30]),
        r"manifest.json: expected the JSON that was written, found other bytes",
    ),
    "a manifest of something else": (
        lambda folder: (folder / "manifest.json").write_text('{"shard-0": {"bytes": 3}}'),
        r"manifest.json: expected the JSON that was written, found other bytes",
    ),
    "no state": (lambda folder: (folder / "state.json").unlink(), r"state.json: expected what was written, found No "),
    "a state that is none": (
        lambda folder: (folder / "state.json").write_text("[]"),
        r"state.json: expected the JSON that was written, found other bytes",
    ),
    "another state": (
        lambda folder: (folder / "state.json").write_text('{"cursor":8}'),
        r"state.json: expected \d+ bytes with CRC-32 \w{8}, found 12 bytes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_line_that_says_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write(tmp_path, 3, 6, groups=("a",))
    do, told = DAMAGES[damage]
    do(tmp_path / "step-000006")

    found, loaded = restored(tmp_path)

    assert found is not None
    assert found.step == 3
    assert loaded == ["step-000003"] * 2
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage().startswith(f"CHECKPOINT PASSED OVER: {tmp_path}/step-000006 is not what was written: ")
    assert re.search(told, line.getMessage())


def test_where_none_is_good_the_job_ends_and_says_so_and_nothing_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 3, 6)
    flip(tmp_path / "step-000003" / "shard-0")
    (tmp_path / "step-000006" / "manifest.json").unlink()
    before = in_all(tmp_path)

    for _ in range(2):  # nor does a second attempt start anew
        with pytest.raises(CheckpointError) as raised:
            restored(tmp_path)

    told = str(raised.value)
    assert told.startswith(f"no checkpoint in {tmp_path} is what was written, and the stage does not start anew")
    assert "--fresh --force" in told
    assert "step-000006: manifest.json" in told
    assert "step-000003: shard-0" in told
    assert in_all(tmp_path) == before


def test_a_run_that_went_back_writes_its_next_checkpoint_and_is_rid_of_the_damaged_one(tmp_path: Path) -> None:
    write(tmp_path, 3, 6)
    flip(tmp_path / "step-000006" / "shard-0")
    checkpoints, _ = job(tmp_path)

    async def resumed() -> None:
        assert await checkpoints.restore()
        await saved(checkpoints, 5)

    virtual_time.run(resumed())

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000005"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_costs_neither_the_run_nor_older_checkpoints_and_is_told_counted_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rank: int
) -> None:
    write(tmp_path, 3, 6)
    before = in_all(tmp_path)
    checkpoints, learners = job(tmp_path, full=rank)

    async def steps() -> None:
        await saved(checkpoints, 9)
        assert in_all(tmp_path) == before  # nor is there anything left of the new one
        await saved(checkpoints, 12)
        assert checkpoints.failed == 2
        learners.full = None
        await saved(checkpoints, 15)

    virtual_time.run(steps())

    assert checkpoints.failed == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000006", "step-000015"]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(".")[0] for line in lines] == [
        "NO CHECKPOINT of step 9 (1 have failed): [Errno 28] No space left on device",
        "NO CHECKPOINT of step 12 (2 have failed): [Errno 28] No space left on device",
    ]


def test_a_disk_that_is_full_for_the_state_alone_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path, 3)
    before = in_all(tmp_path)
    checkpoints, _ = job(tmp_path)
    monkeypatch.setattr("cluster.checkpoints.write_summed", full)

    virtual_time.run(saved(checkpoints, 6))

    assert checkpoints.failed == 1
    assert in_all(tmp_path) == before


def test_the_last_checkpoint_must_be_written(tmp_path: Path) -> None:
    write(tmp_path, 3)
    before = in_all(tmp_path)
    checkpoints, _ = job(tmp_path, full=1)

    with pytest.raises(OSError, match="No space left"):
        virtual_time.run(checkpoints.save(6, STATE, last=True))

    assert in_all(tmp_path) == before


def test_a_job_goes_on_while_a_checkpoint_is_written_which_counts_once_it_is_whole_and_is_of_when_it_was_begun(
    tmp_path: Path,
) -> None:
    write(tmp_path, 3)
    folder, state, at = CheckpointFolder(tmp_path, 2), {"window": [1.0]}, asyncio.get_running_loop

    async def steps() -> None:
        checkpoints, _ = job(tmp_path, seconds=10.0)
        await checkpoints.save(6, state)
        begun = at().time()
        state["window"].append(2.0)
        await asyncio.sleep(9.0)
        assert restored_step(tmp_path) == 3
        await asyncio.sleep(2.0)
        assert folder.read(folder.newest_first()[0]).state == {"window": [1.0]}
        await checkpoints.save(9, state)
        await checkpoints.save(12, state, last=True)  # the one before it first
        assert at().time() - begun == pytest.approx(11.0 + 10.0 + 10.0)

    virtual_time.run(steps())

    assert [folder.read(path).state["window"] for path in folder.newest_first()] == [[1.0, 2.0]] * 2


def test_what_else_fails_while_a_checkpoint_is_written_is_raised_at_the_next_or_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def begun(folder: Path) -> JobCheckpoints:
        checkpoints, learners = job(folder)
        await saved(checkpoints, 3)
        learners.call = died  # type: ignore[method-assign]
        await checkpoints.save(6, STATE)
        return checkpoints

    async def died(method: str) -> list[Any]:
        raise ActorDiedError

    async def next_one() -> None:
        await (await begun(tmp_path / "a")).save(9, STATE)

    async def end() -> None:
        async with await begun(tmp_path / "b"):
            raise KeyError("why the job ends")

    with pytest.raises(ActorDiedError):
        virtual_time.run(next_one())
    with pytest.raises(KeyError):
        virtual_time.run(end())
    assert "the checkpoint begun last is not whole: " in caplog.text
    assert restored_step(tmp_path / "b") == 3
