"""A real browser. Needs the binaries `chromium` and `chromedriver`: Debian's packages chromium and chromium-driver."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 120.0  # for what takes one: a busy machine

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="no chromium and chromedriver in PATH (Debian: apt-get install chromium chromium-driver)",
)

_COLOURS = 128  # of a picture: pages are mostly grey
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # as root in a container there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def started_chromium(profile: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[WebDriver]:
    """One with a window of this size, in CSS pixels, that asks for light or dark."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(SECONDS)
        driver.set_script_timeout(SECONDS)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        yield driver
    finally:
        driver.quit()


def soon(driver: WebDriver, script: str) -> Any:
    """What an expression of JavaScript is, as soon as it is true."""
    return WebDriverWait(driver, SECONDS).until(lambda _: driver.execute_script(f"return {script}"), script)


def complaints(driver: WebDriver) -> list[str]:
    """What the page logged as a warning or an error since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def picture(driver: WebDriver, selectors: list[str], file: Path, margin: int = 8) -> None:
    """Write what these elements together cover as a PNG."""
    script = """
        const boxes = arguments[0].map((one) => document.querySelector(one).getBoundingClientRect());
        const left = Math.min(...boxes.map((b) => b.left)), right = Math.max(...boxes.map((b) => b.right));
        const top = Math.min(...boxes.map((b) => b.top)), bottom = Math.max(...boxes.map((b) => b.bottom));
        return {x: left + scrollX, y: top + scrollY, width: right - left, height: bottom - top};
    """
    box = driver.execute_script(script, selectors)
    clip = {
        "x": max(0, box["x"] - margin),
        "y": max(0, box["y"] - margin),
        "width": box["width"] + 2 * margin,
        "height": box["height"] + 2 * margin,
        "scale": 1,
    }
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as made:
        made.convert("RGB").quantize(_COLOURS).save(file, optimize=True)
