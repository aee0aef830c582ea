"""A report as one HTML file that needs no network: what it shows, its style sheet and its script are all in it.

The page's own policy allows that style sheet and that script, by their digests, and nothing else: no request leaves
it, and whatever a model wrote could not run even if it were taken for markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from string import ascii_uppercase
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cluster.report.browser_data import browser_data, script_json
from cluster.report.comparison import comparison
from cluster.report.markup import Child, node
from cluster.report.run_data import RunData
from cluster.report.sections import evaluation_section, lag_section, state, training_section

RUNS_AT_MOST = len(ascii_uppercase)
_SCRIPTS = ("charts.js", "responses.js", "page.js")  # in this order, the last begins
_COLUMNS = ("answer, prompt", "confidence", "reward")
_DATA = "@DATA@"  # where the responses go: a tree would escape what a script element holds as it is


def page(runs: Sequence[RunData], rollouts: int, *, live: bool = False) -> str:
    """The file's text, with at most so many rollouts of each run.

    `live`: it asks where it came from whether there is more by now.

    Raises ValueError for more runs than there are letters.
    """
    if not 1 <= len(runs) <= RUNS_AT_MOST:
        raise ValueError(f"got {len(runs)} runs, expected 1 to {RUNS_AT_MOST}")
    names = [""] if len(runs) == 1 else list(ascii_uppercase[: len(runs)])
    style, script = _part("page.css"), "".join(map(_part, _SCRIPTS))
    title = f"{', '.join(dict.fromkeys(run.recipe.name for run in runs))}: calibration"
    head = node(
        "head",
        None,
        node("meta", {"charset": "utf-8"}),
        node("meta", {"http-equiv": "Content-Security-Policy", "content": _policy(style, script, live=live)}),
        node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        node("meta", {"name": "color-scheme", "content": "light dark"}),
        node("title", None, title),
        node("style", None, style),
    )
    sections = list(_sections(list(zip(names, runs, strict=True))))
    contents = [_link(section) for section in sections] + [node("a", {"href": "#responses"}, "Responses")]
    theme = node("button", {"id": "theme", "type": "button"}, "Dark or light")
    status = node("p", {"id": "live", "role": "status"}) if live else None  # `page.js` fills it
    body = node(
        "body",
        None,
        node(
            "header", None, node("h1", None, title), node("nav", {"aria-label": "sections"}, *contents), status, theme
        ),
        node("main", None, node("div", {"id": "sections"}, *sections), _browser()),
        node("script", {"type": "application/json", "id": "data"}, _DATA),
        node("script", None, script),
    )
    html = node("html", {"lang": "en", **({"data-live": ""} if live else {})}, head, body)
    text = "<!DOCTYPE html>\n" + ElementTree.tostring(html, encoding="unicode", method="html") + "\n"
    before, _, after = text.rpartition(_DATA)
    return before + script_json(browser_data(list(zip(names, runs, strict=True)), rollouts)) + after


def _sections(named: Sequence[tuple[str, RunData]]) -> Iterator[Element]:
    for name, run in named:
        of, key = (f"{name}: ", f"-{name}") if name else ("", "")
        yield _section(f"run{key}", f"{of}{run.recipe.name}" if name else "The run", [state(run)])
        yield _section(f"evaluation{key}", f"{of}Is it right as often as it says?", evaluation_section(run))
        yield _section(f"training{key}", f"{of}Training", training_section(run))
        yield _section(f"lag{key}", f"{of}Calibration by policy lag", lag_section(run))
    first = named[0]
    for name, run in named[1:]:
        title = f"{first[0]} against {name}"
        parts = comparison((first[0], name), (first[1], run))
        yield _section(f"comparison-{name}", title, parts)


def _section(key: str, title: str, parts: Sequence[Child] | Iterator[Element]) -> Element:
    return node("section", {"id": key}, node("h2", None, title), *parts)


def _link(section: Element) -> Element:
    return node("a", {"href": f"#{section.get('id')}"}, section[0].text)


def _browser() -> Element:
    """What `responses.js` fills."""
    controls = node(
        "form",
        {"id": "controls", "role": "search"},
        node("label", None, "From ", node("select", {"id": "source"})),
        node("label", None, "Order ", node("select", {"id": "order"})),
        node("label", None, "Search ", node("input", {"id": "search", "type": "search", "autocomplete": "off"})),
    )
    pages = node(
        "div",
        {"id": "pages"},
        node("button", {"id": "before", "type": "button"}, "Previous"),
        node("output", {"id": "place"}),
        node("button", {"id": "after", "type": "button"}, "Next"),
    )
    listed = {"id": "list", "role": "listbox", "tabindex": "0", "aria-label": "responses"}
    return node(
        "section",
        {"id": "responses"},
        node("h2", None, "Responses"),
        node("p", {"class": "note", "id": "notes"}),
        node("div", {"id": "filters", "role": "group", "aria-label": "filters"}),
        controls,
        node(
            "div",
            {"id": "browser"},
            node(
                "div",
                None,
                node("div", {"id": "columns", "aria-hidden": "true"}, *(node("span", None, c) for c in _COLUMNS)),
                node("div", listed),
                pages,
            ),
            node("article", {"id": "detail", "aria-live": "polite"}),
        ),
        node(
            "p",
            {"class": "note keys"},
            *(node("kbd", None, key) for key in ("↑", "↓")),
            " responses, ",
            *(node("kbd", None, key) for key in ("←", "→")),
            " pages, ",
            node("kbd", None, "/"),
            " search",
        ),
        node("noscript", None, "The responses need JavaScript; all else is here without."),
    )


def _part(name: str) -> str:
    return resources.files("cluster.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str, *, live: bool) -> str:
    allowed = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "img-src": "data:",
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{directive} {source}" for directive, source in allowed.items())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
