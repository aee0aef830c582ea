"""EmoCaliber's released evaluator of VECBench, number for number; `rewards.metrics` is the one to trust.

A response's prediction is the first candidate, in the row's order, that is a substring of the answer: "not positive" is
positive. An answer is looked for within one line; without one, or with an empty one, the whole response is searched,
reasoning included. Case does not matter; a label is not stripped. Nothing found is the prediction "unknown".

    task        accuracy and weighted F1 of all its rows
    overall     the same of all rows by another rule: the first candidate anywhere in the response, answer or not, and a
                candidate with a capital is never found. It is not the accuracy over the tasks
    group       F1 of all rows of its tasks; accuracy and calibration of those with a confidence, clipped to [0, 1]
    threshold   accuracy and F1 of a group's rows whose confidence, not clipped, reaches it (0 where none does), and
                their share of all rows of the group

ECE has ten bins [l, u) with numpy's edges, which put 0.3, 0.6 and 0.7 one bin low. A confidence of 1 is in no bin, and
yet in the denominator: always certain and always wrong is an ECE of 0. So is nan; it also makes Brier score and mean
confidence nan, and AUROC None.

Not reproduced: its plots (whose calibration curve has other bins, closed on the right), and its crashes. A file
without rows and a group of rows without a single confidence are ValueErrors here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from rewards.released.extractor import Row
from rewards.released.tags import first_on_one_line
from rewards.vecbench import GROUPS

UNKNOWN = "unknown"  # the prediction where no candidate is found; right for a label of that name
BINS = 10
THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, slots=True)
class Answers:
    """How good a set of predictions is; fractions of 1."""

    accuracy: float
    f1: float  # weighted by how often a label is the truth
    samples: int
    correct: int  # samples that are right


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """A group's rows that are at least so confident; fractions of 1."""

    threshold: float
    accuracy: float
    f1: float
    coverage: float  # their share of all rows of the group


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One of VECBench's three groups; fractions of 1, None where the group has no rows."""

    samples: int  # rows
    confident: int = 0  # rows with a confidence: those that all but F1 speak of
    accuracy: float | None = None
    f1: float | None = None
    ece: float | None = None
    brier: float | None = None  # nan where a confidence is
    auroc: float | None = None  # None also where all are right, none is, or a confidence is nan
    mean_confidence: float | None = None  # nan where a confidence is
    thresholds: tuple[AtThreshold, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All numbers of the released evaluator."""

    tasks: Mapping[str, Answers]  # of every task that occurs, in order of appearance
    groups: Mapping[str, Group]  # all three
    overall: Answers


def evaluate(rows: Sequence[Row]) -> Evaluation:
    """The numbers of the rows; ValueError where the released code crashes for want of them."""
    if not rows:
        raise ValueError("got no rows to evaluate, expected at least one that was not left out")
    tasks = dict.fromkeys(row.task for row in rows)
    return Evaluation(
        tasks={task: _answers(_judged(row for row in rows if row.task == task)) for task in tasks},
        groups={name: _group(name, [row for row in rows if row.task in members]) for name, members in GROUPS.items()},
        overall=_answers([(row.label.lower(), _anywhere(row)) for row in rows]),
    )


def predict(row: Row) -> str:
    """The lower-cased candidate that the response is taken to name, or "unknown"."""
    response = row.response.lower()
    answer = first_on_one_line(response, "answer")
    return _first_within(answer or response, (candidate.lower() for candidate in row.candidates))


def _anywhere(row: Row) -> str:
    return _first_within(row.response.lower(), row.candidates)


def _first_within(text: str, candidates: Iterable[str]) -> str:
    return next((candidate for candidate in candidates if candidate in text), UNKNOWN)


Judged = tuple[str, str]  # lower-cased label, and prediction


def _judged(rows: Iterable[Row]) -> list[Judged]:
    return [(row.label.lower(), predict(row)) for row in rows]


def _answers(judged: Sequence[Judged]) -> Answers:
    """Of at least one."""
    truths, predictions = zip(*judged, strict=True)
    correct = sum(truth == prediction for truth, prediction in judged)
    f1 = float(f1_score(truths, predictions, average="weighted", zero_division=0))
    return Answers(correct / len(judged), f1, len(judged), correct)


def _group(name: str, rows: Sequence[Row]) -> Group:
    if not rows:
        return Group(samples=0)
    judged = _judged(rows)
    stated = [(row.confidence, truth == prediction) for row, (truth, prediction) in zip(rows, judged, strict=True)]
    readable = [(confidence, right) for confidence, right in stated if confidence is not None]
    if not readable:
        raise ValueError(
            f"none of the {len(rows)} rows of {name} states a confidence, and the released evaluator ends there; "
            "score such responses with --mode strict --without-confidence"
        )
    confidence = np.clip(np.array([confidence for confidence, _ in readable], dtype=np.float64), 0, 1)
    correct = np.array([right for _, right in readable], dtype=np.bool_)
    return Group(
        samples=len(rows),
        confident=len(readable),
        accuracy=float(correct.mean()),
        f1=_answers(judged).f1,
        ece=half_open_ece(confidence, correct),
        brier=float(((confidence - correct) ** 2).mean()),
        auroc=_auroc(confidence, correct),
        mean_confidence=float(confidence.mean()),
        thresholds=tuple(_at(threshold, rows, judged) for threshold in THRESHOLDS),
    )


def half_open_ece(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error of [n] confidences in [0, 1] or nan, over bins [l, u) that leave out 1 and nan."""
    bin_of = np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="right") - 1  # BINS and more: in no bin
    error = 0.0
    for number in range(BINS):
        inside = bin_of == number
        if inside.any():
            error += abs(float(correct[inside].mean() - confidence[inside].mean())) * float(inside.mean())
    return error


def _auroc(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float | None:
    if correct.all() or not correct.any() or np.isnan(confidence).any():
        return None
    return float(roc_auc_score(correct, confidence))


def _at(threshold: float, rows: Sequence[Row], judged: Sequence[Judged]) -> AtThreshold:
    confident = [
        pair
        for row, pair in zip(rows, judged, strict=True)
        if row.confidence is not None and row.confidence >= threshold
    ]
    if not confident:
        return AtThreshold(threshold, 0.0, 0.0, 0.0)
    answers = _answers(confident)
    return AtThreshold(threshold, answers.accuracy, answers.f1, len(confident) / len(rows))
