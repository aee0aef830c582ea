"""What `<tag>(.*?)</tag>` matches, found in linear time.

The released codes search with such patterns, and each opening tag that is never closed costs a regular expression a
walk to the text's end: 8,000 unclosed `<think>` take seconds. But the delimiters are fixed. If no closing tag follows
the first opening one, none follows a later one; so the first match begins at the first opening tag and, being lazy,
ends at the first closing tag behind it. That takes two calls of `str.find`.
"""

from __future__ import annotations

from rewards.parse import CharSpan


def first(text: str, tag: str, start: int = 0) -> CharSpan | None:
    """Content of the first match from `start` on, as `re.search` finds it with DOTALL."""
    opened = text.find(f"<{tag}>", start)
    if opened < 0:
        return None
    content = opened + len(f"<{tag}>")
    closed = text.find(f"</{tag}>", content)
    return None if closed < 0 else (content, closed)


def first_on_one_line(text: str, tag: str) -> str | None:
    """Content of the first match, as `re.search` finds it without DOTALL: no match spans a line feed."""
    for line in text.split("\n"):
        content = first(line, tag)
        if content is not None:
            return line[slice(*content)]
    return None


def last(text: str, tag: str) -> CharSpan | None:
    """Content of the last match, as `re.findall` finds it with DOTALL: each begins behind the one before."""
    latest, following = None, first(text, tag)
    while following is not None:
        latest = following
        following = first(text, tag, latest[1] + len(f"</{tag}>"))
    return latest
