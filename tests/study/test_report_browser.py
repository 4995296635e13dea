"""The report in a real browser: no error, no request; it can be used by keyboard and on a phone."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

import study
from study import driver
from study.worker import run_job

from .conftest import given

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWEEP = {
    "name": "sweep",
    "base": {"data": "digits", "num_steps": 40, "num_train": 400, "num_test": 100, "batch_size": 32},
    "settings": [{"model": "mlp", "depth": 2, "width": 8}, {"model": "cnn", "depth": 3, "width": 4}],
    "axes": {"lr": [0.05, 0.1, 0.4]},
    "seeds": 2,
    "chaos": {"fork_steps": [0, 5, 20], "magnitudes": [1e-1], "num_directions": 1, "train_sample": 128},
    "cone": {"probe_size": 8, "steps": [0, 5, 10, 20, 30, 40]},
    "growth": {"fork_steps": [0, 20], "window": 8, "burn_in": 2},
    "switch": {"steps": [0, 20]},
}


def browser_path():
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if named is None:
        pytest.fail(f"no browser: install one of {', '.join(BROWSERS)}, or name one by CHROMIUM=/path", pytrace=False)
    return named


@pytest.fixture(scope="module")
def report(tmp_path_factory, _own_cache):
    """The report of a small sweep, run in this process: Ray isn't what is tested."""

    def run_jobs(jobs, crew):
        for job in given(jobs):
            for _ in run_job(job, crew.place):
                pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "run_jobs", run_jobs)
        return study.launch(SWEEP, tmp_path_factory.mktemp("browser")).path / "report.html"


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    path = browser_path()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, report):
    """Open the report; whatever goes wrong or is asked for while it is open is told at the end."""
    wrong, asked, pages = [], [], []

    def show(width=1100, **options):
        page = browser.new_context(viewport={"width": width, "height": 800}, **options).new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        pages.append(page)
        return page

    yield show
    for page in pages:
        page.context.close()
    assert wrong == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


def column(page, table, number):
    return [
        cell.strip() for cell in page.locator(f"#{table} tbody tr:visible > :nth-child({number})").all_inner_texts()
    ]


def test_everything_it_shows_is_in_it(opened, report):
    page = opened()
    images = page.locator("img").all()
    assert len(images) == len(list((Path(report).parent / "figures").glob("*.svg"))) > 5
    for image in images:
        assert image.evaluate("each => each.complete && each.naturalWidth > 0")
        assert len(image.get_attribute("alt")) > 20
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert all(below - above <= 1 for above, below in pairwise(levels)), "a level is left out"
    assert page.locator("table.data:not(:has(caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0


def test_tables_sort_by_keyboard_with_what_is_unknown_last(opened):
    page = opened()
    head = page.locator("#table-ratios th[data-column]", has_text="Ratio").first
    number = int(head.get_attribute("data-column")) + 1
    cells = page.locator(f"#table-ratios tbody tr > :nth-child({number})")
    # Few runs as short as these have a ratio: numbers of the test's own.
    given = ["NaN", "3", "Infinity", "20", "0.5"]
    page.evaluate(
        "([number, given]) => document.querySelectorAll(`#table-ratios tbody tr > :nth-child(${number})`)"
        ".forEach((cell, i) => { cell.dataset.order = cell.textContent = given[i % given.length]; })",
        [number, given],
    )
    count = cells.count()
    assert count >= len(given)
    values = [given[i % len(given)] for i in range(count)]
    numbers = sorted((value for value in values if value[0].isdigit()), key=float)
    rest = sorted(value for value in values if not value[0].isdigit())  # Infinity, then NaN
    head.locator("button").focus()
    for order, expected in (("ascending", numbers), ("descending", numbers[::-1])):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert column(page, "table-ratios", number) == [*expected, *rest]
    assert page.locator("#table-ratios th[aria-sort=descending]").count() == 1
    page.locator("#table-transitions button", has_text="Setting").press("Space")
    names = column(page, "table-transitions", 1)
    assert len(names) == 6
    assert names == sorted(names)


def test_tables_filter_by_words(opened):
    page = opened()
    tools = page.locator("p.tools:has(+ .scroll #table-transitions)")
    tools.get_by_label("Filter").fill("MLP 0.4")
    assert column(page, "table-transitions", 1) == ["mlp · lr 0.4"]
    assert tools.get_by_role("status").inner_text() == "1 of 6 rows"
    tools.get_by_label("Filter").fill("")
    assert len(column(page, "table-transitions", 1)) == 6


def test_a_setting_leads_to_its_panel(opened):
    page = opened()
    row = page.locator("#table-transitions tbody tr").first
    link = row.locator("th a")
    link.press("Enter")
    panel = page.locator(link.get_attribute("href"))
    assert panel.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    drawing, box = (page.locator("#barrier .drawing").bounding_box(), panel.bounding_box())
    assert drawing["x"] <= box["x"] < box["x"] + box["width"] <= drawing["x"] + drawing["width"]
    assert 0 <= box["y"] + box["height"] / 2 <= 800, "it is in sight"
    row.locator("summary").press("Enter")
    row.locator("td a", has_text="switch").press("Enter")
    assert page.evaluate("location.hash").startswith("#switch-")


def test_the_first_tab_skips_to_the_answer(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#answer"


@pytest.mark.parametrize("width", [320, 375, 1100])
def test_the_page_itself_never_scrolls_sideways(opened, width):
    page = opened(width, is_mobile=width < 500)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_is_dark_and_print_is_light(opened):
    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert background(opened(color_scheme="light")) == "rgb(255, 255, 255)"
    dark = opened(color_scheme="dark")
    assert sum(map(int, background(dark)[4:-1].split(","))) < 100
    dark.emulate_media(media="print")
    assert background(dark) == "rgb(255, 255, 255)"
    assert not dark.locator("nav").is_visible()
