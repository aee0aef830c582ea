from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from learner.checkpoint_reading import weights_only


class RunsWhenUnpickled:
    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._file),)


def test_what_deepspeed_writes_is_read_and_code_beside_it_is_refused_and_not_run(tmp_path: Path) -> None:
    state = {
        "step": 3,
        "weights": torch.arange(4),
        "loss_scaler": LossScaler(1.0),
        "zero_stage": ZeroStageEnum.weights,
        "mapping": {"layer": fragment_address(numel=4, start=0)},
    }
    torch.save(state, tmp_path / "good.pt")
    torch.save({**state, "args": RunsWhenUnpickled(tmp_path / "ran")}, tmp_path / "bad.pt")
    deepspeeds = TorchCheckpointEngine()

    with weights_only():
        found = deepspeeds.load(str(tmp_path / "good.pt"))
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            deepspeeds.load(str(tmp_path / "bad.pt"))

    assert found["weights"].equal(state["weights"])
    assert (found["step"], found["zero_stage"], found["mapping"]) == (3, state["zero_stage"], state["mapping"])
    assert not (tmp_path / "ran").exists()


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with weights_only():
        pass
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"

    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    with weights_only():
        pass
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
