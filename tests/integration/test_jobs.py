"""All three stages with the real Ray, vLLM and DeepSpeed: two rollout workers, two ranks under ZeRO-3."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from cluster.checkpoints import CheckpointFolder
from cluster.cli import main
from cluster.metrics_files import read_metrics
from cluster.pipeline import run_pipeline
from cluster.run_folder import RunFolder
from cluster.sampling import RolloutWorkers
from cluster.stages import read_file, run_rl, run_sft
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.rollout_file import read_rollouts
from rollout.trajectory import Group
from tests.integration.plain_loop import PlainLoop
from tests.integration.prometheus import HAVE_PROMETHEUS, Prometheus, dashboard, needs_prometheus, started_prometheus

# What the dashboard shows of adaptive limits, which the recipe has off; of failures; of SFT, which is over too soon
# here; and of what only some steps have: they are shorter than the seconds from one look of Prometheus's to the next.
NOT_IN_THIS_RUN = {
    *("engine_groups_at_most", "engine_waiting", "engine_kv_use", "engine_preempted"),
    *("unscored_by_cause", "malformed_by_cause"),
    *("evaluation_loss", "seconds", "tokens_per_second"),
    *("parity", "finished_late_accuracy", "finished_late_confidence"),
}

TINY = Path(__file__).parent / "tiny.yaml"
SCRAPE_SECONDS = 2  # a scrape that takes longer is given up: two engines' histograms, from cores that are training

# The first test to ask for it runs the whole pipeline; on a busy machine its processes take minutes to start.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def prometheus(
    frequent_exports: None, own_ray: None, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus | None]:
    """Watches the pipeline, where there is one."""
    if not HAVE_PROMETHEUS:
        yield None
        return
    discovery = ray_folder / "ray" / "prom_metrics_service_discovery.json"
    with started_prometheus(discovery, tmp_path_factory.mktemp("prometheus"), SCRAPE_SECONDS) as server:
        yield server


@pytest.fixture(scope="module")
def finished(prometheus: Prometheus | None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, str]:
    """The recipe of a pipeline that ran, and the table it ended in."""
    folder = tmp_path_factory.mktemp("run")
    # Two workers with a group each take two rounds for a batch, so that updates meet running groups.
    settings = ["rl.steps=20", "rl.groups_per_worker=1"]
    recipe = load_recipe(TINY, [f"output={folder}/out", f"data.root={folder}/data", *settings])
    return recipe, run_pipeline(recipe)


@pytest.fixture(scope="module", autouse=True)
def group_lines(finished: tuple[Recipe, str], ray_folder: Path) -> list[tuple[str, str]]:
    """Step and prompt of each line on a group, read before the runs of other tests write to the same logs."""
    logs = ray_folder.glob("ray/session_2*/logs/worker-*.out")
    written = [re.match(r"step (\d+), (.+) \(.+\): .+ = [+-]\d", line) for log in logs for line in log.open()]
    return [(found[1], found[2]) for found in written if found is not None]


def test_the_supervised_stages_learn_their_rows(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished

    for number in (1, 2):
        losses = [line["loss"] for line in _log(recipe, number)]
        assert losses[-1] < losses[0] / 2


@needs_prometheus
def test_the_dashboard_shows_a_run(
    finished: tuple[Recipe, str], prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _reinforced(finished, tmp_path_factory, "rl.steps=90")  # a minute: numbers take some seconds to Prometheus

    over_the_run = {query: prometheus.values(f"max_over_time(({query})[30m:1s])") for query in dashboard()}

    without = {query for query, values in over_the_run.items() if not any(map(math.isfinite, values))}
    missing = {name for query in without for name in re.findall(r"ray_caliber_(\w+)", query)}
    assert sorted(missing - NOT_IN_THIS_RUN) == []


def test_engine_and_learner_agree_on_log_probabilities_under_the_same_weights(
    finished: tuple[Recipe, str],
) -> None:
    recipe, _ = finished

    first = _log(recipe, 3)[0]

    assert first["lag_max"] == 0
    assert first["mismatch"] < 1e-3  # nats, fp32 on both sides
    assert first["parity"] == pytest.approx(first["mismatch"], rel=1e-6)  # every token is of the learner's own weights


def test_engine_and_learner_agree_on_the_probe_at_later_weights_too(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    first, *later = [line["probe"] for line in _log(recipe, 3)]

    seen = [apart for apart in later if apart is not None]

    assert first is None  # the step it was chosen in
    assert len(seen) > len(later) / 2
    assert max(seen) < 1e-3  # nats, fp32 on both sides


def test_every_step_trains_once_on_fresh_enough_groups(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    state = _last_state(recipe)
    lines = _log(recipe, 3)

    assert [line["step"] for line in lines] == list(range(1, recipe.rl.steps + 1))
    assert max(line["lag_max"] for line in lines) <= recipe.rl.max_policy_lag
    assert state["ledger"]["admitted"] == recipe.rl.steps * recipe.rl.prompts_per_step
    assert state["ledger"]["outstanding"] == []
    assert state["ledger"]["dropped"] == []


def test_weights_change_while_responses_are_generated(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    groups = _groups(recipe)
    versions = {span.version for group in groups for t in group.trajectories for span in t.sample.version_spans}

    assert max(line["in_flight_at_update"] for line in _log(recipe, 3)) > 0
    assert versions >= set(range(recipe.rl.steps - 1))
    assert {group.worker for group in groups} == {"rollout-0", "rollout-1"}


def test_the_saved_groups_hold_what_was_trained_on(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    groups = _groups(recipe)
    lines = _log(recipe, 3)

    formats = [t.score.parts["format"] for group in groups for t in group.trajectories if t.score is not None]

    assert sorted(group.group_id for group in groups) == list(range(recipe.rl.steps * recipe.rl.prompts_per_step))
    assert np.mean(formats) == pytest.approx(np.mean([line["part/format"] for line in lines]))
    assert np.mean(formats) > 0  # a model that never gets the form right would leave the rest untested


def test_learner_0_writes_a_line_of_a_group_of_every_step(
    finished: tuple[Recipe, str], group_lines: list[tuple[str, str]]
) -> None:
    recipe, _ = finished
    prompts = {prompt.prompt_id for prompt in read_file(recipe, recipe.data.stage3)}

    assert {int(step) for step, _ in group_lines} == set(range(1, recipe.rl.steps + 1))
    assert {prompt_id for _, prompt_id in group_lines} <= prompts


def test_the_last_model_is_an_ordinary_directory_and_has_moved(finished: tuple[Recipe, str]) -> None:
    recipe, _ = finished
    run = RunFolder.of(recipe)

    before = AutoModelForImageTextToText.from_pretrained(run.stage(2).model).state_dict()
    after = AutoModelForImageTextToText.from_pretrained(run.stage(3).model).state_dict()

    assert AutoProcessor.from_pretrained(run.stage(3).model).chat_template
    assert before.keys() == after.keys()
    assert any(not before[name].equal(after[name]) for name in before)


def test_without_lag_it_is_a_plain_synchronous_loop(
    finished: tuple[Recipe, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, start = _reinforced(
        finished, tmp_path_factory, "rl.max_policy_lag=0", "rl.steps=5", "rewards.confidence_gradient=sampled"
    )
    groups = sorted(_groups(recipe), key=lambda group: group.group_id)
    size = recipe.rl.prompts_per_step
    prompts = {prompt.prompt_id: prompt for prompt in read_file(recipe, recipe.data.stage3)}
    loop = PlainLoop(recipe, str(start), prompts)
    plain = loop.run([groups[step * size : (step + 1) * size] for step in range(recipe.rl.steps)])

    assert max(plain.differences) < 1e-3  # each step's responses are of the loop's own policy at that step
    assert [line["loss"] for line in _log(recipe, 3)] == pytest.approx(plain.losses, rel=1e-3, abs=1e-6)
    trained, before = _weights(RunFolder.of(recipe).stage(3).model), _weights(start)
    for name, weights in plain.weights.items():
        # By norm: where a weight's gradient is all but 0, Adam makes a whole step of the rounding error it has.
        moved = np.linalg.norm(trained[name] - before[name])
        assert np.linalg.norm(trained[name] - weights.numpy()) <= 0.01 * moved, name


@pytest.mark.parametrize("transfer", ["deltas", "adapters"])
def test_adapters_are_trained_and_reach_the_engine_merged_and_as_deltas_or_alone(
    finished: tuple[Recipe, str], tmp_path_factory: pytest.TempPathFactory, transfer: str
) -> None:
    recipe, start = _reinforced(
        finished,
        tmp_path_factory,
        "rl.max_policy_lag=0",
        "rl.steps=3",
        "rl.optimizer.learning_rate=0.02",
        "learner.lora={rank: 4, targets: [q_proj]}",
        f"transfer.{transfer}=true",
    )
    lines = _log(recipe, 3)
    trained, before = _weights(RunFolder.of(recipe).stage(3).model), _weights(start)

    # At lag 0 the engine holds the learner's weights: they agree after updates only if what was sent had the adapters.
    assert [line["lag_max"] for line in lines] == [0, 0, 0]
    assert max(line["mismatch"] for line in lines) < 1e-3
    assert max(line["probe"] for line in lines[1:]) < 1e-3  # at lag 0 the engine has time to answer
    assert lines[0]["reference_kl"] == pytest.approx(0, abs=1e-6)
    assert lines[2]["reference_kl"] > 1e-5
    whole = sum(weights.nbytes for weights in before.values()) / 1e6
    sent = lines[2]["update_megabytes"]  # at the second update: of what the first changed
    assert 0 < sent < whole / 4
    if transfer == "adapters":
        assert sent == pytest.approx(4 * 2 * 4 * (64 + 64) / 1e6)  # fp32, two layers of rank 4 on width 64
    moved = {name for name in before if not np.array_equal(before[name], trained[name])}
    assert moved == {name for name in before if "language_model" in name and name.endswith("q_proj.weight")}


def test_weights_that_are_broadcast_past_the_object_store_are_the_learners(
    finished: tuple[Recipe, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, start = _reinforced(finished, tmp_path_factory, "rl.steps=4", "transfer.through=nccl")  # gloo in its place
    lines = _log(recipe, 3)
    whole = sum(weights.nbytes for weights in _weights(start).values()) / 1e6

    assert max(span.version for group in _groups(recipe) for t in group.trajectories for span in t.sample.version_spans)
    assert all(line["parity"] < 1e-3 for line in lines if line["parity"] is not None)
    assert lines[-1]["update_megabytes"] == pytest.approx(whole, rel=0.2)  # tied weights are sent once
    assert lines[-1]["worker_restarts"] == 0


def test_a_batch_in_two_optimizer_steps_is_one_weight_version(
    finished: tuple[Recipe, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, start = _reinforced(
        finished, tmp_path_factory, "rl.steps=2", "rl.minibatches=2", "rl.correction=decoupled_ppo"
    )
    lines = _log(recipe, 3)
    trained, before = _weights(RunFolder.of(recipe).stage(3).model), _weights(start)

    assert [line["step"] for line in lines] == [1, 2]
    assert _last_state(recipe)["version"] == 2
    # The second half of a batch meets weights that its first half has moved; the parity is the first half's alone.
    assert lines[0]["mismatch"] > 2 * lines[0]["parity"]
    assert lines[0]["parity"] < 1e-3
    assert any(not np.array_equal(before[name], trained[name]) for name in before)


def test_a_second_run_does_nothing_again_and_ends_in_the_same_table(finished: tuple[Recipe, str]) -> None:
    recipe, table = finished
    marks = {path: path.stat().st_mtime_ns for path in RunFolder.of(recipe).path.rglob("*.safetensors")}

    again = run_pipeline(recipe)

    assert again == table
    assert marks == {path: path.stat().st_mtime_ns for path in RunFolder.of(recipe).path.rglob("*.safetensors")}


def test_a_model_is_evaluated_by_the_command_line(finished: tuple[Recipe, str], tmp_path: Path) -> None:
    recipe, _ = finished
    model, data = RunFolder.of(recipe).stage(2).model, Path(recipe.data.root) / "seen.jsonl"
    settings = [f"output={recipe.output}", f"data.root={recipe.data.root}", "engine.workers=1"]

    code = main(["eval", str(model), str(data), str(TINY), *settings, "--out", str(tmp_path)])

    rows = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert code == 0
    assert len(rows) == recipe.evaluation.samples_per_prompt * len(data.read_text(encoding="utf-8").splitlines())
    assert read_metrics(tmp_path / "metrics.json")["overall"].n == recipe.evaluation.annotator_draws * len(rows)


@pytest.mark.parametrize(
    "words", ["status {0}", "rescore {0} calibration=0.5", "score {0}/stage3/{1} --elements element"]
)
def test_what_is_left_of_a_run_can_be_looked_at_by_the_command_line(finished: tuple[Recipe, str], words: str) -> None:
    recipe, _ = finished

    code = main(words.format(recipe.output, "evaluation/seen/predictions.jsonl").split())

    assert code == 0


def test_supervised_training_goes_on_from_its_checkpoint_to_the_same_weights(
    finished: tuple[Recipe, str],
) -> None:
    recipe, _ = finished
    folder = RunFolder.of(recipe).stage(1)
    newest = CheckpointFolder(folder.checkpoints, 2).newest_first()[0]
    assert newest.name.endswith(str(recipe.stage1.steps))
    whole = _weights(folder.model)
    shutil.rmtree(newest)  # as if the job had died before the last checkpoint was whole

    prompts = read_file(recipe, recipe.data.stage1, need_response=True, require_reference=False)
    base = str(RunFolder.of(recipe).starting_model)
    asyncio.run(run_sft(recipe, 1, recipe.stage1, base, prompts))

    resumed = _weights(folder.model)
    assert all(np.allclose(whole[name], resumed[name], atol=1e-5) for name in whole)


def _reinforced(finished: tuple[Recipe, str], folders: pytest.TempPathFactory, *overrides: str) -> tuple[Recipe, Path]:
    """Stage 3 again under other settings, and the folder of the model it started from."""
    given, _ = finished
    start = RunFolder.of(given).stage(2).model
    recipe = load_recipe(TINY, [f"output={folders.mktemp('again')}", f"data.root={given.data.root}", *overrides])

    async def job() -> None:
        async with RolloutWorkers(recipe) as workers:
            await run_rl(recipe, str(start), await workers.holding(str(start), to_train=True))

    asyncio.run(job())
    return recipe, start


def _weights(folder: Path) -> dict[str, Any]:
    state = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def _log(recipe: Recipe, number: int) -> list[dict[str, Any]]:
    path = RunFolder.of(recipe).stage(number).path / "log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _last_state(recipe: Recipe) -> dict[str, Any]:
    checkpoints = CheckpointFolder(RunFolder.of(recipe).stage(3).checkpoints, 2)
    return checkpoints.read(checkpoints.newest_first()[0]).state


def _groups(recipe: Recipe) -> list[Group]:
    files = sorted(RunFolder.of(recipe).stage(3).rollouts.glob("*.rollouts"))
    return [group for file in files for group in read_rollouts(file)]
