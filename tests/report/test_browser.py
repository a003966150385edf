"""The report in a real browser, without a display: what it shows, its filters, its keyboard, its themes."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from references.report_content import make_content, make_embeddings, write_curves, write_images

from vireid_lightning.report import write_report

pytestmark = pytest.mark.slow

#: Where a browser may be, beside the one that Playwright downloads.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

#: Where the pictures of the pages go that `docs/report.md` tells to look at.
SHOTS = os.environ.get("VIREID_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        started = None
        with suppress(api.Error):
            started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        if started is None:
            pytest.skip("there is no Chromium that can be started")
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports")
    write_images(root, make_embeddings())
    write_curves(root / "metrics.csv")
    write_report(root / "plain.html", make_content(root, curves=root / "metrics.csv"))
    stored = {"stated_rate": 0.02, "distance": "cosine", "infrared": {"threshold": 0.25}}
    write_report(root / "stored.html", make_content(root, thresholds=stored))
    write_report(root / "hostile.html", make_content(root, hostile=True))
    return root


def open_page(browser, path, *, width=1280, scheme="light"):
    """Open a page, and collect what the browser complains of and what the page asks of the network."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "request", lambda request: request.url.startswith(("file:", "data:")) or page.complaints.append(request.url)
    )
    page.goto(path.as_uri())
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{path.stem}_{width}_{scheme}.png", full_page=True)
    return page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_nothing_is_complained_of_and_nothing_leads_beyond_the_screen(browser, reports, width, scheme):
    page = open_page(browser, reports / "plain.html", width=width, scheme=scheme)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalHeight === 112)")
    assert page.locator("img").count() == 2 * 30 * 11
    page.close()


@pytest.mark.parametrize("width", [1280, 360])
def test_a_stored_threshold_stands_in_its_direction_alone(browser, reports, width):
    page = open_page(browser, reports / "stored.html", width=width)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    rows = page.locator("#thresholds + .wide tbody tr").all_inner_texts()
    # Four rates that the page states in each direction; the infrared queries' come first, then the stored one.
    assert len(rows) == 9
    assert [number for number, row in enumerate(rows) if "(stored)" in row] == [4]
    assert "2 % (stored)" in rows[4]
    assert "0.2500" in rows[4]
    page.close()
    page = open_page(browser, reports / "plain.html", width=width)
    assert page.locator("#thresholds + .wide").get_by_text("(stored)").count() == 0
    page.close()


def test_filters_and_orders(browser, reports):
    page = open_page(browser, reports / "plain.html")
    section = page.locator("#lists-1")
    shown = section.locator("li:visible")
    assert shown.count() == 30
    section.locator("select[name=camera]").select_option("6")
    section.locator("select[name=identity]").select_option("2")
    expected = page.evaluate(
        """[...document.querySelectorAll("#lists-1 li")]
        .filter(item => item.dataset.camera === "6" && item.dataset.identity === "2").length"""
    )
    assert shown.count() == expected
    assert 0 < expected < 30
    assert section.locator("output").inner_text() == f"{expected} shown"
    assert page.locator("#lists-2 li:visible").count() == 30  # the other direction has filters of its own
    for name in ("camera", "identity"):
        section.locator(f"select[name={name}]").select_option("")
    outcomes = {}
    for outcome in ("first", "later", "none"):
        section.locator("select[name=outcome]").select_option(outcome)
        outcomes[outcome] = shown.count()
        marks = shown.evaluate_all("items => items.map(item => !!item.querySelector('.right'))")
        assert all(found == (outcome != "none") for found in marks)
        assert section.locator(".nothing").is_visible() == (outcomes[outcome] == 0)
    assert sum(outcomes.values()) == 30
    section.locator("select[name=outcome]").select_option("")
    precision = "items => items.map(item => Number(item.dataset.precision))"
    assert (worst := shown.evaluate_all(precision)) == sorted(worst)
    section.locator("select[name=order]").select_option("best")
    assert shown.evaluate_all(precision) == sorted(worst, reverse=True)
    page.close()


def test_the_keyboard_reaches_everything(browser, reports):
    page = open_page(browser, reports / "plain.html")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("(e => e.id || e.name || e.getAttribute('href') || e.className)(document.activeElement)")
        )
    for name in ("#scores", "#lists-2", "theme", "wide", "identity", "camera", "outcome", "order"):
        assert name in reached
    page.locator("#lists-1 select[name=order]").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#lists-1 select[name=order]").input_value() == "best"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.close()


def test_themes_are_readable(browser, reports):
    """Every text has the contrast with what stands behind it that WCAG asks of small text, 4.5 to 1."""
    for scheme in ("light", "dark"):
        page = open_page(browser, reports / "plain.html", scheme=scheme)
        worst = page.evaluate(
            """() => {
              const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 :
                ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
              const parse = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
              const behind = e => { for (; e; e = e.parentElement) {
                const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3]) return c; } };
              let worst = [99, ""];
              for (const e of document.querySelectorAll("body *")) {
                const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
                if (!text || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName)) continue;
                const style = getComputedStyle(e), svg = e instanceof SVGElement;
                const [a, b] = [parse(svg ? style.fill : style.color), behind(e)].map(light).sort((x, y) => y - x);
                const ratio = (a + 0.05) / (b + 0.05);
                if (ratio < worst[0]) worst = [ratio, e.textContent.slice(0, 40)];
              }
              return worst;
            }"""
        )
        assert worst[0] >= 4.5, worst
        page.close()


def test_the_theme_can_be_chosen(browser, reports):
    page = open_page(browser, reports / "plain.html", scheme="dark")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    for _ in range(3):
        page.locator("#theme").press("Enter")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] == colours[2] == colours[3] != colours[1]
    assert page.locator("#theme").inner_text() == "Theme: automatic"
    page.close()


@pytest.mark.parametrize("width", [1280, 360])
def test_hostile_names_do_nothing(browser, reports, width):
    page = open_page(browser, reports / "hostile.html", width=width)
    page.locator("#lists-1 .path").first.hover()
    assert page.evaluate("window.broken") is None
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    names = page.evaluate("[...document.querySelectorAll('.path')].map(item => item.textContent)")
    assert any("<script>window.broken=1</script>" in name for name in names)
    options = page.locator("#lists-1 select[name=identity] option")
    for number in range(1, options.count()):
        page.locator("#lists-1 select[name=identity]").select_option(index=number)
        assert page.locator("#lists-1 li:visible").count() == 5  # a name's list is found, whatever it holds
    page.close()
