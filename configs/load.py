"""Recipes: from YAML files and overrides to a checked `Recipe`, and back into a file.

    recipe = load_recipe("configs/emoji/demo.yaml", ["rl.samples_per_prompt=16"])

Laid on one another, the later winning: the schema's defaults, the file that `extends` names
(and the one that names), the recipe, the overrides from left to right. Mappings merge deeply;
all else, lists too, is replaced. Null takes back what was said below it, so that the schema's
default holds: `model.scratch: null` before a recipe says `model.path`, `engine: null` for an
engine of nothing but defaults.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from configs.document import Node, Place, Problem, RecipeError, put
from configs.fields import FieldHelp, describe, expected_at, section_under, suggestion, without_members
from configs.reading import EXTENDS, read_files, read_text
from configs.schema import Recipe, Section

__all__ = ["FieldHelp", "RecipeError", "describe", "load_recipe", "refuse_null", "write_resolved"]

OVERRIDE = "override"
LONGEST_VALUE_SHOWN = 60  # characters


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with `key.path=value` overrides; values are YAML.

    RecipeError names every problem at once, each with file and line and the key's path.
    """
    problems: list[Problem] = []
    try:
        tree = read_files(Path(path), problems)
    except RecipeError as error:
        raise RecipeError([*problems, *error.problems]) from error
    for override in overrides:
        tree = _override(tree, override, problems)
    try:
        recipe = Recipe.model_validate(_plain(tree, Recipe))
    except ValidationError as error:
        problems += _findings(error, tree)
    if problems:
        raise RecipeError(sorted(dict.fromkeys(problems), key=_reading_order))
    return recipe


def refuse_null(overrides: Sequence[str]) -> None:
    """Raise RecipeError for overrides that `load_recipe` takes and that say no value: they would mean the default."""
    problems: list[Problem] = []
    for path, _, value in (override.partition("=") for override in overrides):
        keys = path.strip().split(".")
        if read_text(value, OVERRIDE, keys, problems, lines=False).value is None:
            problems.append(Problem(Place(OVERRIDE), ".".join(keys), f"got no value; expected {expected_at(keys)}"))
    if problems:
        raise RecipeError(problems)


def resolved(recipe: Recipe) -> str:
    """The complete recipe as YAML, defaults included."""
    text = yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)
    return f"# The complete recipe, defaults included.\n{text}"


def write_resolved(recipe: Recipe, path: str | Path) -> None:
    """Write the complete recipe, defaults included; `load_recipe` reads an equal one back.

    Whoever reads the file while it is written sees the old one or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(resolved(recipe))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Dumper(yaml.SafeDumper):
    """Writes every value out."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _override(tree: Node, override: str, problems: list[Problem]) -> Node:
    path, separator, value = override.partition("=")
    keys = path.strip().split(".")
    if not separator or "" in keys or keys == [EXTENDS]:
        expected = "expected key.path=value with a key of the recipe, as in rl.steps=100"
        problems.append(Problem(Place(OVERRIDE), "", f"got {_shown(override)}; {expected}"))
        return tree
    try:
        return put(tree, keys, read_text(value, OVERRIDE, keys, problems, lines=False))
    except RecipeError as error:
        problems += error.problems
        return tree


def _plain(node: Node, section: type[Section] | None) -> object:
    """What pydantic reads: known keys that are null are left out, so that their defaults hold."""
    if isinstance(node.value, Mapping):
        return {
            key: _plain(child, section_under(section, key))
            for key, child in node.value.items()
            if child.value is not None or _is_unknown(key, section)
        }
    if isinstance(node.value, tuple):
        return [_plain(item, None) for item in node.value]
    return node.value


def _is_unknown(key: str, section: type[Section] | None) -> bool:
    return section is not None and key not in section.model_fields


def _reading_order(problem: Problem) -> tuple[bool, str, int]:
    """File by file and line by line, the overrides last."""
    place = problem.place
    return place.line is None, place.source, place.line or 0


def _findings(error: ValidationError, tree: Node) -> Iterator[Problem]:
    """What pydantic found, in our words, at the places where the keys were written."""
    for found in error.errors(include_url=False):
        path = without_members(found["loc"])
        text = _explanation(path, found["type"], found["msg"], found["input"])
        yield Problem(tree.place_of(path), ".".join(map(str, path)), text)


def _explanation(path: Sequence[str | int], kind: str, message: str, value: object) -> str:
    if kind == "extra_forbidden":
        return f"unknown key; {suggestion(path)}"
    if kind == "missing":
        return f"missing, and has no default; expected {expected_at(path)}"
    if kind == "value_error":  # of the schema's own validators, which say what they expected
        return message.removeprefix("Value error, ")
    return f"got {_shown(value)}; expected {expected_at(path)}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE_SHOWN else f"{text[: LONGEST_VALUE_SHOWN - 4]}...{text[-1]}"
