"""HTML and SVG as trees: what a model wrote is text in them and never markup."""

from __future__ import annotations

from xml.etree.ElementTree import Element

Child = Element | str | None


def node(tag: str, attributes: dict[str, str] | None = None, *children: Child) -> Element:
    """An element with children; text is escaped when it is written, None is left out."""
    made = Element(tag, attributes or {})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None and len(made):
            made[-1].tail = (made[-1].tail or "") + child
        elif child is not None:
            made.text = (made.text or "") + child
    return made


def table(headers: list[str], rows: list[list[Child]], attributes: dict[str, str] | None = None) -> Element:
    """A table whose first column names the rows, in a frame that scrolls where it is too wide."""
    head = [node("th", {"scope": "col"}, header) for header in headers]
    body = [
        node("tr", None, node("th", {"scope": "row"}, row[0]), *(node("td", None, cell) for cell in row[1:]))
        for row in rows
    ]
    made = node("table", attributes, node("thead", None, node("tr", None, *head)), node("tbody", None, *body))
    return node("div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "table"}, made)


def figure(title: str, note: str, drawing: Element) -> Element:
    """A chart under its title and a line on what it shows."""
    drawing.set("aria-label", f"{title}. {note}")
    caption = node("figcaption", None, node("b", None, title), " ", node("span", {"class": "note"}, note))
    return node("figure", None, caption, drawing)
