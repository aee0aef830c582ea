"""What a rollout worker does with a vLLM engine, and the Ray actor that does it."""

from __future__ import annotations

import time

import numpy as np
import ray
from numpy.typing import NDArray

from cluster.actor_names import NamedActor
from cluster.broadcast_sender import Offer, take_offer
from cluster.cores import keep_on
from cluster.quiet import quiet
from cluster.receiver import Receiver
from cluster.weight_update import WeightUpdate
from rollout.chat import ChatFormat
from rollout.codec import encode_group
from rollout.engine import SamplingSettings
from rollout.engine_setup import EngineSetup
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.worker import Visit, sample_group

CALLS_AT_ONCE = 100_000  # by Ray's own limit, 1,000, weights and the probe would wait for the groups of a deep queue


class RolloutWorker(NamedActor):
    """A vLLM engine. Calls run at once on one event loop."""

    def __init__(self, name: str) -> None:
        quiet()
        self._name = name
        self._receiver = Receiver()

    async def start(self, setup: EngineSetup) -> float:
        """Start the engine with the model's own weights as version 0; returns the seconds it took.

        Raises ValueError where it cannot be kept on the cores of its settings, which have one entry or none.
        """
        if setup.settings.cores is not None:  # before vLLM starts threads and processes
            keep_on(setup.settings.cores[0], self._name, "engine.cores")
        from rollout.vllm_engine import (
            VllmEngine,  # here: vllm takes seconds to import, other actors do without
        )

        started = time.perf_counter()
        self._engine = await VllmEngine.start(
            setup.model_dir,
            setup.settings,
            setup.limits,
            seed=setup.seed,
            watched=setup.watched,
            exported_as=self._name if setup.exported else None,
            adapters=setup.adapters,
        )
        self._tokenizer = ChatFormat(setup.model_dir, setup.limits).tokenizer.backend_tokenizer
        return time.perf_counter() - started

    async def generate(self, visit: Visit, sampling: SamplingSettings) -> tuple[None, bytes]:
        """The encoded group, not yet scored; before it a None that is cheap to wait for."""
        return None, encode_group(await sample_group(self._engine, self._tokenizer, visit, sampling, self._name))

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """See `rollout.engine.Engine`."""
        return await self._engine.logprobs(probe, version)

    async def load(self, update: WeightUpdate | Offer) -> str:
        """Take up new weights while requests run; returns the checksum of what was found, see `Receiver.load`."""
        if isinstance(update, Offer):
            return await take_offer(update, self._engine)
        return await self._receiver.load(update, self._engine)

    async def occupancy(self) -> Occupancy:
        """How full the engine is, which was started to be watched."""
        return self._engine.occupancy()

    async def close(self) -> None:
        """Stop the engine's processes."""
        await self._engine.close()


RolloutActor = ray.remote(RolloutWorker)
