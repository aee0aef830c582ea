"""Which prompt is visited when, and what its answers are held against."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from configs.schema import Reference
from rewards.correctness import draw_annotator
from rollout.prompts import Prompt
from rollout.worker import Visit


class Visits:
    """Goes through the prompts in a new order each epoch.

    Everything is a function of the group's id and the seed: there is no cursor to lose, and a group
    that is sampled again after a failure meets the same annotator.
    """

    def __init__(self, prompts: Sequence[Prompt], reference: Reference, samples_per_prompt: int, seed: int) -> None:
        self._prompts = prompts
        self._reference = reference
        self._samples = samples_per_prompt
        self._seed = seed
        self._order: tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None

    def prompt_id(self, group_id: int) -> str:
        """The prompt that a group is of."""
        return self._prompt(group_id).prompt_id

    def visit(self, group_id: int) -> Visit:
        """The visit that makes the group."""
        prompt = self._prompt(group_id)
        return Visit(group_id, prompt, self._target(prompt, group_id), self._samples, time.time())

    def _prompt(self, group_id: int) -> Prompt:
        epoch, position = divmod(group_id, len(self._prompts))
        if self._order is None or self._order[0] != epoch:
            self._order = (
                epoch,
                np.random.default_rng([self._seed, 2, epoch]).permutation(len(self._prompts)),
            )
        return self._prompts[int(self._order[1][position])]

    def _target(self, prompt: Prompt, group_id: int) -> str | None:
        if self._reference is not Reference.ANNOTATOR or not prompt.counts:
            return prompt.label
        return draw_annotator(prompt.counts, np.random.default_rng([self._seed, 3, group_id]))
