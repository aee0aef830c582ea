"""Stage 3 with its own engines and learner, for so many steps.

The emoji recipe's model, untrained: what a model has learnt makes no step longer. Or SmolLM2-135M on the rated words.
The end token is barred, so that each response is `rl.response_tokens` long, in a run and in the loops beside it. No
prompt comes twice in a run: caches save the same in both then. No KL term, so that a plain loop leaves nothing out.
Responses that are never whole are worth the same, so all gradients are 0: they take as long as others.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import ray

from benchmarks.report import silence
from benchmarks.step_times import Steps
from benchmarks.step_watch import StepWatch
from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.job_checkpoints import JobCheckpoints
from cluster.learner_actors import RlActor
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.rewarding import RewardService
from cluster.run_folder import RunFolder
from cluster.run_log import Metrics
from cluster.sampling import RolloutWorkers
from cluster.stages import connect, prepare_data, read_file
from cluster.starting_model import starting_model
from cluster.visits import Visits
from cluster.waiting import together
from configs.load import load_recipe
from configs.schema import Recipe
from rollout.chat import ImageLimits
from rollout.prompts import Prompt

_CONFIGS = Path(__file__).parents[1] / "configs"
ENGINE_CORE, LEARNER_CORE = "0", "1"  # the loops beside the system are kept on the same ones
CORES = {"engine.cores": f'["{ENGINE_CORE}"]', "learner.cores": f'["{LEARNER_CORE}"]'}
_SETTINGS: Mapping[str, object] = {
    "rl.steps": 10**9,  # the log ends a run: in the last steps of its own nothing more is generated
    "rl.checkpoint_every_steps": 10**9,
    "rl.samples_per_prompt": 6,
    "rl.response_tokens": 48,
    "rl.kl_weight": 0,
    "learner.ranks": 1,
    "learner.threads_per_rank": 1,
    "engine.threads_per_worker": 1,
    **CORES,
}


@dataclass(frozen=True, slots=True)
class Work:
    """A recipe to base runs on, and what of it is not as there; `settings` by dotted name."""

    recipe: Path
    settings: Mapping[str, object]


EMOJI = Work(
    _CONFIGS / "emoji" / "demo.yaml",
    {
        "data.emoji": "{sft_emoji: 3, stage2_emoji: 1, rl_emoji: 6, test_emoji: 1, stage1_pictures: 8, "
        "stage2_pictures: 1, stage3_pictures: 64, eval_pictures_per_emoji: 1}",  # 640 prompts for stage 3
        "rl.prompts_per_step": 10,
        "rl.groups_per_worker": 10,
        "engine.sequences_at_once": 60,
    },
)
WORDS = Work(
    _CONFIGS / "words" / "words.yaml",
    {
        "data.words": "{unseen_words: 10, stage1_words: 10, stage2_words: 10, stage3_words: 640, seen_words: 10}",
        "rl.prompts_per_step": 5,
        "rl.groups_per_worker": 5,
        "engine.sequences_at_once": 30,
        "engine.tokens_per_sequence": 128,
        "monitoring.engine_metrics": False,  # as in the other: they cost a small model's engine a part of its time
    },
)


def recipe_for(folder: Path, name: str, settings: Mapping[str, object] | None = None, work: Work = EMOJI) -> Recipe:
    """A run of its own under `folder`, over the data that all runs there share; `settings` by dotted name."""
    places = {"output": folder / name, "data.root": folder / "data"}
    wanted = {**_SETTINGS, **work.settings, **places, **(settings or {})}
    return load_recipe(work.recipe, [f"{key}={value}" for key, value in wanted.items()])


def prepared(recipe: Recipe) -> str:
    """The recipe's data and its starting model, made where they are not there; the model's directory."""
    with silence():
        prepare_data(recipe)
        model_dir = Path(starting_model(recipe))
    file = model_dir / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # Named as the end of a sound, of which this model has none: engine and learner bar such tokens.
    config["eoa_token_id"] = config.get("text_config", config)["eos_token_id"]
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return str(model_dir)


def prompts_of(recipe: Recipe) -> list[Prompt]:
    """Stage 3's, in the order of the file."""
    return read_file(recipe, recipe.data.stage3)


def visits_of(recipe: Recipe, prompts: list[Prompt], steps: int) -> Visits:
    """In the order in which a run comes to them. Raises ValueError where one would come twice in so many steps."""
    if (wanted := steps * recipe.rl.prompts_per_step) > len(prompts):
        raise ValueError(f"{wanted} groups are more than the {len(prompts)} prompts there are: measure fewer steps")
    return Visits(prompts, recipe.rewards.reference, recipe.rl.samples_per_prompt, recipe.seed)


def rollouts_of(recipe: Recipe) -> Path:
    """Where a run's groups lie."""
    return RunFolder.of(recipe).stage(3).rollouts


@contextmanager
def own_ray(folder: Path) -> Iterator[None]:
    """A cluster of this machine's, started as a job starts it, with its files in `folder`."""
    ours = {
        "RAY_TMPDIR": str(folder),
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of the visits that a run leaves behind when it has seen enough
    }
    with patch.dict(os.environ, ours):
        connect("benchmark")
        try:
            yield
        finally:
            ray.shutdown()


class _Watch(StepWatch):
    """Keeps the lines after the warm-up."""

    def __init__(self, folder: Path, recipe: Recipe, warm_up: int, steps: int) -> None:
        super().__init__(folder, recipe, warm_up + steps)
        self._warm_up = warm_up
        self.lines: list[Metrics] = []

    def seen(self, metrics: Metrics, step: int) -> None:
        if step > self._warm_up:
            self.lines.append(metrics)


async def real_run(recipe: Recipe, model_dir: str, warm_up: int, steps: int) -> Steps:
    """Stage 3 as `cluster.stages.run_rl` puts it together, ended after so many steps. Needs `own_ray`."""
    folder, prompts, limits = (
        RunFolder.of(recipe).stage(3),
        prompts_of(recipe),
        ImageLimits.of(recipe.model, recipe.data),
    )
    seconds, by_id = recipe.rl.seconds_per_wait, {prompt.prompt_id: prompt for prompt in prompts}
    async with AsyncExitStack() as cleanup:
        workers = await cleanup.enter_async_context(RolloutWorkers(recipe))
        rewards = RewardService(recipe, model_dir, folder.rollouts)
        cleanup.push_async_callback(rewards.close)
        pool, learners, _ = await together(
            workers.holding(model_dir),
            LearnerGroup.start(RlActor, recipe.learner, (model_dir, recipe, by_id, limits), seconds),
            rewards.start(),
        )
        cleanup.callback(learners.close)
        watch = cleanup.enter_context(_Watch(folder.path, recipe, warm_up, steps))
        parts = Parts(
            visits=visits_of(recipe, prompts, warm_up + steps + 2 + recipe.rl.max_policy_lag),  # two after the end
            pool=pool,
            rewards=rewards,
            learners=learners,
            checkpoints=JobCheckpoints(CheckpointFolder(folder.checkpoints, 1), learners),
            weights=LiveWeights(folder.weights, recipe.rewards),
            log=watch,
        )
        watch.controller = Controller(recipe, parts)
        await watch.controller.run()
    shutil.rmtree(folder.checkpoints)  # the last one, written when the run was told to end
    return Steps(watch.lines)
