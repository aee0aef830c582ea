"""What a rollout worker needs from an engine: five methods, whichever engine it is.

`rollout.vllm_engine` implements them on vLLM, `rollout.simulated` without a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollout.occupancy import Occupancy
from rollout.probe import Probe
from rollout.prompts import Prompt
from rollout.trajectory import FinishReason, VersionSpan

if TYPE_CHECKING:
    import torch

# Parameters by name, as the model's Hugging Face checkpoint names them. torch tensors carry the
# bf16 that numpy lacks; an engine says which of the two it takes.
Weights: TypeAlias = "Mapping[str, NDArray[np.generic] | torch.Tensor]"


class EngineError(RuntimeError):
    """A request that the engine did not finish. It may be given again, to this engine or another."""


class EngineDied(EngineError):
    """The engine is closed or its process is gone: another one must be started."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How one response is sampled. No top-p and no top-k: they would bias the importance ratio."""

    temperature: float  # 0 is greedy
    response_tokens: int  # at most
    seed: int | None = None  # None: the engine's own randomness


@dataclass(frozen=True, slots=True, eq=False)
class EngineOutput:
    """One finished response."""

    prompt_tokens: NDArray[np.int32]  # [P] image placeholders expanded
    tokens: NDArray[np.int32]  # [T] T >= 1; the end token included where there is one
    logprobs: NDArray[np.float32]  # [T] log-probabilities as sampled, natural log, after temperature
    version_spans: tuple[VersionSpan, ...]  # cover [0, T) without gaps
    finish_reason: FinishReason
    started: float  # seconds since the epoch
    finished: float  # seconds since the epoch


class Engine(Protocol):
    """Samples responses while its weights are changed under it."""

    async def generate(self, prompt: Prompt, sampling: SamplingSettings) -> EngineOutput:
        """Sample one response. Many calls run at once; cancelling one frees its place.

        Raises EngineError where this request failed and the engine may still be alive.
        """
        ...

    async def logprobs(self, probe: Probe, version: int) -> NDArray[np.float32] | None:
        """Log-probabilities [T] of the probe's tokens, at temperature 1 with no token barred.

        None where the weights held are not those of `version`, from the first token to the last. Raises as `generate`
        does.
        """
        ...

    async def update_weights(self, version: int, tensors: Weights) -> str:
        """Hold `tensors` as weight version `version` and return the checksum of what is held.

        Requests in flight keep the tokens they have and go on under the new version.
        Raises ValueError where `version` is not newer than the one held.
        """
        ...

    def occupancy(self) -> Occupancy:
        """How full it is, and has been since it was last asked. Raises EngineDied where it is closed."""
        ...

    async def close(self) -> None:
        """Free what the engine holds; requests in flight raise EngineError. May be called again."""
        ...
