"""What a reward worker does, in this process: the Ray actor adds nothing to it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from cluster.reward_actor import RewardWorker
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.codec import decode_group, encode_group
from rollout.prompts import Prompt
from rollout.rollout_file import HEADER, RolloutWriter, read_rollouts
from rollout.scorer_process import UnusableScorer
from rollout.trajectory import Group
from tests.unit.full_disk import files_of_at_most
from tests.unit.groups import same
from tests.unit.test_scored import PROMPT, group, sample, saying, tokenizer

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    return str(folder)


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe(DEMO, ["response.reasoning_elements=[element]", *overrides])


def started(model: str, recipe: Recipe, file: Path) -> RewardWorker:
    worker = RewardWorker(model, recipe, str(file))
    worker.start()
    return worker


def test_a_group_is_scored_recorded_and_written_as_it_is_handed_on(model: str, tmp_path: Path) -> None:
    worker = started(model, recipe_with(), tmp_path / "r")

    record, encoded = worker.score(encode_group(group(saying("positive"), sample("no form"))), PROMPT)

    (written,) = read_rollouts(tmp_path / "r")  # though the file is still open
    worker.close()
    assert same(written, decode_group(encoded))
    assert [s.correct for s in record.samples] == [1.0, None]
    assert [t.score is not None for t in written.trajectories] == [True, True]


def test_a_scorer_of_the_users_costs_the_response_it_fails_on(model: str, tmp_path: Path) -> None:
    recipe = recipe_with("rewards.correctness=tests.unit.user_scorers:Moody")
    worker = started(model, recipe, tmp_path / "r")
    free = replace(PROMPT, candidates=())

    record, _ = worker.score(encode_group(group(*map(saying, ("be good", "exit", "raise", "be good")))), free)
    worker.close()

    assert [s.correct for s in record.samples] == [1.0, None, None, 1.0]
    assert [(s.failure or "").partition(":")[0] for s in record.samples] == ["", "ScorerError", "ScorerError", ""]


def test_a_full_disk_costs_a_group_its_place_in_the_file_and_nothing_else(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = started(model, recipe_with(), tmp_path / "r")
    groups = [encode_group(replace(group(saying("positive")), group_id=number)) for number in range(3)]

    first, _ = worker.score(groups[0], PROMPT)
    with files_of_at_most((tmp_path / "r").stat().st_size + 20):
        second, scored = worker.score(groups[1], PROMPT)
    third, _ = worker.score(groups[2], PROMPT)
    worker.close()

    assert [first.written, second.written, third.written] == [True, False, True]
    assert decode_group(scored).trajectories[0].score is not None
    assert [one.group_id for one in read_rollouts(tmp_path / "r")] == [0, 2]
    assert "GROUP 1 IS NOT WRITTEN" in caplog.text


def test_a_worker_that_starts_on_a_full_disk_scores_and_writes_when_there_is_room(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [encode_group(replace(group(saying("positive")), group_id=number)) for number in range(3)]

    with files_of_at_most(len(HEADER) - 1):
        worker = started(model, recipe_with(), tmp_path / "r")
        records = [worker.score(groups[0], PROMPT)[0]]
    records += [worker.score(one, PROMPT)[0] for one in groups[1:]]
    worker.close()

    assert [record.written for record in records] == [False, True, True]
    assert [one.group_id for one in read_rollouts(tmp_path / "r")] == [1, 2]


def test_a_file_that_a_killed_worker_left_with_half_a_group_is_gone_on_with(model: str, tmp_path: Path) -> None:
    encoded = [encode_group(replace(group(saying("positive")), group_id=number)) for number in range(3)]
    worker = started(model, recipe_with(), tmp_path / "r")
    for one in encoded[:2]:
        worker.score(one, PROMPT)
    worker.close()
    (tmp_path / "r").write_bytes((tmp_path / "r").read_bytes()[:-7])

    worker = started(model, recipe_with(), tmp_path / "r")
    worker.score(encoded[2], PROMPT)
    worker.close()

    assert [one.group_id for one in read_rollouts(tmp_path / "r")] == [0, 2]


def test_a_scorer_that_cannot_be_made_fails_the_start_and_not_the_making(model: str, tmp_path: Path) -> None:
    worker = RewardWorker(model, recipe_with("rewards.correctness=no.module:Scorer"), str(tmp_path / "r"))

    with pytest.raises(UnusableScorer, match=r"rewards.correctness: the scorer no.module:Scorer cannot be made"):
        worker.start()


def test_groups_that_are_scored_at_once_are_written_one_after_the_other(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = started(model, recipe_with(), tmp_path / "r")
    everyone, busy = threading.Barrier(8), threading.Lock()
    score, append = worker._scorer.score, RolloutWriter.append_encoded

    def together(group: Group, prompt: Prompt) -> Group:
        everyone.wait(60)
        return score(group, prompt)

    def alone(writer: RolloutWriter, encoded: bytes) -> None:
        assert busy.acquire(blocking=False), "another one is being written"
        try:
            time.sleep(0.01)
            append(writer, encoded)
        finally:
            busy.release()

    monkeypatch.setattr(worker._scorer, "score", together)
    monkeypatch.setattr(RolloutWriter, "append_encoded", alone)
    groups = [replace(group(saying("positive")), group_id=number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        records = list(threads.map(lambda one: worker.score(encode_group(one), PROMPT)[0], groups))
    worker.close()

    assert [record.group_id for record in records] == list(range(8))
    assert sorted(one.group_id for one in read_rollouts(tmp_path / "r")) == list(range(8))
