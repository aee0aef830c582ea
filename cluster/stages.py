"""The three jobs, each from its predecessor's model to its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import ray

from cluster.actor_names import namespace_of
from cluster.checkpoints import CheckpointFolder
from cluster.controller import Controller, Parts
from cluster.evaluation import model_tokenizer
from cluster.gauges import Phase
from cluster.job_checkpoints import JobCheckpoints
from cluster.learner_actors import RlActor, RlSendingActor, SftActor
from cluster.learners import LearnerGroup
from cluster.live_weights import LiveWeights
from cluster.pool import RolloutPool
from cluster.quiet import ENVIRONMENT
from cluster.ray_job import variables_given
from cluster.rewarding import RewardService
from cluster.room import Room
from cluster.run_folder import RunFolder, written_aside
from cluster.run_log import RunLog
from cluster.sampling import RolloutWorkers, sample_responses
from cluster.seeding import read_seeds, seed_by_annotators, seed_by_samples, write_seeds
from cluster.sft_columns import SFT_COLUMNS
from cluster.step_metrics import COLUMNS
from cluster.stopped import Stopped
from cluster.stopping import until_told_to_stop
from cluster.visits import Visits
from cluster.waiting import together
from configs.schema import Recipe, SeedSource, Sft, Through
from rollout.chat import ImageLimits
from rollout.data_sets import wanted_set
from rollout.engine import SamplingSettings
from rollout.prompts import Prompt
from rollout.readers import read_prompts

logger = logging.getLogger(__name__)


def prepare_data(recipe: Recipe) -> None:
    """Build the set that the recipe asks for where it is not there; one of other settings is refused."""
    root, wanted = Path(recipe.data.root), wanted_set(recipe)
    if wanted is None:
        return
    if root.exists():
        wanted.check(root)
    else:
        print(f"built the {wanted.name} set in {root}: {wanted.build(root)}")


def read_file(
    recipe: Recipe, name: str, *, root: Path | None = None, need_response: bool = False, require_reference: bool = True
) -> list[Prompt]:
    """The prompts of a file under the data's root, or another one. Raises DataError with every bad row."""
    root = Path(recipe.data.root) if root is None else root
    return read_prompts(
        root / name,
        root,
        columns=recipe.data.columns,
        errors_shown=recipe.data.errors_shown,
        megapixels_at_most=recipe.data.image_megapixels_at_most,
        need_response=need_response,
        require_reference=require_reference,
    )


async def run_sft(recipe: Recipe, number: int, stage: Sft, model_dir: str, prompts: list[Prompt]) -> None:
    """Fine-tune `model_dir` on the prompts' responses; ends in the stage's model.

    Raises Stopped where the job was told to.
    """
    folder = RunFolder.of(recipe).stage(number)
    limits = ImageLimits.of(recipe.model, recipe.data)
    learners = await LearnerGroup.start(
        SftActor,
        recipe.learner,
        (model_dir, stage, recipe.learner, prompts, limits, recipe.seed + number),
        recipe.rl.seconds_per_wait,
    )
    saved = CheckpointFolder(folder.checkpoints, stage.checkpoints_kept)
    try:
        async with JobCheckpoints(saved, learners) as checkpoints:
            with RunLog(folder.path, f"stage{number}", SFT_COLUMNS, recipe) as log:
                stop = asyncio.Event()
                async with until_told_to_stop(stop.set, recipe.rl.seconds_per_wait):
                    done = await _sft_steps(stage, learners, checkpoints, log, stop)
                if stop.is_set():
                    raise Stopped(_goes_on(number, done, stage.steps))
                log.phase(Phase.SAVING)
                with written_aside(folder.model) as aside:
                    await learners.call("save_model", str(aside))
    finally:
        learners.close()


async def _sft_steps(
    stage: Sft, learners: LearnerGroup, checkpoints: JobCheckpoints, log: RunLog, stop: asyncio.Event
) -> int:
    """Train to the last step, or until it is told to stop; returns the steps that are done, all in a checkpoint."""
    first = 0
    if found := await checkpoints.restore():
        first = found.step
        logger.warning("resumed at step %d", first)
    log.back_to(first)
    for step in range(first, stage.steps):
        log.phase(Phase.TRAINING)
        reports = await learners.call("train", step)
        done, last, stopping = step + 1, step + 1 == stage.steps, stop.is_set()
        evaluation_loss = None
        if last or done % stage.eval_every_steps == 0:
            log.phase(Phase.EVALUATING)
            evaluation_loss, *_ = await learners.call("evaluate")
        if last or stopping or evaluation_loss is not None or done % stage.log_every_steps == 0:
            seconds = max(report.seconds for report in reports)
            log.log(
                {
                    "loss": reports[0].loss,
                    "evaluation_loss": evaluation_loss,
                    "grad_norm": reports[0].grad_norm,
                    "learning_rate": reports[0].learning_rate,
                    "tokens_per_second": sum(report.tokens for report in reports) / seconds,
                    "seconds": seconds,
                    "checkpoints_failed": float(checkpoints.failed),
                },
                done,
            )
        if last or stopping or done % stage.checkpoint_every_steps == 0:
            log.phase(Phase.SAVING)
            await checkpoints.save(done, {}, last=last or stopping)
        if stopping:
            return done
    return stage.steps


def _goes_on(number: int, steps: int, of: int) -> str:
    return f"stage {number} stopped after step {steps} of {of}; the same command goes on from there"


async def seed_confidences(recipe: Recipe, model_dir: str, workers: RolloutWorkers) -> list[Prompt]:
    """Stage 2's rows: the file's prompts with responses that state a confidence.

    They are kept in the stage's folder: a stage that was interrupted goes on with the same ones.
    """
    seeding, kept = recipe.seeding, RunFolder.of(recipe).stage(2).seeds
    by_annotators = seeding.source is SeedSource.ANNOTATORS
    prompts = read_file(recipe, recipe.data.stage2, need_response=by_annotators, require_reference=by_annotators)
    if kept.exists():
        return read_seeds(kept, prompts)
    if by_annotators:
        seeded = seed_by_annotators(prompts, seeding, recipe.response, recipe.seed)
    else:
        sampling = SamplingSettings(seeding.temperature, recipe.rl.response_tokens)
        pool = await workers.holding(model_dir)
        groups = await sample_responses(pool, prompts, seeding.samples_per_prompt, sampling)
        seeded = seed_by_samples(prompts, groups, seeding, recipe.response, recipe.seed, model_tokenizer(model_dir))
    print(f"seeded confidences: {seeded.summary()}", flush=True)
    write_seeds(kept, seeded.prompts)
    return seeded.prompts


async def run_rl(recipe: Recipe, model_dir: str, pool: RolloutPool, room: Room | None = None) -> None:
    """Reinforcement learning from `model_dir`, whose weights the pool holds; ends in stage 3's model.

    `room` is the learner's where it was asked for before.

    Raises Stopped where the job was told to.
    """
    folder = RunFolder.of(recipe).stage(3)
    rl, limits = recipe.rl, ImageLimits.of(recipe.model, recipe.data)
    prompts = read_file(recipe, recipe.data.stage3)
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    actor = RlSendingActor if recipe.transfer.through is Through.NCCL else RlActor
    visits = Visits(prompts, recipe.rewards.reference, rl.samples_per_prompt, recipe.seed)
    async with AsyncExitStack() as cleanup:
        rewards = RewardService(recipe, model_dir, folder.rollouts)
        cleanup.push_async_callback(rewards.close)

        async def ranks() -> LearnerGroup:
            arguments = (model_dir, recipe, by_id, limits)
            group = await LearnerGroup.start(actor, recipe.learner, arguments, rl.seconds_per_wait, room)
            cleanup.callback(group.close)  # here: it may be up when the reward service fails, or is given up
            return group

        learners, _ = await together(ranks(), rewards.start())
        pool.grow()  # now that nobody else needs the room
        weights = LiveWeights(folder.weights, recipe.rewards)
        log = cleanup.enter_context(RunLog(folder.path, "stage3", COLUMNS, recipe, weights.warnings))
        checkpoints = await cleanup.enter_async_context(
            JobCheckpoints(CheckpointFolder(folder.checkpoints, rl.checkpoints_kept), learners)
        )
        parts = Parts(visits, pool, rewards, learners, checkpoints, weights, log)
        controller = Controller(recipe, parts)
        async with until_told_to_stop(controller.stop, rl.seconds_per_wait):
            steps = await controller.run()
        if controller.stopping:
            raise Stopped(_goes_on(3, steps, rl.steps))
        if rl.max_policy_lag > 0:
            print(controller.calibration_by_lag(), flush=True)
        log.phase(Phase.SAVING)
        with written_aside(folder.model) as aside:
            await learners.call("save_model", str(aside))


def connect(run: str) -> None:
    """Join the Ray cluster of RAY_ADDRESS (a submitted job has it), or start one on this machine, for a run."""
    given = variables_given()  # Ray refuses to have one twice
    variables = {"OMP_WAIT_POLICY": "PASSIVE", **ENVIRONMENT}
    ray.init(
        namespace=namespace_of(run),
        ignore_reinit_error=True,
        log_to_driver=True,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": {name: value for name, value in variables.items() if name not in given}},
    )
