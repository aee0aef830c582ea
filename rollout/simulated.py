"""An engine without a model: random responses that take time, arrive in chunks and may fail.

It stands in for vLLM where the loop around the engine is what is tested, on one core and at any
number of workers. `rollout.simulated_text` gives its responses the form that the reward service reads.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollout.engine import EngineDied, EngineError, EngineOutput, SamplingSettings, Weights
from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.prompts import Prompt
from rollout.simulated_batch import Seat, SimulatedBatch
from rollout.trajectory import FinishReason, VersionSpan

END_TOKEN = 0  # the end token of every simulated response; the others are above it

# Writes a response: given randomness and a wanted number of tokens, ids [T] of about as many, END_TOKEN the last.
Writer: TypeAlias = "Callable[[np.random.Generator, int], NDArray[np.int32]]"


@dataclass(frozen=True, slots=True)
class Simulation:
    """How simulated responses are drawn. Lengths are log-normal, which has the long tail of real ones."""

    median_tokens: float = 64.0  # of a response's length before the limit cuts it
    length_spread: float = 0.8  # standard deviation of the length's logarithm; 0: all alike
    tokens_per_chunk: int = 16  # appended at once; a weight update falls between two chunks
    seconds_per_token: float = 0.0
    sequences_at_once: int | None = None  # more wait their turn; None: any number
    kv_tokens: int | None = None  # room for keys and values; who finds none is put back; None: any number
    seconds_per_update: float = 0.0  # every request pauses for this long
    failure_probability: float = 0.0  # of a request, somewhere in its response
    death_probability: float = 0.0  # of the engine, somewhere in a response
    prompt_tokens: int = 16
    vocabulary: int = 1024


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a request will give, decided before it starts."""

    tokens: NDArray[np.int32]  # [T]
    logprobs: NDArray[np.float32]  # [T]
    finish_reason: FinishReason
    fails_after: float  # tokens; infinity where it does not
    dies_after: float  # tokens; the same of the engine


class SimulatedEngine:
    """Implements `rollout.engine.Engine`.

    A request's tokens, and whether it or the engine fails, depend on the engine's seed, the prompt and the sampling
    seed alone (where that is None: on how often this engine has seen the prompt). Which version
    sampled which token depends on how requests and updates interleave.
    """

    def __init__(
        self,
        simulation: Simulation,
        seed: int,
        *,
        version: int = 0,
        checksum: Callable[[Weights], str] | None = None,
        write: Writer | None = None,
    ) -> None:
        self._simulation = simulation
        self._write = write or self._random_tokens
        self._batch = SimulatedBatch(simulation.sequences_at_once, simulation.kv_tokens)
        self._version = version
        self._checksum = checksum or checksum_of
        self._random = np.random.Generator(np.random.Philox(key=seed))
        self._origin: Any = self._random.bit_generator.state
        self._visits: Counter[str] = Counter()
        self._update = asyncio.Lock()
        self._running = asyncio.Event()
        self._running.set()
        self._closed = False

    async def generate(self, prompt: Prompt, sampling: SamplingSettings) -> EngineOutput:
        """See `rollout.engine.Engine`."""
        started = time.time()
        draw = self._draw(prompt, sampling)
        async with self._batch.seat(self._simulation.prompt_tokens) as seat:
            spans = await self._sample(prompt, draw, seat)
        return EngineOutput(
            prompt_tokens=self._prompt_tokens(prompt),
            tokens=draw.tokens,
            logprobs=draw.logprobs,
            version_spans=spans,
            finish_reason=draw.finish_reason,
            started=started,
            finished=time.time(),
        )

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """See `rollout.engine.Engine`. A function of prompt and version, the same for all engines."""
        held = self._version
        await asyncio.sleep(self._simulation.seconds_per_token)
        if self._closed:
            raise EngineDied(f"the engine was closed before it had scored prompt {probe.prompt.prompt_id!r}")
        if not held == version == self._version:
            return None
        draws = np.random.default_rng([version, zlib.crc32(probe.prompt.prompt_id.encode())])
        return -draws.standard_exponential(len(probe.tokens), dtype=np.float32)

    async def update_weights(self, version: int, tensors: Weights) -> str:
        """See `rollout.engine.Engine`. Requests in flight pause and go on where they were."""
        async with self._update:
            if self._closed:
                raise EngineDied(f"the engine was closed before weight version {version} came")
            if version <= self._version:
                raise ValueError(f"got weight version {version}, expected one newer than {self._version}")
            self._running.clear()
            try:
                await asyncio.sleep(self._simulation.seconds_per_update)
                self._version = version
            finally:
                self._running.set()
            return self._checksum(tensors)

    def occupancy(self) -> Occupancy:
        """See `rollout.engine.Engine`."""
        if self._closed:
            raise EngineDied("the engine is closed")
        return self._batch.occupancy()

    async def close(self) -> None:
        """See `rollout.engine.Engine`."""
        self._closed = True

    async def _sample(self, prompt: Prompt, draw: _Draw, seat: Seat) -> tuple[VersionSpan, ...]:
        spans: list[VersionSpan] = []
        clock = asyncio.get_running_loop().time
        done, due = 0, clock()
        while done < len(draw.tokens):
            end = min(done + self._simulation.tokens_per_chunk, len(draw.tokens))
            if await self._batch.grow(seat, end - done):
                due = clock()
            due += (end - done) * self._simulation.seconds_per_token
            await asyncio.sleep(due - clock())  # so that to be woken late does not add up over the chunks
            if not self._running.is_set():
                await self._running.wait()
                due = clock()
            self._closed = self._closed or end > draw.dies_after
            if self._closed:
                raise EngineDied(f"the engine was closed after {done} tokens of prompt {prompt.prompt_id!r}")
            if end > draw.fails_after:
                raise EngineError(f"simulated failure after {done} tokens of prompt {prompt.prompt_id!r}")
            _extend(spans, self._version, end)
            done = end
        return tuple(spans)

    def _draw(self, prompt: Prompt, sampling: SamplingSettings) -> _Draw:
        visit = self._visits[prompt.prompt_id]
        self._visits[prompt.prompt_id] += 1
        draws = self._draws(prompt, (0, visit) if sampling.seed is None else (1, sampling.seed))
        simulation = self._simulation
        wanted = draws.lognormal(math.log(simulation.median_tokens), simulation.length_spread)
        written = self._write(draws, max(1, round(wanted)))
        tokens = written[: sampling.response_tokens]
        length = len(tokens)
        fails, dies = draws.random(2) < (simulation.failure_probability, simulation.death_probability)
        return _Draw(
            tokens=tokens,
            logprobs=-draws.standard_exponential(length, dtype=np.float32),
            finish_reason=FinishReason.STOP if length == len(written) else FinishReason.LENGTH,
            fails_after=draws.uniform(0, length) if fails else math.inf,
            dies_after=draws.uniform(0, length) if dies else math.inf,
        )

    def _random_tokens(self, draws: np.random.Generator, wanted: int) -> NDArray[np.int32]:
        tokens = draws.integers(END_TOKEN + 1, self._simulation.vocabulary, size=wanted, dtype=np.int32)
        tokens[-1] = END_TOKEN
        return tokens

    def _prompt_tokens(self, prompt: Prompt) -> NDArray[np.int32]:
        """Different for different prompts; without randomness, which would take longer than all else here."""
        first = zlib.crc32(prompt.prompt_id.encode())
        ids = first + np.arange(self._simulation.prompt_tokens)
        return (END_TOKEN + 1 + ids % (self._simulation.vocabulary - END_TOKEN - 1)).astype(np.int32)

    def _draws(self, prompt: Prompt, key: tuple[int, int]) -> np.random.Generator:
        """The engine's randomness, set to where this key's begins: a generator of its own would take 60 us to make."""
        counter = np.array([0, *key, zlib.crc32(prompt.prompt_id.encode())], dtype=np.uint64)
        own = {**self._origin["state"], "counter": counter}
        self._random.bit_generator.state = {**self._origin, "state": own}
        return self._random


def spread_for(p99_over_median: float) -> float:
    """The `length_spread` whose 99th percentile is so many times the median."""
    return math.log(p99_over_median) / NormalDist().inv_cdf(0.99)


def checksum_of(tensors: Weights) -> str:
    """CRC-32 over names, types, shapes and bytes, in the order of the names; numpy's types only."""
    checksum = 0
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        checksum = zlib.crc32(f"{name} {values.dtype.str} {values.shape}".encode(), checksum)
        checksum = zlib.crc32(values.tobytes(), checksum)
    return f"{checksum:08x}"


def _extend(spans: list[VersionSpan], version: int, end: int) -> None:
    """Add the tokens up to `end`, which came under `version`, to the last span or as a new one."""
    start = spans[-1].end if spans else 0
    if spans and spans[-1].version == version:
        start = spans.pop().start
    spans.append(VersionSpan(version, start, end))
