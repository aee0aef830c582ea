"""Tests of rewards.correctness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.correctness import draw_annotator, is_correct, majority, normalise_answer, share

VOTES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1).filter(
    lambda counts: sum(counts.values()) > 0
)


@pytest.mark.parametrize("answer", ["not sure", "  Not Sure\n", "NOT \t\n sure"])
def test_spelling_of_an_answer_does_not_matter(answer: str) -> None:
    assert normalise_answer(answer) == "not sure"
    assert is_correct(answer, "Not  sure ")


@pytest.mark.parametrize(("answer", "target"), [("not joy", "joy"), ("joy", "joy love"), ("j-o-y", "joy"), ("", "joy")])
def test_an_answer_that_only_resembles_the_target_is_wrong(answer: str, target: str) -> None:
    assert not is_correct(answer, target)


def test_annotators_are_drawn_in_proportion_to_the_votes() -> None:
    counts = {"negative": 1, "neutral": 0, "positive": 3}
    rng = np.random.default_rng(0)

    draws = [draw_annotator(counts, rng) for _ in range(4000)]

    assert draws.count("neutral") == 0
    assert draws.count("positive") / len(draws) == pytest.approx(0.75, abs=0.03)


@given(counts=VOTES, seed=st.integers(0, 2**32))
def test_a_draw_has_votes_and_depends_on_the_seed_alone(counts: dict[str, int], seed: int) -> None:
    drawn = draw_annotator(counts, np.random.default_rng(seed))

    assert counts[drawn] > 0
    assert draw_annotator(counts, np.random.default_rng(seed)) == drawn


def test_the_majority_of_a_tie_is_the_first_candidate() -> None:
    assert majority({"a": 1, "b": 4, "c": 4}) == "b"
    assert majority({"c": 4, "b": 4, "a": 1}) == "c"


def test_share_counts_the_annotators_that_agree() -> None:
    counts = {"Joy": 3, "fear": 1}

    assert share(counts, "joy ") == 0.75
    assert share(counts, "fear") == 0.25
    assert share(counts, "awe") == 0.0


@given(counts=VOTES)
def test_shares_add_up_to_one_and_the_majority_has_the_largest(counts: dict[str, int]) -> None:
    shares = {candidate: share(counts, candidate) for candidate in counts}

    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[majority(counts)] == max(shares.values())


@pytest.mark.parametrize("counts", [{}, {"a": 0}, {"a": 3, "b": -1}])
def test_counts_without_a_vote_to_draw_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="votes of 0 or more"):
        draw_annotator(counts, np.random.default_rng(0))
    with pytest.raises(ValueError, match="votes of 0 or more"):
        majority(counts)
    with pytest.raises(ValueError, match="votes of 0 or more"):
        share(counts, "a")
