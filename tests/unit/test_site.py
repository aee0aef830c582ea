"""The pages of docs/ as a site, and the page that is written from the schema."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.reference import reference
from tests.unit.documented import ROOT

DOCS = ROOT / "docs"


def built(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, of a project's folder."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=540)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the pages, beside the code that they link to."""
    for name in ("cluster", "configs", "learner", "rewards", "rollout", "tests", "CONTRIBUTING.md", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_every_page_is_built_and_none_has_a_link_to_nowhere(tmp_path: Path) -> None:
    told = built(ROOT, tmp_path / "site")

    assert told.returncode == 0, told.stderr
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert {path.parent.name for path in (tmp_path / "site").glob("*/index.html")} == pages - {"index"}
    assert (tmp_path / "site" / "index.html").exists()


def test_a_page_that_nobody_listed_is_at_the_end(project: Path) -> None:
    (project / "docs" / "later.md").write_text("# Written later\n")

    told = built(project, project / "site")

    assert told.returncode == 0, told.stderr
    assert "Written later" in (project / "site" / "index.html").read_text()


@pytest.mark.parametrize("link", ["[a page](nowhere.md)", "[a part](jobs.md#nowhere)", "[code](../nowhere.py)"])
def test_a_link_to_nowhere_is_no_site(project: Path, link: str) -> None:
    (project / "docs" / "later.md").write_text(f"# Written later\n\n{link}\n")

    told = built(project, project / "site")

    assert told.returncode != 0
    assert "nowhere" in told.stderr


def test_links_of_the_other_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]

    links = [link for page in pages for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))]

    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
    assert "docs/index.md" in links


def test_the_reference_of_recipes_is_that_of_the_schema() -> None:
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference(), (
        "docs/reference.md is not current: python -m configs.reference docs/reference.md"
    )
