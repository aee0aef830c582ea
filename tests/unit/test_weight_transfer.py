"""Weights from a sender to receivers, on real tensors: whole and by deltas, with workers that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import RayActorError

import cluster.pool
import cluster.supervisor
from cluster import delta_sender, transport
from cluster.delta_sender import DeltaSender
from cluster.pool import RolloutPool
from cluster.receiver import Receiver
from cluster.transport import WeightSender, WholeSender, sender_of
from cluster.weight_update import WeightUpdate, WrongWeights
from configs.schema import Engine, Transfer
from rollout.chat import ImageLimits
from rollout.checksum import checksum
from rollout.engine import EngineDied, SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.prompts import Message, Prompt
from rollout.simulated import SimulatedEngine, Simulation
from rollout.worker import Visit
from tests.unit.fake_room import FakeRoom
from tests.unit.object_store import ObjectStore

Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True, scope="module")
def store() -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        store = ObjectStore()
        patch.setattr(transport, "ray", store)
        patch.setattr(delta_sender, "ray", store)
        yield store


def weights(seed: int = 0, values: int = 4000) -> Weights:
    chance = torch.Generator().manual_seed(seed)
    return {
        "embedding": torch.randn(values // 40, 40, generator=chance).bfloat16(),
        "norm": torch.ones(16),
        "scale": torch.tensor(1.0, dtype=torch.bfloat16),
        "none": torch.empty(0),
    }


def stepped(old: Weights, share: float, seed: int) -> Weights:
    """New tensors in which a share of the values has other bits, NaNs among them."""
    chance = np.random.default_rng(seed)
    new = {name: tensor.clone() for name, tensor in old.items()}
    for tensor in new.values():
        bits = tensor.view(torch.int16 if tensor.dtype is torch.bfloat16 else torch.int32).numpy()
        moved = chance.random(bits.shape) < share
        info = np.iinfo(bits.dtype)
        bits[moved] = chance.integers(info.min, info.max, bits.shape, bits.dtype, endpoint=True)[moved]
    return new


def buckets(tensors: Weights) -> Iterator[Weights]:
    """Two, as a learner of ZeRO-3 would gather them."""
    names = sorted(tensors)
    yield {name: tensors[name] for name in names[:2]}
    yield {name: tensors[name] for name in names[2:]}


def published(sender: WeightSender, version: int, tensors: Weights) -> WeightUpdate:
    return sender.publish(version, buckets({name: tensor.clone() for name, tensor in tensors.items()}))


def take(receiver: Receiver, update: WeightUpdate) -> Mapping[str, torch.Tensor]:
    return asyncio.run(receiver.take(update))


def read_from(update: WeightUpdate) -> list[int]:
    """How often each object has been read: of the whole copy, then of the deltas."""
    return [max(b.reads for b in stored.buckets) for stored in (update.whole, *update.deltas)]


@settings(max_examples=40)
@given(
    shares=st.lists(st.sampled_from([0.0, 0.01, 0.3, 1.0]), min_size=1, max_size=8),
    takes=st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=3),
    full_every=st.integers(2, 4),
)
def test_whoever_takes_whichever_updates_holds_what_was_sent_bit_for_bit(
    shares: list[float], takes: list[list[bool]], full_every: int
) -> None:
    sender, tensors = DeltaSender(full_every), weights()
    receivers = [Receiver() for _ in takes]

    for index, share in enumerate(shares):
        tensors = stepped(tensors, share, index)
        update = published(sender, index + 1, tensors)
        assert (update.version, update.checksum) == (index + 1, checksum(tensors))
        for receiver, own in zip(receivers, takes, strict=True):
            if own[index]:
                # The checksum is of every bit; test_checksum holds that it shows each.
                assert checksum(take(receiver, update)) == update.checksum


def test_workers_that_follow_read_deltas_alone_and_one_that_joins_the_whole_copy_and_those_since() -> None:
    sender, tensors = DeltaSender(full_every=3), weights()
    follower, found = Receiver(), []

    for version in range(1, 6):
        tensors = stepped(tensors, 0.01, version)
        update = published(sender, version, tensors)
        before = read_from(update)
        take(follower, update)
        followed = [after - b for after, b in zip(read_from(update), before, strict=True)]
        take(Receiver(), update)
        joined = [after - b - f for after, b, f in zip(read_from(update), before, followed, strict=True)]
        found.append((followed, joined))

    assert found == [
        ([1], [1]),
        ([0, 1], [1, 1]),
        ([0, 0, 1], [1, 1, 1]),
        ([0, 1], [1, 0]),  # a new whole copy, for those who join, and this version's delta for those who follow
        ([0, 1], [1, 1]),
    ]


def test_old_deltas_and_old_whole_copies_are_freed(store: ObjectStore) -> None:
    sender, receiver, tensors = DeltaSender(full_every=4), Receiver(), weights(values=400_000)
    whole = sum(tensor.nbytes for tensor in tensors.values())
    most = 0

    for version in range(1, 20):
        tensors = stepped(tensors, 0.005, version)
        update = published(sender, version, tensors)
        most = max(most, store.nbytes)
        take(receiver, update)
    del update

    assert store.nbytes < 1.1 * whole
    assert most < 2.1 * whole  # the last whole copy, until the update that has it is let go
    del sender
    assert store.nbytes == 0


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_deltas_that_are_as_large_as_the_whole_are_not_kept(store: ObjectStore, share: float) -> None:
    sender, tensors = DeltaSender(full_every=50), weights(values=400_000)
    whole = sum(tensor.nbytes for tensor in tensors.values())

    for version in range(1, 9):
        tensors = stepped(tensors, share, version)
        update = published(sender, version, tensors)
        assert sum(delta.nbytes for delta in update.deltas) < whole
        assert update.whole.weights.version >= version - 1

    del update
    assert store.nbytes < 2 * whole


def test_a_few_percent_changed_send_a_few_percent_of_the_bytes() -> None:
    sender, tensors = DeltaSender(full_every=50), weights(values=400_000)
    first = published(sender, 1, tensors)

    update = published(sender, 2, stepped(tensors, 0.03, 0))

    sent = sum(bucket.nbytes for bucket in update.deltas[0].buckets)
    whole = sum(bucket.nbytes for bucket in first.whole.buckets)
    # 1.0 bytes of gap and 2 of value for each 2: test_delta holds that against the arithmetic bound
    assert sent == pytest.approx(1.5 * 0.03 * whole, rel=0.05)
    assert update.deltas[0].nbytes <= sent < update.deltas[0].nbytes + 2000  # names, shapes, types


@pytest.mark.parametrize("deltas", [False, True])
def test_what_the_sender_was_given_is_taken_whatever_the_recipe_says(deltas: bool) -> None:
    sender, receiver, tensors = sender_of(Transfer(deltas=deltas), 60.0), Receiver(), weights()

    for version in (1, 2):
        tensors = stepped(tensors, 0.01, version)
        update = published(sender, version, tensors)
        assert checksum(take(receiver, update)) == update.checksum
        assert len(update.deltas) == (version - 1 if deltas else 0)


def test_versions_out_of_order_are_refused_at_both_ends() -> None:
    sender, receiver, tensors = DeltaSender(full_every=9), Receiver(), weights()
    first, second = (published(sender, version, tensors) for version in (1, 2))
    take(receiver, second)

    for update in (first, second):
        with pytest.raises(ValueError, match=rf"version {update.version} came, version 2 is held already"):
            take(receiver, update)
    with pytest.raises(ValueError, match="version 2 is to be published, version 2 was already"):
        published(sender, 2, tensors)

    third = published(sender, 3, tensors)
    assert checksum(take(receiver, third)) == third.checksum  # what was refused has left no trace


@pytest.mark.parametrize("deltas", [False, True])
def test_ranks_that_hold_no_weights_go_through_every_bucket_with_the_others(deltas: bool) -> None:
    sender = sender_of(Transfer(deltas=deltas), 60.0)

    for version in (1, 2, 3):
        gathered: Iterator[Weights] = iter([{}, {}])
        assert sender.publish(version, gathered).nbytes == 0
        assert list(gathered) == []


def test_other_parameters_than_before_are_refused() -> None:
    sender, tensors = DeltaSender(full_every=9), weights()
    published(sender, 1, tensors)

    with pytest.raises(ValueError, match=r"other parameters than before: \['norm', 'norms'\]"):
        published(sender, 2, {name.replace("norm", "norms"): tensor for name, tensor in tensors.items()})


def test_a_delta_that_cannot_be_read_to_its_end_is_not_built_upon() -> None:
    sender, receiver, tensors = DeltaSender(full_every=9), Receiver(), weights()
    take(receiver, published(sender, 1, tensors))
    tensors = stepped(tensors, 0.01, 0)
    update = published(sender, 2, tensors)

    async def lost() -> None:
        raise OSError("the object is lost")

    kept = update.deltas[0].buckets
    object.__setattr__(update.deltas[0], "buckets", (kept[0], lost()))
    with pytest.raises(OSError, match="lost"):
        take(receiver, update)
    object.__setattr__(update.deltas[0], "buckets", kept)

    assert checksum(take(receiver, update)) == update.checksum
    assert kept[0].reads == 2
    assert update.whole.buckets[0].reads == 2  # as it came first, and again


@dataclass
class FakeActor:
    """An actor with a real receiver and an engine without a model; remote calls are coroutines of this process."""

    number: int
    receiver: Receiver = field(default_factory=Receiver)
    engine: SimulatedEngine = field(default_factory=lambda: SimulatedEngine(Simulation(), 0, checksum=checksum))
    loaded: list[int] = field(default_factory=list)
    version_at_first_visit: int | None = None
    dies: bool = False
    killed: bool = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self, f"_{name}")
        return SimpleNamespace(
            remote=call, options=lambda **_: SimpleNamespace(remote=lambda *given: (call(*given), "group"))
        )

    async def _start(self, *_: object) -> float:
        return 0.0

    async def _load(self, update: WeightUpdate) -> str:
        if self.dies:
            raise RayActorError
        held = await self.receiver.load(update, self.engine)
        self.loaded.append(update.version)
        return held

    async def _generate(self, *_: object) -> None:
        if self.killed:
            raise EngineDied("gone")
        if self.version_at_first_visit is None:
            self.version_at_first_visit = max(self.loaded, default=0)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[FakeActor]:
    made: list[FakeActor] = []

    def make(_: str) -> FakeActor:
        made.append(FakeActor(len(made)))
        return made[-1]

    def kill(actor: FakeActor) -> None:
        actor.killed = True

    monkeypatch.setattr(cluster.pool, "RolloutActor", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make)))
    monkeypatch.setattr(cluster.pool, "Room", FakeRoom)
    monkeypatch.setattr(cluster.supervisor.ray, "kill", kill)
    return made


async def started(workers: int) -> RolloutPool:
    return await RolloutPool.start(EngineSetup("model", Engine(workers=workers), ImageLimits()), 60.0)


def visit() -> Visit:
    return Visit(0, Prompt("p", "t", (Message("user", "?"),)), None, 2, 0.0)


def test_a_worker_that_dies_in_an_update_comes_back_with_the_newest_weights_and_follows_from_there(
    actors: list[FakeActor],
) -> None:
    sender, tensors = DeltaSender(full_every=9), weights()
    updates = [published(sender, version, tensors := stepped(tensors, 0.01, version)) for version in (1, 2, 3)]

    async def job() -> None:
        pool = await started(2)
        await pool.load(updates[0])
        actors[0].dies = True
        await pool.load(updates[1])
        while len(actors) < 3 or not actors[2].loaded:
            await pool.generate(visit(), SamplingSettings(1.0, 8))
            await asyncio.sleep(0.01)  # these fakes answer at once: nothing else would come to its turn
        await pool.generate(visit(), SamplingSettings(1.0, 8))
        await pool.load(updates[2])
        await pool.generate(visit(), SamplingSettings(1.0, 8))

    asyncio.run(job())

    assert [actor.loaded for actor in actors] == [[1], [1, 2, 3], [2, 3]]
    assert actors[2].version_at_first_visit in (2, 3)


def test_a_worker_whose_copy_was_spoilt_takes_the_whole_and_its_engine_never_sees_the_wrong_weights(
    actors: list[FakeActor],
) -> None:
    sender, tensors = DeltaSender(full_every=9), weights()
    first = published(sender, 1, tensors)
    second = published(sender, 2, stepped(tensors, 0.01, 0))

    async def job() -> None:
        pool = await started(2)
        await pool.load(first)
        actors[1].receiver._kept["embedding"][7, 7] += 1.0
        await pool.load(second)

    asyncio.run(job())

    assert first.whole.buckets[0].reads == 3  # two workers, and one of them again
    assert actors[1].loaded == [1, 2, 2]
    assert actors[1].engine._version == 2


@pytest.mark.parametrize("sender", [WholeSender(), DeltaSender(full_every=9)])
def test_weights_that_are_spoilt_in_the_store_end_the_run_before_an_engine_has_them(
    actors: list[FakeActor], sender: WeightSender
) -> None:
    update = published(sender, 1, weights())
    update.whole.buckets[1].spoil()

    async def job() -> None:
        await (await started(1)).load(update)

    with pytest.raises(WrongWeights, match="rollout-0 holds weights with checksum"):
        asyncio.run(job())
    assert actors[0].engine._version == 0


def test_an_engine_that_reads_other_weights_than_it_was_given_ends_the_run(actors: list[FakeActor]) -> None:
    update = published(DeltaSender(full_every=9), 1, weights())

    async def job() -> None:
        pool = await started(1)
        actors[0].engine._checksum = lambda _: "other"
        await pool.load(update)

    with pytest.raises(WrongWeights, match="the engine read weights with checksum other as version 1"):
        asyncio.run(job())


def test_an_engine_that_fails_in_an_update_is_replaced_and_its_successor_takes_the_whole(
    actors: list[FakeActor],
) -> None:
    sender, tensors = DeltaSender(full_every=9), weights()
    updates = [published(sender, version, tensors := stepped(tensors, 0.01, version)) for version in (1, 2)]

    async def job() -> None:
        pool = await started(1)
        await pool.load(updates[0])

        async def died(*_: object) -> str:
            raise EngineDied("half loaded")

        actors[0].engine.update_weights = died  # type: ignore[method-assign]
        await pool.load(updates[1])
        await pool.generate(visit(), SamplingSettings(1.0, 8))

    asyncio.run(job())

    assert [actor.loaded for actor in actors] == [[1], [2]]
    assert updates[0].whole.buckets[0].reads == 2
