"""What commands of the command line share: how they are declared, and the recipe that most of them take."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from configs.load import load_recipe
from configs.schema import Recipe


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    """Declare a command, which `run` does and returns the exit code of."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--trace", action="store_true", help="show the Python trace of an error")
    parser.set_defaults(does=run)  # a name that no argument has
    return parser


def takes_recipe(parser: argparse.ArgumentParser) -> None:
    """A recipe, and overrides of it."""
    parser.add_argument("recipe", type=Path, help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")


def takes_place(parser: argparse.ArgumentParser) -> None:
    """Where a job's recipe has its relative folders: one that Ray runs has a working folder of Ray's."""
    parser.add_argument(
        "--from",
        dest="place",
        type=Path,
        metavar="FOLDER",
        help="take relative folders of the recipe from here (default: from where the command is given)",
    )


def takes_fresh(parser: argparse.ArgumentParser) -> None:
    """Whether stage 3 goes on."""
    parser.add_argument("--fresh", action="store_true", help="start stage 3 anew; refused where there is work to lose")
    parser.add_argument("--force", action="store_true", help="with --fresh: set that work aside, nothing is removed")


def takes_unconfident(parser: argparse.ArgumentParser) -> None:
    """Responses of stage 1."""
    parser.add_argument(
        "--without-confidence", action="store_true", help="responses need not state one (a stage-1 model's)"
    )


def job_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of a job, which goes to where `--from` has the recipe's relative folders.

    A run's folder that is not there is fetched from its mirror.
    """
    recipe, place = usable_recipe(options), options.place
    if place is not None:
        relative = [folder for folder in (recipe.output, recipe.data.root) if not Path(folder).is_absolute()]
        if place.is_dir():
            os.chdir(place)
        elif relative:
            raise ValueError(
                f"{' and '.join(relative)}: relative to {place}, which is not there: where the job runs on other "
                "storage than it was submitted from, give absolute folders, output=… and data.root=…"
            )
    if recipe.mirror.address is not None:
        from cluster.mirror import Mirror
        from cluster.run_folder import RunFolder

        Mirror(RunFolder.of(recipe).path, recipe.mirror.address).fetch()
    return recipe


def rl_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of a job with a stage 3, which --fresh has start anew."""
    from cluster.job_book import working_in
    from cluster.run_folder import RunFolder

    if options.force and not options.fresh:
        raise ValueError("--force says what --fresh may do, and is of no use alone: leave it out")
    recipe = job_recipe(options)
    if options.fresh:
        run = RunFolder.of(recipe)
        with working_in(run.path):  # and no other job
            run.stage(3).start_anew(force=options.force)
    return recipe


def usable_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe, refused where it cannot work or where its reward mix can be gamed."""
    from configs.derive import problems
    from rewards.safety import refuse_unsafe

    recipe = load_recipe(options.recipe, options.overrides)
    if found := problems(recipe):
        raise ValueError("the recipe cannot work:\n" + "\n".join(f"  {problem}" for problem in found))
    refuse_unsafe(recipe.rewards)
    return recipe
