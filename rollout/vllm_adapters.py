"""Low-rank adapters in vLLM: one place beside the weights, and what is in it changes in flight.

Every request names the adapter in that place, by the one number it always has. New values are loaded into the place
while requests are frozen (`load_inplace`), and all go on under them: the same that happens to whole weights, so the
version of a token means the same, and nothing of an older version has to be kept until its last request has ended.
A request's name for the adapter has the version in it, as vLLM's prefix cache knows adapters by their names and paths.

Pictures are encoded without adapters: there are none in a vision tower.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file
from vllm.config.lora import MaxLoRARanks
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import WorkerLoRAManager

from configs.schema import Lora
from rollout.staging import staged

_WEIGHTS_FILE = "adapter_model.safetensors"  # peft's names, which vLLM looks for
_CONFIG_FILE = "adapter_config.json"
_PLACE = 1  # vLLM's numbers of adapters begin here


def adapter_arguments(adapters: Lora | None) -> dict[str, object]:
    """Arguments of an engine that holds adapters, and no arguments for another."""
    if adapters is None:
        return {}
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": min(rank for rank in get_args(MaxLoRARanks) if rank >= adapters.rank),
        # Else embedding and output layer are given room for an adapter as well, and computed with it.
        "lora_target_modules": None if adapters.targets is None else list(adapters.targets),
    }


@asynccontextmanager
async def staged_adapter(adapters: Lora, tensors: Mapping[str, torch.Tensor]) -> AsyncIterator[Path]:
    """Write an adapter's tensors to a file as `staged` does, and beside it what they are, as peft does."""
    described = {
        "peft_type": "LORA",
        "r": adapters.rank,
        "lora_alpha": adapters.alpha_taken,
        "target_modules": list(adapters.targets or ()),
        "bias": "none",
    }
    async with staged(tensors, _WEIGHTS_FILE) as path:
        path.with_name(_CONFIG_FILE).write_text(json.dumps(described), encoding="utf-8")
        yield path


def adapter_request(version: int) -> LoRARequest:
    """What a request under that weight version is given.

    The path is none: an adapter that is not in its place is an error, and never read by a request.
    """
    return LoRARequest(f"version-{version}", _PLACE, f"/weights-of-version-{version}-come-by-updates-alone")


def put_in_place(manager: WorkerLoRAManager, version: int, weights: Path) -> None:
    """In vLLM's worker: replace the adapter by that in a file.

    Raises ValueError where a part of it fits no layer, which vLLM would pass over without a word.
    """
    manager.add_adapter(LoRARequest(f"version-{version}", _PLACE, str(weights.parent), load_inplace=True))
    _check_applied(manager, load_file(weights))


def put_nothing_in_place(manager: WorkerLoRAManager, version: int, rank: int) -> None:
    """In vLLM's worker: an adapter of zeros, so that requests of the first version have one whose values can change."""
    manager.add_dummy_lora(adapter_request(version), rank)


def _check_applied(manager: WorkerLoRAManager, tensors: Mapping[str, torch.Tensor]) -> None:
    held = manager._adapter_manager.get_adapter(_PLACE)  # nothing public tells it
    layers = manager._adapter_manager.modules
    applied = [part for name in layers if (found := held.get_lora(name)) for part in (found.lora_a, found.lora_b)]
    values = sum(tensor.numel() for part in applied for tensor in _tensors(part))
    sent = sum(tensor.numel() for tensor in tensors.values())
    if values != sent:
        strangers = sorted(held.loras.keys() - layers.keys())
        raise ValueError(
            f"{values} of the adapters' {sent} values are in a layer of the engine; it has none for {strangers[:5]}"
        )


def _tensors(part: torch.Tensor | Iterable[torch.Tensor | None]) -> list[torch.Tensor]:
    """A layer that vLLM fused of several holds a list, with None for those that have no adapter."""
    return [part] if isinstance(part, torch.Tensor) else [tensor for tensor in part if tensor is not None]
