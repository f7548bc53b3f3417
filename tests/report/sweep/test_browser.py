"""The page of a sweep in a real browser: its charts, its table, and what they do together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmcmc_dist.report.page import write_report

DESKTOP, PHONE = (1280, 900), (360, 740)
HOSTILE = "<script>document.title='broken'</script><img src=x onerror=\"throw 1\">"


@pytest.fixture(scope="session")
def pages(made_sweeps, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    space = {f"{HOSTILE}.{i}": {"choice": [HOSTILE, "b"]} for i in range(3)}
    sweeps = {
        "few": made_sweeps("few", 3),
        "forty": made_sweeps("forty", 40),
        "thousand": made_sweeps("thousand", 1000, asha=True, pictures=4),
        "two": made_sweeps("two", 60, metrics=2, pictures=3),
        "hostile": made_sweeps("hostile", 14, space=space, pictures=0, title=HOSTILE),
    }
    return {
        name: write_report([sweep], folder / f"{name}.html").path for name, sweep in sweeps.items()
    }


@pytest.fixture
def visit(open_page, pages) -> Callable[..., Any]:
    def go(name: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        return open_page(pages[name], size, scheme)

    return go


def rows(page: Any, column: int = 0) -> list[str]:
    """A column of the table of trials, as far as it can be seen."""
    return page.eval_on_selector_all(
        "#all-trials tbody tr",
        f"all => all.filter(r => r.offsetHeight).map(r => r.cells[{column}].textContent.trim())",
    )


def strands(page: Any) -> int:
    """Lines of the parallel coordinates that are shown."""
    return page.locator("[data-chart=parallel] > g > .strand:not(.off)").count()


@pytest.mark.parametrize("name", ["few", "forty", "two"])
def test_everything_is_drawn(visit, name: str) -> None:
    page = visit(name).page
    trials = {"few": 3, "forty": 40, "two": 60}[name]
    assert len(rows(page)) == trials
    statuses = rows(page, 1)
    shown = sum("failed" not in status for status in statuses)
    assert strands(page) == shown
    for chart in page.locator("[data-chart=course], [data-chart=slice]").all():
        assert chart.locator("g > .dot").count() == shown
    assert page.locator("[data-chart=slice]").count() == 6
    assert page.locator("[data-chart=front]").count() == (name == "two")
    images = page.eval_on_selector_all("main img", "all => all.map(i => i.naturalWidth)")
    assert images and all(width > 1 for width in images)


def test_a_thousand_trials_are_drawn_and_answer(visit) -> None:
    page = visit("thousand").page
    drawn, answered = page.evaluate(
        """() => {
            const clock = (what) => {
                const begun = performance.now();
                what();
                return performance.now() - begun;
            };
            const chart = charts.find(c => c instanceof Parallel);
            const box = chart.svg.getBoundingClientRect();
            const at = { clientX: box.left + 300, clientY: box.top + 200 };
            const least = (what) => Math.min(...[1, 2].map(() => clock(what)));
            return [least(show), least(() => point(chart.locate(at), at))];
        }"""
    )
    assert drawn < 2000 and answered < 200
    assert len(rows(page)) == 1000


def test_pointing_at_a_trial_marks_it_in_every_chart(visit) -> None:
    page = visit("forty").page
    course = page.locator("[data-chart=course]")
    spot = course.locator("circle.dot").last  # the best lies on top
    spot.scroll_into_view_if_needed()
    spot.hover(force=True)
    best = rows(page)[0]
    assert page.locator("#tip b").text_content() == f"trial {best} · done"
    assert "langevin.step_size" in page.locator("#tip").text_content()
    for name in ("course", "training", "slice", "parallel"):
        chart = page.locator(f"[data-chart={name}]").first
        assert chart.locator(".over > *").count() >= 2, name
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden() and page.locator(".over > *").count() == 0


def test_arrow_keys_go_through_the_trials_by_rank(visit) -> None:
    page = visit("forty").page
    order = rows(page)
    page.focus("[data-chart=parallel]")
    page.keyboard.press("Home")
    assert order[0] in page.text_content("#tip b")
    page.keyboard.press("ArrowRight")
    assert order[1] in page.text_content("#tip b")
    assert "rank 2 of" in page.text_content("#spoken")
    page.keyboard.press("Enter")
    assert page.get_attribute(f'tr[data-trial="{order[1]}"] .pick', "aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.get_attribute(f'tr[data-trial="{order[1]}"] .pick', "aria-pressed") == "false"


def drag(page: Any, axis: int, low: float, high: float) -> None:
    """Choose a range along an axis of the parallel coordinates, 0 … 1 from its lower end."""
    page.locator("[data-chart=parallel]").scroll_into_view_if_needed()
    ends = page.evaluate(
        """([axis, low, high]) => {
            const chart = charts.find(c => c instanceof Parallel);
            const box = chart.svg.getBoundingClientRect();
            return [low, high].map(share => {
                const [x, y] = chart.spot(axis, share);
                return [box.left + x, box.top + y];
            });
        }""",
        [axis, low, high],
    )
    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*ends[1], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_range_along_an_axis_chooses_trials_everywhere(visit, size) -> None:
    page = visit("forty", size).page
    before = strands(page)
    drag(page, 0, 0.5, 0.95)  # of step sizes from 0.5 to 4, log: from 1.41 to 3.61
    chosen = strands(page)
    assert 0 < chosen < before
    assert page.text_content("#count") == f"{chosen} of {before} trials chosen"
    kept = page.evaluate(
        """data.trials.filter(
            t => t.dials[0] > 1.42 && t.dials[0] < 3.58 && t.status !== 'failed').length"""
    )
    assert abs(chosen - kept) <= 1
    assert len(rows(page)) == chosen
    slices = page.locator("[data-chart=slice]").first
    assert slices.locator("g > .dot:not(.off)").count() == chosen
    page.click("#reset")
    assert strands(page) == before and page.locator("#reset").is_hidden()


def test_the_table_is_sorted_by_its_heads_and_searched(visit) -> None:
    page = visit("forty").page
    steps = page.get_by_role("columnheader", name="langevin.steps")
    column = steps.evaluate("head => head.cellIndex")
    steps.get_by_role("button").click()
    up = [int(text) for text in rows(page, column)]
    assert up == sorted(up) and steps.get_attribute("aria-sort") == "ascending"
    steps.get_by_role("button").click()
    assert [int(text) for text in rows(page, column)] == sorted(up, reverse=True)
    metric = page.get_by_role("columnheader", name="fd_classifier_refined")
    metric.get_by_role("button").click()
    values = rows(page, 2)
    numbers = [float(v.replace(",", "")) for v in values if v != "–"]
    assert numbers == sorted(numbers) and set(values[len(numbers) :]) <= {"–"}
    page.fill('[data-filter="all-trials"]', "diverged")
    assert rows(page) and all("diverged" in status for status in rows(page, 1))


def test_the_search_over_trials_images_and_time(visit) -> None:
    page = visit("forty").page
    line = page.locator("[data-chart=course] .best-line")
    drawn = {}
    for name in ("order", "images", "minutes"):
        page.check(f"input[name=course][value={name}]")
        drawn[name] = line.get_attribute("d")
    assert len(set(drawn.values())) == 3
    assert page.text_content("[data-course]") == "minutes of all trials until then"


def test_another_metric_is_chosen_for_all(visit) -> None:
    page = visit("two").page
    before = page.locator("[data-chart=slice] .median").first.get_attribute("d")
    assert page.locator('[data-of="1"]').is_hidden()
    page.check("input[name=metric][value='1']")
    assert page.locator('[data-of="1"]').is_visible() and page.locator('[data-of="0"]').is_hidden()
    assert page.locator("[data-chart=slice] .median").first.get_attribute("d") != before
    assert "↑ higher is better" in page.locator("[data-metric]").first.text_content()
    front = page.evaluate("data.front.length")
    assert page.locator("[data-chart=front] > .ring").count() == front


def test_a_picture_is_enlarged(visit) -> None:
    page = visit("forty").page
    assert page.locator(".best-grids figure").count() == 8
    page.locator(".best-grids .larger").first.click()
    assert page.locator("#viewer").is_visible()
    assert rows(page)[0] in page.get_attribute("#viewer img", "alt")


@pytest.mark.parametrize("name", ["forty", "two", "hostile"])
def test_a_phone_scrolls_in_one_direction(visit, name: str) -> None:
    page = visit(name, PHONE).page
    page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_a_name_of_markup_is_text(visit) -> None:
    page = visit("hostile").page
    assert page.text_content("h1") == HOSTILE and page.locator("img[src=x]").count() == 0
    page.focus("[data-chart=course]")
    page.keyboard.press("Home")
    assert HOSTILE in page.text_content("#tip") and page.title() != "broken"


@pytest.mark.parametrize("name", ["forty", "two"])
def test_everything_has_a_name(visit, name: str) -> None:
    page = visit(name).page
    unnamed = """all => all.filter(e => !(e.getAttribute('aria-label') || e.labels?.length
        || e.textContent.trim())).map(e => e.outerHTML.slice(0, 90))"""
    selector = "button, input, select, [role=region], svg[role=img]"
    assert page.eval_on_selector_all(selector, unnamed) == []
    levels = page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    links = page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.hash.slice(1))")
    assert set(links) <= set(ids)
    assert page.eval_on_selector_all(".scroll", "all => all.every(e => e.tabIndex === 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_whole_ramp_stands_out_from_the_paper(visit, scheme: str) -> None:
    """WCAG 2.2: 3:1 for what a chart consists of; and the two ends differ in hue."""
    page = visit("few", scheme=scheme).page
    colours = page.evaluate(
        """() => {
            const canvas = document.createElement('canvas');
            const pen = canvas.getContext('2d', {willReadFrequently: true});
            const probe = document.body.appendChild(document.createElement('i'));
            return ['var(--paper)', ...[0, 25, 50, 75, 100].map(k =>
                `color-mix(in oklab, var(--bad) ${k}%, var(--good))`)].map(colour => {
                    probe.style.color = colour;
                    pen.fillStyle = getComputedStyle(probe).color;
                    pen.fillRect(0, 0, 1, 1);
                    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
                });
        }"""
    )
    paper, *ramp = colours
    for colour in ramp:
        assert contrast(colour, paper) >= 3, (colour, paper)
    assert ramp[0][2] > ramp[0][0] and ramp[-1][0] > ramp[-1][2]  # blue is good, orange is bad


def contrast(a: list[float], b: list[float]) -> float:
    def luminance(rgb: list[float]) -> float:
        parts = [v / 255 for v in rgb]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
