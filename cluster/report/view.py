"""Responses in a terminal: panels where one looks on, one plain line each where something reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from cluster.report.filters import Filter
from cluster.report.responses import ResponseRow, question
from rollout.prompts import Prompt

PLAIN_COLUMNS = ("source", "prompt", "verdict", "answer", "confidence", "total", "versions", "response")


Prompts = Mapping[tuple[str, str], Prompt]  # as `RunData` has them


def chosen(
    rows: Iterable[ResponseRow], prompts: Prompts, filters: Sequence[Filter], source: str | None, search: str | None
) -> Iterator[ResponseRow]:
    """The rows that all filters keep, of one source, with these words in them, as the page's search has it."""
    wanted = (search or "").strip().lower()
    for row in rows:
        if source is not None and row.source != source:
            continue
        if wanted and wanted not in _searched(row, prompts.get(row.asked)):
            continue
        if all(one.keeps(row) for one in filters):
            yield row


def show(rows: Iterator[ResponseRow], prompts: Prompts, limit: int, console: Console) -> None:
    """Print the first `limit` rows: panels in a terminal, lines of tab-separated fields under a header elsewhere."""
    if not console.is_terminal:
        write = console.file.write
        write("\t".join(PLAIN_COLUMNS) + "\n")
        for row in islice(rows, limit):
            write("\t".join(_plain(row)) + "\n")
        return
    for row in islice(rows, limit):
        console.print(_panel(row, prompts.get(row.asked)))
    more = sum(1 for _ in rows)
    if more:
        console.print(f"and {more:,} more: --limit shows them", style="dim")


def _searched(row: ResponseRow, prompt: Prompt | None) -> str:
    return "\n".join((row.text, row.answer or "", row.prompt_id, question(prompt) if prompt else "")).lower()


def verdict(row: ResponseRow) -> str:
    """Right, wrong, why it is malformed, or why nobody knows."""
    if row.malformed is not None:
        return row.malformed
    if row.right or row.wrong:
        return "right" if row.right else "wrong"
    return "unjudged" if row.failure is None else "no score"


def harmless(text: str, kept: str = "") -> str:
    """Text without what a terminal would obey; control characters among `kept` stay."""
    return "".join(c if c.isprintable() or c in kept else " " for c in text)


def _plain(row: ResponseRow) -> list[str]:
    return [
        row.source,
        harmless(row.prompt_id),
        verdict(row),
        harmless(row.answer or ""),
        "" if row.confidence is None else f"{row.confidence:.3f}",
        "" if row.worth is None else f"{row.worth.total:.4f}",
        _versions(row),
        harmless(row.text),
    ]


def _versions(row: ResponseRow) -> str:
    return ",".join(dict.fromkeys(str(span.version) for span in row.versions))


def _panel(row: ResponseRow, prompt: Prompt | None) -> RenderableType:
    told = verdict(row)
    colour = {"right": "blue", "wrong": "yellow"}.get(told, "magenta")
    stated = "" if row.confidence is None else f" {row.confidence:.2f}"
    title = Text(f"{harmless(row.prompt_id)}  {told}{stated}", style=f"bold {colour}")
    parts: list[RenderableType] = [_response(row, colour)]
    if prompt is not None:
        question = "\n".join(message.text.strip() for message in prompt.messages)
        parts.insert(0, Text(harmless(question, "\n"), style="dim"))
    if row.worth is not None:
        parts.append(Text(_sum(row)))
    if row.suspect:
        parts.append(Text("sabotage suspect: another answer than most of its group, and called wrong", style="magenta"))
    if row.failure is not None:
        parts.append(Text(f"no score: {harmless(row.failure)}", style="magenta"))
    under = [row.source, f"held against {harmless(row.target)}" if row.target else "", f"weights {_versions(row)}"]
    subtitle = Text(", ".join(part for part in under[: 3 if row.versions else 2] if part), style="dim")
    return Panel(Group(*parts), title=title, title_align="left", subtitle=subtitle, subtitle_align="right")


def _response(row: ResponseRow, colour: str) -> Text:
    made = Text(harmless(row.text, "\n"))  # as long as the text itself, so that its spans hold
    if row.answer_span is not None:
        made.stylize(f"bold {colour} reverse", *row.answer_span)
    if row.confidence_span is not None:
        made.stylize("bold reverse", *row.confidence_span)
    return made


def _sum(row: ResponseRow) -> str:
    """Such as `correctness 1.000 x 1 + calibration -0.160 x 1 + format 1.000 x 4 = +4.840`."""
    assert row.worth is not None
    weights = row.worth.weights.model_dump()
    terms = " + ".join(f"{name} {part:.3f} x {weights[name]:g}" for name, part in row.worth.parts.items())
    return f"{terms} = {row.worth.total:+.3f}"
