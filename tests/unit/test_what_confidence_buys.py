"""What `benchmarks.what_confidence_buys` makes of responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.what_confidence_buys_measures import held, measured, thresholds, ways
from cluster.predictions import PredictionRow
from configs.load import load_recipe
from configs.schema import Recipe
from rewards.metrics import metrics
from rewards.outcomes import Outcomes

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
VOTES = {"a": 2, "b": 1}


def recipe() -> Recipe:
    return load_recipe(DEMO, ["response.reasoning_elements=[]"])


def row(prompt: str, answer: str | None, confidence: float = 0.0) -> PredictionRow:
    text = f"<think>it smiles</think><answer>{answer}</answer><confidence>{confidence}</confidence>"
    return PredictionRow(prompt, "t", ("a", "b"), "a", VOTES, text if answer is not None else "no form")


def judged(confidence: list[float], right: list[bool]) -> Outcomes:
    """Outcomes of a prompt each."""
    nan = np.full(len(right), np.nan)
    malformed = np.isnan(confidence)
    answers = [None if bad else "yes" if one else "no" for bad, one in zip(malformed, right, strict=True)]
    names = [f"p{number}" for number in range(len(right))]
    return Outcomes(names, ["t"] * len(names), answers, ["yes"] * len(names), np.array(confidence), nan, nan)


def test_each_way_has_its_own_answer_to_the_same_responses() -> None:
    sampled = [row("p", "b", 0.3), row("p", "a", 0.9), row("p", "b", 0.2), row("q", None), row("q", None)]

    found = ways(recipe(), [row("p", "a", 0.7), row("q", "b", 0.6)], sampled)

    first = {way: (readings[0].answer, round(readings[0].confidence, 6)) for way, readings in found.items()}
    assert first == {
        "greedy": ("a", 0.7),
        "one response": ("b", 0.3),
        "majority": ("b", round(2 / 3, 6)),
        "weighted": ("a", round((0.7 + 0.9 + 0.8) / 3, 6)),
    }
    assert [found[way][1].answer for way in ("one response", "majority", "weighted")] == [None] * 3


def test_one_response_to_each_prompt_is_no_vote() -> None:
    assert list(ways(recipe(), [], [row("p", "b", 0.3), row("q", "a", 0.9)])) == ["one response"]


def test_every_way_is_held_against_the_same_annotators_or_their_majority() -> None:
    names = [f"p{number}" for number in range(50)]
    rows = [row(name, "a", 0.5) for name in names]
    readings = ways(recipe(), rows, rows)

    against_all = held(recipe(), rows, readings, 4, "annotators")
    against_most = held(recipe(), rows, readings, 4, "majority")

    truths = [outcomes.truth for outcomes, _ in against_all.values()]
    assert all(list(truth) == list(truths[0]) for truth in truths) and len(truths[0]) == 200
    assert against_all["greedy"][1].mean() == pytest.approx(2 / 3, abs=0.1)
    assert against_most["greedy"][1].all() and len(against_most["greedy"][0]) == 50


def test_a_malformed_answer_is_wrong_kept_last_and_has_no_brier_score() -> None:
    outcomes = judged([0.9, 0.6, 0.2, np.nan], [True, False, True, True])

    found = {name: values[0] for name, values in measured(outcomes, outcomes.correct, 20).items()}

    expected = metrics(outcomes)
    assert found["accuracy"] == expected.accuracy == 0.5
    assert found["accuracy of the surest half"] == 0.5
    assert found["Brier score"] == pytest.approx(expected.brier)
    assert found["AUROC"] == expected.auroc == 0.5
    assert found["coverage at risk 0.2"] == 0.25


def test_a_threshold_is_tried_on_the_half_that_it_was_not_fitted_on() -> None:
    rng = np.random.default_rng(0)
    stated = rng.choice([0.2, 0.9], 600)
    outcomes = judged(stated.tolist(), (rng.random(600) < stated).tolist())

    kept = thresholds(outcomes, outcomes.correct, risk=0.2, splits=20)
    hopeless = thresholds(outcomes, outcomes.correct, risk=0.02, splits=20)

    assert (kept.found, kept.coverage, kept.realised) == pytest.approx((1.0, 0.5, 0.1), abs=0.06)
    assert (hopeless.found, hopeless.coverage) == (0.0, 0.0) and hopeless.realised is None
