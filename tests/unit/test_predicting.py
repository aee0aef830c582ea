"""Predictions with a pool that answers from a list: what is asked, what is made of it, what is left of a failure."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

import cluster.predicting
from cluster.cli import main
from cluster.held_out import Fitted
from cluster.predicting import Predicting, Prediction, predict
from cluster.voted import vote_on
from configs.load import load_recipe, write_resolved
from rewards.abstention import Guarantee
from rollout.engine import EngineError, SamplingSettings
from rollout.readers import DataError
from rollout.worker import Visit
from tests.unit.answered import answered

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


def said(answer: str, confidence: float) -> str:
    return f"<think>it smiles</think><answer>{answer}</answer><confidence>{confidence}</confidence>"


@dataclass
class FakePool:
    """Answers as it is told to, the last prompt first; what is to be raised comes after all answers."""

    responses: Mapping[str, Sequence[str] | Exception]
    asked: list[tuple[str, int, SamplingSettings]] = field(default_factory=list)

    def enough(self, samples_per_group: int) -> int:
        return 64

    async def generate(self, visit: Visit, sampling: SamplingSettings) -> Any:
        self.asked.append((visit.prompt.prompt_id, visit.samples, sampling))
        responses = self.responses[visit.prompt.prompt_id]
        fails = isinstance(responses, Exception)
        for _ in range(200 if fails else 100 - visit.group_id):
            await asyncio.sleep(0)
        if isinstance(responses, Exception):
            raise responses
        return answered(visit, responses[: visit.samples])


class FakeWorkers:
    """In place of the rollout workers."""

    def __init__(self, pool: FakePool) -> None:
        self.pool, self.held = pool, ""

    async def holding(self, model: str) -> FakePool:
        self.held = model
        return self.pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Used:
    """A run's folder, files of questions, and the workers that answer them."""

    folder: Path
    workers: FakeWorkers

    @property
    def asked(self) -> list[tuple[str, int, SamplingSettings]]:
        return self.workers.pool.asked

    def file(self, name: str, *ids: str, **more: Mapping[str, Any]) -> Path:
        """A file of questions; `more` gives keys of some rows."""
        rows = [{"id": i, "messages": [{"role": "user", "content": "?"}], **ROW, **more.get(i, {})} for i in ids]
        path = self.folder / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    def predict(self, data: Path, **how: Any) -> list[Prediction]:
        """Each question's prediction."""
        each, fitted, overrides = (how.pop(name, None) for name in ("each", "fitted", "overrides"))
        return predict(self.folder, data, Predicting(**how), each=each, fitted=fitted, overrides=overrides or ())


ROW = {"candidates": ["a", "b", "c"]}


@pytest.fixture
def using(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a finished run whose model gives these responses."""

    def make(responses: Mapping[str, Sequence[str] | Exception]) -> Used:
        changes = ["response.reasoning_elements=[]", "rewards.reference=label", "rl.temperature=0.7"]
        write_resolved(load_recipe(DEMO, [*changes, "evaluation.temperature=0"]), tmp_path / "recipe.yaml")
        (tmp_path / "stage3" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "stage3" / "model" / "config.json").write_text("{}")
        workers = FakeWorkers(FakePool(responses))
        monkeypatch.setattr(cluster.predicting, "connect", lambda _: None)
        monkeypatch.setattr(cluster.predicting, "RolloutWorkers", lambda _: workers)
        return Used(tmp_path, workers)

    return make


# Rows


def test_each_row_has_what_the_model_says_and_is_told_as_soon_as_it_is_there(using: Any) -> None:
    used = using({"p0": [said("a", 0.9)], "p1": [said("b", 0.2)]})
    came: list[str] = []

    found = used.predict(used.file("mine.jsonl", "p0", "p1"), each=lambda one: came.append(one.id))

    assert [(one.id, one.answer, one.confidence) for one in found] == [("p0", "a", 0.9), ("p1", "b", 0.2)]
    assert came == ["p1", "p0"]  # as they were done
    assert used.workers.held == str(used.folder / "stage3" / "model")


def test_a_line_holds_the_three_keys_and_of_the_others_those_that_say_something(using: Any) -> None:
    used = using({"p0": [said("a", 0.9)], "p1": ["<think>"]})

    first, second = used.predict(used.file("mine.jsonl", "p0", "p1"))

    assert json.loads(first.to_json()) == {"id": "p0", "answer": "a", "confidence": 0.9, "response": said("a", 0.9)}
    assert json.loads(second.to_json()) == {
        "id": "p1",
        "answer": None,
        "confidence": None,
        "response": "<think>",
        "malformed": ["missing_tag"],
    }


def test_samples_vote_and_the_response_shown_is_one_that_gives_the_answer(using: Any) -> None:
    texts = [said("b", 0.4), "no form", said("a", 0.5), said("a", 0.3)]
    used = using({"p0": texts})

    (found,) = used.predict(used.file("mine.jsonl", "p0"), samples=4)

    assert (found.answer, found.response) == ("a", texts[2])
    assert found.confidence == pytest.approx((0.6 / 2 + 0.5 + 0.3) / 3)
    assert found.votes == pytest.approx({"b": 0.4, "a": 0.8})
    assert found.malformed == ("missing_tag",)


@pytest.mark.parametrize(
    "how, temperature", [({}, 0.0), ({"samples": 3}, 0.7), ({"samples": 3, "temperature": 0.2}, 0.2)]
)
def test_one_response_is_sampled_as_in_evaluation_and_several_as_in_training(
    using: Any, how: Mapping[str, Any], temperature: float
) -> None:
    used = using({"p0": [said("a", 0.9)] * 3})

    used.predict(used.file("mine.jsonl", "p0"), **how)

    ((_, samples, sampling),) = used.asked
    assert (samples, sampling.temperature) == (how.get("samples", 1), temperature)


@pytest.mark.parametrize(
    "correctness, answers, winner",
    [
        ("numeric", ("0.5", "1/2", "7"), "0.5"),
        ("choice", ("(b)", "B) joy", "C"), "(b)"),
        ("exact", ("x ", "X", "y"), "x"),
    ],
)
def test_answers_that_count_as_the_same_vote_together(correctness: str, answers: Sequence[str], winner: str) -> None:
    recipe = load_recipe(DEMO, [f"rewards.correctness={correctness}", "response.reasoning_elements=[]"])

    found = vote_on([(said(a, c), False) for a, c in zip(answers, (0.4, 0.4, 0.7), strict=True)], (), recipe)

    assert found.vote is not None and found.vote.answer == winner


def test_a_response_cut_by_the_length_limit_has_no_vote() -> None:
    recipe = load_recipe(DEMO, ["response.reasoning_elements=[]"])

    found = vote_on([(said("a", 0.9), True), (said("b", 0.1), False)], (), recipe)

    assert found.vote is not None and (found.vote.answer, found.malformed) == ("b", ("truncated",))


def test_rows_need_no_reference_though_the_recipe_names_a_column_for_it_and_held_out_rows_do(using: Any) -> None:
    used = using({"p0": [said("a", 0.9)]})
    data = used.folder / "mine.jsonl"
    data.write_text(json.dumps({"id": "p0", "question": "?", **ROW}))
    overrides = ["data.columns={prompt: question, label: gold}"]

    (found,) = used.predict(data, overrides=overrides)

    assert found.answer == "a"
    shutil.copy(data, held_out := used.folder / "held.jsonl")
    with pytest.raises(DataError, match=r"held\.jsonl: data\.columns takes `label` from `gold`, which no row has"):
        used.predict(data, held_out=held_out, recalibrate="isotonic", overrides=overrides)


# Failures


def test_a_row_that_cannot_be_answered_says_so_and_the_others_are(using: Any, caplog: pytest.LogCaptureFixture) -> None:
    used = using({"p0": ValueError("the prompt has 900 tokens"), "p1": [said("b", 0.2)]})
    data = used.file("mine.jsonl", "p0", "p1")

    first, second = used.predict(data)

    assert (first.answer, first.error, second.answer) == (None, "the prompt has 900 tokens", "b")
    assert f"{data}: row 'p0' cannot be answered: the prompt has 900 tokens" in caplog.text


def test_what_was_done_before_the_engine_failed_is_in_the_file(using: Any) -> None:
    used = using({"p0": [said("a", 0.9)], "p1": EngineError("gone"), "p2": [said("c", 0.3)]})
    data, out = used.file("mine.jsonl", "p0", "p1", "p2"), used.folder / "out.jsonl"

    with pytest.raises(BaseExceptionGroup) as failed:
        main(["predict", str(used.folder), str(data), "--out", str(out)])

    assert failed.group_contains(EngineError, match="gone")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["p2", "p0"]


def test_bad_rows_of_both_files_are_named_before_a_model_is_loaded(using: Any) -> None:
    used = using({})
    data, held_out = used.file("mine.jsonl", "p0"), used.file("held.jsonl", "h0", h0={"reference": {"label": "z"}})
    bad = used.file("bad.jsonl", "p0", "p0")

    with pytest.raises(DataError, match=r"bad\.jsonl:2: id 'p0' is row 1's too"):
        used.predict(bad)
    with pytest.raises(DataError, match=r"held\.jsonl:1: the label 'z' is not among"):
        used.predict(data, held_out=held_out, recalibrate="isotonic")

    assert used.workers.held == ""


@pytest.mark.parametrize(
    "how, named",
    [
        ({"samples": 0}, "got 0 samples"),
        ({"samples": 2, "temperature": 0}, "all the same"),
        ({"recalibrate": "platt"}, "'platt', expected one of isotonic, temperature"),
        ({"recalibrate": "isotonic"}, "name their file"),
        ({"guarantee": Guarantee(0.1)}, "name their file"),
        ({"held_out": Path("held.jsonl")}, "nothing is fitted on held.jsonl"),
    ],
)
def test_what_cannot_be_done_is_refused(how: Mapping[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Predicting(**how)


def test_rows_to_predict_are_no_held_out_rows(using: Any) -> None:
    used = using({})
    data = used.file("mine.jsonl", "p0", p0={"reference": {"label": "a"}})

    with pytest.raises(ValueError, match="is to be predicted"):
        used.predict(data, held_out=data, recalibrate="isotonic")


# What held-out rows say


def held_out(used: Used, rows: int) -> tuple[Path, dict[str, list[str]]]:
    """A file of rows of which all are right where 0.8 is stated, and half of them where 0.4 is; and the responses."""
    ids = [f"h{number}" for number in range(rows)]
    path = used.file("held.jsonl", *ids, **{one: {"reference": {"label": "a"}} for one in ids})
    return path, {one: [said("b" if n % 4 == 1 else "a", 0.4 if n % 2 else 0.8)] for n, one in enumerate(ids)}


def test_a_row_whose_confidence_is_not_above_the_threshold_abstains_and_keeps_its_answer(using: Any) -> None:
    used = using({})
    path, responses = held_out(used, 400)
    used = using({**responses, "p0": [said("a", 0.8)], "p1": [said("c", 0.4)], "p2": ["no form"]})
    told: list[Fitted] = []

    found = used.predict(
        used.file("mine.jsonl", "p0", "p1", "p2"), held_out=path, guarantee=Guarantee(0.1), fitted=told.append
    )

    assert [(one.answer, one.abstained) for one in found] == [("a", False), ("c", True), (None, True)]
    assert told[0].threshold is not None
    assert (told[0].threshold.above, told[0].threshold.kept, told[0].threshold.wrong) == (0.4, 200, 0)
    assert "a confidence above 0.4: 200 of 400 held-out rows, 0 of them wrong" in str(told[0].told())
    assert [name for name, _, _ in used.asked] == [*responses, "p0", "p1", "p2"]


def test_where_nothing_can_be_vouched_for_every_row_abstains_and_it_is_said_how_many_rows_it_takes(using: Any) -> None:
    used = using({})
    path, responses = held_out(used, 8)
    used = using({**responses, "p0": [said("a", 1.0)]})
    told: list[Fitted] = []

    (found,) = used.predict(used.file("mine.jsonl", "p0"), held_out=path, guarantee=Guarantee(0.1), fitted=told.append)

    assert (found.answer, found.abstained) == ("a", True)
    assert "every row abstains: of 8 held-out rows" in str(told[0].told())
    assert "takes 51 that are kept" in str(told[0].told())  # log(0.1 / 20) / log(0.9) = 50.3


def test_a_map_is_fitted_on_the_held_out_rows_and_the_threshold_stays_one_of_what_was_stated(using: Any) -> None:
    used = using({})
    path, responses = held_out(used, 400)
    used = using({**responses, "p0": [said("a", 0.8)], "p1": [said("c", 0.4)], "p2": ["no form"]})

    found = used.predict(
        used.file("mine.jsonl", "p0", "p1", "p2"), held_out=path, guarantee=Guarantee(0.1), recalibrate="isotonic"
    )

    assert [one.confidence for one in found] == [1.0, 0.5, None]
    assert [one.raw_confidence for one in found] == [0.8, 0.4, None]
    assert [one.abstained for one in found] == [False, True, True]


def test_held_out_rows_are_answered_as_the_others_are(using: Any) -> None:
    used = using({"h0": [said("a", 0.9), said("a", 0.7)], "p0": [said("a", 0.8)] * 2})
    path = used.file("held.jsonl", "h0", h0={"reference": {"label": "a"}})

    used.predict(used.file("mine.jsonl", "p0"), samples=2, held_out=path, recalibrate="isotonic")

    (_, *first), (_, *second) = used.asked
    assert first == second


@pytest.mark.parametrize("reference, confidence", [("label", 1.0), ("annotator", 0.5)])
def test_a_held_out_answer_is_held_against_what_the_recipe_says_is_right(
    using: Any, reference: str, confidence: float
) -> None:
    ids = [f"h{number}" for number in range(300)]
    used = using({**{one: [said("a", 0.8)] for one in ids}, "p0": [said("a", 0.8)]})
    path = used.file("held.jsonl", *ids, **{one: {"reference": {"counts": {"a": 5, "b": 4, "c": 1}}} for one in ids})

    (found,) = used.predict(
        used.file("mine.jsonl", "p0"),
        held_out=path,
        recalibrate="isotonic",
        overrides=[f"rewards.reference={reference}"],
    )

    assert found.confidence == pytest.approx(confidence, abs=0.1)  # the share of those who draw lots for a


@pytest.mark.parametrize(
    "overrides, fault",
    [
        (["rewards.correctness=no.such.module:Scorer"], "cannot be made"),
        (
            ["rewards.correctness=judge", "rewards.judge={url: https://judge, token_variable: NOT_SET}"],
            "has no NOT_SET",
        ),
        (["rewards.correctness=numeric"], r"held\.jsonl: prompt h0: got the reference 'a'"),
    ],
)
def test_what_answers_cannot_be_held_against_is_told_before_a_model_is_loaded(
    using: Any, overrides: Sequence[str], fault: str
) -> None:
    used = using({})
    data, path = used.file("mine.jsonl", "p0"), used.file("held.jsonl", "h0", h0={"reference": {"label": "a"}})

    with pytest.raises(ValueError, match=fault):
        used.predict(data, held_out=path, recalibrate="isotonic", overrides=overrides)

    assert used.workers.held == ""


def test_held_out_rows_without_votes_are_held_against_their_labels_where_the_recipe_asks_for_shares(using: Any) -> None:
    used = using({"h0": [said("a", 0.9)], "p0": [said("a", 0.8)]})
    path = used.file("held.jsonl", "h0", h0={"reference": {"label": "a"}})

    (found,) = used.predict(
        used.file("mine.jsonl", "p0"), held_out=path, recalibrate="isotonic", overrides=["rewards.reference=shares"]
    )

    assert found.confidence == 1.0


@pytest.mark.parametrize("reference", [{"label": "x"}, {"counts": {"x": 2, "y": 1}}])
def test_held_out_rows_whose_answers_a_scorer_fails_on_are_left_out_and_counted(
    using: Any, caplog: pytest.LogCaptureFixture, reference: Mapping[str, object]
) -> None:
    answers = {"h0": "raise", "h1": "hang", **{f"h{number}": "fine" for number in range(2, 60)}}
    used = using({"p0": [said("a", 0.8)], **{one: [said(answer, 0.8)] for one, answer in answers.items()}})
    row = {"candidates": ["raise", "hang", "fine", "x", "y"], "reference": reference}
    path, told = used.file("held.jsonl", *answers, **dict.fromkeys(answers, row)), list[Fitted]()

    (found,) = used.predict(
        used.file("mine.jsonl", "p0"),
        held_out=path,
        guarantee=Guarantee(0.1),
        recalibrate="isotonic",
        fitted=told.append,
        overrides=[
            "rewards.reference=annotator",
            "rewards.correctness=tests.unit.user_scorers:Moody",
            "reward_service.seconds_per_response=1",
        ],
    )

    assert (found.answer, found.abstained, found.confidence) == ("a", False, 1.0)
    assert (told[0].rows, told[0].left_out) == (58, 2)
    first, second = str(told[0].told()).splitlines()
    assert first.startswith("2 of 60 held-out rows are left out: rewards.correctness failed on their answers")
    assert "58 of 58 held-out rows, 0 of them wrong" in second
    assert "a response to 'h0' is left out: the scorer tests.unit.user_scorers:Moody failed: " in caplog.text
    assert (
        "a response to 'h1' is left out: the scorer tests.unit.user_scorers:Moody gave no answer in 1 s" in caplog.text
    )


def test_where_every_held_out_row_is_left_out_all_rows_abstain_and_a_map_is_refused(using: Any) -> None:
    used = using({"p0": [said("a", 0.8)], "h0": [said("raise", 0.8)]})
    row = {"candidates": [], "reference": {"label": "x"}}
    how: dict[str, Any] = {"held_out": used.file("held.jsonl", "h0", h0=row)}
    how["overrides"] = ["rewards.correctness=tests.unit.user_scorers:Moody"]
    data = used.file("mine.jsonl", "p0")

    (found,) = used.predict(data, guarantee=Guarantee(0.1), **how)

    assert (found.answer, found.abstained) == ("a", True)
    with pytest.raises(ValueError, match="no response to 1 held-out rows is well formed and was judged"):
        used.predict(data, recalibrate="isotonic", **how)


# The command


def test_the_command_prints_rows_and_nothing_else_whatever_other_processes_print(
    using: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = using({"p0": [said("a", 0.9)]})
    data = used.file("mine.jsonl", "p0")
    monkeypatch.setattr(cluster.predicting, "connect", lambda _: os.write(1, b"a worker's noise\n"))

    code = main(["predict", str(used.folder), str(data)])

    told = capfd.readouterr()
    assert code == 0
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == ["p0"]
    assert "a worker's noise" in told.err


def test_the_command_ends_in_1_where_a_row_cannot_be_answered(using: Any, capfd: pytest.CaptureFixture[str]) -> None:
    used = using({"p0": ValueError("too long"), "p1": [said("a", 0.9)]})
    out = used.folder / "out.jsonl"

    code = main(["predict", str(used.folder), str(used.file("mine.jsonl", "p0", "p1")), "--out", str(out)])

    assert code == 1
    assert "1 of 2 rows cannot be answered" in capfd.readouterr().err
    assert len(out.read_text().splitlines()) == 2


def test_the_command_writes_over_no_file_and_leaves_none_that_is_empty(
    using: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    used = using({"p0": [said("a", 0.9)]})
    data, out = used.file("mine.jsonl", "p0"), used.folder / "out.jsonl"
    words = ["predict", str(used.folder), "--out", str(out)]

    refused_rows = main([*words, str(used.file("bad.jsonl", "p0", "p0"))])
    left = out.exists()
    first, second = main([*words, str(data)]), main([*words, str(data)])

    assert (refused_rows, left, first, second) == (2, False, 0, 2)
    assert "out.jsonl is there already" in capfd.readouterr().err


def test_a_delta_without_a_risk_is_refused(using: Any, capfd: pytest.CaptureFixture[str]) -> None:
    used = using({})

    code = main(["predict", str(used.folder), str(used.file("mine.jsonl", "p0")), "--delta", "0.2"])

    assert code == 2
    assert "--delta says how sure --risk is" in capfd.readouterr().err
