"""Checkpoints of real ranks, two of them under ZeRO-3 with groups from the object store; one meets a full disk.

And what leaves them: whole weights, of which no rank gathers more at once than a bucket.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoModelForImageTextToText

from cluster.checkpoints import CheckpointFolder
from cluster.job_checkpoints import JobCheckpoints
from cluster.learner_actors import _CHECKPOINT, SftActor, _LearnerShell
from cluster.learners import LearnerGroup
from configs.schema import Learner, Optimizer, Precision, Sft
from learner.policy import Policy, Rank, join
from rollout.chat import ImageLimits
from rollout.codec import encode_group
from rollout.prompts import Message, Prompt
from tests.unit.groups import example_group

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

LEARNER = Learner(ranks=2, cpus_per_rank=0.5, threads_per_rank=1, zero_stage=3, precision=Precision.FP32)
STAGE = Sft(steps=9, rows_per_step=2, optimizer=Optimizer(learning_rate=1e-3, warmup_steps=0))
PROMPTS = [Prompt(f"p{i}", "test", (Message("user", "Which?"),), response="positive, " * (i + 1)) for i in range(4)]


class FullForRank1(CheckpointFolder):
    """A folder whose disk has no room for one of rank 1's files, while `full`."""

    full = False

    def begin(self, step: int) -> Path:
        aside = super().begin(step)
        if self.full:
            (aside / "learner").mkdir()
            (aside / "learner" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").symlink_to("/dev/full")
        return aside


def test_a_full_disk_of_one_rank_costs_a_checkpoint_and_a_damaged_file_the_steps_since_the_one_before(
    own_ray: None, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def job() -> None:
        learners = await LearnerGroup.start(
            SftActor, LEARNER, (str(tiny_model), STAGE, LEARNER, PROMPTS, ImageLimits(), 0), 300.0
        )
        try:
            await steps(learners)
        finally:
            learners.close()

    async def steps(learners: LearnerGroup) -> None:
        groups = [encode_group(replace(example_group(), group_id=number)) for number in range(3)]
        folder = FullForRank1(tmp_path, 2)
        checkpoints = JobCheckpoints(folder, learners)
        await learners.call("train", 0)
        await checkpoints.save(1, {"cursor": 1}, [ray.put(group) for group in groups])
        second, *_ = await learners.call("train", 1)  # while it is written
        folder.full = True
        await checkpoints.save(2, {"cursor": 2})
        await checkpoints.written()  # rank 0 is not left waiting for rank 1

        assert checkpoints.failed == 1
        assert "NO CHECKPOINT of step 2 (1 have failed): [Errno 28] No space left on device" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]

        folder.full = False
        await learners.call("train", 2)
        await checkpoints.save(3, {"cursor": 3}, last=True)
        (tmp_path / "step-000003" / "learner" / "zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"damaged")
        found = await checkpoints.restore()
        again, *_ = await learners.call("train", 1)

        assert found is not None
        assert (found.step, found.state) == (1, {"cursor": 1})
        assert "CHECKPOINT PASSED OVER" in caplog.text
        assert "zero_pp_rank_0_mp_rank_00_model_states.pt: expected" in caplog.text
        assert [record.group_id for record, _ in sorted(found.groups, key=lambda kept: kept[0].group_id)] == [0, 1, 2]
        assert sorted([await reference for _, reference in found.groups]) == sorted(groups)
        assert again.loss == pytest.approx(second.loss, rel=1e-6)

    asyncio.run(job())


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_without_zero_a_checkpoint_is_taken_up_by_another_number_of_ranks(
    own_ray: None, tiny_model: Path, tmp_path: Path, before: int, after: int
) -> None:
    def with_ranks(number: int) -> Learner:
        return LEARNER.model_copy(update={"ranks": number, "zero_stage": 0})

    async def started(settings: Learner) -> LearnerGroup:
        arguments = (str(tiny_model), STAGE, settings, PROMPTS, ImageLimits(), 0)
        return await LearnerGroup.start(SftActor, settings, arguments, 300.0)

    async def job() -> None:
        group = encode_group(example_group())
        learners = await started(with_ranks(before))
        try:
            await learners.call("train", 0)
            await JobCheckpoints(CheckpointFolder(tmp_path, 2), learners).save(1, {}, [ray.put(group)], last=True)
            on, *_ = await learners.call("train", 1)
            further, *_ = await learners.call("train", 2)  # by what the optimizer remembers
        finally:
            learners.close()
        learners = await started(with_ranks(after))
        try:
            found = await JobCheckpoints(CheckpointFolder(tmp_path, 2), learners).restore()
            assert found is not None
            assert [await reference for _, reference in found.groups] == [group]
            resumed = [(await learners.call("train", step))[0].loss for step in (1, 2)]
        finally:
            learners.close()
        assert resumed == pytest.approx([on.loss, further.loss], rel=1e-4)

    asyncio.run(job())


@ray.remote(concurrency_groups=_CHECKPOINT)
class Sending(_LearnerShell):
    """A rank that only hands its weights out."""

    def start(self, rank: Rank, model_dir: str) -> None:
        join(rank)
        self._policy = Policy(model_dir, LEARNER, STAGE.optimizer, steps=1)

    def buckets(self, bytes_per_bucket: int) -> tuple[list[dict[str, torch.Tensor]], list[int]]:
        """The buckets, and the values that this rank holds whole after each."""
        buckets, held = [], []
        for bucket in self._policy.weight_buckets(bytes_per_bucket):
            buckets.append(bucket)
            held.append(sum(p.numel() for p in self._policy._model.parameters()))
        return buckets, held


def test_under_zero_3_weights_are_gathered_bucket_by_bucket_on_every_rank(own_ray: None, tiny_model: Path) -> None:
    limit = 40_000  # bytes

    async def job() -> list[tuple[list[dict[str, torch.Tensor]], list[int]]]:
        learners = await LearnerGroup.start(Sending, LEARNER, (str(tiny_model),), 300.0)
        try:
            return await learners.call("buckets", limit)
        finally:
            learners.close()

    (buckets, held), (others, held_too) = asyncio.run(job())

    model = AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.float32)
    found = {name: tensor for bucket in buckets for name, tensor in bucket.items()}
    torch.testing.assert_close(found, {name: p.detach() for name, p in model.named_parameters()}, rtol=0, atol=0)
    assert sum(map(len, buckets)) == len(found)  # none comes twice
    for bucket in buckets:
        *before, _ = [tensor.nbytes for tensor in bucket.values()]
        assert sum(before) < limit
    assert all(sum(tensor.nbytes for tensor in bucket.values()) >= limit for bucket in buckets[:-1])
    assert others == [{}] * len(buckets) and len(buckets) > 5
    assert held == held_too == [0] * len(buckets)
