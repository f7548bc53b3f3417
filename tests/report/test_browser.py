"""The page in a real browser: loads from disk, asks for nothing, and every control works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmcmc_dist.report.page import write_report

DESKTOP, PHONE = (1280, 900), (360, 740)
HOSTILE = "<script>document.title='broken'</script><img src=x onerror=\"throw 1\">"


@pytest.fixture(scope="session")
def reports(make_shared_run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one run, of two, and of runs with hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    one = make_shared_run("first")
    two = make_shared_run("second", scale=1.5, settings={"langevin.steps": 77}, grids=(500, 3000))
    record = {"task": HOSTILE, "n": 10, "note": HOSTILE, "commit": HOSTILE, "pictures": []}
    figures = {f"{HOSTILE} {i}": 0.5 for i in range(29)} | {"text": HOSTILE}
    bad = make_shared_run(HOSTILE, evaluations=[{**record, "figures": figures}])
    return {
        "one": write_report([one], folder / "one.html").path,
        "two": write_report([one, two], folder / "two.html").path,
        "hostile": write_report([bad, two], folder / "hostile.html").path,
    }


@pytest.fixture
def visit(open_page, reports) -> Callable[..., Any]:
    def go(name: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        return open_page(reports[name], size, scheme)

    return go


@pytest.mark.parametrize("name", ["one", "two"])
def test_loads_from_disk_without_a_request_or_a_complaint(visit, name: str) -> None:
    page = visit(name).page
    images = page.eval_on_selector_all(
        "main img", "all => all.map(i => [i.complete, i.naturalWidth])"
    )
    assert images and all(complete and width > 1 for complete, width in images)


@pytest.mark.parametrize("key", ["ArrowLeft", "Home"])
def test_the_slider_moves_the_grid_by_key(visit, key: str) -> None:
    one = visit("one")
    (last,) = one.shown_grids()
    one.page.focus("#time")
    one.page.keyboard.press(key)
    (earlier,) = one.shown_grids()
    images = {"ArrowLeft": "2,000", "Home": "1,000"}[key]
    assert earlier != last and images in one.text("#time-text")
    assert images in one.page.get_attribute("#time", "aria-valuetext")
    one.page.keyboard.press("End")
    assert one.shown_grids() == [last] and "3,000" in one.text("#time-text")


def test_the_slider_moves_the_grid_by_pointer(visit) -> None:
    one = visit("one")
    (last,) = one.shown_grids()
    box = one.page.locator("#time").bounding_box()
    one.page.mouse.click(box["x"] + 4, box["y"] + box["height"] / 2)
    (first,) = one.shown_grids()
    assert first != last and "1,000" in one.text("#time-text")
    assert "1,000 images seen" in one.text("figure.grid .when")


def test_two_runs_show_what_each_had_by_then(visit) -> None:
    two = visit("two")
    assert two.page.locator("#time").evaluate("e => Number(e.max)") == 3  # 500, 1000, 2000, 3000
    two.page.focus("#time")
    two.page.keyboard.press("ArrowLeft")
    captions = two.page.locator("figure.grid .when").all_text_contents()
    assert [c.split(" images")[0] for c in captions] == ["2,000", "500"]
    boxes = [two.page.locator("figure.grid").nth(i).bounding_box() for i in (0, 1)]
    assert abs(boxes[0]["y"] - boxes[1]["y"]) < 2 and boxes[0]["x"] < boxes[1]["x"]


def test_play_runs_to_the_end(visit) -> None:
    one = visit("one")
    one.page.click("#play")
    assert "1,000" in one.text("#time-text") and one.text("#play") == "Pause"
    one.page.get_by_role("button", name="Play").wait_for()
    assert "3,000" in one.text("#time-text")


def test_tabs_by_pointer_and_by_key(visit) -> None:
    page = visit("one").page
    tabs = page.get_by_role("tab")
    assert page.locator("#tab-panel-0").is_visible() and page.locator("#tab-panel-1").is_hidden()
    tabs.nth(1).click()
    assert page.locator("#tab-panel-1").is_visible() and page.locator("#tab-panel-0").is_hidden()
    page.wait_for_selector("#tab-panel-1 .chart path.curve", state="attached")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tab-panel-0").is_visible()
    assert tabs.nth(0).get_attribute("aria-selected") == "true"
    assert tabs.nth(1).get_attribute("aria-selected") == "false"


def test_minutes_log_and_smoothing_redraw_the_curves(visit) -> None:
    one = visit("one")
    before = one.curve()
    one.page.check("input[name=x][value=minutes]")
    assert one.text('[data-panel="0"] .at') == "minutes of training"
    ticks = one.page.locator('[data-panel="0"] .chart text').all_text_contents()
    assert "4" in ticks and "3000" not in ticks  # 300 s of training are 5 minutes
    one.page.click('[data-panel="0"] .log')
    logarithmic = one.curve()
    assert logarithmic != before
    one.page.focus("#smooth")
    one.page.keyboard.press("End")
    assert one.curve() != logarithmic and one.page.locator('[data-panel="0"] .raw').count() == 1
    assert one.text('[data-panel="0"] .at') == "minutes of training · smoothed"
    assert one.page.locator('[data-panel="1"] .raw').count() == 0  # three points stay as they are


def test_values_below_zero_are_said_to_be_missing_on_a_log_axis(visit) -> None:
    one = visit("one")
    panel = one.page.locator(".panel", has=one.page.get_by_role("heading", name="Energy’s loss"))
    panel.locator(".log").click()
    assert "no value above 0" in panel.locator(".chart").text_content()


def test_a_legend_switches_a_line(visit) -> None:
    page = visit("one").page
    page.get_by_role("tab", name="Energy").click()
    panel = page.locator(".panel", has=page.get_by_role("heading", name="Energies"))
    panel.locator("path.curve").nth(1).wait_for(state="attached")
    assert panel.locator("path.curve").count() == 2
    button = panel.get_by_role("button", name="refined")
    button.click()
    assert panel.locator("path.curve").count() == 1
    assert button.get_attribute("aria-pressed") == "false"


def test_a_legend_switches_a_run_in_every_panel(visit) -> None:
    two = visit("two")
    assert len(two.curve(0)) == len(two.curve(1)) == 2
    two.page.locator('[data-panel="0"] .legend button').nth(1).click()
    assert len(two.curve(0)) == len(two.curve(1)) == 1


def test_hovering_reads_the_value_under_the_pointer(visit) -> None:
    one = visit("one")
    value = one.page.locator('[data-panel="0"] .legend .value')
    assert value.text_content() == "0.025"  # the last: 0.1 − 3000 / 40000
    one.page.locator('[data-panel="0"] .chart').hover(position={"x": 57, "y": 60})
    assert value.text_content() == "0.0975"  # the first, at 100 images
    assert "100 images seen · 0.1667 min" in one.text('[data-panel="0"] .at')
    assert "1,000 images seen" in one.text('[data-panel="1"] .at')  # a grid's, the nearest
    one.page.mouse.move(2, 2)
    assert value.text_content() == "0.025"


def test_arrow_keys_read_single_points(visit) -> None:
    one = visit("one")
    one.page.focus('[data-panel="0"] .chart')
    one.page.keyboard.press("Home")
    assert one.text('[data-panel="0"] .legend .value') == "0.0975"
    one.page.keyboard.press("ArrowRight")
    assert one.text('[data-panel="0"] .legend .value') == "0.095"
    assert "200 images seen" in one.text("#spoken") and "0.095" in one.text("#spoken")


def test_lines_differ_in_colour_dash_and_marker(visit) -> None:
    two = visit("two")
    look = "p => [getComputedStyle(p).stroke, p.getAttribute('stroke-dasharray')]"
    paths = two.page.locator('[data-panel="0"] path.curve')
    (colour, dash), (other, other_dash) = (paths.nth(i).evaluate(look) for i in (0, 1))
    assert colour != other and dash != other_dash
    spots = two.page.eval_on_selector_all(
        '[data-panel="0"] .spot', "all => new Set(all.map(s => s.getAttribute('d'))).size"
    )
    assert spots == 2


def test_search_in_the_config(visit) -> None:
    page = visit("one").page
    page.click("#config summary")
    page.fill('[data-filter="config-all"]', "langevin step_s")
    shown = page.eval_on_selector_all(
        "#config-all tbody tr", "all => all.filter(r => r.offsetHeight).map(r => r.textContent)"
    )
    assert len(shown) == 1 and "langevin.step_size" in shown[0]


def test_many_figures_are_folded(visit) -> None:
    page = visit("hostile").page
    count = "all => all.filter(row => row.offsetHeight && row.innerText.includes('script')).length"
    assert page.eval_on_selector_all("tr.figure", count) == 15
    page.get_by_role("button", name="15 more figures").click()
    assert page.eval_on_selector_all("tr.figure", count) == 30


def test_a_picture_is_enlarged_and_closed_by_key(visit) -> None:
    one = visit("one")
    one.page.locator("figure.grid .larger").click()
    dialog = one.page.locator("#viewer")
    assert dialog.is_visible()
    assert dialog.locator("img").get_attribute("src") == one.shown_grids()[0]
    assert "3,000 images seen" in dialog.locator("img").get_attribute("alt")
    one.page.keyboard.press("Escape")
    assert dialog.is_hidden()


@pytest.mark.parametrize("name", ["one", "two", "hostile"])
def test_a_phone_scrolls_in_one_direction(visit, name: str) -> None:
    page = visit(name, PHONE).page
    page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    widths = page.eval_on_selector_all(
        "[role=tab]",
        "all => all.map(t => { t.click(); return document.documentElement.scrollWidth; })",
    )
    assert max(widths) <= PHONE[0]
    page.evaluate("scrollTo(300, 0)")
    assert page.evaluate("scrollX") == 0


def test_a_name_of_markup_is_text(visit) -> None:
    page = visit("hostile").page
    assert HOSTILE in page.locator("h2").first.text_content()
    assert "broken" not in page.evaluate("document.title.replace(/<.*>/, '')")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("name", ["one", "two"])
def test_everything_has_a_name(visit, name: str) -> None:
    """What axe checks first: alternative texts, labels, headings in order, ids that exist."""
    page = visit(name).page
    assert page.evaluate("document.documentElement.lang") == "en" and page.title()
    unnamed = """all => all.filter(e => !(e.getAttribute('aria-label') || e.labels?.length
        || e.textContent.trim())).map(e => e.outerHTML.slice(0, 90))"""
    selector = "button, input, select, [role=tab], [role=region], svg[role=img]"
    assert page.eval_on_selector_all(selector, unnamed) == []
    alts = page.eval_on_selector_all("main img", "all => all.map(i => i.alt)")
    assert alts and all(alts)
    levels = page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    wanted = page.eval_on_selector_all(
        "[aria-controls], [aria-labelledby], label[for], a[href^='#']",
        """all => all.map(e => e.getAttribute('aria-controls') || e.getAttribute('aria-labelledby')
            || e.htmlFor || e.getAttribute('href').slice(1))""",
    )
    assert wanted and set(wanted) <= set(ids)
    scrolled = page.eval_on_selector_all(".scroll", "all => all.every(e => e.tabIndex === 0)")
    assert scrolled  # what scrolls can be reached by keyboard


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(visit, scheme: str) -> None:
    """WCAG 2.2: 4.5:1 for text, 3:1 for the lines of a chart."""
    page = visit("two", scheme=scheme).page
    colours = page.evaluate(
        """() => {
            const probe = document.body.appendChild(document.createElement('i'));
            const seen = name => {
                probe.style.color = `var(--${name})`;
                return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
            };
            const names = ['paper', 'raised', 'tint', 'warn', 'ink', 'faint', 'accent',
                ...Array.from({length: 8}, (_, i) => `c${i}`)];
            return Object.fromEntries(names.map(name => [name, seen(name)]));
        }"""
    )
    paper = colours["paper"]
    assert luminance(paper) > 0.9 if scheme == "light" else luminance(paper) < 0.02
    for ground in ("paper", "raised", "warn"):
        assert contrast(colours["ink"], colours[ground]) > 7
        assert contrast(colours["faint"], colours[ground]) >= 4.5, ground
    assert contrast(colours["ink"], colours["tint"]) > 7
    assert contrast(colours["accent"], paper) >= 4.5
    for line in range(8):
        assert contrast(colours[f"c{line}"], paper) >= 3, line


def test_the_focus_can_be_seen(visit) -> None:
    page = visit("one").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")


def luminance(rgb: list[float]) -> float:
    parts = [v / 255 for v in rgb]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: list[float], b: list[float]) -> float:
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
