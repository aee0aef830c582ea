"""Whether every prompt leaves an engine's sequence room for its response, told before any engine starts."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.stages import read_file
from configs.schema import Recipe, SeedSource
from rollout.chat import ChatFormat, ImageLimits
from rollout.prompts import Prompt
from rollout.readers import DataError


def refuse_too_long(recipe: Recipe, model_dir: str) -> None:
    """Count the tokens of all prompts that are to be answered, under the chat template of `model_dir`.

    Pictures count by their sizes. Raises DataError with every prompt that is too long for `engine.tokens_per_sequence`,
    or that the model cannot read: pictures for one that reads text alone.
    """
    chat = ChatFormat(model_dir, ImageLimits.of(recipe.model, recipe.data))
    problems = [
        f"{name}: {fault}"
        for name, response_tokens, prompts in _asked(recipe)
        for prompt in prompts
        if (fault := _fault(chat, prompt, response_tokens, recipe.engine.tokens_per_sequence))
    ]
    if problems:
        raise DataError(problems, recipe.data.errors_shown)


def _asked(recipe: Recipe) -> Iterator[tuple[str, int, list[Prompt]]]:
    """Files, the tokens that a response to their prompts may have, and the prompts."""
    data, rl = recipe.data, recipe.rl
    if recipe.seeding.source is not SeedSource.ANNOTATORS:
        yield data.stage2, rl.response_tokens, read_file(recipe, data.stage2, require_reference=False)
    yield data.stage3, rl.response_tokens, read_file(recipe, data.stage3)
    for name in data.evaluation.values():
        yield name, recipe.evaluation.response_tokens, read_file(recipe, name)


def _fault(chat: ChatFormat, prompt: Prompt, response_tokens: int, room: int) -> str | None:
    try:
        length = chat.length(prompt)
    except ValueError as error:
        return str(error)
    if length + response_tokens <= room:
        return None
    return (
        f"prompt {prompt.prompt_id} has {length} tokens, its response up to {response_tokens}, but "
        f"engine.tokens_per_sequence is {room}: raise it or shorten one of them"
    )
