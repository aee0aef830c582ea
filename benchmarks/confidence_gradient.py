"""How much less noise the exact confidence gradient has than the sampled one, on a run's own groups.

    python -m benchmarks.confidence_gradient outputs/emoji --json confidence_gradient.json

Takes groups that stage 3 sampled under the weights it started from, and computes the gradient of each group's
calibration reward both ways under those weights. Printed are medians over disjoint sets of groups, and their range:

- noise: the trace of the covariance of a group's gradient, sampled over exact. So many times more groups would the
  sampled gradient need for the same precision;
- agreement: the cosine between the two mean gradients of a set, which have the same expectation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks.report import Report, figure
from cluster.run_folder import RunFolder
from cluster.stages import read_file
from configs.load import load_recipe
from configs.schema import Learner, Recipe, RewardWeights
from learner.batching import TrainingSequence, collate
from learner.corrections import corrected_losses
from learner.policy import ResponseLogprobs, load_model
from learner.sequences import rl_sequences
from learner.tree import ConfidenceTree, confidence_tree
from rollout.chat import ChatFormat, ImageLimits
from rollout.rollout_file import read_rollouts
from rollout.trajectory import Group

CALIBRATION_ALONE = RewardWeights(correctness=0.0, calibration=1.0, format=0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Gradients of some groups: their mean, and the trace of their covariance."""

    mean: torch.Tensor  # [parameters]
    noise: float


class Comparison:
    """A model and the two ways to differentiate a group's calibration reward under it."""

    def __init__(self, recipe: Recipe, model_dir: str) -> None:
        self._recipe = recipe
        self._chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
        self._prompts = {prompt.prompt_id: prompt for prompt in read_file(recipe, recipe.data.stage3)}
        self._tree = confidence_tree(self._chat.tokenizer, recipe.response.confidences)
        model = load_model(model_dir, Learner(precision=recipe.learner.precision, attention=recipe.learner.attention))
        self._module = ResponseLogprobs(model, self._chat.barred_token_ids(), recipe.rl.temperature)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def spread(self, groups: Sequence[Group], *, exact: bool) -> Spread:
        """Mean and noise over the groups' gradients."""
        total, squares = torch.zeros(()), 0.0
        for group in groups:
            gradient = self._gradient(group, self._tree if exact else None)
            total = total + gradient
            squares += float(gradient.square().sum())
        mean = total / len(groups)
        return Spread(mean, (squares / len(groups) - float(mean.square().sum())) * len(groups) / (len(groups) - 1))

    def _gradient(self, group: Group, tree: ConfidenceTree | None) -> torch.Tensor:
        expanded = self._chat.expand(self._prompts[group.prompt_id])
        rewards = self._recipe.rewards.model_copy(update={"confidence_token_weight": 1.0})
        made = rl_sequences(group, expanded, CALIBRATION_ALONE, rewards, tree)
        batch = collate(
            [[_confidence_alone(m)] for m in made], pad_token_id=0, image_token_id=self._chat.image_token_id
        )
        found = self._module(batch)
        logprobs, edges = found[: len(batch.targets)], found[len(batch.targets) :]
        loss = (corrected_losses(logprobs, batch, self._recipe.rl, version=0).losses * batch.weights).sum()
        if batch.tree is not None:
            loss = loss - batch.tree.expected(edges)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients])


def _confidence_alone(sequence: TrainingSequence) -> TrainingSequence:
    assert sequence.confidence_mask is not None
    return replace(sequence, weights=sequence.weights * sequence.confidence_mask)


def first_groups(folder: Path) -> Iterator[Group]:
    """The groups of a run that were sampled under its first weights alone and in which all were well formed."""
    for file in sorted(folder.glob("*.rollouts")):
        for group in read_rollouts(file, strict=False):
            scores = [trajectory.score for trajectory in group.trajectories]
            first = all(span.version == 0 for t in group.trajectories for span in t.sample.version_spans)
            if first and all(score is not None and score.malformed is None for score in scores):
                yield group


def main() -> None:
    """Compare, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run whose stage 3 has taken its first steps")
    parser.add_argument("--sets", type=int, default=5, help="disjoint sets of groups (default: 5)")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    report = Report(arguments)
    recipe = load_recipe(arguments.run / "recipe.yaml", [f"output={arguments.run}"])
    run = RunFolder.of(recipe)
    groups = list(islice(first_groups(run.stage(3).rollouts), 1000))
    size = len(groups) // arguments.sets
    if size < 4:
        raise SystemExit(f"{len(groups)} groups are too few for {arguments.sets} sets: lower --sets")
    comparison = Comparison(recipe, str(run.stage(2).model))
    noise, agreement = [], []
    for number in range(arguments.sets):
        own = groups[number * size : (number + 1) * size]
        sampled, exact = (comparison.spread(own, exact=exact) for exact in (False, True))
        noise.append(sampled.noise / exact.noise)
        agreement.append(float(torch.cosine_similarity(sampled.mean, exact.mean, dim=0)))
    report.add(
        f"{arguments.sets} sets of {size} groups of {len(groups[0].trajectories)} responses",
        [figure("noise, sampled / exact", "", noise, 2), figure("agreement", "", agreement, 2)],
    )
    report.finish()


if __name__ == "__main__":
    main()
