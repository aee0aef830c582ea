"""An engine without a model: random responses that take time, arrive in chunks and may fail.

It stands in for vLLM where the loop around the engine is what is tested, on one core and at any
number of workers.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.engine import EngineError, EngineOutput, SamplingSettings, Weights
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, VersionSpan

END_TOKEN = 0  # the end token of every simulated response; the others are above it


@dataclass(frozen=True, slots=True)
class Simulation:
    """How simulated responses are drawn. Lengths are log-normal, which has the long tail of real ones."""

    median_tokens: float = 64.0  # of a response's length before the limit cuts it
    length_spread: float = 0.8  # standard deviation of the length's logarithm; 0: all alike
    tokens_per_chunk: int = 16  # appended at once; a weight update falls between two chunks
    seconds_per_token: float = 0.0
    seconds_per_update: float = 0.0  # every request pauses for this long
    failure_probability: float = 0.0  # of a request, somewhere in its response
    prompt_tokens: int = 16
    vocabulary: int = 1024


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a request will give, decided before it starts."""

    tokens: NDArray[np.int32]  # [T]
    logprobs: NDArray[np.float32]  # [T]
    finish_reason: FinishReason
    fails_after: float  # tokens; infinity where it does not


class SimulatedEngine:
    """Implements `rollout.engine.Engine`.

    A request's tokens, and whether it fails, depend on the engine's seed, the prompt and the sampling
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
    ) -> None:
        self._simulation = simulation
        self._seed = seed
        self._version = version
        self._checksum = checksum or checksum_of
        self._visits: Counter[str] = Counter()
        self._update = asyncio.Lock()
        self._running = asyncio.Event()
        self._running.set()
        self._closed = False

    async def generate(self, prompt: Prompt, sampling: SamplingSettings) -> EngineOutput:
        """See `rollout.engine.Engine`."""
        started = time.time()
        draw = self._draw(prompt, sampling)
        spans: list[VersionSpan] = []
        done = 0
        while done < len(draw.tokens):
            end = min(done + self._simulation.tokens_per_chunk, len(draw.tokens))
            await asyncio.sleep((end - done) * self._simulation.seconds_per_token)
            await self._running.wait()
            if self._closed:
                raise EngineError(f"the engine was closed after {done} tokens of prompt {prompt.prompt_id!r}")
            if end > draw.fails_after:
                raise EngineError(f"simulated failure after {done} tokens of prompt {prompt.prompt_id!r}")
            _extend(spans, self._version, end)
            done = end
        return EngineOutput(
            prompt_tokens=self._prompt_tokens(prompt),
            tokens=draw.tokens,
            logprobs=draw.logprobs,
            version_spans=tuple(spans),
            finish_reason=draw.finish_reason,
            started=started,
            finished=time.time(),
        )

    async def update_weights(self, version: int, tensors: Weights) -> str:
        """See `rollout.engine.Engine`. Requests in flight pause and go on where they were."""
        async with self._update:
            if self._closed:
                raise EngineError(f"the engine was closed before weight version {version} came")
            if version <= self._version:
                raise ValueError(f"got weight version {version}, expected one newer than {self._version}")
            self._running.clear()
            try:
                await asyncio.sleep(self._simulation.seconds_per_update)
                self._version = version
            finally:
                self._running.set()
            return self._checksum(tensors)

    async def close(self) -> None:
        """See `rollout.engine.Engine`."""
        self._closed = True

    def _draw(self, prompt: Prompt, sampling: SamplingSettings) -> _Draw:
        visit = self._visits[prompt.prompt_id]
        self._visits[prompt.prompt_id] += 1
        draws = self._draws(prompt, (0, visit) if sampling.seed is None else (1, sampling.seed))
        simulation = self._simulation
        wanted = draws.lognormal(math.log(simulation.median_tokens), simulation.length_spread)
        length = max(1, min(round(wanted), sampling.response_tokens))
        stops = round(wanted) <= sampling.response_tokens
        tokens = draws.integers(END_TOKEN + 1, simulation.vocabulary, size=length, dtype=np.int32)
        if stops:
            tokens[-1] = END_TOKEN
        fails = draws.random() < simulation.failure_probability
        return _Draw(
            tokens=tokens,
            logprobs=-draws.exponential(size=length).astype(np.float32),
            finish_reason=FinishReason.STOP if stops else FinishReason.LENGTH,
            fails_after=draws.uniform(0, length) if fails else math.inf,
        )

    def _prompt_tokens(self, prompt: Prompt) -> NDArray[np.int32]:
        draws = self._draws(prompt, (2, 0))
        size = self._simulation.prompt_tokens
        return draws.integers(END_TOKEN + 1, self._simulation.vocabulary, size=size, dtype=np.int32)

    def _draws(self, prompt: Prompt, key: tuple[int, int]) -> np.random.Generator:
        return np.random.default_rng((self._seed, zlib.crc32(prompt.prompt_id.encode()), *key))


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
