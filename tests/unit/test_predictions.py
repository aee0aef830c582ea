"""Tests of cluster.predictions, cluster.score and cluster.metrics_table."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.metrics_table import metrics_table
from cluster.predictions import (
    ERRORS_SHOWN,
    PredictionRow,
    PredictionsError,
    read_predictions,
    refuse_other_questions,
    what_differs,
    write_predictions,
)
from cluster.score import outcomes
from configs.schema import Response
from rewards.matching import is_same_number, sameness
from rewards.metrics import Metrics, metrics
from rewards.parts import MatchError
from rewards.tasks import MACRO, OVERALL, by_task
from tests.unit.score_file import score_file

FORM = Response(reasoning_elements=("element",))
SENTIMENTS = ("negative", "neutral", "positive")
VOTES = {"negative": 1, "neutral": 1, "positive": 8}


def said(answer: str, confidence: str | None = None) -> str:
    """A response in the form of FORM."""
    text = f"<think><element>a face</element></think><answer>{answer}</answer>"
    return text if confidence is None else f"{text}<confidence>{confidence}</confidence>"


def row(
    answer: str = "positive",
    confidence: str | None = "0.8",
    label: str | None = None,
    counts: Mapping[str, int] = VOTES,
) -> PredictionRow:
    return PredictionRow("grin", "emoji", SENTIMENTS, label, counts, said(answer, confidence))


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


# The file

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAME = TEXT.map(lambda text: "x" + text)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(NAME, NAME, TEXT, st.integers(0, 9), st.booleans(), st.none() | st.floats(0, 1)),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str, int, bool, float | None]]
) -> None:
    path = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    rows = [
        PredictionRow(name, task, (name, "other"), name, {name: votes, "other": 1}, response, truncated, probability)
        for name, task, response, votes, truncated, probability in parts
    ]

    write_predictions(path, rows)

    assert read_predictions(path) == rows


def test_a_row_of_the_file_has_the_documented_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.jsonl"

    write_predictions(path, [replace(row(label="positive"), answer_probability=0.25)])

    assert json.loads(path.read_text(encoding="utf-8")) == {
        "id": "grin",
        "task": "emoji",
        "candidates": list(SENTIMENTS),
        "ground_truth": "positive",
        "counts": VOTES,
        "response": said("positive", "0.8"),
        "truncated": False,
        "answer_probability": 0.25,
    }


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [row()])
    before = path.read_bytes()
    without_truth = row(label=None, counts={})

    with pytest.raises(ValueError, match="neither ground_truth nor counts"):
        write_predictions(path, [row("neutral"), without_truth])

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_while_the_file_is_rewritten_sees_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [row()])
    before = path.read_bytes()

    with path.open("rb") as reader:
        write_predictions(path, [row("neutral")])

        assert reader.read() == before
    assert path.read_bytes() != before


def test_merged_rows_of_vecbench_are_read_and_their_own_confidence_is_not(tmp_path: Path) -> None:
    merged = {
        "task": "FI-2",
        "candidates": ["positive", "negative"],
        "ground_truth": "Positive",
        "response": said("positive", "0.9"),
        "confidence": 0.1,
        "error": None,
    }
    path = written(tmp_path / "merged.jsonl", json.dumps(merged), json.dumps(merged | {"confidence": math.nan}))

    rows = read_predictions(path)
    found = score_file(path, FORM)["FI-2"]

    assert [one.prompt_id for one in rows] == ["1", "2"]
    assert found.mean_confidence == pytest.approx(0.9)
    assert found.accuracy == 1.0


GOOD = json.dumps({"task": "t", "candidates": ["a", "b"], "ground_truth": "a", "response": "x"})


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"response": None}, "response"),
        ({"response": 3}, "response"),
        ({"task": " "}, "task"),
        ({"candidates": "ab"}, "candidates"),
        ({"ground_truth": None}, "neither ground_truth nor counts"),
        ({"ground_truth": ["a"]}, "ground_truth"),
        ({"ground_truth": "c"}, r"\['c'\], expected some of \['a', 'b'\]"),
        ({"counts": {"a": 1, "c": 2}}, r"\['c'\], expected some of \['a', 'b'\]"),
        ({"counts": {"a": 0}}, "without a vote"),
        ({"counts": {"a": -1}}, "counts.a"),
        ({"counts": {"a": 1.5}}, "counts.a"),
        ({"counts": {"a": True}}, "counts.a"),
        ({"truncated": "no"}, "truncated"),
        ({"answer_probability": 1.1}, "answer_probability"),
        ({"answer_probability": math.nan}, "answer_probability"),
    ],
)
def test_a_bad_row_names_file_line_and_field(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = written(tmp_path / "bad.jsonl", GOOD, json.dumps(json.loads(GOOD) | change))

    with pytest.raises(PredictionsError, match=rf"bad\.jsonl:2: .*{complaint}"):
        read_predictions(path)


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"3", b"\xff\xfe{}", b"[" * 100_000, b'{"task": "\\ud800"}'])
def test_a_line_that_is_no_object_is_a_bad_row_and_nothing_worse(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + line + b"\n")

    with pytest.raises(PredictionsError, match=r"bad\.jsonl:2: "):
        read_predictions(path)


def test_all_bad_rows_are_named_up_to_the_limit_and_then_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.jsonl", "{", GOOD, "{", "{", "{")

    with pytest.raises(PredictionsError) as caught:
        read_predictions(path, errors_shown=2)

    first, second, rest = str(caught.value).splitlines()
    assert "bad.jsonl:1: " in first
    assert "bad.jsonl:3: " in second
    assert rest == "and 2 more bad lines"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="no rows"):
        read_predictions(written(tmp_path / "empty.jsonl"))


# Outcomes


def test_a_response_is_held_against_its_label() -> None:
    held = outcomes([row("neutral", "0.3", label="positive", counts={})], FORM, annotator_draws=5, seed=0)

    assert held.answer == ["neutral"]
    assert held.truth == ["positive"]
    assert held.confidence.tolist() == [0.3]
    assert not held.counted.any()


def test_votes_are_drawn_from_even_where_there_is_a_label() -> None:
    held = outcomes([row(label="positive", counts={"negative": 4})], FORM, annotator_draws=3, seed=0)

    assert held.truth == ["negative"] * 3


def test_every_annotator_drawn_is_an_outcome_and_shares_come_from_the_votes() -> None:
    held = outcomes([row(), row("neutral", "0.1")], FORM, annotator_draws=2000, seed=1)

    assert len(held) == 4000
    assert held.truth.count("positive") / 4000 == pytest.approx(0.8, abs=0.03)
    assert held.share.tolist() == [0.8] * 2000 + [0.1] * 2000
    assert set(held.best_share) == {0.8}
    assert set(held.prompt_id) == {"grin"}


def test_the_same_seed_draws_the_same_annotators_whatever_was_answered() -> None:
    rows = [row() for _ in range(50)]
    others = [row("neutral", "0.5") for _ in range(50)]

    truth = outcomes(rows, FORM, 2, seed=7).truth

    assert outcomes(rows, FORM, 2, seed=7).truth == truth
    assert outcomes(others, FORM, 2, seed=7).truth == truth
    assert outcomes(rows, FORM, 2, seed=8).truth != truth


@pytest.mark.parametrize(
    "response, truncated",
    [
        ("positive", False),
        (said("positive", "1.2"), False),
        (said("positive", "0.8"), True),
        (said("positive"), False),
    ],
)
def test_a_malformed_response_is_an_answer_that_nobody_gave(response: str, truncated: bool) -> None:
    bad = replace(row(), response=response, truncated=truncated)

    held = outcomes([bad], FORM, annotator_draws=1, seed=0)

    assert held.answer == [None]
    assert math.isnan(held.confidence[0])
    assert held.share.tolist() == [0.0]
    assert held.best_share.tolist() == [0.8]


@pytest.mark.parametrize("confidence", [None, "0.8"])
def test_a_stage_1_model_has_answers_and_no_confidence(confidence: str | None) -> None:
    held = outcomes([row(confidence=confidence)], FORM, 1, seed=0, require_confidence=False)

    assert held.answer == ["positive"]
    assert math.isnan(held.confidence[0])
    assert held.share.tolist() == [0.8]


def test_the_probability_of_an_answer_comes_along_where_it_is_known_and_there_is_an_answer() -> None:
    rows = [replace(row(), answer_probability=0.4), row(), replace(row("joy"), answer_probability=0.4)]

    held = outcomes(rows, FORM, annotator_draws=2, seed=0)

    assert held.token_probability is not None
    assert held.token_probability.tolist() == pytest.approx([0.4, 0.4, *[math.nan] * 4], nan_ok=True)


def test_no_annotator_is_too_few() -> None:
    with pytest.raises(ValueError, match="annotator_draws = 0"):
        outcomes([row()], FORM, annotator_draws=0, seed=0)


def test_a_file_is_scored_by_task_and_overall(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    other = replace(row("neutral", "0.1", label="neutral", counts={}), task="words")
    write_predictions(path, [row(), row("nonsense"), other])

    found = score_file(path, FORM, annotator_draws=10, seed=3, bins=5)

    assert list(found) == ["emoji", "words", MACRO, OVERALL]
    assert [one.n for one in found.values()] == [20, 1, 21, 21]
    assert found["emoji"].malformed == 0.5
    assert found["emoji"].excess_brier == pytest.approx(0.0)
    assert found["words"].brier == pytest.approx(0.81)
    assert found[OVERALL].ece_bins == 5


def test_a_stage_1_file_is_scored_without_calibration(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [row(confidence=None)])

    found = score_file(path, FORM, require_confidence=False)[OVERALL]

    assert found.malformed == 0.0
    assert found.accuracy_expected == pytest.approx(0.8)
    assert found.ece is found.brier is found.mean_confidence is None


def test_a_response_held_against_several_annotators_is_one_response_of_its_prompt() -> None:
    lone, pair = [row(confidence="0.05")], [row(), row(), row("neutral", "0.05")]

    rates = [[metrics(outcomes(rows, FORM, draws, seed=0)).sabotage for draws in (1, 10)] for rows in (lone, pair)]

    assert rates == [[None, None], [1 / 3, 1 / 3]]


def test_prompts_of_two_tasks_that_share_an_id_are_two() -> None:
    rows = [row(), row(), row("neutral", "0.05")]
    elsewhere = [replace(one, task="words") for one in (rows[0], rows[2])]

    found = metrics(outcomes([*rows, *elsewhere], FORM, 1, seed=0))

    assert found.sabotage == 1 / 5  # a tie in the second task


# The table


def test_the_table_is_aligned_and_shows_what_is_undefined_as_a_dash() -> None:
    full = Metrics(
        n=2000,
        n_confident=1999,
        n_counted=2000,
        accuracy=0.5,
        ece=0.0412,
        ece_noise_floor=0.0249,
        brier=0.2,
        distinct_confidences=12,
    )
    bare = Metrics(n=7, n_confident=0, n_counted=0, accuracy=1.0)

    header, _, first, second, *_ = metrics_table([("stage 3 [seen]", full), ("stage 1", bare)]).splitlines()

    shown = "stage 3 [seen] 0.500 - - - - 4.1 ±2.5 - - - 0.200 - - - - - - - - - - - - 12 - 2000"
    assert first.split() == shown.split()
    assert second.split() == ["stage", "1", "1.000", *["-"] * 23, "7"]
    assert len(first) == len(second) == len(header)
    assert header.index("accuracy") + len("accuracy") == first.index("0.500") + len("0.500")


def test_columns_of_the_table_stand_in_their_order() -> None:
    header = metrics_table([]).splitlines()[0]

    names = [name.strip() for name in header.split("  ") if name.strip()]
    assert names == [
        "accuracy",
        "best acc.",
        "maj. acc.",
        "bal. acc.",
        "F1",
        "ECE",
        "ECE mass",
        "debiased",
        "smooth",
        "Brier",
        "best Brier",
        "excess",
        "reliab.",
        "resol.",
        "log loss",
        "AUROC",
        "maj. AUROC",
        "AURC",
        "exc. AURC",
        "at 10%",
        "malformed",
        "mean c",
        "distinct",
        "rank corr.",
        "n",
    ]


# What is right


def numbers(*answers: str) -> list[PredictionRow]:
    return [replace(row(answer, label="42", counts={}), candidates=(), prompt_id=answer) for answer in answers]


def test_an_answer_is_right_by_the_recipes_matcher_in_every_metric_of_answers() -> None:
    held = outcomes(numbers("42.0", "84/2", "41"), FORM, 1, 0, matches=is_same_number)

    found = metrics(held)

    assert held.correct.tolist() == [True, True, False]
    assert found.accuracy == found.balanced_accuracy == pytest.approx(2 / 3)
    assert found.weighted_f1 == pytest.approx(0.8)  # all truths are "42": precision 1, recall 2/3


def test_an_answer_that_only_looks_right_is_wrong_in_every_metric_of_answers() -> None:
    found = metrics(outcomes(numbers("42"), FORM, 1, 0, matches=lambda answer, reference: 0.0))

    assert (found.accuracy, found.balanced_accuracy, found.weighted_f1) == (0.0, 0.0, 0.0)


def test_a_half_written_otherwise_is_no_other_answer() -> None:
    rows = [replace(row(half, "0.05", "42", {}), candidates=()) for half in ("0.5", "0.5", "1/2", "3")]
    held = outcomes(rows, FORM, 1, 0)

    assert metrics(held).sabotage == 2 / 4
    assert metrics(held, same=sameness("numeric")).sabotage == 1 / 4


def test_annotators_agree_with_an_answer_by_the_recipes_matcher() -> None:
    counted = replace(row("2", counts={"2.0": 3, "3": 1}), candidates=())

    (share,) = outcomes([counted], FORM, 1, 0, matches=is_same_number).share

    assert share == 0.75


ASKED = PredictionRow("p", "mood", ("joy", "fear"), "joy", {"joy": 2, "fear": 1})


@pytest.mark.parametrize(
    "changed, keys",
    [
        ({"response": "other", "truncated": True}, []),
        ({"label": " Joy", "candidates": ("fear", "Joy"), "counts": {"Fear": 1, "joy": 2, "calm": 0}}, []),
        ({"label": "fear"}, ["ground_truth"]),
        ({"label": None}, ["ground_truth"]),
        ({"candidates": ("joy", "calm")}, ["candidates"]),
        ({"counts": {"joy": 1, "fear": 2}}, ["counts"]),
        ({"label": "fear", "counts": {}}, ["ground_truth", "counts"]),
    ],
)
def test_rows_of_one_question_differ_in_their_responses_alone(changed: dict[str, Any], keys: list[str]) -> None:
    assert what_differs(ASKED, replace(ASKED, **changed)) == keys


def test_runs_are_compared_on_the_same_questions_alone() -> None:
    other = replace(ASKED, label="fear")
    refuse_other_questions([ASKED, replace(other, prompt_id="q")], [replace(other, task="words"), ASKED])

    for first, second in (([ASKED], [other]), ([ASKED, other], [ASKED])):
        with pytest.raises(ValueError, match=r"1 prompts are not .* 'p', which do not have the same ground_truth;"):
            refuse_other_questions(first, second)


class Reluctant:
    """Comes to no verdict on some answers."""

    def __init__(self, *on: str) -> None:
        self.on = on

    def __call__(self, answer: str, reference: str, /) -> float:
        if answer in self.on:
            raise MatchError(f"nothing to say of {answer}")
        return float(answer == reference)


def test_a_response_without_a_verdict_is_left_out_and_counted_by_its_task(caplog: pytest.LogCaptureFixture) -> None:
    rows = [replace(one, task=task) for one, task in zip(numbers("42", "41", "40"), "xyx", strict=True)]

    held = outcomes(rows, FORM, 1, 0, matches=Reluctant("41", "40"))

    assert (held.answer, held.unscored) == (["42"], {1: "y", 2: "x"})
    found = by_task(held)
    assert {task: (of.n, of.unscored, of.accuracy) for task, of in found.items()} == {
        "x": (1, 1, 1.0),
        "y": (0, 1, None),
        MACRO: (1, 2, None),
        OVERALL: (1, 2, 1.0),
    }
    assert caplog.messages == [f"a response to '{name}' is left out: nothing to say of {name}" for name in ("41", "40")]


def test_of_many_responses_without_a_verdict_a_few_are_named_and_all_counted(caplog: pytest.LogCaptureFixture) -> None:
    held = outcomes(numbers("42", *["41"] * 50), FORM, 1, 0, matches=Reluctant("41"))

    assert (len(held), len(held.unscored)) == (1, 50)
    assert len(caplog.messages) == ERRORS_SHOWN + 1
    assert caplog.messages[-1] == "50 of 51 responses are left out in all"


def test_a_response_that_is_left_out_does_not_change_whom_the_others_meet() -> None:
    rows = [row("negative"), row("positive"), row("positive")]

    all_of_them = outcomes(rows, FORM, 5, seed=3, matches=Reluctant())
    without = outcomes(rows, FORM, 5, seed=3, matches=Reluctant("negative"))

    assert without.truth == all_of_them.truth[5:]
    assert (without.share == all_of_them.share[5:]).all()


def test_a_response_without_an_answer_needs_no_verdict() -> None:
    held = outcomes([replace(row(), response="no tags")], FORM, 2, 0, matches=Reluctant("positive"))

    assert (len(held), held.unscored) == (2, {})


def test_what_a_matcher_waits_for_is_waited_for_together() -> None:
    together = threading.Barrier(3)

    def waits(answer: str, reference: str, /) -> float:
        together.wait(30)
        return float(answer == reference)

    held = outcomes(numbers("42", "41", "40"), FORM, 1, 0, matches=waits, at_once=3)

    assert held.correct.tolist() == [True, False, False]


def test_under_the_table_stands_how_many_responses_are_in_no_number() -> None:
    bare = Metrics(n=7, n_confident=0, n_counted=0, accuracy=1.0)

    told = metrics_table([("stage 1", bare), ("stage 3", replace(bare, unscored=2))])

    (line,) = [line for line in told.splitlines() if "no number" in line]
    assert line == "stage 3: responses that rewards.correctness failed on (see the log), in no number here: 2"
