"""The reference of recipes, written from the schema: `python -m configs.reference docs/reference.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from configs.fields import FieldHelp, describe, section_at

_HEAD = """\
# Recipe reference

Every setting of a recipe, as `caliber check RECIPE --fields` lists them. This page is written from the schema by
`python -m configs.reference docs/reference.md`; its test fails where it is not current.

A setting is named by its path: `rl.samples_per_prompt` is the key `samples_per_prompt` in the section `rl`, and an
override on the command line takes the same name. A setting without a default must be given where its section is.
"""


def reference() -> str:
    """The page: a table for each section of the recipe."""
    sections: dict[str, list[FieldHelp]] = {}
    for field in describe():
        sections.setdefault(field.path.rpartition(".")[0], []).append(field)
    return "\n".join([_HEAD, *(_section(name, fields) for name, fields in sections.items())])


def _section(name: str, fields: list[FieldHelp]) -> str:
    rows = [f"| `{field.path}` | {_cell(field.type)} | {_default(field)} | {_cell(field.help)} |" for field in fields]
    section = section_at(name.split(".") if name else [])
    about = (section.__doc__ or "").strip() if section is not None and name else ""
    title = f"`{name}`" if name else "The recipe itself"
    head = [f"## {title}", *(["", about] if about else []), "", "| setting | takes | default | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def _default(field: FieldHelp) -> str:
    return "" if field.default is None else f"`{field.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
