from __future__ import annotations

import pytest
import torch

from cluster.weight_update import pack, unpack
from rollout.checksum import checksum


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_packed_tensors_come_out_as_they_went_in(dtype: torch.dtype) -> None:
    tensors = {"matrix": torch.randn(3, 5).to(dtype), "strided": torch.randn(4, 6).to(dtype).t(), "one": torch.ones(1)}

    made = unpack(pack(tensors))

    assert made.keys() == tensors.keys()
    assert all(made[name].equal(tensors[name]) and made[name].dtype == tensors[name].dtype for name in tensors)
    assert checksum(made) == checksum(tensors)


def test_a_changed_byte_changes_the_checksum() -> None:
    tensors = {"w": torch.zeros(8, dtype=torch.bfloat16)}
    packed = pack(tensors)
    packed["w"].data[3] ^= 1

    assert checksum(unpack(packed)) != checksum({"w": torch.zeros(8, dtype=torch.bfloat16)})
