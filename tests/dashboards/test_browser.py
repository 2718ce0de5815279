"""Every page in a real browser: drawn, quiet, kept to itself, readable for everyone, in light and in dark."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.dashboards import samples
from tests.dashboards.conftest import Watch, drawn
from tests.running import PATIENCE

pytestmark = pytest.mark.browser
PAGES = tuple(samples.every_page())
EVERY_RULE: dict[str, object] = {"resultTypes": ["violations"]}
CONTRAST = {**EVERY_RULE, "runOnly": ["color-contrast"]}
"""What is looked for in the dark: another theme has other colours and nothing else."""
FIRST = ("fleet", "alert", "sign-in")
"""The way that somebody goes who was called; the long suite asks axe about every page."""
DRAWN = (*FIRST, "overview", "explain", "problem")
"""What is drawn in the short suite: pages of charts, of tables and forms, and of a fault, and the drift page with its
heatmap; the long one draws all."""


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return one context for all tests, which has read the scripts once; what a test left in it is cleared."""
    made = browser.new_context()
    made.set_default_timeout(PATIENCE * 1000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tab(context: BrowserContext) -> Iterator[tuple[Page, Watch]]:
    """Return one tab for all tests, and who listens to it: another would be a process that reads the scripts anew."""
    made = context.new_page()
    yield made, Watch().on(made)
    made.close()


@pytest.fixture
def page(tab: tuple[Page, Watch]) -> Iterator[Page]:
    """Return the tab, empty, as wide as a screen, without cookies and with nothing said of what it showed before."""
    page, watch = tab
    page.goto("about:blank")
    page.set_viewport_size({"width": 1280, "height": 720})
    watch.forget()
    yield page
    page.context.clear_cookies()


@pytest.fixture
def watch(page: Page, tab: tuple[Page, Watch]) -> Watch:
    """Return who listens to the tab."""
    return tab[1]


def look(page: Page, watch: Watch, gallery: str, address: str, rules: dict[str, object] | None) -> None:
    """Look at a page drawn: it obeys its policy, has no chart that failed, and breaks none of axe's rules, if given."""
    drawn(page, f"{gallery}/{address}")
    assert page.evaluate("window.violations") == []
    assert page.locator(".chart.broken").count() == 0
    assert page.locator(".chart:not(:has(svg.marks))").count() == 0
    if rules is not None:
        read_by_everyone(page, rules)
    assert watch.errors == []
    assert watch.dialogs == []
    assert [url for url in watch.requests if not url.startswith((gallery, "data:"))] == []


def read_by_everyone(page: Page, rules: dict[str, object]) -> None:
    """Ask axe what in a page some people could not read or reach."""
    found = Axe().run(page, options=rules).response["violations"]
    grave = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]
    assert grave == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DRAWN else pytest.mark.long) for name in PAGES]
)
def test_a_page_is_drawn_without_complaint_and_fits_a_telephone(
    page: Page, watch: Watch, gallery: str, name: str
) -> None:
    look(page, watch, gallery, f"light/{name}", EVERY_RULE if name in FIRST else None)
    fits_a_telephone(page, watch)


def fits_a_telephone(page: Page, watch: Watch) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert watch.errors == []


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_in_the_light_and_in_the_dark(page: Page, watch: Watch, gallery: str, name: str) -> None:
    look(page, watch, gallery, f"light/{name}", EVERY_RULE)
    look(page, watch, gallery, f"dark/{name}", CONTRAST)


def test_the_heatmap_has_a_cell_for_each_column_and_window_and_hostile_names_are_text_in_it(
    page: Page, watch: Watch, gallery: str
) -> None:
    look(page, watch, gallery, "light/drift", None)
    cells = page.locator("#heatmap .mark-rect.role-mark path")
    assert cells.count() == 11 * 29
    assert page.locator("#heatmap text", has_text="▲").count() >= 20
    assert page.locator("#heatmap text", has_text="<img src=x onerror=alert(1)>").count() >= 1
    assert page.locator("img").count() == 0
    cells.nth(3).hover()
    expect(page.locator("#vg-tooltip-element")).to_contain_text("<img src=x onerror=alert(1)>")
    assert watch.dialogs == []
    fits_a_telephone(page, watch)
    page.set_viewport_size({"width": 1280, "height": 720})
    cells.nth(29 * 2 + 4).click()
    page.wait_for_url("**/drift?feature=2", wait_until="commit")  # a cell leads to its column


def test_the_theme_is_kept_and_charts_follow_it(page: Page, gallery: str) -> None:
    drawn(page, f"{gallery}/light/overview")
    marks = page.locator(".chart svg.marks text")
    before = marks.first.get_attribute("fill")
    page.locator("[data-theme-switch]").click()
    page.wait_for_function("document.documentElement.dataset.ready === '1'")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert "plumbline_theme=dark" in page.evaluate("document.cookie")
    assert marks.first.get_attribute("fill") != before


def test_sixty_hostile_names_do_nothing_anywhere_on_a_page(page: Page, watch: Watch, gallery: str) -> None:
    for name in ("hostile-overlay", "hostile"):
        drawn(page, f"{gallery}/light/{name}")
        assert page.locator(".chart.broken").count() == 0
        page.locator(".chart .mark-rect.role-mark path").evaluate_all(
            "cells => cells.slice(0, 50).forEach(cell => cell.dispatchEvent("
            "new MouseEvent('mousemove', {bubbles: true, cancelable: true, composed: true})))"
        )
        assert (
            page.locator("main img, main iframe, main object, main embed, main style, main base, main meta").count()
            == 0
        )
        assert page.evaluate("window.violations") == []
    assert len(samples.PAYLOADS) == 60
    assert watch.dialogs == []
    assert watch.errors == []
    assert [url for url in watch.requests if not url.startswith((gallery, "data:"))] == []
    shown = page.locator("main table").last.inner_text()
    assert [name for name in samples.PAYLOADS if name.split()[0] not in shown] == []


def test_the_keyboard_skips_to_the_content(page: Page, gallery: str) -> None:
    drawn(page, f"{gallery}/light/fleet")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.long
def test_without_script_the_numbers_are_still_there(browser: object, gallery: str, page: Page) -> None:
    context = page.context.browser.new_context(java_script_enabled=False)  # type: ignore[union-attr]
    context.set_default_timeout(PATIENCE * 1000)
    plain = context.new_page()
    plain.goto(f"{gallery}/light/drift")
    assert plain.locator("table tbody tr").count() > 20
    context.close()
