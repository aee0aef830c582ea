"""The checksum tells apart whatever could go wrong between sender and receiver."""

from __future__ import annotations

import pytest
import torch

import rollout.checksum
from rollout.checksum import checksum, checksum_of, digests

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(1)}


def test_the_order_and_the_layout_do_not_count() -> None:
    turned = {"a": WEIGHTS["a"].t().contiguous().t()}

    assert checksum(dict(reversed(WEIGHTS.items()))) == checksum(WEIGHTS)
    assert checksum(WEIGHTS | turned) == checksum(WEIGHTS)


def test_every_block_of_a_large_tensor_counts_and_so_does_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout.checksum, "_BLOCK", 8)  # bytes: two values
    values = torch.arange(7.0)
    others = [torch.where(torch.arange(7) == index, 0.5, values) for index in range(7)]
    others.append(values[[2, 3, 0, 1, 4, 5, 6]])

    assert len({checksum({"w": tensor}) for tensor in (values, *others)}) == 9


def test_a_checksum_may_be_taken_bucket_by_bucket() -> None:
    buckets = [{name: WEIGHTS[name]} for name in "bca"]

    assert checksum_of(digest for bucket in buckets for digest in digests(bucket)) == checksum(WEIGHTS)


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
