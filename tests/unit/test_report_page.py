"""The report's page as text: what is in it, and what a model's text can do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.report.browser_data import browser_data, script_json
from cluster.report.mixes import Mixes
from cluster.report.page import page
from cluster.report.run_data import RunData, read_run
from cluster.report.sections import state
from cluster.run_folder import RunFolder
from configs.load import load_recipe, write_resolved
from configs.schema import Credit, RewardWeights
from tests.unit.report_run import EVIL, QUESTION, SEEN_QUESTION, made_run

TEXT, SPANS = 4, slice(9, 11)  # places in a row, as responses.js has them


class Seen(HTMLParser):
    """Tags with their attributes, and what each script holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:  # within a script or a style
            key = self.tags[-1][1].get("id") or self.cdata_elem
            self.inside[key] = self.inside.get(key, "") + data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return read_run(made_run(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def text(run: RunData) -> str:
    return page([run], 20_000)


def data_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Seen(text).inside["data"])
    return found


def test_a_response_that_closes_the_script_stays_within_it(text: str) -> None:
    seen = Seen(text)

    assert [tag for tag, _ in seen.tags if tag in ("script", "img", "iframe")] == ["script", "script"]
    assert EVIL in data_of(text)["rows"][0][TEXT]
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)


def test_the_pages_policy_allows_its_own_script_and_style_and_nothing_else(text: str) -> None:
    seen = Seen(text)
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and "http-equiv" in a)

    assert policy is not None
    for directive, inside in (("script-src", seen.inside["script"]), ("style-src", seen.inside["style"])):
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_nothing_is_fetched_from_anywhere(text: str) -> None:
    linked = [value for _, a in Seen(text).tags for name, value in a.items() if name in ("src", "href")]

    assert linked
    assert all(value is not None and value.startswith("#") for value in linked)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_spans_are_counted_as_javascript_counts(text: str) -> None:
    row = data_of(text)["rows"][0]
    utf16 = row[TEXT].encode("utf-16-le")  # a grinning face before the answer takes two of JavaScript's units

    answer, confidence = (utf16[2 * start : 2 * end].decode("utf-16-le") for start, end in row[SPANS])

    assert (answer, confidence) == ("fear", "0.95")


def test_a_picture_is_in_the_page_once_and_small(text: str) -> None:
    data = data_of(text)

    assert len(data["prompts"]) == 2 * 10  # of stage 3's file, and of the evaluation's
    assert len(data["pictures"]) == 5
    assert all(uri.startswith("data:image/webp;base64,") and len(uri) < 4000 for uri in data["pictures"])


def test_a_response_is_shown_with_the_prompt_of_its_own_file_where_another_has_the_same_id(text: str) -> None:
    data = data_of(text)

    of = {data["sources"][row[0]]: data["prompts"][row[1]] for row in reversed(data["rows"])}  # the first of each: p0
    trained, seen = of["rollouts"], of["stage 3, seen"]

    assert (trained["id"], seen["id"]) == ("p0", "p0")
    assert (trained["text"], seen["text"]) == (QUESTION, SEEN_QUESTION)
    assert (trained["reference"], seen["reference"]) == ("annotators: joy 3, fear 1, calm 0", "joy")
    assert trained["pictures"] != seen["pictures"]
    assert of["stage 2, seen"] == seen


def test_of_too_many_rollouts_whole_groups_are_taken_and_the_page_says_so(run: RunData) -> None:
    data = browser_data([("", run)], rollouts=40)

    groups = [row[2] for row in data["rows"] if data["sources"][row[0]] == "rollouts"]
    assert 30 <= len(groups) <= 40
    assert all(groups.count(group) == (6 if group == "0" else 4) for group in groups)
    assert data["notes"] == [f"{len(groups)} of 162 rollouts, in equal distances"]


@pytest.mark.parametrize("words", ["</script>", "<!--", "\u2028"])
def test_json_in_a_script_neither_ends_it_nor_changes(words: str) -> None:
    written = script_json({"text": words})

    assert "<" not in written
    assert json.loads(written) == {"text": words}


def test_changes_of_the_mix_are_marked_in_every_chart_of_training(text: str) -> None:
    assert "step 6: calibration 1 → 0.5" in text
    curves = re.findall(r'<svg [^>]*class="curves".*?</svg>', text)
    assert sum('class="change"' in one for one in curves) == len(curves) - 2  # the SFT losses have none


def with_mixes(run: RunData, recipe: RewardWeights, *trained: RewardWeights) -> RunData:
    """The run under one joint reward, had its recipe these weights and its steps those."""
    rewards = run.recipe.rewards.model_copy(update={"credit": Credit.JOINT, "weights": recipe})
    log = [
        {"step": float(step), **{f"weight/{name}": weight for name, weight in mix.model_dump().items()}}
        for step, mix in enumerate(trained, start=1)
    ]
    mixes = Mixes(log, trained[-1])
    return replace(
        run, recipe=run.recipe.model_copy(update={"rewards": rewards}), logs={**run.logs, 3: log}, mixes=mixes
    )


def warnings(run: RunData) -> list[str]:
    return ["".join(one.itertext()) for one in state(run).iterfind("p[@class='warning']")]


SAFE, UNSAFE = (RewardWeights(correctness=1, calibration=calibration, format=4) for calibration in (0.5, 2))


def test_a_mix_that_steps_were_trained_with_is_called_unsafe_under_a_recipe_that_is_safe(run: RunData) -> None:
    (warning,) = warnings(with_mixes(run, SAFE, UNSAFE, UNSAFE, SAFE))

    assert warning.startswith(
        "Unsafe reward mix, steps 1 to 2 (correctness 1, calibration 2, format 4): Below p = 0.500 it pays"
    )


def test_a_mix_that_no_step_was_trained_with_is_not_called_unsafe(run: RunData) -> None:
    assert warnings(with_mixes(run, UNSAFE, SAFE, SAFE)) == []


def test_the_mix_of_a_finished_run_is_that_of_its_last_step(run: RunData) -> None:
    asked_since = replace(run, mixes=Mixes(run.logs[3], UNSAFE))

    assert "Reward mix: correctness 1, calibration 0.5, format 4; credit" in "".join(state(asked_since).itertext())


def test_two_runs_are_compared_on_the_prompts_of_both(run: RunData, tmp_path: Path) -> None:
    other = read_run(made_run(tmp_path, prompts=8, seed=1))

    text = page([run, other], 20_000)

    assert "A: stage 3, seen against B: stage 3, seen, 8 prompts of both" in text
    assert set(data_of(text)["sources"]) >= {"A · rollouts", "B · stage 3, seen"}


def test_runs_without_a_prompt_in_common_are_said_to_have_none(run: RunData, tmp_path: Path) -> None:
    other = read_run(made_run(tmp_path, prompts=1, seed=1))

    assert "there is nothing to compare" in page([run, other], 20_000)


def test_runs_under_a_judge_are_not_compared_and_the_page_says_so(run: RunData, tmp_path: Path) -> None:
    made = RunFolder(made_run(tmp_path))
    write_resolved(
        load_recipe(made.recipe, ["rewards.correctness=judge", "rewards.judge={url: https://judge}"]), made.recipe
    )

    text = page([run, read_run(made.path)], 20_000)

    assert "On seen there is nothing to compare: in B a judge said what is right, and is not asked again." in text
    assert "The runs share no evaluation" not in text


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    made = made_run(tmp_path)
    for stage in (1, 2, 3):
        (made / f"stage{stage}").rename(made / f"gone{stage}")

    text = page([read_run(made)], 20_000)

    assert "No stage has been evaluated yet." in text
    assert "No stage has logged a step yet." in text
    assert data_of(text)["rows"] == []
