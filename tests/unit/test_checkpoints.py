from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from cluster.checkpoints import CheckpointError, CheckpointFolder
from learner.file_sums import FileSum, found_sums, write_summed


def write(checkpoints: CheckpointFolder, step: int, text: str = "") -> None:
    shard = checkpoints.begin(step) / "learner" / "shard"
    shard.parent.mkdir()
    written = write_summed(shard, lambda file: file.write((text or str(step)).encode()))
    checkpoints.commit(step, {"cursor": step * 10}, {"learner/shard": written})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_no_checkpoint_is_found_where_there_is_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "none", 2).newest_first() == []


def test_a_checkpoint_comes_back_with_its_files_and_state_and_is_as_it_was_written(tmp_path: Path) -> None:
    write(CheckpointFolder(tmp_path, 2), 10)
    checkpoints = CheckpointFolder(tmp_path, 2)

    found = checkpoints.read(checkpoints.newest_first()[0])

    found.refuse_others(found_sums(found.folder, found.manifest))
    assert (found.step, found.state) == (10, {"cursor": 100})
    assert found.manifest.keys() == {"learner/shard", "state.json"}
    assert (found.folder / "learner" / "shard").read_text() == "10"


def test_checkpoints_are_found_by_step_and_other_folders_are_left_alone(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 3)
    for step in (9, 1_000_000, 999_999):
        write(checkpoints, step)
    (tmp_path / "step-000009 copy").mkdir()

    found = [checkpoints.read(folder).step for folder in checkpoints.newest_first()]

    assert found == [1_000_000, 999_999, 9]
    assert "step-000009 copy" in names(tmp_path)


def test_a_checkpoint_that_was_not_committed_is_not_found_and_goes_with_the_next(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 2)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "shard").write_text("half")
    died, again = [path.name for path in checkpoints.newest_first()], CheckpointFolder(tmp_path, 2)

    assert list(again.begin(3).iterdir()) == []

    assert died == ["step-000001"]
    assert names(tmp_path) == [".step-000003", "step-000001"]


@pytest.mark.parametrize("kept", [1, 3])
def test_as_many_of_the_newest_are_kept_as_the_setting_says(tmp_path: Path, kept: int) -> None:
    checkpoints = CheckpointFolder(tmp_path, kept)
    for step in (1, 2, 4, 30):
        write(checkpoints, step)

    assert names(tmp_path) == ["step-000002", "step-000004", "step-000030"][-kept:]


def test_a_step_that_is_written_again_is_there_once(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 2)
    write(checkpoints, 1, "before")
    write(checkpoints, 1, "after")

    assert names(tmp_path) == ["step-000001"]
    assert (tmp_path / "step-000001" / "learner" / "shard").read_text() == "after"


def test_what_is_passed_over_takes_no_good_ones_place_and_goes_when_another_is_whole(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 2)
    for step in (1, 3, 5):
        write(checkpoints, step)

    checkpoints.pass_over(tmp_path / "step-000005")
    kept_while_nothing_is_better = names(tmp_path)
    write(checkpoints, 4)

    assert kept_while_nothing_is_better == ["step-000003", "step-000005"]
    assert names(tmp_path) == ["step-000003", "step-000004"]


def test_what_was_passed_over_and_written_again_stays(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 2)
    write(checkpoints, 1)
    checkpoints.pass_over(tmp_path / "step-000001")

    write(checkpoints, 1)

    assert names(tmp_path) == ["step-000001"]


def test_what_cannot_be_removed_costs_no_checkpoint_and_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointFolder(tmp_path, 2)
    write(checkpoints, 1)
    write(checkpoints, 9)
    checkpoints.pass_over(tmp_path / "step-000009")

    def in_use(folder: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", in_use)
        write(checkpoints, 3)
        write(checkpoints, 4)
    left = names(tmp_path)
    write(checkpoints, 5)

    assert left == ["step-000001", "step-000003", "step-000004", "step-000009"]
    assert names(tmp_path) == ["step-000004", "step-000005"]
    assert "step-000001 is not removed, which the next checkpoint tries again: [Errno 39]" in caplog.text


def test_files_that_this_process_does_not_see_as_a_rank_wrote_them_are_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 1)
    write(checkpoints, 1)
    (checkpoints.begin(2) / "cut").write_text("12")

    with pytest.raises(CheckpointError, match=r"/gone: a learner rank wrote 2 bytes .*, found nothing: is the run's"):
        checkpoints.commit(2, {}, {"gone": FileSum(2, 0)})
    with pytest.raises(CheckpointError, match=r"/cut: a learner rank wrote 3 bytes with .*, found 2 bytes"):
        checkpoints.commit(2, {}, {"cut": FileSum(3, 0)})

    assert [path.name for path in checkpoints.newest_first()] == ["step-000001"]


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, 1)
    (checkpoints.begin(2) / "shard").write_text("half")

    checkpoints.give_up(2)

    assert names(tmp_path) == []
