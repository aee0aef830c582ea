"""The command line: `caliber COMMAND RECIPE [key.path=value …]`.

Commands import what they need when they run, so that `--help` and `check` answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import configs
from cluster.cli_export import add_export_command
from cluster.cli_init import add_init_command
from cluster.cli_jobs import add_job_commands, submit_all, takes_address, takes_environment
from cluster.cli_parts import (
    command,
    job_recipe,
    rl_recipe,
    takes_fresh,
    takes_place,
    takes_recipe,
    takes_unconfident,
)
from cluster.cli_predict import add_predict_command
from cluster.cli_report import add_report_commands
from cluster.cli_scores import add_score_commands
from cluster.cli_tune import add_tune_command
from cluster.quiet import ENVIRONMENT
from cluster.stopped import Stopped
from configs.load import RecipeError, load_recipe

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Train a vision-language model to say how sure it is, and to be right about it.

  stage 1  caliber sft RECIPE --stage 1   reasoning and answer
  stage 2  caliber sft RECIPE --stage 2   the same with a confidence
  stage 3  caliber rl RECIPE              reinforcement learning: the confidence becomes calibrated

`caliber pipeline RECIPE` does all three, `caliber submit RECIPE --stage N` has a Ray cluster do one.
Every command takes overrides of the recipe's settings, such as rl.samples_per_prompt=16;
`caliber check RECIPE --fields` lists them all.
"""


_MISTAKES = (
    RecipeError,
    ValueError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_SHIPPED = Path(configs.__file__).parent
_LOOK_BACK = {"report", "view"}  # at data that a job has read
_SETS = {"emoji": _SHIPPED / "emoji" / "demo.yaml", "words": _SHIPPED / "words" / "words.yaml"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Mistakes in the input are told in a line or a few, not as a trace."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = parsed(arguments)
    if options.command not in _LOOK_BACK:
        logging.getLogger("rollout.readers").setLevel(logging.INFO)  # the format that was detected
    try:
        code: int = options.does(options)
    except Stopped as stopped:
        print(stopped)
        return 0
    except KeyboardInterrupt:
        print(f"caliber {options.command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT  # as shells tell it
    except (*_MISTAKES, BaseExceptionGroup) as error:
        mistakes = _mistakes(error)
        if options.trace or not mistakes:
            raise
        for mistake in mistakes:
            print(f"caliber {options.command}: {mistake}", file=sys.stderr)
        return 2
    return code


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command and its options; ends the process, as argparse does, for words that mean nothing."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes overrides only next to the recipe; `sft RECIPE --stage 2 KEY=VALUE` should work too.
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and "overrides" not in options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def _mistakes(error: BaseException) -> list[str]:
    """Messages of mistakes in the input; none where anything else failed beside them."""
    if not isinstance(error, BaseExceptionGroup):
        return [str(error)]
    if error.split(_MISTAKES)[1] is not None:
        return []
    return list(dict.fromkeys(message for inner in error.exceptions for message in _mistakes(inner)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="caliber", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_init_command(commands)

    check = command(commands, "check", _check, "print what a recipe comes to, and start no job")
    takes_recipe(check)
    shown = check.add_mutually_exclusive_group()
    shown.add_argument("--fields", action="store_true", help="list every setting with its default and meaning")
    shown.add_argument("--cluster", action="store_true", help="and whether a Ray cluster has room for it")
    takes_address(check)

    data = command(commands, "data", _data, "build a set that a shipped recipe learns from")
    data.add_argument("set", choices=_SETS, metavar="set", help=f"which: {' or '.join(_SETS)}")
    data.add_argument("out", type=Path, help="folder to write, which must not exist")
    data.add_argument("recipe", nargs="?", help="YAML file with the set's settings (default: the shipped recipe)")
    data.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, such as data.emoji.seed=1")

    sft = command(commands, "sft", _sft, "stage 1 or stage 2: supervised fine-tuning")
    takes_recipe(sft)
    sft.add_argument("--stage", type=int, choices=[1, 2], required=True, help="which of the two")
    takes_place(sft)

    rl = command(commands, "rl", _rl, "stage 3: asynchronous reinforcement learning from stage 2's model")
    takes_recipe(rl)
    takes_fresh(rl)
    takes_place(rl)

    evaluate = command(commands, "eval", _eval, "generate with vLLM; write predictions.jsonl and metrics.json")
    evaluate.add_argument("model", help="Hugging Face directory")
    evaluate.add_argument("data", type=Path, help="JSONL file of prompts with references")
    takes_recipe(evaluate)
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="folder to write (default: %(default)s)")
    evaluate.add_argument("--temperature", type=float, help="instead of the recipe's; 0 is greedy")
    takes_unconfident(evaluate)

    add_predict_command(commands)

    add_score_commands(commands)

    add_report_commands(commands)

    pipeline = command(commands, "pipeline", _pipeline, "all three stages, each evaluated; goes on where it stopped")
    takes_recipe(pipeline)
    part = pipeline.add_mutually_exclusive_group()
    part.add_argument("--stage", type=int, choices=[1, 2, 3], help="only this one, from the model of the one before")
    part.add_argument("--submit", action="store_true", help="each stage as a job of a Ray cluster")
    takes_address(pipeline)
    takes_environment(pipeline)
    takes_fresh(pipeline)
    takes_place(pipeline)

    add_tune_command(commands)
    add_export_command(commands)

    add_job_commands(commands)

    command(commands, "doctor", _doctor, "check the installation, and say how to mend what is wrong")
    return parser


def _check(options: argparse.Namespace) -> int:
    from cluster.check import describe_fields, describe_fit, describe_recipe

    if options.fields:
        print(describe_fields())
        return 0
    recipe = load_recipe(options.recipe, options.overrides)
    print(describe_recipe(recipe))
    if options.cluster or options.address:
        from cluster.job_client import JobClient

        print(describe_fit(recipe, JobClient.connected(options.address).nodes()))
    return 0


def _data(options: argparse.Namespace) -> int:
    from rollout.data_sets import wanted_set

    if options.recipe is not None and "=" in options.recipe:  # argparse took the first override for a recipe
        options.recipe, options.overrides = None, [options.recipe, *options.overrides]
    source = options.recipe or _SETS[options.set]
    wanted = wanted_set(load_recipe(source, options.overrides))
    if wanted is None or wanted.name != options.set:
        raise ValueError(f"{source} has no data.{options.set}: add it, or leave the recipe out to take the shipped one")
    print(f"{options.out}: {wanted.build(options.out)}")
    return 0


def _sft(options: argparse.Namespace) -> int:
    from cluster.pipeline import run_one_stage

    return run_one_stage(job_recipe(options), options.stage)


def _rl(options: argparse.Namespace) -> int:
    from cluster.pipeline import run_one_stage

    return run_one_stage(rl_recipe(options), 3)


def _eval(options: argparse.Namespace) -> int:
    from cluster.evaluation import evaluate, model_tokenizer
    from cluster.metrics_files import read_baselines
    from cluster.metrics_table import metrics_table
    from cluster.sampling import RolloutWorkers
    from cluster.stages import connect, read_file
    from cluster.stopping import until_told_to_stop
    from rewards.metrics import Metrics

    recipe = load_recipe(options.recipe, options.overrides)
    prompts = read_file(recipe, str(options.data.absolute()))
    connect(recipe.name)

    async def job() -> dict[str, Metrics]:
        async with until_told_to_stop(), RolloutWorkers(recipe) as workers:
            found = await evaluate(
                recipe,
                await workers.holding(options.model),
                model_tokenizer(options.model),
                {"": (prompts, options.out)},
                temperature=options.temperature,
                require_confidence=not options.without_confidence,
            )
        return found[""]

    found = asyncio.run(job())
    print(metrics_table([*found.items(), *read_baselines(options.out).items()]))
    return 0


def _pipeline(options: argparse.Namespace) -> int:
    if options.submit:
        return submit_all(options)
    for name, given in (("--address", options.address), ("--runtime-env-json", options.runtime_env_json)):
        if given is not None:
            raise ValueError(f"{name} is for jobs that are submitted: add --submit, or leave it out")
    from cluster.pipeline import run_one_stage, run_pipeline

    if options.fresh and options.stage not in (None, 3):
        raise ValueError(f"--fresh starts stage 3 anew, and --stage {options.stage} does not come to it: leave one out")
    recipe = rl_recipe(options)
    if options.stage is not None:
        return run_one_stage(recipe, options.stage, evaluated=True)
    print(run_pipeline(recipe))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from cluster.doctor import examine

    return examine()
