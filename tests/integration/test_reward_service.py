"""The reward service on the real Ray: reward workers, a scorer's process under each, and one worker that is killed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors
from ray.util.state.common import ActorState
from transformers import PreTrainedTokenizerFast

from cluster.records import GroupRecord
from cluster.rewarding import RewardService
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.codec import encode_group
from rollout.rollout_file import read_rollouts
from rollout.scorer_process import UnusableScorer
from rollout.worker import Visit
from tests.unit.test_scored import PROMPT, group, saying, tokenizer

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
GROUPS = 40  # seconds of work, of which some is left when a worker is killed
PATIENT = "rewards.correctness=tests.unit.user_scorers:Patient"

pytestmark = pytest.mark.integration


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    return str(folder)


def recipe_with(*overrides: str) -> Recipe:
    small = ["response.reasoning_elements=[element]", "reward_service.workers=2", "reward_service.cpus_per_worker=0.1"]
    return load_recipe(DEMO, [*small, *overrides])


async def scored(service: RewardService) -> list[GroupRecord]:
    """Score some groups at once, and kill a worker when the first of them has come back."""
    scoring = []
    for number in range(GROUPS):
        encoded = ray.put(encode_group(replace(group(*map(saying, ("positive", "neutral"))), group_id=number)))
        visit = Visit(number, PROMPT, "positive", 2, 0.0)
        scoring.append(asyncio.create_task(service.score(encoded, visit)))
    await asyncio.wait(scoring, return_when=asyncio.FIRST_COMPLETED)
    ray.kill(service._supervisor.workers[0].actor)
    return [record for record, _ in await asyncio.gather(*scoring)]


def test_a_reward_worker_that_is_killed_costs_no_group(own_ray: None, model: str, tmp_path: Path) -> None:
    recipe = recipe_with(PATIENT)

    async def job() -> list[GroupRecord]:
        service = RewardService(recipe, model, tmp_path / "rollouts")
        try:
            await service.start()
            records = await scored(service)
            assert service.counts["reward_worker_restarts"] == 1.0
        finally:
            await service.close()
        return records

    records = asyncio.run(job())

    files = [*(tmp_path / "rollouts").glob("*.rollouts")]
    written = {one.group_id for file in files for one in read_rollouts(file, strict=False)}
    assert [record.group_id for record in records] == list(range(GROUPS))
    assert {sample.correct for record in records for sample in record.samples} == {1.0}
    assert written == set(range(GROUPS))


def living() -> dict[str, ActorState]:
    """The cluster's actors by name."""
    address = ray.get_runtime_context().gcs_address  # the machine may have other clusters
    found = list_actors(address=address, filters=[("state", "=", "ALIVE")], detail=True)
    return {actor.name: actor for actor in found}


def test_a_worker_and_its_successor_have_names_of_their_own_in_rays_lists_and_logs(
    own_ray: None, model: str, tmp_path: Path
) -> None:
    async def job() -> list[dict[str, ActorState]]:
        service = RewardService(recipe_with(PATIENT), model, tmp_path / "rollouts")
        await service.start()
        before = living()
        await scored(service)
        while len(service._supervisor.live) < 2:
            await asyncio.sleep(0.1)
        after = living()
        await service.close()
        return [before, after]

    before, after = asyncio.run(job())

    replaced, successor = before.keys() - after.keys(), after.keys() - before.keys()
    assert {name.split(".")[0] for name in before} == {"reward-0", "reward-1"}
    assert {name.split(".")[0] for name in replaced | successor} == {"reward-0"}
    for name, actor in {**before, **after}.items():
        assert actor.repr_name == name  # what its lines in the log begin with
        assert actor.ray_namespace.startswith("test-")


def test_a_scorer_that_cannot_be_made_is_named_by_the_start(own_ray: None, model: str, tmp_path: Path) -> None:
    recipe = recipe_with("rewards.correctness=tests.unit.user_scorers:RaisesWhenMade")

    async def job() -> None:
        service = RewardService(recipe, model, tmp_path / "rollouts")
        try:
            await service.start()
        finally:
            await service.close()

    with pytest.raises(UnusableScorer, match=r"rewards.correctness: (.|\n)*no model here"):
        asyncio.run(job())
