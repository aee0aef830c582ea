"""Tests of cluster.stages: how stage 3 is wired."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster import stages
from cluster.controller import Parts
from cluster.live_weights import reweight
from cluster.run_folder import RunFolder
from cluster.stopped import Stopped
from configs.load import load_recipe, write_resolved
from configs.schema import Recipe
from rollout.prompts import Prompt

DEMO = Path(__file__).parents[2] / "configs" / "emoji" / "demo.yaml"


class IdlePool:
    def grow(self) -> None:
        pass


class IdleLearners:
    @classmethod
    async def start(cls, *_: object) -> IdleLearners:
        return cls()

    def close(self) -> None:
        pass


class IdleRewards:
    def __init__(self, *_: object) -> None:
        pass

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Steps:
    """A controller that takes the weights of a step, logs it, and is told to stop."""

    stopping = True

    def __init__(self, recipe: Recipe, parts: Parts) -> None:
        self._parts = parts

    def stop(self) -> None:
        pass

    async def run(self) -> int:
        self._parts.weights.current(1)
        self._parts.log.log({}, 1)
        return 1


@pytest.mark.parametrize("calibration, unsafe", [(2, True), (0.5, False)])
def test_the_logs_header_warns_of_the_mix_that_is_trained_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calibration: float,
    unsafe: bool,
) -> None:
    own = 0.5 if unsafe else 2  # the recipe's is the other
    recipe = load_recipe(
        DEMO,
        [
            f"output={tmp_path}",
            f"rewards.weights.calibration={own}",
            "rewards.weights.format=1",
            "rewards.credit=joint",
            "rewards.confidence_gradient=sampled",
            "rewards.allow_unsafe=true",
            "wandb.mode=disabled",
        ],
    )
    write_resolved(recipe, tmp_path / "recipe.yaml")
    reweight(RunFolder(tmp_path), [f"calibration={calibration}"])
    monkeypatch.setattr(stages, "read_file", one_prompt)
    monkeypatch.setattr(stages, "LearnerGroup", IdleLearners)
    monkeypatch.setattr(stages, "RewardService", IdleRewards)
    monkeypatch.setattr(stages, "Controller", Steps)
    pool: Any = IdlePool()

    with pytest.raises(Stopped):
        asyncio.run(stages.run_rl(recipe, "no-model", pool))

    assert ("UNSAFE REWARD MIX: Below p = 0.500" in capsys.readouterr().out) is unsafe


def one_prompt(*_: object) -> list[Prompt]:
    return [Prompt("p", "emoji", (), candidates=("joy",), label="joy")]
