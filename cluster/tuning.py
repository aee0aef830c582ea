"""`caliber tune`: trials of stage 3 under Ray Tune, and what they traded accuracy against Brier score for."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from cluster.job_book import TRAINING, working_in
from cluster.matchers import refuse_unusable
from cluster.mirror import Mirror
from cluster.pipeline import check_data, refuse_without_start
from cluster.prompt_lengths import refuse_too_long
from cluster.ray_job import losses_ahead
from cluster.run_folder import RunFolder
from cluster.stages import connect, read_file
from cluster.stopped import Stopped
from cluster.stopping import stopped_before_it_began
from cluster.trade_off import report
from cluster.trials import FOLDER, Trial, bundles, hope_again, stop_request
from configs.load import write_resolved
from configs.schema import Recipe

logger = logging.getLogger(__name__)

_TUNES_OWN = ".ray"  # what Tune keeps of itself: nothing that the trials' folders do not say
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial has a log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see `_passed_on`
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a step without a scored response has no score
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # which is never quite silent
}


def run_tuning(base: Recipe, trials: Sequence[Trial], *, stopping: bool, at_once: int | None) -> int:
    """Run what is not finished of the trials, and print the table; returns the exit code, 1 where trials failed.

    `base` is the recipe of the run whose stage-2 model they start from. Raises Stopped where it was told to.
    """
    start = RunFolder.of(base)
    folder = start.path / FOLDER
    if base.mirror.address is not None:
        Mirror(start.path, base.mirror.address).fetch()
    refuse_without_start(base, 3)
    if not base.data.evaluation:
        raise ValueError("data.evaluation names no file, and trials are compared by their evaluation: name one")
    for loss in losses_ahead(start.path, base):
        logger.warning(loss)
    with working_in(folder) as book:
        with stopped_before_it_began():
            _check(trials, str(start.stage(2).model))
            _lay_out(trials, start, stopping=stopping)
            connect(base.name)
        _warn_of_size(trials)
        book.now(TRAINING, 3)
        with _passed_on(stop_request(folder)):
            _fit(trials, folder, stopping=stopping, at_once=at_once)
        return _tell(trials, folder)


def _check(trials: Sequence[Trial], model_dir: str) -> None:
    """The data once, and each trial's rewards and lengths against them. `model_dir` is what they start from."""
    first, *others = (trial.recipe for trial in trials)
    check_data(first)
    for name, file in first.data.evaluation.items():
        if len({prompt.prompt_id for prompt in read_file(first, file)}) < 2:
            raise ValueError(f"data.evaluation.{name}: {file} has one prompt, and no intervals can be made of it")
    refuse_too_long(model_dir, first, (3,), True)
    prompts = read_file(first, first.data.stage3)
    for recipe in others:
        if recipe.rewards != first.rewards:
            refuse_unusable(recipe, prompts)
        if recipe.rl.response_tokens > first.rl.response_tokens or recipe.engine != first.engine:
            refuse_too_long(model_dir, recipe, (3,), True)


def _lay_out(trials: Sequence[Trial], start: RunFolder, *, stopping: bool) -> None:
    folder = start.path / FOLDER
    stop_request(folder).unlink(missing_ok=True)
    shutil.rmtree(folder / _TUNES_OWN, ignore_errors=True)
    for trial in trials:
        trial.link(start)
        write_resolved(trial.recipe, trial.run.recipe)
        if not stopping:
            hope_again(trial.recipe)


def _warn_of_size(trials: Sequence[Trial]) -> None:
    """A cluster may grow; where it does not, a trial that it cannot hold would wait without a word."""
    there = ray.cluster_resources()
    for trial in trials:
        asked: Counter[str] = Counter()
        for bundle in bundles(trial.recipe):
            asked.update(bundle)
        for kind, number in asked.items():
            if number > there.get(kind, 0):
                logger.warning(
                    "trial %s waits for %g %ss, and the cluster has %g: lower what its engines and learner ask for, "
                    "or add nodes",
                    trial.name,
                    number,
                    kind,
                    there.get(kind, 0),
                )


def _fit(trials: Sequence[Trial], folder: Path, *, stopping: bool, at_once: int | None) -> None:
    """Let Tune run them. Those that are settled come first: others are held against them."""
    os.environ.update(_ENVIRONMENT)
    from ray import tune  # here: it is slow to import, and the environment is read then

    from cluster.median_rule import MedianRule
    from cluster.trial_actor import TrialActor
    from cluster.tuning_end import TuningEnd

    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # misses Tune's own logs
    ordered = sorted(trials, key=lambda trial: not (trial.finished or trial.given_up))
    steps = min(trial.recipe.rl.steps for trial in trials)
    tune.Tuner(
        TrialActor,
        param_space={"recipe": tune.grid_search([str(trial.run.recipe) for trial in ordered])},
        tune_config=tune.TuneConfig(
            scheduler=MedianRule(steps) if stopping else None,
            max_concurrent_trials=at_once,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=_TUNES_OWN, storage_path=str(folder), verbose=0, callbacks=[TuningEnd(stop_request(folder))]
        ),
    ).fit()


def _name(trial: Any) -> str:
    return Path(trial.config["recipe"]).parent.name


@contextmanager
def _passed_on(request: Path) -> Iterator[None]:
    """Within the block a first SIGTERM or SIGINT asks all trials to stop; the next one has its own effect."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}

    def handle(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        request.touch()
        logger.warning("%s: trials stop after their step; a second one ends all at once", signal.Signals(number).name)

    for number in signals:
        signal.signal(number, handle)
    try:
        yield
    finally:
        if not request.exists():
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell(trials: Sequence[Trial], folder: Path) -> int:
    missing = [trial.name for trial in trials if not (trial.finished or trial.given_up)]
    if stop_request(folder).exists() and missing:
        done = len(trials) - len(missing)
        raise Stopped(f"tuning stopped, {done} of {len(trials)} trials have ended; the same command goes on")
    print(report(trials, folder), flush=True)
    if missing:
        logger.error("trials failed: %s; the lines above say why, the same command goes on", ", ".join(missing))
    return 1 if missing else 0
