"""The commands on responses that exist already: `score`, `reward`, `reweight` and `rescore`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.cli_parts import command, takes_unconfident
from configs.load import load_recipe
from configs.schema import Preset, Response, Rewards, RewardService


def add_score_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare them."""
    score = command(commands, "score", _score, "metrics of responses that exist already (VECBench's rows too)")
    score.add_argument("predictions", type=Path, help="JSONL rows of response, candidates, ground_truth or counts")
    score.add_argument("--recipe", type=Path, help="take from here how responses are formed and what is right")
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
    takes_unconfident(score)
    score.set_defaults(default_of=score.get_default)

    reward = command(commands, "reward", _reward, "score rows of responses: try a mix of rewards on paper")
    reward.add_argument("mix", help=f"a preset ({', '.join(Preset)}) or a recipe")
    reward.add_argument("rows", type=Path, help="JSONL rows of response, ground_truth or counts, and candidates")
    reward.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    reward.add_argument("--out", type=Path, help="write every raw part and the total as JSONL (default: print it)")

    reweight = command(commands, "reweight", _reweight, "change the reward weights of a running job at its next step")
    reweight.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    reweight.add_argument("changes", nargs="+", metavar="WEIGHT=NUMBER", help="such as calibration=0.5")

    rescore = command(commands, "rescore", _rescore, "what a run's rollouts would have been worth under another mix")
    rescore.add_argument("run", type=Path, help="the run's folder (a recipe's `output`)")
    rescore.add_argument("changes", nargs="+", metavar="SETTING=VALUE", help="such as calibration=0.5 or credit=joint")


def _score(options: argparse.Namespace) -> int:
    if options.mode == "emocaliber":
        return _score_as_released(options)
    from cluster.interval_tables import comparison_table, intervals_table
    from cluster.matchers import opened
    from cluster.metrics_files import write_metrics
    from cluster.metrics_table import metrics_table
    from cluster.predictions import read_predictions, refuse_other_questions
    from cluster.score import outcomes
    from rewards.baselines import baselines
    from rewards.matching import sameness
    from rewards.tasks import by_task

    files = [read_predictions(path) for path in (options.predictions, options.compare) if path is not None]
    if options.compare is not None:
        refuse_other_questions(*files)
    form, rewards, service = _form_and_correctness(options)
    with opened(rewards, service) as matches:
        held, *others = (
            outcomes(
                rows,
                form,
                options.draws,
                options.seed,
                require_confidence=not options.without_confidence,
                matches=matches,
                at_once=rewards.answers_at_once,
            )
            for rows in files
        )
    if not len(held):
        raise ValueError(f"rewards.correctness of {options.recipe} gave no verdict on any response; see above")
    same = sameness(rewards.correctness)
    found = by_task(held, options.bins, same)
    told = [metrics_table([*found.items(), *baselines(held, options.bins, same).items()])]
    if options.resamples and len(set(held.prompt_id)) > 1:
        told.append(intervals_table(held, options.resamples, options.seed, options.bins))
    told += [comparison_table(held, other, options.resamples, options.seed, options.bins) for other in others]
    if options.out is not None:
        write_metrics(options.out, found)
    print("\n\n".join(told))
    return 0


def _form_and_correctness(options: argparse.Namespace) -> tuple[Response, Rewards, RewardService]:
    """How responses are read, what says whether they are right, and the limits that it has."""
    if options.recipe is None:
        return Response(reasoning_elements=tuple(options.elements)), Rewards(), RewardService()
    if options.elements != options.default_of("elements"):
        raise ValueError("--elements are in the recipe (response.reasoning_elements): leave out --elements or --recipe")
    recipe = load_recipe(options.recipe)
    return recipe.response, recipe.rewards, recipe.reward_service


def _score_as_released(options: argparse.Namespace) -> int:
    from cluster.emocaliber_table import emocaliber_table
    from cluster.score_released import score_as_released, write_released

    for name in ("recipe", "draws", "bins", "seed", "elements", "without_confidence", "compare", "resamples"):
        if getattr(options, name) != options.default_of(name):
            raise ValueError(f"--{name.replace('_', '-')} is a setting of --mode strict alone; leave it out")
    found = score_as_released(options.predictions)
    if options.out is not None:
        write_released(options.out, found)
    print(emocaliber_table(found))
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
    _tell_unsafe(unsafe(rewards))
    return 0


def _tell_unsafe(messages: Sequence[str]) -> None:
    for message in messages:
        print(f"UNSAFE: {message}", file=sys.stderr)


def _reweight(options: argparse.Namespace) -> int:
    from cluster.live_weights import reweight, shown
    from cluster.run_folder import RunFolder

    before, after = reweight(RunFolder(options.run), options.changes)
    print(f"{shown(after)} from the next step on; before: {shown(before)}")
    return 0


def _rescore(options: argparse.Namespace) -> int:
    from cluster.rescore import rescore, rescore_table
    from cluster.run_folder import RunFolder

    found = rescore(RunFolder(options.run), options.changes)
    print(rescore_table(found))
    _tell_unsafe(found.unsafe)
    return 0
