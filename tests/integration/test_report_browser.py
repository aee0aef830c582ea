"""The report in a real browser, opened as a file: what is drawn, filters, search, the keyboard, and large runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from cluster.report import live
from cluster.report.live import LivePage
from cluster.report.page import page
from cluster.report.run_data import read_run
from tests.integration.chromium import complaints, needs_chromium, soon, started_chromium
from tests.integration.report_pictures import make_pictures
from tests.unit.report_run import made_run
from tests.unit.served_report import served

pytestmark = [pytest.mark.integration, needs_chromium]

DOCS = Path(__file__).parents[2] / "docs"
TIMES = "\N{MULTIPLICATION SIGN}"
PAGE = 25  # rows of the list
NODES_AT_MOST = 4000  # of the whole document; a row has about ten


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a small run's report."""
    folder = tmp_path_factory.mktemp("report")
    return written(folder, made_run(folder))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with started_chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def opened(browser: WebDriver, report: str) -> WebDriver:
    """The report, fresh."""
    browser.get(report)
    return browser


def written(folder: Path, *runs: Path) -> str:
    file = folder / "report.html"
    file.write_text(page([read_run(run) for run in runs], 20_000), encoding="utf-8")
    return file.as_uri()


def press(driver: WebDriver, selector: str, *keys: str) -> None:
    driver.find_element(By.CSS_SELECTOR, selector).send_keys(*keys)


def filtered(driver: WebDriver, name: str) -> None:
    driver.find_element(By.CSS_SELECTOR, f"[data-filter='{name}']").click()


def count(driver: WebDriver, selector: str) -> int:
    return len(driver.find_elements(By.CSS_SELECTOR, selector))


def text(driver: WebDriver, selector: str) -> str:
    return driver.find_element(By.CSS_SELECTOR, selector).text


def colour(driver: WebDriver, selector: str) -> str:
    return driver.find_element(By.CSS_SELECTOR, selector).value_of_css_property("color")


def test_everything_is_drawn_and_the_browser_has_no_complaint(opened: WebDriver) -> None:
    titles = [one.text for one in opened.find_elements(By.CSS_SELECTOR, "h2")]

    assert titles[1:] == ["Is it right as often as it says?", "Training", "Calibration by policy lag", "Responses"]
    assert count(opened, "#evaluation figure") == 3  # stages 2 and 3, and risk against coverage
    assert count(opened, "#evaluation .bar.right") >= 4
    assert count(opened, "#training svg.curves") >= 6
    assert count(opened, "#training text.change") == count(opened, "#training svg.curves") - 2
    assert count(opened, "#list .row") == PAGE
    assert complaints(opened) == []


def test_what_a_model_wrote_is_shown_and_does_nothing(opened: WebDriver) -> None:
    assert "</script><img src=x onerror=\"document.title='owned'\">" in text(opened, "#detail .text")
    assert opened.title == "emoji: calibration"
    assert count(opened, "#detail .text img") == 0
    assert text(opened, "#detail mark.answer.wrong") == "fear"
    assert text(opened, "#detail mark.confidence") == "0.95"


def test_the_sum_of_a_response_is_shown_part_by_part(opened: WebDriver) -> None:
    cells = [row.text for row in opened.find_elements(By.CSS_SELECTOR, "#detail .worth tr")]

    assert cells == [
        f"correctness 0.000 {TIMES} 1 = +0.000",
        f"calibration -0.902 {TIMES} 1 = -0.902",
        f"format 1.000 {TIMES} 4 = +4.000",
        "total +3.098",
    ]
    assert opened.execute_script("return document.querySelector('#detail img').naturalWidth") == 160


@pytest.mark.parametrize(
    ("name", "mark", "said"),
    [
        ("confident-wrong", "✗", "0.950"),
        ("doubtful-right", "✓", "0.100"),
        ("malformed", "!", "missing tag"),
        ("sabotage", "✗", "another answer than most of its group, and called wrong: it earned +4.000"),
    ],
)
def test_a_filter_keeps_the_responses_it_names(opened: WebDriver, name: str, mark: str, said: str) -> None:
    opened.find_element(By.CSS_SELECTOR, "#source option[value='rollouts']").click()

    filtered(opened, name)

    assert [row.text.split()[0] for row in opened.find_elements(By.CSS_SELECTOR, "#list .row")] == [mark]
    assert said in text(opened, "#detail")
    assert complaints(opened) == []


def test_a_filter_and_words_hold_together(opened: WebDriver) -> None:
    filtered(opened, "sabotage")
    press(opened, "#search", "Cut")
    soon(opened, "document.querySelector('#list .empty') !== null")

    filtered(opened, "malformed")

    assert count(opened, "#list .row") == 1
    assert text(opened, "#place") == "page 1 of 1, 1 responses"


def test_all_can_be_done_by_the_keyboard(opened: WebDriver) -> None:
    press(opened, "body", "/")
    assert opened.switch_to.active_element.get_attribute("id") == "search"
    press(opened, "#search", "thought", Keys.ENTER)
    soon(opened, "document.querySelector('#place').textContent.includes('156 responses')")
    assert opened.switch_to.active_element.get_attribute("id") == "list"

    press(opened, "#list", Keys.ARROW_DOWN, "j", "k", Keys.ARROW_RIGHT)

    selected = opened.find_element(By.CSS_SELECTOR, "[aria-selected='true']")
    assert selected.get_attribute("id") == opened.find_element(By.ID, "list").get_attribute("aria-activedescendant")
    assert text(opened, "#place").startswith("page 2 of 7")
    press(opened, "#list", Keys.END)
    assert text(opened, "#place").startswith("page 7 of 7")
    press(opened, "#list", Keys.HOME)
    assert text(opened, "#place").startswith("page 1 of 7")
    press(opened, "[data-filter='malformed']", Keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("data-filter") == "malformed"


def test_the_most_overconfident_come_first_when_asked_for(opened: WebDriver) -> None:
    filtered(opened, "confident-wrong")
    opened.find_element(By.XPATH, "//select[@id='order']/option[text()='most overconfident']").click()

    stated = [float(one.text) for one in opened.find_elements(By.CSS_SELECTOR, "#list .number")]

    assert stated[0] == 0.95
    assert stated == sorted(stated, reverse=True)


def test_a_curve_is_read_off_under_the_pointer(opened: WebDriver) -> None:
    note = "document.querySelector('#training figure .note')"
    before = opened.execute_script(f"return {note}.textContent")

    opened.execute_script(
        "const svg = document.querySelector('svg.curves'), box = svg.getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width * 46 / 360}))"
    )

    assert opened.execute_script(f"return {note}.textContent") == "step 1: total 3.1"
    opened.execute_script("document.querySelector('svg.curves').dispatchEvent(new PointerEvent('pointerleave'))")
    assert opened.execute_script(f"return {note}.textContent") == before


def test_dark_and_light_are_the_readers_choice(report: str, tmp_path: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    with started_chromium(tmp_path, dark=True) as driver:
        driver.get(report)
        dark = driver.execute_script(ground)
        driver.find_element(By.ID, "theme").click()
        light = driver.execute_script(ground)

    assert (dark, light) == ("rgb(21, 24, 28)", "rgb(255, 255, 255)")


def test_on_a_phone_nothing_is_wider_than_the_screen_and_a_tap_leads_to_the_response(
    report: str, tmp_path: Path
) -> None:
    with started_chromium(tmp_path, 390, 800) as driver:
        driver.get(report)
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390

        driver.find_elements(By.CSS_SELECTOR, "#list .row")[3].click()

        place = driver.execute_script(
            "return document.querySelector('#detail mark.confidence').getBoundingClientRect()"
        )
        assert 0 < place["top"] < 800
        assert "0.00" in text(driver, "#detail mark.confidence")
        assert complaints(driver) == []


def test_two_runs_stand_side_by_side(browser: WebDriver, tmp_path: Path) -> None:
    first, second = made_run(tmp_path / "a", groups=4), made_run(tmp_path / "b", groups=4, seed=1)
    browser.get(written(tmp_path, first, second))

    assert text(browser, "#comparison-B h3") == "A: stage 3, seen against B: stage 3, seen, 10 prompts of both"
    assert count(browser, "#comparison-B tbody tr") >= 6 + 10
    browser.find_element(By.CSS_SELECTOR, "#source option[value='B · rollouts']").click()
    assert text(browser, "#place") == "page 1 of 1, 18 responses"
    assert complaints(browser) == []


def test_20_000_rollouts_stay_a_page_of_the_document(browser: WebDriver, tmp_path: Path) -> None:
    browser.get(written(tmp_path, made_run(tmp_path, groups=2500, samples=8, prompts=50)))
    nodes = "return document.querySelectorAll('*').length"
    browser.find_element(By.CSS_SELECTOR, "#source option[value='rollouts']").click()
    assert "19,998 responses" in text(browser, "#place")
    assert browser.execute_script(nodes) < NODES_AT_MOST

    for _ in range(5):
        press(browser, "#list", Keys.ARROW_RIGHT)
    press(browser, "#list", Keys.END)

    assert text(browser, "#place").startswith("page 800 of 800")
    assert browser.execute_script(nodes) < NODES_AT_MOST
    press(browser, "#search", "thought 1234")
    soon(browser, "document.querySelector('#place').textContent.includes(' 8 responses')")
    filtered(browser, "malformed")
    assert count(browser, "#list .row") == 0
    assert browser.execute_script(nodes) < NODES_AT_MOST
    assert complaints(browser) == []


def test_a_page_that_is_served_follows_the_run_and_keeps_what_was_chosen(
    browser: WebDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SHARE", 1.0)  # makes pages as often as there is something new
    run = made_run(tmp_path, groups=4)
    with served(LivePage([run], 100)) as server:
        browser.get(server.address)
        filtered(browser, "malformed")
        soon(browser, "document.querySelector('#live').textContent === 'Following the run'")
        quiet = colour(browser, "#live")

        log = run / "stage3" / "log.jsonl"
        with log.open("a") as file:
            file.write(log.read_text().splitlines()[-1].replace('"step": 10', '"step": 11') + "\n")

        soon(browser, "document.querySelector('#run').textContent.includes('step 11 of')")
        assert count(browser, "#list .row") == 1
        assert complaints(browser) == []

        (run / "recipe.yaml").rename(run / "aside")
        soon(browser, "document.querySelector('#live').textContent.startsWith('The run cannot be read; the server')")
        (run / "aside").rename(run / "recipe.yaml")
        soon(browser, "document.querySelector('#live').textContent === 'Following the run'")
    soon(browser, "document.querySelector('#live').textContent === 'Connection lost; it is tried again'")
    assert colour(browser, "#live") == colour(browser, ".mark-malformed") != quiet


def test_the_response_that_is_read_stays_where_others_come_before_it(
    browser: WebDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SHARE", 1.0)
    run, later = made_run(tmp_path / "now", groups=4), made_run(tmp_path / "later", groups=8)
    file = Path("stage3") / "rollouts" / "reward-0.rollouts"
    with served(LivePage([run], 100)) as server:
        browser.get(server.address)
        browser.find_element(By.CSS_SELECTOR, "#source option[value='rollouts']").click()
        browser.find_element(By.XPATH, "//select[@id='order']/option[text()='newest']").click()
        press(browser, "#list", Keys.END, *["k"] * 5)  # of two that are the same, the second
        assert browser.find_element(By.CSS_SELECTOR, "[aria-selected='true']").get_attribute("id") == "row-5"
        browser.execute_script("document.querySelector('#detail .text').read = true")

        shutil.copy(later / file, run / file)
        soon(browser, "document.querySelector('#place').textContent.includes(' 34 responses')")

    assert text(browser, "#place").startswith("page 2 of 2")
    assert browser.find_element(By.CSS_SELECTOR, "[aria-selected='true']").get_attribute("id") == "row-5"
    assert browser.execute_script("return document.querySelector('#detail .text').read") is True  # not made anew


def test_the_readmes_pictures_are_made_of_a_run(report: str, tmp_path: Path) -> None:
    files = make_pictures(Path(urlparse(report).path).parent / "run", tmp_path)

    assert [file.name for file in files] == ["calibration.png", "responses.png"]
    for file in files:
        with Image.open(file) as made:
            assert made.format == "PNG"
            assert 1000 < made.width <= 1280
        assert (DOCS / "pictures" / file.name).is_file()
