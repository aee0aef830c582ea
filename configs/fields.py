"""What keys a recipe has, what each takes, and which one was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from configs.schema import Recipe, Section

_NAMES = {int: "int", float: "float", str: "text", bool: "true or false", NoneType: "null"}
_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "pattern": "matching {}"}


@dataclass(frozen=True, slots=True)
class FieldHelp:
    """One key of a recipe."""

    path: str  # dotted, as an override takes it
    type: str  # what the value may be, bounds included
    default: str | None  # as YAML; None: the key is required
    help: str  # the field's docstring


def describe(section: type[Section] = Recipe, prefix: str = "") -> list[FieldHelp]:
    """Every key of a section and of the sections in it, in the schema's order."""
    return list(_describe(section, prefix))


def section_at(path: Sequence[str | int]) -> type[Section] | None:
    """The section that a path from the recipe's root leads to; None where it leads to none."""
    section: type[Section] | None = Recipe
    for key in path:
        section = section_under(section, key)
    return section


def section_under(section: type[Section] | None, key: str | int) -> type[Section] | None:
    """The section that a key of a section holds; None where it holds something else."""
    found = None if section is None else section.model_fields.get(str(key))
    return None if found is None else _section_of(found)


def without_members(path: Sequence[str | int]) -> Sequence[str | int]:
    """A mistake's path without what pydantic puts behind a key that takes several types: the one it tried."""
    for end in range(1, len(path)):
        section = section_at(path[: end - 1])
        found = None if section is None else section.model_fields.get(str(path[end - 1]))
        if found is not None and len(_members(found.annotation)) > 1:
            return path[:end]
    return path


def expected_at(path: Sequence[str | int]) -> str:
    """What may stand at a path, in words, with the help of its key; "" where no key is there."""
    for end in range(len(path), 0, -1):  # an item of a list is answered with the list's key
        section = section_at(path[: end - 1])
        found = None if section is None else section.model_fields.get(str(path[end - 1]))
        if found is not None:
            return _expected(found)
    return ""


def suggestion(path: Sequence[str | int]) -> str:
    """A question or a list that helps who wrote an unknown key at `path`."""
    *above, key = (str(part) for part in path)
    section = section_at(above)
    known = list(section.model_fields) if section else []
    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean {near[0]}?"
    if elsewhere := [f.path for f in describe() if f".{f.path}".endswith(f".{key}")]:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"known here: {', '.join(known)}"


def _describe(section: type[Section], prefix: str) -> Iterator[FieldHelp]:
    for name, found in section.model_fields.items():
        inner = _section_of(found)
        if inner is not None:
            yield from _describe(inner, f"{prefix}{name}.")
        else:
            kind = type_name(found.annotation, found.metadata)
            yield FieldHelp(prefix + name, kind, _default(found), _help(found))


def _members(annotation: object) -> list[object]:
    union = get_origin(annotation) in (Union, UnionType)
    return [member for member in get_args(annotation) if member is not NoneType] if union else [annotation]


def _expected(found: FieldInfo) -> str:
    inner = _section_of(found)
    if inner is not None:
        return f"a section with the keys {', '.join(inner.model_fields)}"
    kind = type_name(found.annotation, found.metadata)
    return f"{kind} ({_help(found)})" if found.description else kind


def _help(found: FieldInfo) -> str:
    return " ".join((found.description or "").split())


def _default(found: FieldInfo) -> str | None:
    if found.is_required():
        return None
    value = found.get_default(call_default_factory=True)
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, StrEnum) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _section_of(found: FieldInfo) -> type[Section] | None:
    for annotation in (found.annotation, *get_args(found.annotation)):
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return annotation
    return None


def type_name(annotation: object, bounds: Sequence[object] = ()) -> str:
    """An annotation in a user's words: `int >= 1`, `fp32 | bf16`, `list of text`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(inner[0], [*inner[1:], *bounds])
    if origin in (Union, UnionType):
        return " or ".join(map(type_name, inner))
    if origin is tuple and Ellipsis in inner:
        return f"list of {type_name(inner[0])}"
    if origin is tuple:
        return f"[{', '.join(map(type_name, inner))}]"
    if origin in (dict, Mapping):
        return f"mapping of {type_name(inner[0])} to {type_name(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " | ".join(annotation)
    if not isinstance(annotation, type) or annotation not in _NAMES:
        raise TypeError(f"configs.fields has no words for {annotation!r}: add them where type_name is")
    return f"{_NAMES[annotation]} {' and '.join(_bounds(bounds))}".strip()


def _bounds(metadata: Sequence[object]) -> Iterator[str]:
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from _bounds(mark.metadata)
        for name, words in _BOUNDS.items():
            if (value := getattr(mark, name, None)) is not None:
                yield words.format(value)
