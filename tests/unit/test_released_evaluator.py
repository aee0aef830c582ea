"""EmoCaliber's released evaluator, behaviour by behaviour: a comment's number is the behaviour's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from cluster.cli import main
from cluster.emocaliber_table import emocaliber_table
from cluster.predictions import PredictionsError
from cluster.score_released import ReleasedScore, score_as_released
from rewards.released.emocaliber import ELEMENTS, emocaliber_reward
from rewards.released.evaluator import Answers, AtThreshold, Group, evaluate, half_open_ece, predict
from rewards.released.extractor import LeftOut, Row, stated_confidence, take

MOODS = ("awe", "joy", "fear")
GOOD = {"task": "FI-8", "candidates": list(MOODS), "ground_truth": "joy", "response": "<answer>joy</answer>"}


def row(
    response: str = "<answer>joy</answer>",
    confidence: float | None = 0.8,
    label: str = "joy",
    candidates: Sequence[str] = MOODS,
    task: str = "FI-8",
) -> Row:
    return Row(task, tuple(candidates), label, response, confidence)


def stating(confidence: str) -> str:
    return f"<answer>joy</answer><confidence>{confidence}</confidence>"


def answered(*confidences: float | None, right: bool = True) -> list[Row]:
    return [row(confidence=confidence, label="joy" if right else "awe") for confidence in confidences]


def group(rows: Sequence[Row]) -> Group:
    return evaluate(rows).groups["ID VER"]


def cells(rows: Sequence[Row], name: str) -> list[str]:
    """The cells of a row of the table."""
    lines = [line.strip() for line in emocaliber_table(ReleasedScore(evaluate(rows), {})).splitlines()]
    (found,) = [line.removeprefix(name).split() for line in lines if line.startswith(name)]
    return found


def written(path: Path, *lines: object) -> Path:
    """A file of these lines, as JSON where they are not text."""
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


# The extractor


@pytest.mark.parametrize(
    "response, confidence",
    [
        (stating("\n0.7\n"), None),  # 14
        (stating("\n") + stating("0.7"), 0.7),
        (stating("0.7").replace("<conf", "<Conf"), None),
        ("joy", None),
        (stating("{0.8}"), 0.8),  # 15
        (stating("{0}.{7}"), 0.7),
        (stating("85"), 85),  # 17
        (stating("-0.1"), -0.1),
        (stating("inf"), math.inf),
        (stating("0.3") + stating("0.9"), 0.3),  # 18
        (f"<think>{stating('0.3')}</think>" + stating("high"), 0.3),
    ],
)
def test_the_first_number_between_tags_on_one_line_is_the_confidence(
    response: str, confidence: float | None
) -> None:  # 14, 15, 17, 18
    taken = take(GOOD | {"response": response, "error": None})

    assert isinstance(taken, Row)
    assert taken.confidence == confidence


def test_a_stated_nan_passes() -> None:  # 17
    assert math.isnan(stated_confidence(stating("nan")) or 0)


@pytest.mark.parametrize(
    "response", [*map(stating, ["85%", "high", "", "{}"]), stating("high") + stating("0.7"), None, 3]
)
def test_a_row_whose_confidence_cannot_be_read_is_left_out(response: object) -> None:  # 16, 18
    assert take(GOOD | {"response": response}) is LeftOut.UNREADABLE


def test_a_row_without_a_response_is_kept_without_a_confidence() -> None:  # 16
    item = {key: value for key, value in GOOD.items() if key != "response"}

    assert take(item) == row(response="", confidence=None)


def test_what_is_left_out_is_missing_in_the_accuracy(tmp_path: Path) -> None:  # 16
    wrong = GOOD | {"ground_truth": "awe"}
    path = written(tmp_path / "rows.jsonl", GOOD | {"response": stating("1")}, wrong | {"response": stating("high")})

    assert score_as_released(path).evaluation.overall == Answers(accuracy=1, f1=1, samples=1, correct=1)


# Reading a file


def test_rows_with_an_error_and_lines_that_are_no_rows_leave_the_denominator(
    tmp_path: Path,
) -> None:  # 19
    errors = [GOOD | {"error": error} for error in ("out of memory", "", False)]
    stated = GOOD | {"response": stating("0.5")}
    path = written(tmp_path / "rows.jsonl", stated | {"error": None}, *errors, "", "{", "[]", "3", stated)

    found = score_as_released(path)

    assert found.evaluation.overall.samples == 2
    assert found.left_out == {LeftOut.ERROR: 3, "the line is no JSON": 1, LeftOut.UNREADABLE: 2}
    assert emocaliber_table(found).endswith(
        "Left out: 3 x an error is recorded.\n"
        "Left out: 1 x the line is no JSON.\n"
        "Left out: 2 x the confidence cannot be read."
    )


def test_a_confidence_that_is_in_the_row_counts_instead_of_the_stated_one(tmp_path: Path) -> None:
    item = GOOD | {"response": stating("high"), "confidence": math.nan, "error": "late"}
    path = written(tmp_path / "rows.jsonl", item, item | {"confidence": 0.25})

    found = score_as_released(path).evaluation.groups["ID VER"]

    assert (found.samples, found.confident) == (2, 2)
    assert found.thresholds[1].coverage == 0.5


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"candidates": None}, "candidates is None, expected a list of names"),  # 23
        ({"candidates": ["joy", 3]}, "candidates is"),
        ({"ground_truth": None}, "ground_truth is None, expected text"),
        ({"task": 3}, "task is 3, expected text"),
        ({"response": None, "confidence": None}, "response is None, expected text"),
        ({"confidence": "0.8"}, "confidence is '0.8', expected a number or null"),  # 32
        ({"confidence": [0.8]}, "confidence is"),
        ({"confidence": 10**400}, "confidence is 1000"),
    ],
)
def test_a_row_that_crashes_the_released_code_names_file_line_and_key(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:  # 23, 32
    path = written(tmp_path / "rows.jsonl", GOOD, GOOD | change)

    with pytest.raises(PredictionsError, match=rf"rows\.jsonl:2: {complaint}"):
        score_as_released(path)


@pytest.mark.parametrize("content, complaint", [(b"[" * 100_000, ":1: "), (b"\xff\xfe\n", ": not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)

    with pytest.raises(PredictionsError, match=rf"rows\.jsonl{complaint}"):
        score_as_released(path)


@pytest.mark.parametrize(
    "lines, complaint",
    [
        ([], "got no rows"),
        ([GOOD | {"error": "late"}], "got no rows.*1 x an error is recorded"),
        ([GOOD, GOOD], "none of the 2 rows of ID VER states a confidence.*--mode strict --without-confidence"),
    ],
)
def test_a_file_the_released_code_has_no_numbers_for_says_why(
    tmp_path: Path, lines: list[object], complaint: str
) -> None:  # 32
    with pytest.raises(PredictionsError, match=rf"rows\.jsonl: {complaint}"):
        score_as_released(written(tmp_path / "rows.jsonl", *lines))


def test_a_confidence_of_true_is_1() -> None:  # 32
    assert take(GOOD | {"confidence": True}) == row(confidence=1.0)


# Predictions


@pytest.mark.parametrize(
    "response, candidates, prediction",
    [
        ("awe <answer>\njoy\n</answer>", MOODS, "awe"),  # 20: the reasoning is searched
        ("fear <answer>\n</answer><answer>joy</answer>", MOODS, "joy"),
        ("fear <ANSWER>JOY</Answer>", ["Joy", "fear"], "joy"),
        ("<answer>awesome joy</answer>", MOODS, "awe"),  # 21
        ("<answer>awesome joy</answer>", ["joy", "awe"], "joy"),
        ("<answer>not positive</answer>", ["positive", "negative"], "positive"),
        ("<answer>fearless</answer>", MOODS, "fear"),
        ("<answer>courage</answer>", ["rage"], "rage"),
        ("joy <answer></answer>", MOODS, "joy"),  # 22
        ("joy <answer> </answer>", MOODS, "unknown"),
        ("joy <answer>\u3000?</answer>", MOODS, "unknown"),
        ("joy", ["", "joy"], ""),  # 23
        ("joy", "yo", "y"),
        ("joy", [], "unknown"),
        ("it is bliss", MOODS, "unknown"),
    ],
)
def test_a_prediction_is_the_first_candidate_that_is_a_substring(
    response: str, candidates: Sequence[str], prediction: str
) -> None:  # 20, 21, 22, 23
    taken = take({"response": response, "candidates": list(candidates) if candidates != "yo" else "yo"})

    assert isinstance(taken, Row)
    assert predict(taken) == prediction


@pytest.mark.parametrize(
    "item, right",
    [
        ({"ground_truth": "JOY", "response": "joy"}, True),  # 24
        ({"ground_truth": "joy ", "response": "joy "}, False),
        ({"response": "joy"}, False),
        ({"response": "joy", "candidates": [""]}, True),
        ({"ground_truth": "unknown", "response": "bliss"}, True),  # 23
    ],
)
def test_labels_are_lower_cased_and_not_stripped_and_a_missing_one_is_empty(
    item: dict[str, object], right: bool
) -> None:  # 23, 24
    taken = take({"candidates": ["joy"]} | item)

    assert isinstance(taken, Row)
    assert evaluate([taken]).tasks["unknown"].accuracy == right  # 34: a missing task is "unknown"


@pytest.mark.parametrize(
    "response, candidates, label, task, overall",
    [
        ("<think>fear, awe</think><answer>joy</answer>", MOODS, "joy", 1, 0),
        ("<think>joy</think><answer>bliss</answer>", MOODS, "joy", 0, 1),
        ("<answer>Joy</answer>", ["Joy"], "joy", 1, 0),
    ],
)
def test_overall_searches_the_reasoning_for_candidates_as_they_are_spelt(
    response: str, candidates: Sequence[str], label: str, task: float, overall: float
) -> None:  # 25
    found = evaluate([row(response, 0.5, label, candidates)])

    assert (found.tasks["FI-8"].accuracy, found.overall.accuracy) == (task, overall)


# Groups


def test_a_groups_accuracy_counts_rows_with_a_confidence_and_its_f1_and_size_all() -> None:  # 26
    found = group(answered(0.9, 0.5) + answered(None, None, right=False))

    assert (found.samples, found.confident, found.accuracy) == (4, 2, 1.0)
    # joy: precision 2/4, recall 1, F1 2/3, half of the truths; awe: 0
    assert found.f1 == pytest.approx(1 / 3)
    assert found.thresholds[5] == AtThreshold(0.6, accuracy=1, f1=1, coverage=0.25)


def test_groups_pool_their_tasks() -> None:
    tasks = [
        "FI-2",
        "WebEmo-2",
        "FI-8",
        "EmoSet-8",
        "WebEmo-7",
        "WebEmo-25",
        "Abstract-8",
        "Artphoto-8",
        "UnbiasedEmo-6",
    ]
    found = evaluate([row(task=task) for task in [*tasks, "FI-22", "unknown"]])

    assert [one.samples for one in found.groups.values()] == [2, 4, 3]
    assert list(found.groups) == ["ID VSA", "ID VER", "OOD VER"]
    assert found.overall.samples == 11


def test_all_numbers_of_a_group_equal_their_values_by_hand() -> None:
    found = group(answered(0.95, 0.85, 0.55) + answered(0.85, 0.15, right=False))

    assert found.accuracy == 0.6
    assert found.mean_confidence == pytest.approx(0.67)
    # bins: .95 right | .85 right, .85 wrong | .55 right | .15 wrong
    assert found.ece == pytest.approx((0.05 + 2 * 0.35 + 0.45 + 0.15) / 5)
    assert found.brier == pytest.approx((0.05**2 + 0.15**2 + 0.45**2 + 0.85**2 + 0.15**2) / 5)
    assert found.auroc == pytest.approx((2 + 1.5 + 1) / 6)  # wrong ones each right one is above; a tie is a half
    assert [one.coverage for one in found.thresholds] == [1, 0.8, 0.8, 0.8, 0.8, 0.6, 0.6, 0.6, 0.2]


def test_a_certain_model_that_is_always_wrong_has_no_ece() -> None:  # 27
    found = group(answered(1.0, 1.0, 85.0, right=False))

    assert (found.ece, found.brier) == (0.0, 1.0)


def test_a_confidence_of_1_is_in_the_denominator_of_ece() -> None:  # 27
    assert group(answered(0.5, 1.0)).ece == pytest.approx(0.25)


@pytest.mark.parametrize("stated", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_tenths_open_their_bins_but_for_those_below_numpys_edges(stated: float) -> None:  # 27
    below, correct = stated - 0.05, np.array([True, False])

    together = half_open_ece(np.array([stated, below]), correct)

    shared = abs(0.5 - (stated + below) / 2)  # one bin; else each has its own
    apart = (abs(1 - stated) + below) / 2
    assert together == pytest.approx(shared if stated in (0.3, 0.6, 0.7) else apart)


def test_the_bins_are_not_those_of_the_calibration_plot() -> None:  # 28
    confidence, correct = np.array([0.5, 0.45]), np.array([True, False])

    plotted, _ = calibration_curve(correct, confidence, n_bins=10)

    assert plotted.tolist() == [0.5]  # closed on the right: both in one
    assert half_open_ece(confidence, correct) == pytest.approx((0.5 + 0.45) / 2)


def test_confidences_are_clipped_but_for_thresholds() -> None:  # 29
    rows = answered(85.0, math.inf) + answered(-0.1, right=False)
    found = group(rows)

    assert (found.brier, found.auroc, found.mean_confidence) == (0.0, 1.0, pytest.approx(2 / 3))
    assert [one.coverage for one in found.thresholds] == [pytest.approx(2 / 3)] * 9


def test_one_nan_spoils_brier_and_mean_leaves_the_bins_and_undoes_auroc() -> None:  # 30
    found = group([*answered(0.9, math.nan), *answered(0.1, right=False)])

    assert found.auroc is None
    assert math.isnan(found.brier or 0) and math.isnan(found.mean_confidence or 0)
    assert found.ece == pytest.approx((0.1 + 0.1) / 3)
    assert found.thresholds[0].coverage == pytest.approx(2 / 3)


@pytest.mark.parametrize("rows", [answered(0.9, 0.7), answered(0.9, math.nan) + answered(0.1, right=False)])
def test_without_an_auroc_the_table_hides_ece_and_brier_score_though_they_are_known(
    rows: list[Row],
) -> None:  # 31
    found = group(rows)

    assert found.ece is not None and found.brier is not None
    assert cells(rows, "ID VER")[2:5] == ["N/A"] * 3


def test_above_every_confidence_accuracy_and_f1_are_0() -> None:  # 33
    assert group(answered(0.5)).thresholds[4:6] == (AtThreshold(0.5, 1, 1, 1), AtThreshold(0.6, 0, 0, 0))


def test_f1_is_weighted_over_the_labels_and_unknown_has_no_weight() -> None:  # 34
    rows = [row(), row(), row("bliss"), row("<answer>joy</answer>", label="awe"), row(task="other")]

    found = evaluate(rows)

    # joy: precision 2/3, recall 2/3, three of four truths; awe: 0
    assert found.tasks["FI-8"] == Answers(0.5, pytest.approx(0.5), 4, 2)
    assert list(found.tasks) == ["FI-8", "other"]
    assert found.overall.samples == 5


@pytest.mark.parametrize(
    "answer, confidence, trained, stated, predicted",
    [
        ("joy", "0.7", True, 0.7, "joy"),
        ("not joy", "0.7", False, 0.7, "joy"),
        ("j-o-y", "0.7", True, 0.7, "unknown"),
        ("joy", "\n0.7\n", True, None, "joy"),
        ("joy", "{0.7}", None, 0.7, "joy"),
        ("joy", "1.0", None, 1.0, "joy"),
    ],
)
def test_training_and_evaluation_disagree(
    answer: str, confidence: str, trained: bool | None, stated: float | None, predicted: str
) -> None:  # 35
    think = f"<think>{''.join(f'<{name}></{name}>' for name in ELEMENTS)}</think>"
    text = f"{think}<answer>{answer}</answer><confidence>{confidence}</confidence>"

    reward = emocaliber_reward(text, "joy")

    assert (bool(reward.correctness) if reward.well_formed else None) == trained
    assert stated_confidence(text) == stated
    assert predict(row(text)) == predicted


# Tags


@pytest.mark.parametrize("filler", ["<answer>", "<answer>\n", "<confidence>", "<confidence>\n", "<answer>\n</answer>"])
def test_tags_that_are_never_closed_cost_no_more_than_others(filler: str) -> None:
    text = filler * 200_000 + "joy"

    assert predict(row(text)) == "joy"
    assert stated_confidence(text) is None


PIECES = [
    "<answer>",
    "</answer>",
    "<confidence>",
    "</confidence>",
    "<Answer>",
    "joy",
    "Awe",
    "0.7",
    " ",
    "\n",
    "\r",
    "\u2028",
]
SOUPS = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


@given(SOUPS)
def test_predictions_and_confidences_are_those_of_regular_expressions(text: str) -> None:
    answer = re.search("<answer>(.*?)</answer>", text.lower())
    searched = (answer[1] if answer else "") or text.lower()
    stated = re.search("<confidence>(.*?)</confidence>", text)

    assert predict(row(text)) == next((mood for mood in MOODS if mood in searched), "unknown")
    try:
        expected = float(stated[1]) if stated else None
    except ValueError:
        with pytest.raises(ValueError):
            stated_confidence(text)
    else:
        assert stated_confidence(text) == expected


# The tables and the command


def test_the_tables_show_percent_points_and_what_is_missing_as_such() -> None:
    right = [row(task="Artphoto-8", confidence=0.85), row(task="Artphoto-8", confidence=0.65)]
    wrong = [row(task="Artphoto-8", confidence=0.15, label="awe"), row(task="x", confidence=None)]

    table = emocaliber_table(ReleasedScore(evaluate([*right, *wrong]), {})).splitlines()

    header, _, task, vsa, ver, ood, overall, _, thresholds, _, first, *_ = [line.split() for line in table]
    assert header == "Task/Group Acc F1 ECE Brier ROC AUC #Samples".split()
    # F1: joy 0.8 (precision 2/3, recall 1) for two of three truths, awe 0
    assert task == "Artphoto-8 66.67 53.33 N/A N/A N/A 3".split()
    assert vsa == "ID VSA N/A N/A N/A N/A N/A 0".split()
    assert ver == "ID VER N/A N/A N/A N/A N/A 0".split()
    assert ood == "OOD VER 66.67 53.33 21.67 5.58 100.00 3".split()
    assert overall[:2] == ["Overall", "75.00"] and overall[-1] == "4"
    assert thresholds[:4] == ["Threshold", "ID", "VSA", "Acc"]
    assert first == ["0.1", *["N/A"] * 6, "66.67", "53.33", "100.00"]


def test_score_prints_the_released_numbers_and_writes_them_with_null_for_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "rows.jsonl", *[GOOD | {"response": stating(c)} for c in ("0.9", "nan", "high")])
    out = tmp_path / "numbers.json"

    code = main(["score", str(path), "--mode", "emocaliber", "--out", str(out)])

    found = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert code == 0
    assert capsys.readouterr().out == emocaliber_table(score_as_released(path)) + "\n"
    assert found["tasks"] == {"FI-8": {"accuracy": 1.0, "f1": 1.0, "samples": 2, "correct": 2}}
    assert found["overall"] == found["tasks"]["FI-8"]
    assert found["left_out"] == {"the confidence cannot be read": 1}
    assert found["groups"]["ID VSA"] == dict.fromkeys(found["groups"]["ID VSA"]) | {
        "samples": 0,
        "confident": 0,
        "thresholds": [],
    }
    held = found["groups"]["ID VER"]
    assert (held["brier"], held["auroc"], held["mean_confidence"]) == (None, None, None)
    assert held["thresholds"][8] == {"threshold": 0.9, "accuracy": 1.0, "f1": 1.0, "coverage": 0.5}


@pytest.mark.parametrize(
    "setting",
    [["--recipe", "own.yaml"], ["--bins", "15"], ["--draws", "2"], ["--elements"], ["--without-confidence"]],
)
def test_a_setting_of_strict_mode_is_refused_in_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: list[str]
) -> None:
    path = written(tmp_path / "rows.jsonl", GOOD | {"response": stating("0.5")})

    code = main(["score", str(path), "--mode", "emocaliber", *setting])

    assert code == 2
    assert capsys.readouterr().err.startswith(f"caliber score: {setting[0]} is a setting of --mode strict")


def test_strict_mode_is_the_default_and_has_rows_for_the_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "rows.jsonl", GOOD, GOOD | {"task": "x"})

    code = main(["score", str(path)])

    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:6]]
    assert code == 0
    assert names == ["FI-8", "x", "ID", "macro"]
