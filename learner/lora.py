"""Low-rank adapters: a few trained parameters beside frozen weights (LoRA, Hu et al., arXiv 2106.09685).

They sit on linear layers of the language model. What leaves the learner for the disk is the model with its adapters
merged: an ordinary one, with the adapters apart in a folder of it. Engines get the former, or with `transfer.adapters`
the adapters alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from configs.schema import Lora

_ADAPTER = "default"  # peft's name for the only one
_BASE, _OWN = ".base_layer.", (".lora_A.", ".lora_B.")
_SAVED = "base_model.model."  # what peft puts before every name in an adapter's file, where vLLM looks for it


def add_adapters(model: PreTrainedModel, lora: Lora) -> None:
    """Freeze the model and put an adapter, at first without effect, on each of the layers that `lora.targets` names.

    Raises ValueError for a target that no linear layer of the language model bears the name of.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha_taken,
        lora_dropout=0.0,  # the engine samples without: dropout would train another policy than the one that is sampled
        target_modules=adapted_layers(model, lora),
    )
    inject_adapter_in_model(config, model, _ADAPTER)
    if model.is_gradient_checkpointing:
        model.enable_input_require_grads()  # else nothing that is recomputed would be reached by the gradient


def adapted_layers(model: PreTrainedModel, lora: Lora) -> list[str]:
    """Full names of the layers that get an adapter. Raises ValueError for targets that are none."""
    inside = {id(module) for module in model.get_decoder().modules()}
    linear = [n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear) and id(module) in inside]
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    if unknown := set(lora.targets or ()) - set(kinds):
        raise ValueError(
            f"learner.lora.targets: {sorted(unknown)} are no linear layers of the language model, which has {kinds}"
        )
    return [name for name in linear if lora.targets is None or name.rpartition(".")[2] in lora.targets]


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before it got adapters, while the context lasts."""
    adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for module in adapted:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for module in adapted:
            module.enable_adapters(True)


@dataclass(frozen=True, slots=True, eq=False)
class Mergeable:
    """A parameter as the model without adapters names it, and the adapter that changes it, if any."""

    name: str
    parameter: torch.nn.Parameter
    adapted: LoraLayer | None = None

    @property
    def parts(self) -> list[torch.nn.Parameter]:
        """The parameters that `merged` reads: under ZeRO-3 they must be gathered first."""
        if self.adapted is None:
            return [self.parameter]
        return [self.parameter, self.adapted.lora_A[_ADAPTER].weight, self.adapted.lora_B[_ADAPTER].weight]

    def merged(self) -> torch.Tensor:
        """A copy on the CPU with what the adapter adds; summed in fp32, then rounded to the parameter's precision."""
        found = self.parameter.detach()
        if self.adapted is not None:
            _, down, up = (part.detach().float() for part in self.parts)
            found = (found.float() + self.adapted.scaling[_ADAPTER] * (up @ down)).to(found.dtype)
        return found.to("cpu", copy=True)


def mergeable_parameters(model: PreTrainedModel) -> Iterator[Mergeable]:
    """All parameters but the adapters' own. Tied ones come once, under their first name."""
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if any(own in name for own in _OWN):
            continue
        layer, base, kind = name.rpartition(_BASE)
        adapted = modules[layer] if base and kind == "weight" else None
        assert adapted is None or isinstance(adapted, LoraLayer)
        yield Mergeable(name.replace(_BASE, "."), parameter, adapted)


def adapter_parameters(model: PreTrainedModel) -> Iterator[Mergeable]:
    """The adapters' own parameters, under the names that peft gives them on disk; nothing is merged into them."""
    for name, parameter in model.named_parameters():
        if any(own in name for own in _OWN):
            yield Mergeable(_SAVED + name.replace(f".{_ADAPTER}.", "."), parameter)
