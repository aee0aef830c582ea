"""Reading DeepSpeed's checkpoints as data. It asks torch to unpickle whatever is in the files; here it is overruled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

_OVERRULE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# What its files hold beside tensors and plain values, at every ZeRO stage: records without code of their own.
_RECORDS = [LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def weights_only() -> Iterator[None]:
    """Within the block torch.load makes tensors, plain values and DeepSpeed's records, and refuses all else."""
    before = os.environ.get(_OVERRULE)
    os.environ[_OVERRULE] = "1"
    try:
        with torch.serialization.safe_globals(_RECORDS):
            yield
    finally:
        if before is None:
            del os.environ[_OVERRULE]
        else:
            os.environ[_OVERRULE] = before
