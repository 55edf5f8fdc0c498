"""The page in a real browser: headless Chromium, driven by playwright."""

import re

import polars as pl
import pytest
from conftest import PATIENCE
from pages import designed, html, predicted
from searching import NUMBERS, run, text
from test_page import HOSTILE
from test_report import plan as design
from test_report import whole
from test_search_report import reported

from orchestrator.report import tables
from orchestrator.report.evidence import Evidence
from orchestrator.store import Store

MARK = ".role-mark [aria-label]"
WIDTHS = {"desktop": 1100, "tablet": 768, "phone": 360}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """One page of four studies: a design, one with predictions, a search, and one of hostile names."""
    root = tmp_path_factory.mktemp("page")
    content = text(space=NUMBERS, configurations=12, more=", pruning: {first: 3}").replace("by: y", "by: [x, y]")
    run(root / "runs", content)
    place = Store(root / "runs")
    search = reported(root / "runs", content)
    wanted = design(question=HOSTILE, name=HOSTILE)
    wanted["cells"][2]["label"] = {"id_rate": HOSTILE}
    hostile = tables.build(wanted, whole(wanted)), Evidence(whole(wanted), pl.DataFrame())
    path = root / "page.html"
    searched = search, Evidence(place.trials(), place.curves(place.trials()))
    path.write_text(html(designed(), predicted(), searched, hostile), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file):
    """Opens the page as wide as asked, and fails where it complains or asks for anything but itself."""
    said, contexts = [], []

    def open_(width=1100, scheme="light", **more):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url != file.as_uri() else None)
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(file.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("device", WIDTHS)
def test_a_page_draws_every_figure_and_scrolls_down_alone(opened, device):
    page = opened(WIDTHS[device])
    charts = page.locator(".chart").all()
    assert len(charts) == 1 + 3 + 4 + 4 + 2  # overview; design; predictions; search; hostile names have no curves
    for chart in charts:
        drawn = chart.locator("svg:visible").all()
        assert len(drawn) == 1
        box = drawn[0].bounding_box()
        assert 250 < box["width"] <= WIDTHS[device]
        assert box["height"] > 50
        assert drawn[0].locator(MARK).count() > 0
    for x in (0, 400):
        page.mouse.move(300, 300)
        page.mouse.wheel(x, 0)
    assert page.evaluate("[document.documentElement.scrollWidth <= innerWidth, scrollX]") == [True, 0]


def at_every_width(page):
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        yield page


def test_letters_in_figures_are_large_enough_to_read(opened):
    for page in at_every_width(opened()):
        sizes = page.evaluate(
            "[...document.querySelectorAll('.chart svg text')].filter(t => t.getClientRects().length)"
            ".map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().d)"
        )
        upright = [size for size in sizes if size > 0.1]  # one turned by a quarter has none
        assert upright
        assert min(upright) > 9


def test_names_of_lines_do_not_overlap_in_a_figure(opened):
    for page in at_every_width(opened()):
        overlaps = page.evaluate(
            """[...document.querySelectorAll('.chart svg')].filter(svg => svg.getClientRects().length).flatMap(svg => {
                const shown = [...svg.querySelectorAll('.role-axis-label text:not([opacity="0"])')];
                const labels = shown.filter(label => label.textContent);
                const boxes = labels.map(label => [label.textContent, label.getBoundingClientRect()]);
                const meet = (p, q) => p.left < q.right - 1 && q.left < p.right - 1
                    && p.top < q.bottom - 1 && q.top < p.bottom - 1;
                const met = (p, i) => boxes.slice(i + 1).some(([, q]) => meet(p, q));
                return boxes.filter(([, p], i) => met(p, i)).map(([name]) => name);
            })"""
        )
        assert overlaps == []


def test_a_hostile_name_is_shown_and_does_not_run(opened):
    page = opened()
    assert page.evaluate("window.ran") is None
    assert page.get_by_role("heading", name=HOSTILE).count() == 1
    chart = page.locator(".chart").last
    mark = chart.locator(f"svg:visible {MARK}[aria-label*='<script>']").first
    mark.hover()
    assert HOSTILE in page.locator("#tip").inner_text()
    assert page.evaluate("window.ran") is None


def column(table, number):
    return table.locator(f"tbody tr:not(.more) > :nth-child({number})").all_inner_texts()


def test_a_table_is_sorted_by_number_with_the_keyboard_and_comes_back(opened):
    page = opened()
    table = page.get_by_role("table", name="SYNTHETIC paired differences, points").first
    head = table.locator("thead th").nth(1)
    before = column(table, 2)
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").focus()
    orders = {}
    for expected in ("descending", "ascending", "none"):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == expected
        orders[expected] = column(table, 2)
    numbers = sorted(float(text.split(" ")[0]) for text in before if text != "-")
    assert [text for text in before if text == "-"] == ["-"]
    assert [float(text.split(" ")[0]) for text in orders["ascending"][:-1]] == numbers
    assert [float(text.split(" ")[0]) for text in orders["descending"][:-1]] == numbers[::-1]
    assert orders["ascending"][-1] == orders["descending"][-1] == "-"
    assert orders["none"] == before


def test_lines_that_say_more_move_with_their_line(opened):
    table = opened().get_by_role("table", name=re.compile("accuracy % by expression")).first
    texts = table.locator("tbody tr").all_inner_texts()
    size = len(texts) // 2
    groups = {tuple(texts[:size]), tuple(texts[size:])}
    orders = []
    for _ in range(2):
        table.locator("thead button").nth(1).click()
        after = table.locator("tbody tr").all_inner_texts()
        orders.append((tuple(after[:size]), tuple(after[size:])))
    assert set(orders[0]) == groups
    assert orders[1] == orders[0][::-1]


@pytest.mark.parametrize("device", WIDTHS)
def test_a_mark_says_what_it_is_to_the_pointer_and_to_the_arrow_keys(opened, device):
    page = opened(WIDTHS[device])
    chart, tip = page.locator("#study-1 .chart").first, page.locator("#tip")
    marks = chart.locator(f"svg:visible {MARK}")
    assert tip.is_hidden()
    marks.nth(5).dispatch_event("pointerover", {"bubbles": True})
    assert tip.inner_text() == marks.nth(5).get_attribute("aria-label")
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= WIDTHS[device]
    page.mouse.move(1, 1)
    chart.focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert [first, tip.inner_text()] == [marks.nth(place).get_attribute("aria-label") for place in (0, 1)]
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_intervals_of_other_cells_step_back_and_that_of_the_cell_stays(opened):
    page = opened()
    chart = page.locator("#study-1 .chart").first
    lines = "[...document.querySelectorAll('#study-1 .chart')][0].querySelectorAll('.wide .mark-rule.role-mark line')"
    count = page.evaluate(f"{lines}.length")
    assert count > 2
    mean = chart.locator(f"svg:visible {MARK}[aria-label*='· mean ·']").nth(1)
    mean.dispatch_event("pointerover", {"bubbles": True})
    kept = "filter(line => !line.classList.contains('other')).map(line => line.getBoundingClientRect().y)"
    bright = page.evaluate(f"[...{lines}].{kept}")
    box = mean.bounding_box()
    assert bright == [pytest.approx(box["y"] + box["height"] / 2, abs=3)]
    page.mouse.move(1, 1)
    chart.dispatch_event("pointerleave")
    assert page.evaluate(f"[...{lines}].filter(line => line.classList.contains('other')).length") == 0


def test_the_theme_follows_the_system_until_the_switch_says_otherwise(opened):
    def ground(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark, light = opened(scheme="dark"), opened(scheme="light")
    colours = {"dark": ground(dark), "light": ground(light)}
    assert colours["dark"] != colours["light"]
    switch = dark.locator("#theme")
    for name in ("light", "dark", "auto"):
        switch.click()
        assert switch.inner_text() == f"Theme: {name}"
        assert ground(dark) == colours["dark" if name == "auto" else name]
    mark = "getComputedStyle(document.querySelector('.chart .role-axis-label text')).fill"
    assert dark.evaluate(mark) != light.evaluate(mark)


def test_it_prints_light_and_unfolded(opened, tmp_path):
    page = opened(scheme="dark")
    page.locator("#theme").click()
    page.locator("#theme").click()  # dark, whatever the system has
    pdf = page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") >= 4
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details").count() == page.locator("details[open]").count() > 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0  # folded again afterwards
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#theme").is_hidden()


def test_without_scripts_everything_is_there_but_the_switch(browser, file):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1100, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".chart svg:visible").count() == page.locator(".chart").count() > 0
    assert page.locator("#theme").is_hidden()
    assert page.locator("table:visible").count() > 10
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_axe_finds_no_serious_fault(opened, scheme, device):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(WIDTHS[device], scheme)
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    found = Axe().run(page).response
    faults = [(fault["id"], fault["impact"], fault["nodes"][0]["html"][:200]) for fault in found["violations"]]
    assert [fault for fault in faults if fault[1] in ("serious", "critical")] == []
    assert any(rule["id"] == "color-contrast" for rule in found["passes"])
