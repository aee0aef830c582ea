"""The command that tries settings: `tune`."""

from __future__ import annotations

import argparse

from cluster.cli_parts import command, takes_recipe
from configs.load import load_recipe


def add_tune_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    tune = command(
        commands,
        "tune",
        _tune,
        "stage 3 with several settings, listed (KEY=A,B) or drawn, and their trade-off",
    )
    takes_recipe(tune)
    tune.add_argument("--samples", type=int, help="times that values are drawn, where some are")
    tune.add_argument("--seed", type=int, default=0, help="seed of what is drawn (default: %(default)s)")
    tune.add_argument("--at-once", type=int, help="trials at a time at most (default: as many as the cluster holds)")
    tune.add_argument("--run-all", action="store_true", help="stop no trial early, however hopeless")


def _tune(options: argparse.Namespace) -> int:
    from cluster.sweep import read_sweep
    from cluster.trials import planned

    if options.at_once is not None and options.at_once < 1:
        raise ValueError(f"--at-once: got {options.at_once}, expected 1 or more")
    sweep = read_sweep(options.overrides)
    base, stopping = load_recipe(options.recipe, sweep.fixed), not options.run_all
    trials = planned(options.recipe, sweep, options.samples, options.seed, stopping=stopping)
    from cluster.tuning import run_tuning

    return run_tuning(base, trials, stopping=stopping, at_once=options.at_once)
