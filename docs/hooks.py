"""What mkdocs asks before it builds: which pages there are, and what becomes of links to files that are no page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_OUT_OF_DOCS = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")

Nav = list[Any]


def on_config(config: Any) -> Any:
    """The pages of the list that are there, and those of the folder that it does not name."""
    folder = Path(config.docs_dir)
    listed = set(_pages(config.nav))
    config.nav = _there(config.nav, folder)
    if others := sorted(page.name for page in folder.glob("*.md") if page.name not in listed):
        config.nav.append({"More": others})
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that lead out of the pages, to code, are its path alone: the site has no copy of it."""

    def named(link: re.Match[str]) -> str:
        path = Path(config.docs_dir, link[2])
        if not path.exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {link[2]}, which is not there")
        return link[1]

    return _OUT_OF_DOCS.sub(named, markdown)


def _pages(nav: Nav) -> list[str]:
    return [page for item in nav for page in ([item] if isinstance(item, str) else _pages(*item.values()))]


def _there(nav: Nav, folder: Path) -> Nav:
    kept: Nav = []
    for item in nav:
        if isinstance(item, str):
            kept += [item] if (folder / item).exists() else []
        else:
            kept += [{name: inner} for name, section in item.items() if (inner := _there(section, folder))]
    return kept
