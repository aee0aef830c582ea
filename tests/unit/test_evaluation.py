"""Evaluation over a pool that answers from a list, in virtual time; its files, and the table of its metrics."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.matchers
from cluster.evaluation import evaluate
from cluster.metrics_files import read_baselines, read_metrics, write_metrics
from cluster.metrics_table import LEGEND, metrics_table
from cluster.predictions import read_predictions
from configs.load import load_recipe
from configs.schema import Recipe
from rewards.baselines import CONSTANT, ISOTONIC, TEMPERATURE, TOKEN_PROBABILITY
from rewards.metrics import Metrics
from rewards.tasks import MACRO, OVERALL
from rollout.engine import SamplingSettings
from rollout.prompts import Message, Prompt
from rollout.trajectory import FinishReason
from rollout.worker import Visit
from tests.unit import virtual_time
from tests.unit.answered import answered
from tests.unit.byte_tokenizer import tokenizer
from tests.unit.score_file import score_file

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"
CANDIDATES = ("a", "b")
VOTES = {"a": 3, "b": 1}


def recipe(*overrides: str) -> Recipe:
    own = ["response.reasoning_elements=[]", "evaluation.samples_per_prompt=2", "evaluation.annotator_draws=5"]
    return load_recipe(DEMO, [*own, *overrides])


def prompt(name: str, task: str = "emoji", label: str | None = None, counts: Mapping[str, int] | None = None) -> Prompt:
    return Prompt(name, task, (Message("user", "?"),), candidates=CANDIDATES, label=label, counts=counts or {})


def judged(name: str, task: str = "emoji") -> Prompt:
    return prompt(name, task, counts=VOTES)


def said(answer: str, confidence: float) -> str:
    return f"<think>it smiles</think><answer>{answer}</answer><confidence>{confidence}</confidence>"


@dataclass
class FakePool:
    """Answers every prompt as it is told to; the prompts asked for last are done first."""

    responses: Mapping[str, Sequence[str]]  # by prompt, one a sample
    cut: frozenset[str] = frozenset()  # prompts whose responses reach the length limit
    sampling: list[SamplingSettings] = field(default_factory=list)

    def enough(self, samples_per_group: int) -> int:
        return 64

    async def generate(self, visit: Visit, sampling: SamplingSettings) -> Any:
        self.sampling.append(sampling)
        await asyncio.sleep(100 - visit.group_id)
        name = visit.prompt.prompt_id
        reason = FinishReason.LENGTH if name in self.cut else FinishReason.STOP
        texts = self.responses[name]
        assert len(texts) == visit.samples
        return answered(visit, texts, reason)


def evaluated(
    pool: FakePool, settings: Recipe, files: Mapping[str, tuple[Sequence[Prompt], Path]], **how: Any
) -> dict[str, dict[str, Metrics]]:
    return virtual_time.run(evaluate(settings, pool, tokenizer(), files, **how))  # type: ignore[arg-type]


def one_file(
    folder: Path, responses: Sequence[str], *overrides: str, of: Prompt | None = None, **how: Any
) -> dict[str, Metrics]:
    """The metrics of one prompt with these responses."""
    pool = FakePool({"p0": responses})
    return evaluated(pool, recipe(*overrides), {"": ([of or judged("p0")], folder)}, **how)[""]


# Evaluation


def test_every_file_has_the_responses_to_its_own_prompts_in_their_order(tmp_path: Path) -> None:
    files = {
        "seen": ([judged(f"s{n}") for n in range(3)], tmp_path / "evaluation" / "seen"),
        "unseen": ([judged(f"u{n}") for n in range(2)], tmp_path / "evaluation" / "unseen"),
    }
    names = ["s0", "s1", "s2", "u0", "u1"]
    pool = FakePool({name: [f"{name} first", f"{name} second"] for name in names})

    found = evaluated(pool, recipe(), files)

    written = {name: read_predictions(folder / "predictions.jsonl") for name, (_, folder) in files.items()}
    rows = {name: [(row.prompt_id, row.response) for row in found] for name, found in written.items()}
    expected = [(name, f"{name} {time}") for name in names for time in ("first", "second")]
    assert rows == {"seen": expected[:6], "unseen": expected[6:]}
    assert list(found) == ["seen", "unseen"]


def test_a_row_holds_what_is_known_of_the_prompt_and_whether_the_response_was_cut(tmp_path: Path) -> None:
    prompts = [prompt("p0", "moods", label="b", counts=VOTES), prompt("p1", "words", label="a")]
    pool = FakePool({"p0": ["x", "y"], "p1": ["z", "z"]}, cut=frozenset({"p0"}))

    evaluated(pool, recipe(), {"": (prompts, tmp_path)})

    first, _, third, _ = read_predictions(tmp_path / "predictions.jsonl")
    assert (first.task, first.candidates, first.label, first.counts) == ("moods", CANDIDATES, "b", VOTES)
    assert (third.task, third.candidates, third.label, third.counts) == ("words", CANDIDATES, "a", {})
    assert (first.truncated, third.truncated) == (True, False)


@pytest.mark.parametrize("draws", [1, 5])
def test_each_response_is_held_against_so_many_annotators_and_a_label_once(tmp_path: Path, draws: int) -> None:
    prompts = [judged("p0"), judged("p1"), prompt("p2", "words", label="a")]
    pool = FakePool({name: [said("a", 0.75)] * 2 for name in ("p0", "p1", "p2")})

    found = evaluated(pool, recipe(f"evaluation.annotator_draws={draws}"), {"": (prompts, tmp_path)})[""]

    assert {task: metrics.n for task, metrics in found.items()} == {
        "emoji": 2 * 2 * draws,
        "words": 2,
        MACRO: 2 * 2 * draws + 2,
        OVERALL: 2 * 2 * draws + 2,
    }


@pytest.mark.parametrize("seed", range(3))
def test_annotators_are_drawn_afresh_and_in_proportion_to_the_votes(tmp_path: Path, seed: int) -> None:
    settings = ["evaluation.annotator_draws=2000", f"evaluation.seed={seed}"]

    found = one_file(tmp_path, [said("a", 0.75), said("b", 0.25)], *settings)["emoji"]

    # "a" is right for 3 annotators of 4, "b" for 1; were one annotator asked for all, it would be all or none
    assert found.brier == pytest.approx(0.75 * 0.25, abs=0.01)
    assert found.accuracy == pytest.approx((0.75 + 0.25) / 2, abs=0.04)
    assert found.excess_brier == pytest.approx(0.0)


def test_the_seed_decides_which_annotators_are_met(tmp_path: Path) -> None:
    responses, many = [said("a", 0.75)] * 2, "evaluation.annotator_draws=200"

    first, again, other = (
        one_file(tmp_path, responses, many, f"evaluation.seed={seed}")["emoji"].accuracy for seed in (1, 1, 2)
    )

    assert first == again != other


def test_bins_are_those_of_the_recipe(tmp_path: Path) -> None:
    assert one_file(tmp_path, [said("a", 0.75)] * 2, "evaluation.bins=7")["emoji"].ece_bins == 7


def test_responses_are_sampled_as_the_recipe_says(tmp_path: Path) -> None:
    pool = FakePool({"p0": [said("a", 0.5)] * 3})
    settings = recipe("evaluation.samples_per_prompt=3", "evaluation.temperature=0.7", "evaluation.response_tokens=31")

    evaluated(pool, settings, {"": ([judged("p0")], tmp_path)})

    assert [(one.temperature, one.response_tokens) for one in pool.sampling] == [(0.7, 31)]


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_a_temperature_that_is_given_goes_before_the_recipes(tmp_path: Path, temperature: float) -> None:
    pool = FakePool({"p0": [said("a", 0.5)] * 2})

    evaluated(pool, recipe(), {"": ([judged("p0")], tmp_path)}, temperature=temperature)

    assert [one.temperature for one in pool.sampling] == [temperature]


def test_a_stage_1_model_is_evaluated_without_confidences(tmp_path: Path) -> None:
    without = "<think>it smiles</think><answer>a</answer>"

    strict = one_file(tmp_path, [without] * 2)["emoji"]
    lenient = one_file(tmp_path, [without] * 2, require_confidence=False)["emoji"]

    assert (strict.malformed, lenient.malformed) == (1.0, 0.0)
    assert lenient.accuracy_expected == pytest.approx(0.75)
    assert lenient.ece is None


def test_predictions_scored_again_give_the_metrics_of_the_evaluation(tmp_path: Path) -> None:
    responses = [said("a", 0.9), "no tags"]
    settings = recipe()

    found = one_file(tmp_path, responses)

    held = settings.evaluation
    assert (
        score_file(tmp_path / "predictions.jsonl", settings.response, held.annotator_draws, held.seed, held.bins)
        == found
    )


def test_predictions_are_kept_where_scoring_them_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='task named "overall"'):
        one_file(tmp_path, [said("a", 0.5)] * 2, of=judged("p0", task=OVERALL))

    assert len(read_predictions(tmp_path / "predictions.jsonl")) == 2
    assert not (tmp_path / "metrics.json").exists()


def moods(folder: Path, *answers: str) -> dict[str, Metrics]:
    """The metrics of these answers by a scorer that does what they say."""
    asked = replace(prompt("p0", label="true"), candidates=())
    scorer = "rewards.correctness=tests.unit.user_scorers:Moody"
    return one_file(folder, [said(answer, 0.5) for answer in answers], scorer, of=asked)


def test_a_response_that_the_scorer_fails_on_costs_itself_and_is_counted(tmp_path: Path) -> None:
    found = moods(tmp_path, "raise", "say true")

    assert (found[OVERALL].n, found[OVERALL].unscored, found[OVERALL].accuracy) == (1, 1, 1.0)
    assert read_metrics(tmp_path / "metrics.json") == found
    assert "overall: responses that rewards.correctness failed on" in metrics_table(list(found.items()))


def test_an_evaluation_without_any_verdict_has_no_numbers_and_says_so(tmp_path: Path) -> None:
    found = moods(tmp_path, "raise", "raise")

    assert found[OVERALL] == Metrics(n=0, n_confident=0, n_counted=0, unscored=2)
    assert read_baselines(tmp_path) == {}


def test_a_judges_questions_of_an_evaluation_are_asked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    class Judge:
        def __init__(self, *_: object) -> None: ...

        def __call__(self, answer: str, reference: str, /) -> float:
            together.wait(30)
            return 1.0

        def close(self) -> None: ...

    monkeypatch.setattr(cluster.matchers, "RemoteJudge", Judge)
    asked = replace(prompt("p0", label="x"), candidates=())

    found = one_file(
        tmp_path,
        [said("a", 0.5), said("b", 0.5)],
        "rewards={correctness: judge, judge: {url: 'https://judge', requests_at_once: 2}}",
        of=asked,
    )

    assert found[OVERALL].accuracy == 1.0


def test_a_row_holds_the_probability_of_the_answers_tokens_and_none_where_there_is_no_answer(tmp_path: Path) -> None:
    without = "<think>it smiles</think><answer>a</answer>"

    one_file(tmp_path, [said("a", 0.5), without])
    strict = [row.answer_probability for row in read_predictions(tmp_path / "predictions.jsonl")]
    one_file(tmp_path, [said("a", 0.5), without], require_confidence=False)
    lenient = [row.answer_probability for row in read_predictions(tmp_path / "predictions.jsonl")]

    assert strict == [pytest.approx(math.exp(-0.5)), None]
    assert lenient == [pytest.approx(math.exp(-0.5))] * 2


def test_baselines_stand_beside_the_metrics_and_are_read_back(tmp_path: Path) -> None:
    pool = FakePool({name: [said("a", 0.75), said("b", 0.25)] for name in ("p0", "p1")})

    found = evaluated(pool, recipe(), {"": ([judged("p0"), judged("p1")], tmp_path)})[""]

    beside = read_baselines(tmp_path)
    assert list(beside) == [CONSTANT, TOKEN_PROBABILITY, ISOTONIC, TEMPERATURE]
    assert {one.accuracy for one in beside.values()} == {found[OVERALL].accuracy}
    assert beside[TOKEN_PROBABILITY].mean_confidence == pytest.approx(0.61)


def test_an_evaluation_from_before_there_were_baselines_has_none(tmp_path: Path) -> None:
    assert read_baselines(tmp_path) == {}


# metrics.json


def test_the_metrics_of_an_evaluation_are_read_back(tmp_path: Path) -> None:
    found = one_file(tmp_path, [said("a", 0.75), "no tags"])

    assert read_metrics(tmp_path / "metrics.json") == found
    assert list(found) == ["emoji", OVERALL]


NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10**9)
SIZES = dict.fromkeys(("n", "n_confident", "n_counted", "unscored"), COUNT)
OTHERS = {found.name: NUMBER for found in fields(Metrics) if found.name not in SIZES}


@settings(max_examples=30, deadline=None)  # of many numbers each
@given(st.dictionaries(st.text(), st.builds(Metrics, **SIZES, **OTHERS), max_size=3))
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, Metrics]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.json"

    write_metrics(path, metrics)

    assert read_metrics(path) == metrics


def test_what_is_undefined_is_null_for_other_readers(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", {"emoji": Metrics(n=3, n_confident=0, n_counted=0, accuracy=0.5)})

    read = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["emoji"]
    assert read.keys() == {found.name for found in fields(Metrics)}
    assert {name: value for name, value in read.items() if value is not None} == {
        "n": 3,
        "n_confident": 0,
        "n_counted": 0,
        "unscored": 0,
        "accuracy": 0.5,
    }


def test_metrics_written_before_there_were_others_are_read_with_those_undefined(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"overall": {"n": 3, "n_confident": 3, "n_counted": 0, "accuracy": 0.5, "ece": 0.1}}')

    assert read_metrics(path) == {OVERALL: Metrics(n=3, n_confident=3, n_counted=0, accuracy=0.5, ece=0.1)}


def test_a_number_that_json_has_no_word_for_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    path, good = tmp_path / "metrics.json", Metrics(n=1, n_confident=0, n_counted=0)
    write_metrics(path, {"emoji": good})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(path, {"emoji": Metrics(n=1, n_confident=1, n_counted=0, brier=math.nan)})

    assert read_metrics(path) == {"emoji": good}


# The table

FULL = Metrics(
    n=2000,
    n_confident=1999,
    n_counted=2000,
    accuracy=0.111,
    best_accuracy=0.222,
    majority_accuracy=0.262,
    balanced_accuracy=0.333,
    weighted_f1=0.444,
    ece=0.0555,
    ece_noise_floor=0.0066,
    ece_mass=0.777,
    ece_debiased=0.0171,
    smooth_ece=0.0181,
    reliability=0.191,
    resolution=0.212,
    aurc=0.232,
    excess_aurc=0.242,
    coverage_at_risk_10=0.252,
    brier=0.888,
    best_brier=0.999,
    excess_brier=0.101,
    log_loss=4.605,
    auroc=0.121,
    majority_auroc=0.272,
    malformed=0.131,
    mean_confidence=0.141,
    distinct_confidences=15,
    confidence_share_rank_correlation=-0.161,
)
BARE = Metrics(n=7, n_confident=0, n_counted=0)
LAST_OF_HEADERS = ("accuracy", "best acc.", "ECE mass", "best Brier", "AUROC", "exc. AURC", "rank corr.")


def test_each_number_stands_in_the_column_of_its_name() -> None:
    row = metrics_table([("stage3", FULL)]).splitlines()[2]

    shown = "0.111 0.222 0.262 0.333 0.444 5.5 ±0.7 77.7 1.7 1.8 0.888 0.999 0.101 0.191 0.212 4.605 0.121 0.272 0.232 "
    shown += "0.242 0.252 0.131 0.141 15 -0.161 2000"
    assert row.split() == ["stage3", *shown.split()]


def test_rows_are_aligned_whatever_their_names_and_numbers() -> None:
    names = ["s", "stage 3, a file with a rather long name", "[b]x[/b]"]

    header, _, *rows = metrics_table(list(zip(names, [BARE, FULL, BARE], strict=True))).splitlines()[:5]

    starts = {row.index(name) for row, name in zip(rows, names, strict=True)}
    assert len(starts) == 1
    assert {len(row) for row in rows} == {len(header)}
    for column in LAST_OF_HEADERS:
        end = header.index(column) + len(column)
        assert {row[end] for row in rows} == {" "}
        assert " " not in {row[end - 1] for row in rows}


def test_the_table_is_not_folded_to_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = metrics_table([("stage3", FULL)])
    monkeypatch.setenv("COLUMNS", "40")

    assert metrics_table([("stage3", FULL)]) == wide
    assert "…" not in wide


def test_the_legend_stands_under_the_table() -> None:
    assert metrics_table([("stage3", FULL)]).endswith("\n" + LEGEND)
