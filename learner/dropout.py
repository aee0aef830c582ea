"""Dropout and its like, off: engines sample without, and would sample another policy than the one that is trained."""

from __future__ import annotations

import torch
from transformers import PretrainedConfig

# In the names of settings: dropout, resid_pdrop, layerdrop, drop_path_rate, router_jitter_noise.
_RATES = ("drop", "jitter")


def without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """The same configuration, its parts included, with every rate of what is random in training at 0."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            without_dropout(value)
        elif isinstance(value, float | int) and not isinstance(value, bool) and any(rate in name for rate in _RATES):
            setattr(config, name, type(value)(0))
    return config


def end_dropout(model: torch.nn.Module) -> None:
    """Set the rate to 0 in layers that do not have theirs from the configuration."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
