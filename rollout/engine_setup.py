"""What a rollout worker starts its engine from."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import Engine, Lora
from rollout.chat import ImageLimits


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """An engine, before it is started."""

    model_dir: str  # a Hugging Face directory, whose weights are version 0
    settings: Engine
    limits: ImageLimits
    seed: int = 0
    watched: bool = False  # it says how full it is, which adaptive limits need and which costs it time
    exported: bool = False  # vLLM's own metrics are, through Ray
    adapters: Lora | None = None  # which name their targets: updates bring them alone
