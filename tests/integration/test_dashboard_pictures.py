"""The pictures of docs/monitoring.md: Ray's own dashboard of a running stage 3, as Chromium shows it.

    export CALIBER_PICTURES=docs/pictures CALIBER_RUN=outputs/emoji
    .venv/bin/python -m pytest tests/integration/test_dashboard_pictures.py

makes them anew, from the stage-2 model of a finished demo. Without the variables the model is a tiny one with random
weights, whose responses are malformed, and the pictures go to the test's folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from cluster.run_folder import RunFolder
from tests.integration.chromium import needs_chromium, started_chromium
from tests.integration.ray_nodes import Cluster, started_cluster, until

TINY, DEMO = "tests/integration/tiny.yaml", "configs/emoji/demo.yaml"
STEPS = 12  # before the pictures are taken
COLOURS = 64  # of a picture: enough for a page of text, and a third of the bytes
# The page is given a token once, and keeps it in a cookie.
LOG_IN = """
const [token, done] = arguments;
fetch("/api/authenticate", {method: "POST", headers: {Authorization: `Bearer ${token}`}}).then(r => done(r.status));
"""
# A page's log scrolls within it.
FROM_LINE = """
const line = [...document.querySelectorAll(".hljs-light *")].filter(e => e.textContent.includes(arguments[0])).pop();
line.scrollIntoView({block: "start"});
line.closest(".hljs-light").scrollIntoView({block: "center"});
"""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400), needs_chromium]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node."""
    with started_cluster(
        tmp_path_factory.mktemp("r"), nodes=1, cpus=4, settings={"RAY_worker_niceness": "0"}
    ) as started:
        yield started


@contextmanager
def logged_in(cluster: Cluster, profile: Path) -> Iterator[WebDriver]:
    """A browser on the dashboard. It takes half a core: open it when there is something to see."""
    with started_chromium(profile, 1600, 857) as chrome:
        chrome.get(cluster.environment["RAY_API_SERVER_ADDRESS"])
        status = chrome.execute_async_script(LOG_IN, cluster.environment["RAY_AUTH_TOKEN"])
        assert status == 200
        yield chrome


def shown(browser: WebDriver, cluster: Cluster, page: str, *texts: str) -> str:
    """Open a page of the dashboard and wait until these texts stand on it; what it says."""

    def text() -> str:
        return browser.find_element(By.TAG_NAME, "body").text

    browser.get(f"{cluster.environment['RAY_API_SERVER_ADDRESS']}/#{page}")
    browser.refresh()  # another fragment alone loads nothing anew
    until(lambda: all(one in text() for one in texts), f"{page} with {texts}")
    return text()


def take(browser: WebDriver, path: Path, first: str | None = None) -> None:
    """The picture of the window, small; of a page with a log from its first line with this text on."""
    if first is not None:
        browser.execute_script(FROM_LINE, first)
    path.parent.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def take_all(browser: WebDriver, cluster: Cluster, job: str, pictures: Path) -> tuple[str, str, str]:
    """The pictures of a job that runs; what the pages of its output, its actors and its groups say."""
    output = shown(browser, cluster, f"/jobs/{job}", "RUNNING", "ECE pt")
    take(browser, pictures / "job.png", first="ECE pt")
    actors = shown(browser, cluster, "/actors", "rollout-0", "learner-0", "reward-0")
    take(browser, pictures / "actors.png")
    learner = browser.find_element(By.XPATH, "//tr[contains(., 'learner-0')]//a").get_attribute("href")
    shown(browser, cluster, f"/actors/{str(learner).rpartition('/')[2]}", "STDOUT")
    next(tab for tab in browser.find_elements(By.CSS_SELECTOR, "[role=tab]") if tab.text == "STDOUT").click()
    until(lambda: "step 2, " in browser.find_element(By.TAG_NAME, "body").text, "learner-0's lines")
    take(browser, pictures / "groups.png", first="step 1, ")
    return output, actors, browser.find_element(By.TAG_NAME, "body").text


def test_the_dashboard_shows_the_job_the_actors_and_the_groups_of_a_running_stage_3(
    cluster: Cluster, tiny_model: Path, tmp_path: Path
) -> None:
    pictures = Path(os.environ.get("CALIBER_PICTURES", tmp_path / "pictures"))
    finished = os.environ.get("CALIBER_RUN")
    run = RunFolder(tmp_path / "run")
    shutil.copytree(RunFolder(Path(finished)).stage(2).model if finished else tiny_model, run.stage(2).model)
    settings = [f"output={run.path}", f"data.root={tmp_path}/data", "learner.ranks=1", "learner.zero_stage=0"]
    settings += ["engine.workers=1", "rl.steps=1000000", "rl.prompts_per_step=8", "rl.kl_weight=0"]
    settings += ["rl.seconds_per_wait=1500", *(["data.emoji.stage1_pictures=1"] if finished else [])]
    log = run.stage(3).path / "log.jsonl"

    told = cluster.run("cluster", "submit", DEMO if finished else TINY, "--no-wait", *settings).stdout
    job = re.findall(r"\S+-stage3-\d+-\d+", told)[-1]
    until(lambda: log.exists() and log.read_text().count("\n") >= STEPS, f"{STEPS} steps", 1800)

    with logged_in(cluster, tmp_path / "profile") as browser:
        output, actors, groups = take_all(browser, cluster, job, pictures)
    cluster.ray_job("stop", job)

    assert "learn/s" in output
    assert "RolloutWorker" in actors
    assert " = " in groups
