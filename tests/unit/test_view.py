"""The viewer: panels in a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.report.filters import Filter
from cluster.report.run_data import RunData, read_run
from cluster.report.view import PLAIN_COLUMNS, chosen, show
from tests.unit.report_run import QUESTION, SEEN_QUESTION, made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(made_run(tmp_path_factory.mktemp("view")))


def shown(
    run: RunData,
    *filters: Filter,
    source: str | None = None,
    search: str | None = None,
    limit: int = 1000,
    terminal: bool = False,
) -> str:
    page = io.StringIO()
    console = Console(file=page, force_terminal=terminal, width=100, color_system=None)
    show(chosen(run.rows, run.prompts, filters, source, search), run.prompts, limit, console)
    return page.getvalue()


def test_elsewhere_each_response_is_one_line_of_the_same_fields(run: RunData) -> None:
    header, *lines = shown(run).splitlines()

    assert tuple(header.split("\t")) == PLAIN_COLUMNS
    assert len(lines) == len(run.rows)
    assert {len(line.split("\t")) for line in lines} == {len(PLAIN_COLUMNS)}


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (Filter.CONFIDENT_WRONG, "wrong"),
        (Filter.DOUBTFUL_RIGHT, "right"),
        (Filter.MALFORMED, "missing_tag"),
        (Filter.SABOTAGE, "wrong"),
    ],
)
def test_a_filter_keeps_the_responses_that_the_page_has_under_it(run: RunData, one: Filter, verdict: str) -> None:
    _, *lines = shown(run, one, source="rollouts").splitlines()

    assert [line.split("\t")[2] for line in lines] == [verdict]


def test_two_filters_keep_what_both_do(run: RunData) -> None:
    assert len(shown(run, Filter.MALFORMED, Filter.SABOTAGE).splitlines()) == 1


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("ON PURPOSE", 1),  # in a response
        (" p7 ", 4 * 4 + 3 * 4),  # an id, in rollouts and evaluations
        ("which mood", 6 + 39 * 4),  # the question of stage 3
        (SEEN_QUESTION.upper(), 3 * 40),
    ],
)
def test_words_are_found_wherever_the_page_finds_them(run: RunData, search: str, found: int) -> None:
    assert len(shown(run, search=search).splitlines()) == 1 + found


def test_a_terminal_gets_the_question_the_sum_and_what_is_left(run: RunData) -> None:
    text = shown(run, source="rollouts", limit=1, terminal=True)

    assert "p0  wrong 0.95" in text
    assert QUESTION in text
    assert "correctness 0.000 x 1 + calibration -0.902 x 1 + format 1.000 x 4 = +3.098" in text
    assert "and 161 more: --limit shows them" in text


def test_the_question_is_that_of_the_file_that_was_evaluated(run: RunData) -> None:
    text = shown(run, source="stage 3, seen", limit=1, terminal=True)

    assert "p0  " in text
    assert (SEEN_QUESTION in text, QUESTION in text) == (True, False)


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_model_wrote_gives_a_terminal_no_orders(run: RunData, terminal: bool) -> None:
    row = replace(run.rollouts[0], text="\x1b]0;owned\x07\x1b[2J\tred\nline")
    page = io.StringIO()

    show(iter([row]), {}, 1, Console(file=page, force_terminal=terminal, width=100, color_system=None))

    assert not {"\x1b", "\x07"} & set(page.getvalue())
    assert "owned" in page.getvalue()


def test_a_response_of_several_lines_stays_on_one(run: RunData) -> None:
    page = io.StringIO()
    row = replace(run.rollouts[0], text="one\ntwo\tthree\r")

    show(iter([row]), {}, 1, Console(file=page, width=100))

    assert page.getvalue().splitlines()[1].endswith("\tone two three ")


def test_the_command_pipes_and_names_the_sources_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cluster.cli import main

    run = str(made_run(tmp_path, groups=2))

    assert main(["view", run, "--filter", "malformed", "--from", "rollouts"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["view", run, "--from", "nowhere"]) == 2
    assert "expected one of: rollouts; stage 1, seen" in capsys.readouterr().err
