"""The pictures of docs/pictures, from a run's report in a real browser.

.venv/bin/python -m tests.integration.report_pictures outputs/emoji docs/pictures
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from selenium.webdriver.common.by import By

from cluster.report.page import page
from cluster.report.run_data import read_run
from tests.integration.chromium import picture, started_chromium

PICTURES = {"calibration": ["#evaluation .grid"], "responses": ["#filters", "#browser"]}  # what each shows


def make_pictures(run: Path, folder: Path, names: Sequence[str] = tuple(PICTURES)) -> list[Path]:
    """Write those of these names, light, as wide as a desk's window."""
    files = [folder / f"{name}.png" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.html"
        report.write_text(page([read_run(run)], 20_000), encoding="utf-8")
        with started_chromium(Path(scratch) / "profile") as driver:
            driver.get(report.as_uri())
            driver.find_element(By.CSS_SELECTOR, "[data-filter='confident-wrong']").click()
            for name, file in zip(names, files, strict=True):
                picture(driver, PICTURES[name], file)
    return files


if __name__ == "__main__":
    run, folder, *names = sys.argv[1:]
    print(*make_pictures(Path(run), Path(folder), names or tuple(PICTURES)), sep="\n")
