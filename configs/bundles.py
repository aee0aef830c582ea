"""What each actor reserves on a node, and how many of them stage 3 needs at once.

Stages 1 and 2 have the learner alone, and between them the rollout workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.schema import Engine, Learner, Recipe, RewardService


@dataclass(frozen=True, slots=True)
class Bundle:
    """CPUs and GPUs of one node: what an actor reserves there, or what the node has."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        cpus = _amount(self.cpus, "CPU")
        return f"{cpus} and {_amount(self.gpus, 'GPU')}" if self.gpus else cpus


@dataclass(frozen=True, slots=True)
class Asked:
    """Room for some actors that are alike."""

    who: str
    count: int
    bundle: Bundle
    settings: str  # that say how much it is

    def __str__(self) -> str:
        return f"{self.count} {self.who}, {self.bundle} each" if self.count > 1 else f"{self.who}, {self.bundle}"

    def one(self, name: str) -> Asked:
        """Room for one of them."""
        return replace(self, who=name, count=1)


def learner_ranks(learner: Learner) -> Asked:
    """The learner."""
    bundle = Bundle(learner.cpus_per_rank, learner.gpus_per_rank)
    return Asked("learner ranks", learner.ranks, bundle, "learner.ranks, cpus_per_rank or gpus_per_rank")


def rollout_workers(engine: Engine) -> Asked:
    """The rollout workers. A worker's GPUs are all of one node, and so are a tensor-parallel engine's."""
    bundle = Bundle(engine.cpus_per_worker, engine.gpus_per_worker)
    return Asked("rollout workers", engine.workers, bundle, "engine.workers, cpus_per_worker or gpus_per_worker")


def reward_workers(service: RewardService) -> Asked:
    """The reward workers."""
    bundle = Bundle(service.cpus_per_worker, 0.0)
    return Asked("reward workers", service.workers, bundle, "reward_service.workers or cpus_per_worker")


def asked_by(recipe: Recipe) -> tuple[Asked, ...]:
    """Everything that stage 3 has at once."""
    return learner_ranks(recipe.learner), rollout_workers(recipe.engine), reward_workers(recipe.reward_service)


def _amount(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
