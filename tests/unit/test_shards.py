from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
import torch

from learner.file_sums import FileSum, sum_of
from learner.shards import ShardFiles, refuse_other_ranks

STATE = {"weights": torch.arange(10.0), "step": 3}


def test_a_shard_is_what_torch_reads_and_comes_with_its_sum(tmp_path: Path) -> None:
    files, path = ShardFiles(), tmp_path / "shard.pt"

    files.save(STATE, str(path))

    assert files.written() == {str(path): sum_of(path)}
    assert files.written() == {}
    assert torch.equal(files.load(str(path))["weights"], STATE["weights"])


def test_a_shard_is_the_state_of_when_it_was_saved_however_it_changes_while_it_is_written(tmp_path: Path) -> None:
    files, path, others = ShardFiles(), tmp_path / "shard.pt", tmp_path / "others"
    state = {"weights": torch.arange(10.0), "groups": [{"lr": 1e-4}], "betas": (0.9, 0.95)}
    ready = threading.Event()
    files.add(others, lambda: (ready.wait(), FileSum(0, 0))[1])

    files.save(state, str(path))
    state["weights"].zero_()  # type: ignore[attr-defined]
    state["groups"][0]["lr"] = 0.0  # type: ignore[index]
    ready.set()

    assert set(files.written()) == {str(path), str(others)}
    found = files.load(str(path))
    assert torch.equal(found["weights"], torch.arange(10.0))
    assert (found["groups"], found["betas"]) == ([{"lr": 1e-4}], (0.9, 0.95))


def test_a_full_disk_is_told_when_asked_for_and_once(tmp_path: Path) -> None:
    files, path = ShardFiles(), tmp_path / "shard.pt"
    large = {"weights": torch.zeros(2**20)}

    files.save(large, "/dev/full")  # where DeepSpeed calls it nothing is raised: other ranks wait in a collective
    files.save(STATE, str(path))

    with pytest.raises(OSError, match="No space left") as raised:
        files.written()
    assert raised.value.errno == errno.ENOSPC
    files.save(STATE, str(path))
    assert files.written() == {str(path): sum_of(path)}


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_shards_of_an_optimizer_are_refused_to_another_number_of_ranks_and_what_has_none_to_nobody(
    tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "mp_rank_00_model_states.pt").touch()
    for ranks in (1, 2, 3):
        refuse_other_ranks(tmp_path, 0, ranks)
    for rank in (0, 1):
        (tmp_path / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()

    for zero_stage in (1, 2, 3):
        refuse_other_ranks(tmp_path, zero_stage, 2)
        with pytest.raises(ValueError, match=r"written by 2 learner ranks, .* got learner.ranks 3, set it to 2"):
            refuse_other_ranks(tmp_path, zero_stage, 3)
