from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.voting import Ballot, confidence_vote, majority_vote

CONFIDENCES = st.integers(0, 20).map(lambda step: step / 20)
BALLOTS = st.lists(st.builds(Ballot, st.sampled_from("abc"), CONFIDENCES), min_size=1, max_size=7)


def ballots(*given: tuple[str, float]) -> list[Ballot]:
    return [Ballot(*one) for one in given]


def held_of(answer: str, ballot: Ballot, candidates: Sequence[str]) -> float:
    """What one response holds of an answer, by the definition."""
    distribution = {ballot.answer: ballot.confidence}
    for other in candidates:
        if other != ballot.answer:
            distribution[other] = (1 - ballot.confidence) / (len(candidates) - 1)
    assert sum(distribution.values()) == pytest.approx(1)
    return distribution[answer]


def test_confidence_outvotes_number() -> None:
    given = ballots(("joy", 0.2), ("fear", 0.9), ("joy", 0.3))

    assert confidence_vote(given, candidates=3).answer == "fear"
    assert majority_vote(given).answer == "joy"


def test_a_vote_equals_its_values_by_hand() -> None:
    found = confidence_vote(ballots(("joy", 0.8), ("fear", 0.4), ("joy", 0.6)), candidates=3)

    assert (found.answer, found.first) == ("joy", 0)
    assert found.votes == pytest.approx({"joy": 1.4, "fear": 0.4})
    assert found.confidence == pytest.approx((0.8 + 0.6 / 2 + 0.6) / 3)  # the dissenter gives joy half of what is left


def test_where_any_answer_goes_a_dissenter_keeps_a_share_for_one_that_nobody_gave() -> None:
    found = confidence_vote(ballots(("12", 0.8), ("13", 0.4)), candidates=0)

    assert found.confidence == pytest.approx((0.8 + 0.6 / 2) / 2)


@given(st.sampled_from("abc"), CONFIDENCES, st.integers(0, 5))
def test_one_response_keeps_its_answer_and_its_confidence(answer: str, confidence: float, candidates: int) -> None:
    found = confidence_vote([Ballot(answer, confidence)], candidates)

    assert (found.answer, found.confidence) == (answer, confidence)


@given(BALLOTS)
def test_a_vote_is_what_a_slow_count_of_it_is(given_: list[Ballot]) -> None:
    found = confidence_vote(given_, candidates=3)

    sums = {a: sum(ballot.confidence for ballot in given_ if ballot.answer == a) for a in "abc"}
    of_winner = [held_of(found.answer, ballot, "abc") for ballot in given_]
    assert sums[found.answer] == pytest.approx(max(sums.values()))
    assert found.votes == pytest.approx({a: sums[a] for a in dict.fromkeys(ballot.answer for ballot in given_)})
    assert found.confidence == pytest.approx(sum(of_winner) / len(given_))


@given(BALLOTS, st.integers(0, 5))
def test_a_confidence_is_one_whatever_is_allowed(given_: list[Ballot], candidates: int) -> None:
    assert 0 <= confidence_vote(given_, candidates).confidence <= 1


@given(st.lists(st.builds(Ballot, st.sampled_from("ab"), CONFIDENCES), min_size=2, max_size=4))
def test_the_order_of_responses_matters_only_where_votes_tie(given_: list[Ballot]) -> None:
    found = [confidence_vote(order, candidates=2) for order in permutations(given_)]

    tied = len({round(votes, 6) for votes in found[0].votes.values()}) < len(found[0].votes)
    assert tied or len({vote.answer for vote in found}) == 1


def test_of_tied_answers_the_first_wins_whatever_rounding_makes_of_their_sums() -> None:
    given = ballots(("a", 0.3), ("b", 0.1), ("b", 0.2))  # in floating point b has 5e-17 more

    assert confidence_vote(given, candidates=2).answer == "a"
    assert majority_vote(ballots(("a", 0.1), ("b", 0.9))).answer == "a"


def test_spellings_of_one_answer_vote_together_under_the_first() -> None:
    found = confidence_vote(ballots(("no", 0.6), (" Joy", 0.4), ("joy", 0.4)), candidates=0)

    assert (found.answer, found.first) == (" Joy", 1)
    assert found.votes == pytest.approx({"no": 0.6, " Joy": 0.8})


@given(BALLOTS)
def test_a_plain_majority_has_its_share_of_the_responses_as_its_confidence(given_: list[Ballot]) -> None:
    found = majority_vote(given_)

    numbers = {a: sum(ballot.answer == a for ballot in given_) for a in "abc"}
    assert numbers[found.answer] == max(numbers.values())
    assert found.confidence == pytest.approx(numbers[found.answer] / len(given_))


@pytest.mark.parametrize("vote", [lambda none: confidence_vote(none, 3), majority_vote])
def test_no_response_has_no_vote(vote: object) -> None:
    with pytest.raises(ValueError, match="expected at least one well-formed response"):
        vote([])  # type: ignore[operator]
