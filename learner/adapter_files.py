"""Adapters in files, as peft and vLLM read them: what a stage trained, and that of several stages as one.

A stage's adapter stands on the model it started from, which holds the adapters of the stages before it merged. What all
of them add to the model the run started from is an adapter too: with the factors of each side by side the product is
the sum of their products, at the sum of their ranks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

ADAPTER_FOLDER = "adapter"  # within the folder of a model that holds it merged
_WEIGHTS_FILE, _CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"  # peft's names
_BEFORE, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # peft's name of a layer is between


def write_adapter(folder: Path, tensors: Mapping[str, torch.Tensor], rank: int, alpha: float, base: str) -> None:
    """Write tensors under peft's names, and what they are; `base` is the model they stand on, a folder or a hub id."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = sorted(_layer(name) for name in tensors if name.endswith(_DOWN))
    # Whole names: the last parts of some are those of layers in the vision tower too, which have no adapter.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, task_type="CAUSAL_LM", inference_mode=True)
    config.base_model_name_or_path = base
    config.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _WEIGHTS_FILE)


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter of a file."""

    tensors: Mapping[str, torch.Tensor]  # peft's names: down [rank, inputs], up [outputs, rank]
    rank: int
    alpha: float
    base: str  # the model it stands on

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Raises FileNotFoundError where there is none."""
        if not (folder / _WEIGHTS_FILE).exists():
            raise FileNotFoundError(f"{folder / _WEIGHTS_FILE} is not there")
        config = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / _WEIGHTS_FILE)
        return cls(tensors, config["r"], config["lora_alpha"], config["base_model_name_or_path"])

    @property
    def targets(self) -> tuple[str, ...]:
        """The last parts of its layers' names."""
        return tuple(sorted({_layer(name).rpartition(".")[2] for name in self.tensors if name.endswith(_DOWN)}))

    @property
    def scaling(self) -> float:
        """What the product of its factors is multiplied by."""
        return self.alpha / self.rank


def stacked(adapters: Sequence[Adapter]) -> Adapter:
    """One that adds what these add, each of which stands on the one before; on the base of the first.

    Raises ValueError where they are not of the same layers, or scaled differently.
    """
    first = adapters[0]
    if any(other.tensors.keys() != first.tensors.keys() or other.scaling != first.scaling for other in adapters):
        raise ValueError("the stages' adapters are of different layers or scalings: they are not of one recipe")
    tensors = {
        name: torch.cat([adapter.tensors[name] for adapter in adapters], dim=0 if name.endswith(_DOWN) else 1)
        for name in first.tensors
    }
    rank = sum(adapter.rank for adapter in adapters)
    return Adapter(tensors, rank, first.scaling * rank, first.base)


@torch.no_grad()
def add_to_weights(model: PreTrainedModel, adapter: Adapter) -> None:
    """Merge an adapter into a model's own weights."""
    modules = dict(model.named_modules())
    for name, down in adapter.tensors.items():
        if name.endswith(_DOWN):
            up = adapter.tensors[name.removesuffix(_DOWN) + _UP]
            weight = modules[_layer(name)].weight
            weight += adapter.scaling * (up.to(weight.dtype) @ down.to(weight.dtype))


def _layer(name: str) -> str:
    return name.removeprefix(_BEFORE).removesuffix(_DOWN)
