from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom

from rewards.abstention import THRESHOLDS, Guarantee, Threshold, guaranteed_threshold

ANSWERS = st.lists(st.tuples(st.integers(0, 10).map(lambda step: step / 10), st.booleans()), min_size=1, max_size=300)


def fitted(pairs: list[tuple[float, bool]], risk: float, delta: float) -> Threshold | None:
    confidence, correct = zip(*pairs, strict=True)
    return guaranteed_threshold(np.array(confidence), np.array(correct), Guarantee(risk, delta))


def bound_by_search(kept: int, wrong: int, delta: float) -> float:
    """The risk under which so few wrong ones have probability delta: lemma 3.1, by bisection."""
    return 1.0 if wrong == kept else float(brentq(lambda risk: binom.cdf(wrong, kept, risk) - delta, 1e-12, 1 - 1e-12))


@settings(max_examples=60)
@given(ANSWERS, st.sampled_from([0.1, 0.3, 0.6]), st.sampled_from([0.05, 0.2]))
def test_a_threshold_is_the_one_that_a_slow_search_finds(
    pairs: list[tuple[float, bool]], risk: float, delta: float
) -> None:
    ordered = sorted((confidence for confidence, _ in pairs), reverse=True)
    most = None
    for part in range(1, THRESHOLDS + 1):
        rank = len(pairs) * part // THRESHOLDS
        above = ordered[rank] if rank < len(pairs) else -np.inf
        kept = [right for confidence, right in pairs if confidence > above]
        if kept and bound_by_search(len(kept), kept.count(False), delta / THRESHOLDS) <= risk:
            most = (above, len(kept), kept.count(False))

    found = fitted(pairs, risk, delta)

    assert most == (None if found is None else (found.above, found.kept, found.wrong))


@given(ANSWERS)
def test_what_is_kept_of_the_held_out_answers_is_what_was_counted(pairs: list[tuple[float, bool]]) -> None:
    found = fitted(pairs, risk=0.5, delta=0.2)

    if found is not None:
        kept = [right for confidence, right in pairs if found.keeps(confidence)]
        assert (len(kept), kept.count(False)) == (found.kept, found.wrong)
        assert found.wrong / found.kept < found.bound <= 0.5


# The guarantee: what an answer's confidence says of it, by confidence; each population's true risks are known.
LEVELS = np.round(np.linspace(0.05, 1.0, 20), 2)
POPULATIONS = {
    "calibrated": 1 - LEVELS,
    "overconfident": np.clip(1.3 - LEVELS, 0, 1),
    "knows nothing, and is just above the risk": np.full(20, 0.201),
    "wrong where it is surest": np.where(LEVELS > 0.9, 0.25, 0.15),
    "the best are just above the risk": np.where(LEVELS > 0.5, 0.201, 0.6),
}


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("rows", [150, 800])
def test_the_risk_of_what_is_kept_is_above_the_one_asked_for_in_at_most_delta_of_all_fits(name: str, rows: int) -> None:
    risk, delta, fits = 0.2, 0.2, 600
    wrong_at, rng, broken = POPULATIONS[name], np.random.default_rng(0), 0

    for _ in range(fits):
        level = rng.integers(len(LEVELS), size=rows)
        found = guaranteed_threshold(LEVELS[level], rng.random(rows) >= wrong_at[level], Guarantee(risk, delta))
        # Fresh answers state every level equally often: the true risk is a mean over those that are kept.
        broken += found is not None and float(wrong_at[found.above < LEVELS].mean()) > risk

    noise = 3 * np.sqrt(delta * (1 - delta) / fits)
    assert broken / fits <= delta + noise


def test_one_threshold_alone_would_use_up_its_delta() -> None:
    """The bound is Clopper and Pearson's: with all kept or none, it fails as often as it may."""
    risk, delta, rows, fits = 0.3, 0.2, 400, 2000
    rng = np.random.default_rng(1)
    wrong = rng.binomial(rows, risk + 1e-9, size=fits)

    constant = np.full(rows, 0.5)  # ties: every rank but the last keeps nothing
    correct = [np.arange(rows) >= few for few in wrong]
    kept = [guaranteed_threshold(constant, right, Guarantee(risk, delta)) is not None for right in correct]

    expected = binom.cdf(_most_wrong(rows, risk, delta / THRESHOLDS), rows, risk)
    assert expected == pytest.approx(delta / THRESHOLDS, rel=0.3)
    assert np.mean(kept) == pytest.approx(expected, abs=3 * np.sqrt(expected / fits))


def _most_wrong(rows: int, risk: float, delta: float) -> int:
    return int(binom.ppf(delta, rows, risk)) - 1


def test_good_confidences_keep_much_and_those_that_know_nothing_keep_none() -> None:
    rng = np.random.default_rng(2)
    stated = rng.random(2000)
    right = rng.random(2000) < stated

    informed = guaranteed_threshold(stated, right, Guarantee(0.2))
    blind = guaranteed_threshold(rng.permutation(stated), right, Guarantee(0.2))

    assert informed is not None
    assert 0.15 < informed.kept / 2000 < 0.4  # above c the risk is (1 - c) / 2: at best 0.4 of the answers
    assert blind is None


def test_answers_without_a_confidence_are_kept_by_none_and_count_for_nothing() -> None:
    stated, right = np.full(200, 0.9), np.ones(200, np.bool_)
    malformed = np.full(300, np.nan), np.zeros(300, np.bool_)

    alone = guaranteed_threshold(stated, right, Guarantee(0.1))
    beside = guaranteed_threshold(np.append(stated, malformed[0]), np.append(right, malformed[1]), Guarantee(0.1))

    assert alone == beside
    assert alone is not None and alone.keeps(0.0) and not alone.keeps(None)


@pytest.mark.parametrize("risk, delta", [(0.1, 0.1), (0.3, 0.05)])
def test_so_many_right_answers_must_be_kept(risk: float, delta: float) -> None:
    guarantee = Guarantee(risk, delta)

    def enough(rows: int) -> bool:
        return guaranteed_threshold(np.full(rows, 0.5), np.ones(rows, np.bool_), guarantee) is not None

    assert enough(guarantee.rows_needed) and not enough(guarantee.rows_needed - 1)


@pytest.mark.parametrize("risk, delta, named", [(0.0, 0.1, "risk = 0.0"), (0.1, 1.0, "delta = 1.0")])
def test_certainty_is_refused(risk: float, delta: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Guarantee(risk, delta)


def test_nothing_held_out_vouches_for_nothing() -> None:
    assert guaranteed_threshold(np.array([]), np.array([], np.bool_), Guarantee(0.1)) is None
