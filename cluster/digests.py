"""What each stage depends on, and so whether it has to be done again."""

from __future__ import annotations

from cluster.run_folder import RunFolder, digest
from configs.choices import SeedSource
from configs.schema import Recipe

STAGES = (1, 2, 3)
_COMMON = ("seed", "data", "model", "response", "learner")
_OWN = {1: ("stage1",), 2: ("seeding", "stage2"), 3: ("rl", "rewards")}


def training_digest(recipe: Recipe, number: int) -> str:
    """Names what a stage's training depends on, the stages before it included."""
    before = [training_digest(recipe, number - 1)] if number > 1 else []
    if number == 2 and recipe.seeding.source is not SeedSource.ANNOTATORS:
        before.append(f"sampled with {recipe.rl.response_tokens} tokens")
    return digest(recipe, (*_COMMON, *_OWN[number]), *before)


def evaluation_digest(recipe: Recipe, number: int) -> str:
    """Names what its evaluation depends on."""
    files = (f"{name}: {file}" for name, file in recipe.data.evaluation.items())
    right = (recipe.rewards.correctness, "" if recipe.rewards.judge is None else recipe.rewards.judge.model_dump_json())
    return digest(recipe, ("evaluation",), training_digest(recipe, number), *files, *right)


def is_trained(recipe: Recipe, number: int) -> bool:
    """Whether a stage was trained to its end from these settings and the same start."""
    return RunFolder.of(recipe).stage(number).finished("training", training_digest(recipe, number))


def is_finished(recipe: Recipe, number: int) -> bool:
    """Whether it was evaluated, too."""
    evaluated = RunFolder.of(recipe).stage(number).finished("evaluation", evaluation_digest(recipe, number))
    return evaluated and is_trained(recipe, number)
