from __future__ import annotations

from pathlib import Path

from cluster.checkpoints import CheckpointFolder


def write(checkpoints: CheckpointFolder, step: int) -> None:
    (checkpoints.begin(step) / "weights").write_text(str(step))
    checkpoints.commit(step, {"cursor": step * 10})


def test_no_checkpoint_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none").latest() is None


def test_the_newest_checkpoint_comes_back_with_its_files_and_state(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    write(checkpoints, 9)
    write(checkpoints, 10)

    found = CheckpointFolder(tmp_path).latest()

    assert found is not None
    assert (found.step, found.state, (found.folder / "weights").read_text()) == (10, {"cursor": 100}, "10")


def test_a_checkpoint_that_was_not_committed_is_not_found(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "weights").write_text("half")

    found = checkpoints.latest()

    assert found is not None
    assert found.step == 1


def test_beginning_again_finds_nothing_of_what_was_left(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    (checkpoints.begin(1) / "left").write_text("half")

    assert list(checkpoints.begin(1).iterdir()) == []


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    for step in (1, 2, 30, 4):
        write(checkpoints, step)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000030"]


def test_a_step_that_is_reached_again_is_written_again(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path)
    write(checkpoints, 1)
    checkpoints.begin(1)
    checkpoints.commit(1, {"cursor": 11})

    found = checkpoints.latest()

    assert found is not None
    assert found.state == {"cursor": 11}
