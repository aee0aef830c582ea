"""The command line: `caliber COMMAND RECIPE [key.path=value …]`.

Commands import what they need when they run, so that `--help` and `check` answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import configs
from cluster.quiet import ENVIRONMENT
from cluster.stopped import Stopped
from configs.load import RecipeError, load_recipe
from configs.schema import Preset, Recipe, Response

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Train a vision-language model to say how sure it is, and to be right about it.

  stage 1  caliber sft RECIPE --stage 1   reasoning and answer
  stage 2  caliber sft RECIPE --stage 2   the same with a confidence
  stage 3  caliber rl RECIPE              reinforcement learning: the confidence becomes calibrated

`caliber pipeline RECIPE` does all three. Every command takes overrides of the recipe's settings,
such as rl.samples_per_prompt=16; `caliber check RECIPE --fields` lists them all.
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
_SETS = {"emoji": _SHIPPED / "emoji" / "demo.yaml", "words": _SHIPPED / "words" / "words.yaml"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Mistakes in the input are told in a line or a few, not as a trace."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes overrides only next to the recipe; `sft RECIPE --stage 2 KEY=VALUE` should work too.
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and "overrides" not in options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    try:
        code: int = options.run(options)
    except Stopped as stopped:
        print(stopped)
        return 0
    except (*_MISTAKES, BaseExceptionGroup) as error:
        mistakes = _mistakes(error)
        if options.trace or not mistakes:
            raise
        for mistake in mistakes:
            print(f"caliber {options.command}: {mistake}", file=sys.stderr)
        return 2
    return code


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

    check = _command(commands, "check", _check, "print what a recipe comes to, and start no job")
    _takes_recipe(check)
    check.add_argument("--fields", action="store_true", help="list every setting with its default and meaning")

    data = _command(commands, "data", _data, "build a set that a shipped recipe learns from")
    data.add_argument("set", choices=_SETS, metavar="set", help=f"which: {' or '.join(_SETS)}")
    data.add_argument("out", type=Path, help="folder to write, which must not exist")
    data.add_argument("recipe", nargs="?", help="YAML file with the set's settings (default: the shipped recipe)")
    data.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, such as data.emoji.seed=1")

    sft = _command(commands, "sft", _sft, "stage 1 or stage 2: supervised fine-tuning")
    _takes_recipe(sft)
    sft.add_argument("--stage", type=int, choices=[1, 2], required=True, help="which of the two")

    rl = _command(commands, "rl", _rl, "stage 3: asynchronous reinforcement learning from stage 2's model")
    _takes_recipe(rl)

    evaluate = _command(commands, "eval", _eval, "generate with vLLM; write predictions.jsonl and metrics.json")
    evaluate.add_argument("model", help="Hugging Face directory")
    evaluate.add_argument("data", type=Path, help="JSONL file of prompts with references")
    _takes_recipe(evaluate)
    evaluate.add_argument("--out", type=Path, default=Path("evaluation"), help="folder to write (default: %(default)s)")
    evaluate.add_argument("--temperature", type=float, help="instead of the recipe's; 0 is greedy")
    _takes_unconfident(evaluate)

    score = _command(commands, "score", _score, "metrics of responses that exist already (VECBench's rows too)")
    score.add_argument("predictions", type=Path, help="JSONL rows of response, candidates, ground_truth or counts")
    score.add_argument("--out", type=Path, help="write the metrics as JSON")
    score.add_argument(
        "--mode",
        choices=["strict", "emocaliber"],
        default="strict",
        help="emocaliber: the numbers of its released evaluator of VECBench, which takes no setting (default: strict)",
    )
    score.add_argument("--draws", type=int, default=1, help="annotators drawn for each response with counts")
    score.add_argument("--bins", type=int, default=10, help="bins of the calibration errors")
    score.add_argument("--seed", type=int, default=0, help="seed of the drawn annotators, and of the resamples")
    score.add_argument("--compare", type=Path, metavar="OTHER", help="another run over the same prompts, to compare")
    score.add_argument(
        "--resamples", type=int, default=1000, help="resamples of the prompts for the 95%% intervals; 0: no intervals"
    )
    score.add_argument(
        "--elements",
        nargs="*",
        default=list(Response().reasoning_elements),
        help="tags the reasoning must hold",
    )
    _takes_unconfident(score)
    score.set_defaults(default_of=score.get_default)

    reward = _command(commands, "reward", _reward, "score rows of responses: try a mix of rewards on paper")
    reward.add_argument("mix", help=f"a preset ({', '.join(Preset)}) or a recipe")
    reward.add_argument("rows", type=Path, help="JSONL rows of response, ground_truth or counts, and candidates")
    reward.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    reward.add_argument("--out", type=Path, help="write every raw part and the total as JSONL (default: print it)")

    reweight = _command(commands, "reweight", _reweight, "change the reward weights of a running job at its next step")
    reweight.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    reweight.add_argument("changes", nargs="+", metavar="WEIGHT=NUMBER", help="such as calibration=0.5")

    rescore = _command(commands, "rescore", _rescore, "what a run's rollouts would have been worth under another mix")
    rescore.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    rescore.add_argument("changes", nargs="+", metavar="SETTING=VALUE", help="such as calibration=0.5 or credit=joint")

    pipeline = _command(commands, "pipeline", _pipeline, "all three stages, each evaluated; goes on where it stopped")
    _takes_recipe(pipeline)

    _command(commands, "doctor", _doctor, "check the installation, and say how to mend what is wrong")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--trace", action="store_true", help="show the Python trace of an error")
    parser.set_defaults(run=run)
    return parser


def _takes_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")


def _takes_unconfident(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-confidence", action="store_true", help="responses need not state one (a stage-1 model's)"
    )


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe, refused where it cannot work or where its reward mix can be gamed."""
    from configs.derive import problems
    from rewards.safety import refuse_unsafe

    recipe = load_recipe(options.recipe, options.overrides)
    if found := problems(recipe):
        raise ValueError("the recipe cannot work:\n" + "\n".join(f"  {problem}" for problem in found))
    refuse_unsafe(recipe.rewards)
    return recipe


def _check(options: argparse.Namespace) -> int:
    from cluster.check import describe_fields, describe_recipe

    print(describe_fields() if options.fields else describe_recipe(load_recipe(options.recipe, options.overrides)))
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

    return run_one_stage(_recipe(options), options.stage)


def _rl(options: argparse.Namespace) -> int:
    from cluster.pipeline import run_one_stage

    return run_one_stage(_recipe(options), 3)


def _eval(options: argparse.Namespace) -> int:
    from cluster.evaluation import evaluate, model_tokenizer, read_baselines
    from cluster.metrics_table import metrics_table
    from cluster.sampling import RolloutWorkers
    from cluster.stages import connect, read_file
    from rewards.metrics import Metrics

    recipe = load_recipe(options.recipe, options.overrides)
    prompts = read_file(recipe, str(options.data.absolute()))
    connect(recipe.name)

    async def job() -> dict[str, Metrics]:
        async with RolloutWorkers(recipe) as workers:
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


def _score(options: argparse.Namespace) -> int:
    if options.mode == "emocaliber":
        return _score_as_released(options)
    from cluster.evaluation import write_metrics
    from cluster.interval_tables import comparison_table, intervals_table
    from cluster.metrics_table import metrics_table
    from cluster.score import read_outcomes
    from rewards.baselines import baselines
    from rewards.tasks import by_task

    held, *others = (
        read_outcomes(
            path,
            Response(reasoning_elements=tuple(options.elements)),
            options.draws,
            options.seed,
            require_confidence=not options.without_confidence,
        )
        for path in (options.predictions, options.compare)
        if path is not None
    )
    found = by_task(held, options.bins)
    told = [metrics_table([*found.items(), *baselines(held, options.bins).items()])]
    if options.resamples and len(set(held.prompt_id)) > 1:
        told.append(intervals_table(held, options.resamples, options.seed, options.bins))
    told += [comparison_table(held, other, options.resamples, options.seed, options.bins) for other in others]
    if options.out is not None:
        write_metrics(options.out, found)
    print("\n\n".join(told))
    return 0


def _score_as_released(options: argparse.Namespace) -> int:
    from cluster.emocaliber_table import emocaliber_table
    from cluster.score_released import score_as_released, write_released

    for name in ("draws", "bins", "seed", "elements", "without_confidence", "compare", "resamples"):
        if getattr(options, name) != options.default_of(name):
            raise ValueError(f"--{name.replace('_', '-')} is a setting of --mode strict alone; leave it out")
    found = score_as_released(options.predictions)
    if options.out is not None:
        write_released(options.out, found)
    print(emocaliber_table(found))
    return 0


def _pipeline(options: argparse.Namespace) -> int:
    from cluster.pipeline import run_pipeline

    print(run_pipeline(_recipe(options)))
    return 0


def _reward(options: argparse.Namespace) -> int:
    from cluster.matchers import opened
    from cluster.reward_rows import mix_of, reward_rows
    from rewards.safety import unsafe

    rewards, form, service = mix_of(options.mix, options.overrides)
    with opened(rewards, service) as matches:
        answers = reward_rows(options.rows, rewards, form, matches)
        text = "".join(f"{json.dumps(answer, ensure_ascii=False)}\n" for answer in answers)
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
    for message in unsafe(rewards):
        print(f"UNSAFE: {message}", file=sys.stderr)
    return 0


def _reweight(options: argparse.Namespace) -> int:
    from cluster.live_weights import reweight, shown
    from cluster.run_folder import RunFolder

    before, after = reweight(RunFolder(options.run), options.changes)
    print(f"{shown(after)} from the next step on; before: {shown(before)}")
    return 0


def _rescore(options: argparse.Namespace) -> int:
    from cluster.rescore import rescore, rescore_table
    from cluster.run_folder import RunFolder

    print(rescore_table(*rescore(RunFolder(options.run), options.changes)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from cluster.doctor import examine

    return examine()
