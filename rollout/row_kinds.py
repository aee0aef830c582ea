"""Which kind of rows a file holds, told by the keys of one; for keys that tell nothing, what to do about them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import StrEnum

from rollout.rows import RowError

KEYS_SHOWN = 20


class RowKind(StrEnum):
    """The kinds of rows; the value is the key that tells them apart."""

    MESSAGES = "messages"
    CONVERSATIONS = "conversations"
    PROMPT = "prompt"
    INSTRUCTION = "instruction"


def kind_of(written: Mapping[str, object], columns: Container[str]) -> RowKind:
    """The kind of an object, told by its keys; by the columns that the recipe names where they name one.

    Raises RowError where nothing tells, or too much.
    """
    found = [kind for kind in RowKind if written.get(kind) is not None]
    if named := [kind for kind in found if kind in columns]:
        found = named
    elif len(found) > 1 and RowKind.INSTRUCTION in found:  # a system message, say, beside the question
        found.remove(RowKind.INSTRUCTION)
    if len(found) == 1:
        return found[0]
    if found:
        both, one = " and ".join(f"`{kind}`" for kind in found), found[0]
        raise RowError([f"has {both}, each of which could be the question: say which, data.columns: {{{one}: {one}}}"])
    raise RowError([_nothing_tells(written)])


def described(kind: RowKind, written: Mapping[str, object]) -> str:
    """What format an object of this kind is in, for people."""
    match kind:
        case RowKind.MESSAGES:
            return "messages with OpenAI's content parts" if _has_addresses(written[kind]) else "messages"
        case RowKind.CONVERSATIONS:
            return "ShareGPT's conversations"
        case RowKind.INSTRUCTION:
            return "Alpaca's instructions"
        case RowKind.PROMPT:
            if "reward_spec" in written or "env_class" in written:
                return "SkyRL's prompts"
            return "verl's prompts" if "reward_model" in written or "data_source" in written else "prompts"


def _has_addresses(turns: object) -> bool:
    contents = [turn.get("content") for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, list) else []
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") == "image_url" for part in parts)


def _nothing_tells(written: Mapping[str, object]) -> str:
    keys = ", ".join(map(repr, list(written)[:KEYS_SHOWN])) + (", …" if len(written) > KEYS_SHOWN else "")
    looks = {key: kind for key, value in written.items() if (kind := _kind_by_look(value)) is not None}
    # The longest text is more likely the question than an id or a label.
    likely = max(looks, key=lambda key: (looks[key] is not RowKind.PROMPT, len(str(written[key]))), default=None)
    sought = ", ".join(f"`{kind}`" for kind in RowKind)
    if likely is None:
        return f"has none of {sought} to tell its format by, only the keys {keys or 'of nothing'}: see docs/data.md"
    near = looks[likely]
    return (
        f"has none of {sought} to tell its format by, only the keys {keys}. `{likely}` looks most like `{near}`: "
        f"if it is the question, data.columns: {{{near}: {likely}}}"
    )


def _kind_by_look(value: object) -> RowKind | None:
    if isinstance(value, str):
        return RowKind.PROMPT
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, Mapping):
        return None
    if "role" in first and "content" in first:
        return RowKind.MESSAGES
    return RowKind.CONVERSATIONS if "from" in first and "value" in first else None
