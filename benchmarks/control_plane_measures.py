"""The measurements of `benchmarks.control_plane`: which runs, and what is made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.report import Figure, figure
from benchmarks.simulated_cluster import Fleet
from benchmarks.stage3_run import ANSWERS, SAMPLES, Run, Settings, Stage3
from rollout.simulated import Simulation, spread_for

TOKENS = 64  # of a response
ALL_AT_ONCE = 1_000_000  # tokens: a response comes in one piece, where nothing is to be seen of its growing
P99_OVER_MEDIAN = 20.0
INSTANT = Simulation(median_tokens=TOKENS, length_spread=0.0, tokens_per_chunk=ALL_AT_ONCE)


async def throughput(stage3: Stage3, repeats: int, *, small: bool, trajectories: int) -> list[Figure]:
    """Engines and learner take no time of their own: what all else takes."""
    settings = Settings(Fleet(8, INSTANT, ANSWERS), prompts_per_step=64, max_policy_lag=1, steps=8 if small else 24)
    runs = [await stage3.run(settings) for _ in range(repeats)]
    found = [figure("in all", "trajectories/s", [run.rate for run in runs])]
    kinds = sorted(runs[0].cpu_seconds, key=lambda kind: -_each(runs[0], kind))
    total = [sum(_each(run, kind) for kind in kinds) for run in runs]
    found.append(figure("time on a core, all processes", "ms a trajectory", total, 3))
    for kind in kinds:
        found.append(figure(f"  {kind}", "ms a trajectory", [_each(run, kind) for run in runs], 3))
    for kind in kinds:
        values = [1000 / each for run in runs if (each := _each(run, kind))]
        found.append(figure(f"  a core for {kind} alone is enough for", "trajectories/s", values))
    return found


def _each(run: Run, kind: str) -> float:
    """Milliseconds on a core of one kind of process for a trajectory."""
    return 1000 * run.cpu_seconds[kind] / run.trajectories


async def scaling(stage3: Stage3, repeats: int, *, small: bool, trajectories: int) -> list[Figure]:
    """Every engine is busy with one group for about `seconds` and has a second one waiting."""
    seconds, numbers = (1.0, (1, 8, 64)) if small else (2.0, (1, 4, 16, 64, 128, 256, 512))
    simulation = Simulation(
        median_tokens=TOKENS,
        length_spread=0.1,  # or all would end at once, and the rest would stand still until then
        seconds_per_token=seconds / TOKENS,
        sequences_at_once=SAMPLES,
    )
    runs: dict[int, list[Run]] = {number: [] for number in numbers}
    for _ in range(repeats):
        for number in numbers:
            fleet = Fleet(number, simulation, ANSWERS)
            step = max(1, number // 2)  # groups: a second's worth
            steps, warm_up = (6, 4) if small else (12, 6)
            settings = Settings(fleet, step, 8, steps, warm_up, groups_per_worker=2)
            runs[number].append(await stage3.run(settings))
    found = []
    for number, own in runs.items():
        nominal = number * SAMPLES / simulation.seconds_per_token  # tokens a second
        found.append(figure(f"{number} engines", "trajectories/s", [run.rate for run in own]))
        found.append(figure("  of what the engines can do", "%", [100 * run.token_rate / nominal for run in own], 1))
        found.append(figure("  cores in use", "", [sum(run.cpu_seconds.values()) / run.seconds for run in own], 2))
    return found


async def tails(stage3: Stage3, repeats: int, *, small: bool, trajectories: int) -> list[Figure]:
    """A step takes about as long as the 99th percentile of the responses; the longest take some steps."""
    lags = (0, 4) if small else (0, 1, 4)
    long = Simulation(
        median_tokens=TOKENS,
        length_spread=spread_for(P99_OVER_MEDIAN),
        tokens_per_chunk=32,
        seconds_per_token=0.0008 if small else 0.0017,
        sequences_at_once=16,
    )
    settings = Settings(
        Fleet(4, long, ANSWERS),
        prompts_per_step=64,
        max_policy_lag=0,
        steps=6 if small else 12,
        warm_up_steps=6,  # the longest of the first responses are to be done by then
        groups_per_worker=16,  # a group holds its place until its longest is done: fewer would leave the engines idle
        response_tokens=50 * TOKENS,
    )
    found = []
    mean = None
    for lag in lags:
        pairs = []
        for _ in range(repeats):
            tailed = await stage3.run(replace(settings, max_policy_lag=lag))
            mean = mean or tailed.tokens
            constant = replace(long, median_tokens=round(mean), length_spread=0.0)
            fleet = replace(settings.fleet, simulation=constant)
            pairs.append((tailed, await stage3.run(replace(settings, fleet=fleet, max_policy_lag=lag))))
        for name, own in zip(("long-tailed", "constant"), zip(*pairs, strict=True), strict=True):
            found.append(figure(f"lag {lag}: {name} lengths", "tokens/s", [run.token_rate for run in own]))
            found.append(figure("  their mean", "tokens", [run.tokens for run in own]))
        cost = [100 * (1 - tailed.token_rate / constant.token_rate) for tailed, constant in pairs]
        found.append(figure(f"lag {lag}: what the tail costs", "%", cost, 1))
    return found


async def memory(stage3: Stage3, repeats: int, *, small: bool, trajectories: int) -> list[Figure]:
    """One run as in `throughput`; the second half's slope tells a leak from what warms up."""
    fleet = Fleet(8, INSTANT, ANSWERS)
    step = 64
    settings = Settings(fleet, step, 1, steps=max(8, trajectories // (step * SAMPLES)))
    run = await stage3.run(settings)
    seen = np.array(run.driver_mib)
    later = seen[len(seen) // 2 :]
    found = [
        figure(f"driver after {int(number):,} trajectories", "MiB", [float(size)], 1)
        for number, size in seen[np.linspace(0, len(seen) - 1, 5).astype(int)]
    ]
    slope = float(np.polyfit(later[:, 0], later[:, 1], 1)[0])
    return [*found, figure("  growth in the second half", "MiB a million", [1e6 * slope], 1)]
