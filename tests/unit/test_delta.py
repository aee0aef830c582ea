"""Deltas between tensors: nothing is lost, and few bytes are spent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rollout.delta import TensorDelta, Where, apply, difference

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int8, torch.bool)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: torch.Tensor) -> NDArray[np.generic]:
    found: NDArray[np.generic] = tensor.view(BITS[tensor.element_size()]).numpy()
    return found


def random_bits(dtype: torch.dtype, values: int, chance: np.random.Generator) -> torch.Tensor:
    """Every pattern of bits there is: NaNs of all kinds, both zeros, subnormal numbers."""
    if dtype is torch.bool:
        return torch.from_numpy(chance.integers(0, 2, values, np.uint8)).view(torch.bool)
    made = torch.empty(values, dtype=dtype)
    made.view(torch.uint8).numpy()[:] = chance.integers(0, 256, made.nbytes, np.uint8)
    return made


def changed(tensor: torch.Tensor, positions: NDArray[np.int64] | list[int]) -> torch.Tensor:
    """The tensor with the lowest bit turned at these positions."""
    new = tensor.clone()
    bits(new)[positions] ^= 1  # type: ignore[call-overload]
    return new


def delta_of(old: torch.Tensor, new: torch.Tensor) -> TensorDelta:
    found = difference(old, new)
    assert found is not None
    return found


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    share=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.floats(0, 0.02)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_delta_makes_the_new_tensor_of_the_old_bit_for_bit(
    dtype: torch.dtype, shape: tuple[int, ...], share: float, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    values = math.prod(shape)
    old = random_bits(dtype, values, chance)
    new = torch.where(torch.from_numpy(chance.random(values) < share), random_bits(dtype, values, chance), old)
    tensor = old.clone().view(shape)

    delta = difference(old.view(shape), new.view(shape))
    if delta is not None:
        apply(delta, tensor)

    assert (bits(tensor) == bits(new.view(shape))).all()
    assert (delta is None) == bool((bits(old) == bits(new)).all())
    assert delta is None or delta.nbytes <= new.nbytes


@given(gaps=st.lists(st.sampled_from([0, 1, 254, 255, 256, 510, 511, 65534, 65535, 65536, 131_071]), min_size=1))
def test_gaps_around_the_largest_numbers_of_their_types_are_told_rightly(gaps: list[int]) -> None:
    positions = np.cumsum(np.array(gaps) + 1) - 1
    old = torch.zeros(int(positions[-1]) + 1, dtype=torch.bfloat16)
    new, tensor = changed(old, positions), old.clone()

    apply(delta_of(old, new), tensor)

    assert (bits(tensor) == bits(new)).all()


def test_gaps_are_written_as_bytes_of_which_255_goes_on() -> None:
    old = torch.zeros(1000, dtype=torch.bfloat16)

    delta = delta_of(old, changed(old, [3, 4, 300, 556]))  # 3, 0, 295 and 255 unchanged values before them

    assert delta.where is Where.GAPS
    assert delta.positions.dtype == np.uint8
    assert delta.positions.tolist() == [3, 0, 255, 40, 255, 0]
    assert delta.values.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("values", "dtype"), [(200, np.uint8), (20_000, np.uint16), (20_000_000, np.uint32)])
def test_gaps_take_the_type_that_makes_them_smallest(values: int, dtype: type[np.unsignedinteger]) -> None:
    old = torch.zeros(values, dtype=torch.int8)

    delta = delta_of(old, changed(old, [values - 1]))

    assert delta.positions.dtype == dtype
    assert len(delta.positions) <= 306  # 20,000,000 = 305 x 65,535 + rest: two bytes would take 612


@pytest.mark.parametrize(("every", "where"), [(9, Where.GAPS), (8, Where.BITMAP)])
def test_from_one_changed_value_in_eight_on_a_bitmap_is_as_small(every: int, where: Where) -> None:
    old = torch.zeros(7200)

    assert delta_of(old, changed(old, np.arange(0, 7200, every))).where is where


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("beyond", "where"), [(0, Where.ALL), (-1, Where.BITMAP)])
def test_all_values_are_sent_once_a_bitmap_saves_nothing(dtype: torch.dtype, beyond: int, where: Where) -> None:
    old = torch.zeros(6400, dtype=dtype)
    break_even = round(6400 * (1 - 1 / (8 * old.element_size())))

    delta = delta_of(old, changed(old, np.arange(break_even + beyond)))

    assert delta.where is where
    assert delta.nbytes <= old.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.05])
def test_few_changes_take_little_more_than_the_arithmetic_bound(dtype: torch.dtype, share: float) -> None:
    values = 1_000_000
    chance = np.random.default_rng(0)
    old = torch.zeros(values, dtype=dtype)
    where = np.sort(chance.choice(values, round(share * values), replace=False))
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    bound = values * (entropy / 8 + share * old.element_size())
    # The formula of rollout.delta's docstring for bytes, and for two bytes where those are fewer.
    gap = min(size / (1 - (1 - share) ** (2 ** (8 * size) - 1)) for size in (1, 2))

    delta = delta_of(old, changed(old, where))

    assert bound < delta.nbytes < 1.2 * bound
    assert delta.positions.nbytes == pytest.approx(len(where) * gap, rel=0.02)


def test_bits_are_compared_and_not_numbers() -> None:
    zero, nan = torch.tensor([0.0]), torch.tensor([math.nan])
    other_nan = changed(nan, [0])
    assert other_nan.isnan().all()

    assert difference(nan, nan.clone()) is None
    assert delta_of(zero, -zero).values.tolist() == [-(2**31)]
    assert delta_of(nan, other_nan).values.tolist() == bits(other_nan).tolist()


def test_a_tensor_that_lies_otherwise_in_memory_is_compared_by_its_values() -> None:
    old = torch.arange(12.0).view(3, 4)

    assert difference(old, old.t().contiguous().t()) is None


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bfloat16)])
def test_tensors_of_two_kinds_have_no_delta_and_take_none(other: torch.Tensor) -> None:
    old = torch.zeros(2, 3)

    with pytest.raises(ValueError, match=r"float32 \[2, 3\] became"):
        difference(old, other)
    with pytest.raises(ValueError, match=r"a delta of float32 \[2, 3\] does not fit"):
        apply(delta_of(old, old + 1), other)
