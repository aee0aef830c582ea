"""The checksum tells apart whatever could go wrong between sender and receiver."""

from __future__ import annotations

import pytest
import torch

from rollout.checksum import checksum

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(1)}


def test_the_order_and_the_layout_do_not_count() -> None:
    turned = {"a": WEIGHTS["a"].t().contiguous().t()}

    assert checksum(dict(reversed(WEIGHTS.items()))) == checksum(WEIGHTS)
    assert checksum(WEIGHTS | turned) == checksum(WEIGHTS)


@pytest.mark.parametrize(
    "changed",
    [
        WEIGHTS | {"a": WEIGHTS["a"] + 1e-6},
        WEIGHTS | {"a": WEIGHTS["a"].view(3, 2)},
        WEIGHTS | {"b": WEIGHTS["b"].half()},
        WEIGHTS | {"d": torch.empty(0)},
        {"a": WEIGHTS["a"], "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"], "B": WEIGHTS["b"], "c": WEIGHTS["c"]},
    ],
    ids=["value", "shape", "type", "more", "fewer", "name"],
)
def test_every_change_shows(changed: dict[str, torch.Tensor]) -> None:
    assert checksum(changed) != checksum(WEIGHTS)
