from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.visits import Visits
from configs.schema import Reference
from rollout.prompts import Message, Prompt
from rollout.worker import Visit

VOTES = {"a": 6, "b": 3, "c": 1, "d": 0}
SEEDS = st.integers(0, 2**32)


def prompt(number: int, label: str | None = "a", counts: dict[str, int] | None = None) -> Prompt:
    return Prompt(
        f"p{number}", "emoji", (Message("user", "?"),), candidates=tuple(VOTES), label=label, counts=counts or {}
    )


def visits(prompts: list[Prompt], kind: Reference = Reference.ANNOTATOR, seed: int = 0, samples: int = 4) -> Visits:
    return Visits(prompts, kind, samples, seed)


def judged(number: int) -> list[Prompt]:
    """So many prompts, all with the same votes."""
    return [prompt(n, counts=VOTES) for n in range(number)]


def order(over: Visits, prompts: int, epoch: int) -> list[str]:
    return [over.prompt_id(epoch * prompts + position) for position in range(prompts)]


def targets(seed: int, draws: int, prompts: int = 1) -> list[str | None]:
    over = visits(judged(prompts), seed=seed)
    return [over.visit(group_id).target for group_id in range(draws)]


def untimed(visit: Visit) -> Visit:
    return replace(visit, admitted=0.0)


# The order


@given(st.integers(1, 12), SEEDS)
def test_every_epoch_visits_each_prompt_once(number: int, seed: int) -> None:
    over = visits(judged(number), seed=seed)

    for epoch in range(3):
        assert sorted(order(over, number, epoch)) == sorted(f"p{n}" for n in range(number))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, other = visits(judged(20), seed=0), visits(judged(20), seed=1)

    orders = [order(over, 20, epoch) for over in (first, other) for epoch in range(3)]

    assert len({tuple(found) for found in orders}) == 6
    assert [f"p{n}" for n in range(20)] not in orders


def test_the_same_seed_gives_the_same_order_again() -> None:
    first, again = visits(judged(20), seed=3), visits(judged(20), seed=3)

    assert [order(first, 20, epoch) for epoch in range(3)] == [order(again, 20, epoch) for epoch in range(3)]


# A visit


def test_a_visit_holds_what_makes_the_group() -> None:
    before = time.time()

    visit = visits([prompt(0)], samples=5).visit(3)

    assert untimed(visit) == Visit(group_id=3, prompt=prompt(0), target="a", samples=5, admitted=0.0)
    assert before <= visit.admitted <= time.time()


@given(st.lists(st.integers(0, 60), max_size=20), st.integers(0, 60), SEEDS)
def test_a_visit_depends_on_nothing_that_was_visited_before_it(before: list[int], group_id: int, seed: int) -> None:
    fresh, resumed = visits(judged(7), seed=seed), visits(judged(7), seed=seed)
    for earlier in before:
        resumed.visit(earlier)

    assert untimed(resumed.visit(group_id)) == untimed(fresh.visit(group_id))


@given(st.integers(0, 60), SEEDS)
def test_a_group_is_of_the_prompt_that_its_id_names(group_id: int, seed: int) -> None:
    over = visits(judged(7), seed=seed)

    assert over.prompt_id(group_id) == over.visit(group_id).prompt.prompt_id


# What answers are held against


@pytest.mark.parametrize("seed", range(4))
def test_annotators_are_drawn_in_proportion_to_the_votes(seed: int) -> None:
    drawn = Counter(targets(seed, 4000))

    # a standard deviation of a share is 0.008 at most
    assert {name: count / 4000 for name, count in drawn.items()} == pytest.approx(
        {"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.04
    )


def test_every_visit_of_a_prompt_draws_afresh() -> None:
    one, many = targets(0, 4000), targets(0, 4000, prompts=8)

    agreeing = [np.mean([first == second for first, second in pairwise(drawn)]) for drawn in (one, many)]
    # two independent annotators agree with probability 0.6^2 + 0.3^2 + 0.1^2
    assert agreeing == pytest.approx([0.46, 0.46], abs=0.05)


def test_another_seed_draws_other_annotators_and_the_same_seed_the_same() -> None:
    assert targets(1, 100) == targets(1, 100) != targets(2, 100)


def test_against_labels_no_annotator_is_asked() -> None:
    over = visits([prompt(0, label="c", counts=VOTES)], Reference.LABEL)

    assert {over.visit(group_id).target for group_id in range(50)} == {"c"}


def test_a_prompt_without_votes_is_held_against_its_label() -> None:
    over = visits([prompt(0, label="b")], Reference.ANNOTATOR)

    assert {over.visit(group_id).target for group_id in range(5)} == {"b"}


@pytest.mark.parametrize("kind", Reference)
def test_a_prompt_without_a_reference_has_no_target(kind: Reference) -> None:
    assert visits([prompt(0, label=None)], kind).visit(0).target is None
