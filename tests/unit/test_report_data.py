"""What is read of a run to be shown: rows, totals, filters, and the mix over time."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import tostring

import pytest

from cluster.interval_tables import shown_range
from cluster.report.filters import Filter
from cluster.report.mixes import Mixes
from cluster.report.responses import ResponseRow
from cluster.report.run_data import RunData, read_run
from cluster.report.sections import evaluation_section
from cluster.report.stage_table import stage_table
from cluster.report.suspects import with_suspects
from cluster.run_folder import RunFolder
from configs.load import load_recipe, write_resolved
from configs.schema import RewardWeights
from rewards.bootstrap import intervals
from rewards.matching import sameness
from tests.unit.report_run import CHANGED_AT, EVIL, made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(made_run(tmp_path_factory.mktemp("read")))


def test_every_sampled_response_is_a_row(run: RunData) -> None:
    assert len(run.rollouts) == 6 + 39 * 4
    assert [one.title for one in run.evaluations] == ["stage 1, seen", "stage 2, seen", "stage 3, seen"]
    assert len(run.rows) == len(run.rollouts) + 3 * 40


def test_the_spans_are_those_of_answer_and_confidence(run: RunData) -> None:
    for row in run.rows:
        if row.answer_span is not None:
            assert row.text[slice(*row.answer_span)] == row.answer
        if row.confidence_span is not None:
            assert float(row.text[slice(*row.confidence_span)]) == row.confidence
    assert sum(row.answer_span is None for row in run.rollouts) == 1  # the malformed one


def test_a_total_is_that_of_the_shared_mix_under_the_weights_of_the_step_it_can_first_have_met(run: RunData) -> None:
    for row in run.rollouts:
        assert row.worth is not None
        newest = max(span.version for span in row.versions)
        calibration = 0.5 if newest + 1 >= CHANGED_AT else 1.0
        parts = row.worth.parts
        expected = parts["correctness"] + calibration * parts["calibration"] + 4 * parts["format"]
        assert row.worth.total == pytest.approx(expected)


def test_each_filter_keeps_what_it_says(run: RunData) -> None:
    first = run.rollouts[:6]

    kept = {one: [place for place, row in enumerate(first) if one.keeps(row)] for one in Filter}

    assert kept == {
        Filter.CONFIDENT_WRONG: [0],
        Filter.DOUBTFUL_RIGHT: [1],
        Filter.MALFORMED: [2],
        Filter.SABOTAGE: [3],
    }


def test_beside_a_suspect_stands_what_its_groups_most_frequent_answer_earned(run: RunData) -> None:
    suspect = run.rollouts[3]

    joys = [row.worth.total for row in run.rollouts[:6] if row.answer == "joy" and row.worth is not None]
    assert len(joys) == 3
    assert suspect.majority_total == pytest.approx(sum(joys) / 3)


def test_confident_begins_at_0_8_and_doubtful_ends_at_0_2(run: RunData) -> None:
    wrong, right = ([replace(run.rollouts[i], confidence=c) for c in (0.2, 0.21, 0.79, 0.8)] for i in (0, 1))

    assert [Filter.CONFIDENT_WRONG.keeps(row) for row in wrong] == [False, False, False, True]
    assert [Filter.DOUBTFUL_RIGHT.keeps(row) for row in right] == [True, False, False, False]
    assert not any(Filter.CONFIDENT_WRONG.keeps(row) for row in right)


def test_a_lone_answer_that_is_sure_of_itself_is_no_suspect(run: RunData) -> None:
    sure = [replace(row, suspect=False, confidence=0.9) for row in run.rollouts[:6]]

    assert [row.suspect for row in with_suspects(sure)] == [False] * 6


def test_answers_that_count_as_one_are_no_suspects_of_each_other(run: RunData) -> None:
    halves = [replace(run.rollouts[0], suspect=False, confidence=0.05, answer=half) for half in ("0.5", "0.5", "1/2")]

    assert [row.suspect for row in with_suspects(halves)] == [False, False, True]
    assert [row.suspect for row in with_suspects(halves, sameness("numeric"))] == [False] * 3


def test_the_share_of_suspects_is_the_logs_sabotage(run: RunData) -> None:
    from cluster.records import record_of
    from cluster.saved_groups import saved_groups
    from cluster.step_metrics import batch_metrics

    records = [record_of(group) for group in saved_groups(run.path / "stage3" / "rollouts")]

    logged = batch_metrics(records, 10, run.recipe.rewards.weights, run.recipe.rewards)["sabotage"]

    assert logged == sum(row.suspect for row in run.rollouts) / sum(row.answer is not None for row in run.rollouts)


def test_an_evaluations_rows_are_right_where_its_metrics_say_so(run: RunData) -> None:
    for one in run.evaluations:
        assert one.metrics.accuracy == pytest.approx(sum(row.right for row in one.rows) / len(one.rows))


def with_scorer(folder: Path, scorer: str) -> Path:
    made = RunFolder(made_run(folder, groups=4))
    write_resolved(load_recipe(made.recipe, [f"rewards.correctness={scorer}"]), made.recipe)
    return made.path


def test_a_scorer_of_the_recipes_own_is_asked_again(tmp_path: Path) -> None:
    found = read_run(with_scorer(tmp_path, "tests.unit.user_scorers:Echo"))

    for one in found.evaluations:
        assert (one.unjudged, {row.correct for row in one.rows}) == (None, {0.0, 1.0})


def test_a_response_that_a_scorer_fails_on_is_unjudged_and_the_rows_behind_it_keep_their_verdicts(
    tmp_path: Path,
) -> None:
    found = read_run(with_scorer(tmp_path, "tests.unit.user_scorers:NotOnFear"))

    for one in found.evaluations:
        assert {(row.answer, row.correct) for row in one.rows} == {("joy", 1.0), ("fear", None), ("calm", 0.0)}


def test_how_many_responses_an_evaluation_has_no_verdict_on_stands_by_its_numbers(run: RunData) -> None:
    first, *others = run.evaluations
    counted = replace(run, evaluations=[replace(first, metrics=replace(first.metrics, unscored=3)), *others])

    note = "".join(text for part in evaluation_section(counted) for text in part.itertext())

    assert f"{first.title}: responses that rewards.correctness failed on (see the log), in no number here: 3." in note
    assert note.count("no number here") == 1


def test_a_scorer_that_cannot_be_imported_costs_its_verdicts_alone_and_the_remedy_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = with_scorer(tmp_path, "no.such.module:Scorer")

    with caplog.at_level(logging.WARNING):
        found = read_run(run)

    assert len(found.rows) == 18 + 3 * 40
    assert all(row.correct is None and row.answer is not None for one in found.evaluations for row in one.rows)
    assert any(row.right for row in found.rollouts)
    (told,) = caplog.messages
    assert "No module named 'no'" in told
    assert told.endswith("in the folder that has the scorer's module, or put that folder on PYTHONPATH.")
    note = "".join(text for part in evaluation_section(found) for text in part.itertext())
    assert "no diagrams and no intervals: the scorer no.such.module:Scorer says what is right, and could not" in note


def test_a_change_of_the_mix_is_found_in_the_log(run: RunData) -> None:
    (change,) = run.mixes.changes

    assert (change.step, change.shown) == (CHANGED_AT, "calibration 1 → 0.5")


def test_steps_that_are_to_come_have_the_weights_that_were_asked_for() -> None:
    asked = RewardWeights(correctness=1, calibration=0.25, format=1)

    assert Mixes([], asked).at(3) == asked


def test_mixes_are_told_by_their_steps_the_next_one_among_them() -> None:
    first, second, asked = (RewardWeights(correctness=1, calibration=c, format=1) for c in (1, 0.5, 0.25))
    log = [
        {"step": float(step), **{f"weight/{name}": weight for name, weight in mix.model_dump().items()}}
        for step, mix in enumerate((first, first, second), start=1)
    ]

    mixes = Mixes(log, asked)

    assert [(span.shown, span.weights) for span in mixes.spans(5)] == [
        ("steps 1 to 2", first),
        ("step 3", second),
        ("from step 4 on", asked),
    ]
    assert [span.shown for span in mixes.spans(3)] == ["steps 1 to 2", "from step 3 on"]  # no step is left for it
    assert [span.shown for span in Mixes([], asked).spans(5)] == ["from step 1 on"]


def test_prompts_that_are_gone_cost_their_text_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = made_run(tmp_path)
    shutil.rmtree(tmp_path / "data")

    with caplog.at_level(logging.WARNING):
        found = read_run(made)

    assert (len(found.rollouts), found.prompts) == (6 + 39 * 4, {})
    assert "prompts are shown by their ids alone" in caplog.text


def test_prompts_are_read_under_the_names_that_the_recipe_has_for_their_columns(tmp_path: Path) -> None:
    made = RunFolder(made_run(tmp_path))
    for file in (tmp_path / "data").glob("*.jsonl"):
        file.write_text(file.read_text().replace('"images"', '"pictures"'))
    write_resolved(load_recipe(made.recipe, ["data.columns={images: pictures}"]), made.recipe)

    found = read_run(made.path)

    assert len(found.prompts) == 2 * 10
    assert all(prompt.images for prompt in found.prompts.values())


def test_calibration_errors_are_over_the_bins_of_the_recipe(tmp_path: Path) -> None:
    made = RunFolder(made_run(tmp_path))
    write_resolved(load_recipe(made.recipe, ["evaluation.bins=1"]), made.recipe)

    (_, _, last) = read_run(made.path).evaluations

    assert last.outcomes is not None
    of_1, of_10 = (shown_range("ece", intervals(last.outcomes, bins=bins)["ece"]) for bins in (1, 10))
    table = tostring(stage_table([last]), encoding="unicode")
    assert of_1 in table
    assert of_10 not in table


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no run's folder: it has no recipe\.yaml"):
        read_run(tmp_path)


def test_what_a_model_wrote_is_read_as_it_is(run: RunData) -> None:
    row: ResponseRow = run.rollouts[0]

    assert EVIL in row.text
    assert row.answer == "fear"
