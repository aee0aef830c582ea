"""Room for actors on the nodes of a real Ray cluster. Its GPUs are numbers, which is all that placement sees of any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import placement_group_table

from cluster.nodes import nodes_here
from cluster.room import NoRoom, Room
from configs.bundles import Asked, Bundle, learner_ranks, rollout_workers
from configs.schema import Engine, Learner
from tests.integration.raylets import Raylets, raylets

pytestmark = pytest.mark.integration

LEARNER = learner_ranks(Learner(ranks=3, gpus_per_rank=1))
ENGINE = rollout_workers(Engine(tensor_parallel=4, gpus_per_worker=4)).one("rollout-0")
SECONDS = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raylets]:
    with raylets(tmp_path_factory.mktemp("r")) as cluster:
        for _ in range(2):
            cluster.add(num_cpus=8, num_gpus=4)
        yield cluster


@ray.remote
class Actor:
    def where(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), len(ray.get_gpu_ids())


async def held(room: Room, seconds: float = SECONDS) -> list[str]:
    await room.held(asyncio.timeout(seconds))
    return room.nodes()


def test_ranks_share_a_node_and_an_engine_has_all_of_its_gpus_on_one(cluster: Raylets) -> None:
    async def job() -> None:
        with Room(LEARNER) as learner, Room(ENGINE) as engine:
            (shared, *others), (own,) = await held(learner), await held(engine)
            actors = [Actor.options(**learner.options(n)).remote() for n in range(3)]
            actors.append(Actor.options(**engine.options()).remote())
            found = await asyncio.gather(*(actor.where.remote() for actor in actors))
            assert others == [shared] * 2
            assert own != shared
            assert found == [*[(shared, 1)] * 3, (own, 4)]

    asyncio.run(job())


def test_an_engine_that_no_node_can_hold_is_told_with_what_the_nodes_have(cluster: Raylets) -> None:
    with (
        Room(Asked("rollout-0", 1, Bundle(1, 8), "engine.gpus_per_worker")) as wide,
        pytest.raises(
            NoRoom, match=r"1 CPU and 8 GPUs.* free in all, on 3 nodes: 2 of 8 CPUs and 4 GPUs, 1 of 0 CPUs\."
        ),
    ):
        asyncio.run(held(wide, 1.0))


def test_room_on_a_node_that_is_lost_is_waited_for_again_until_there_is_another_node(cluster: Raylets) -> None:
    async def job() -> None:
        with Room(LEARNER) as learner, Room(ENGINE) as engine:
            await held(learner)
            (lost,) = await held(engine)
            cluster.remove(lost)
            while len(nodes_here()) > 2:
                await asyncio.sleep(0.5)
            with pytest.raises(NoRoom):
                await held(engine, 2.0)
            states = {group["state"] for group in placement_group_table().values()}
            assert "PENDING" in states
            assert "RESCHEDULING" not in states  # Ray looks for such a group's room all the time
            added = cluster.add(num_cpus=8, num_gpus=4)
            assert await held(engine) == [added]

    asyncio.run(job())
