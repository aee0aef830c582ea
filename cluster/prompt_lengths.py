"""Whether every prompt leaves an engine's sequence room for its response, told before any model loads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from itertools import dropwhile

from cluster.digests import is_up_to_date
from cluster.stages import read_file
from configs.schema import Recipe, SeedSource
from rollout.chat import ChatFormat, ImageLimits, too_long
from rollout.prompts import Prompt
from rollout.readers import DataError


class PromptLengths:
    """Those of all prompts that a job is to have answered, looked at once."""

    def __init__(self, recipe: Recipe, stages: Sequence[int], *, evaluated: bool) -> None:
        self._job = (recipe, stages, evaluated)
        self._known = False

    async def check(self, model_dir: str) -> None:
        """Raise what `refuse_too_long` raises. A later call does nothing: the stages' models read prompts alike."""
        if not self._known:
            await asyncio.to_thread(self._refuse, model_dir)
            self._known = True

    def _refuse(self, model_dir: str) -> None:
        recipe, stages, evaluated = self._job
        ahead = list(dropwhile(lambda number: is_up_to_date(recipe, number), stages))
        refuse_too_long(model_dir, recipe, ahead, evaluated)


def refuse_too_long(model_dir: str, recipe: Recipe, stages: Collection[int], evaluated: bool) -> None:
    """Count the tokens of the prompts that these stages are to have answered, under the chat template of `model_dir`.

    `evaluated`: those of the evaluation files, too. Pictures count by their sizes. Raises DataError with every prompt
    that is too long for `engine.tokens_per_sequence`, or that the model cannot read: pictures for one of text alone.
    """
    chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
    problems = [
        f"{name}: {fault}"
        for name, response_tokens, prompts in _asked(recipe, stages, evaluated)
        for prompt in prompts
        if (fault := _fault(chat, prompt, response_tokens, recipe.engine.tokens_per_sequence))
    ]
    if problems:
        raise DataError(problems, recipe.data.errors_shown)


def _asked(recipe: Recipe, stages: Collection[int], evaluated: bool) -> Iterator[tuple[str, int, list[Prompt]]]:
    """Files, the tokens that a response to their prompts may have, and the prompts."""
    data, tokens = recipe.data, recipe.rl.response_tokens
    if 2 in stages and recipe.seeding.source is not SeedSource.ANNOTATORS:
        yield data.stage2, tokens, read_file(recipe, data.stage2, require_reference=False)
    if 3 in stages:
        yield data.stage3, tokens, read_file(recipe, data.stage3)
    for name in data.evaluation.values() if evaluated else ():
        yield name, recipe.evaluation.response_tokens, read_file(recipe, name)


def _fault(chat: ChatFormat, prompt: Prompt, response_tokens: int, room: int) -> str | None:
    try:
        length = chat.length(prompt)
    except (OSError, ValueError) as error:  # a picture that was there a moment ago
        return str(error)
    return too_long(prompt, length, response_tokens, room)
