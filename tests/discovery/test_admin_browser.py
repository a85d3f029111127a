"""Discovery's staff pages in a real browser: drawn, dark and narrow, with CSP, without faults."""

import itertools
import random
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.browser import check_fits, shot
from tests.browser import marks as browser_marks
from tests.discovery import scenes

pytestmark = browser_marks


@pytest.fixture
def pages(transactional_db) -> dict[str, str]:
    """A source with a window of 14 days, venues with 0, 1 and 120 drops, dead letters; by name."""
    rnd = random.Random(3)
    now = timezone.now()
    source = scenes.make_source(
        last_success_at=now - timedelta(seconds=40),
        title="Tables of the town",
        timezone="Europe/Berlin",
        provider="gbfs",
        consecutive_failures=1,
        last_error="The answer of https://api.example.org/tables?key=abc broke off",
    )
    scenes.fill_window(source)
    for at in range(12):
        failed = at % 5 == 0
        scenes.scan(
            source,
            polled_at=now - timedelta(minutes=at),
            outcome="failed" if failed else "recorded",
            error="https://api.example.org gave no whole answer within 10 s" if failed else "",
            opened=at,
            spared=at // 3,
        )
    scenes.make_source("halted", is_paused=True, last_success_at=now)
    scenes.make_source("bikes", last_success_at=now - timedelta(days=3))
    busy = scenes.make_venue(
        source, "chez-odile", name="Chez Odile", city="Lyon", latitude=45.7676, longitude=4.8344
    )
    scenes.count(busy, 120)
    for at in range(120):
        age = timedelta(hours=rnd.uniform(1, 9 * 24))
        length = min(age, timedelta(minutes=rnd.expovariate(1 / 200)))
        last = scenes.drop(
            busy, f"table {at} of the upper floor", age=age, length=length if at % 15 else None
        )
        if at % 30 == 0:
            scenes.hold_open(last)
    single = scenes.make_venue(source, "single", name="Single")
    scenes.count(single, 1)
    scenes.drop(single, "only one", age=timedelta(hours=5), length=timedelta(minutes=25))
    watch = scenes.watch(scenes.person(), source=source)
    scenes.name_venues(watch, busy)
    dead = scenes.notification(
        watch, last, "dead", attempts=6, error=f"{scenes.TARGET} answered 500"
    )
    scenes.notification(scenes.watch(scenes.person("bob")), last, "sent", told_at=now)
    return {
        "sources": "source/",
        "source-form": f"source/{source.pk}/change/",
        "window": f"source/{source.pk}/window/",
        "venues": "venue/",
        "venue": f"venue/{busy.pk}/change/",
        "venue-one": f"venue/{single.pk}/change/",
        "venue-none": f"venue/{scenes.make_venue(source, 'none').pk}/change/",
        "drops": "dropevent/?within=all",
        "watches": "watch/",
        "watch": f"watch/{watch.pk}/change/",
        "deliveries": "usernotification/?state__exact=dead",
        "delivery": f"usernotification/{dead.pk}/change/",
    }


@pytest.fixture
def visit(open_admin, pages):
    """`visit(name, width=…, dark=…)` opens one of the pages."""

    def open_page(name: str, *, width: int = 1440, dark: bool = False):
        page = open_admin(f"discovery/{pages[name]}", width=width, dark=dark)
        shot(page, f"{name}-{'dark' if dark else 'light'}-{width}")
        return page

    return open_page


def contrast(page, selector: str) -> float:
    """The contrast of text and ground (WCAG 2) of the first element of a selector."""
    script = """one => {
        const look = getComputedStyle(one);
        const light = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
                const value = part / 255;
                return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const both = [light(look.color), light(look.backgroundColor)];
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    }"""
    return page.eval_on_selector(selector, script)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_heat_map_is_drawn(visit, dark):
    page = visit("window", dark=dark)
    assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
    cells = page.locator(".dc-cell")
    assert cells.count() == 28
    grounds = {
        page.eval_on_selector(
            f".dc-cell.dc-level-{level}", "one => getComputedStyle(one).backgroundColor"
        )
        for level in (0, 1, 2, 3, 4, 5)
    }
    assert len(grounds) == 6
    for level in (0, 1, 2, 3, 4, 5):
        assert contrast(page, f".dc-cell.dc-level-{level}") >= 4.5, level
    hatch = page.eval_on_selector(
        ".dc-cell.dc-frozen", "one => getComputedStyle(one).backgroundImage"
    )
    assert hatch.startswith("repeating-linear-gradient")
    assert page.locator(".dc-cell.dc-failing .dc-mark").first.inner_text() == "!"
    tops = {round(box.bounding_box()["y"]) for box in page.locator(".dc-day").all()}
    assert len(tops) == 1  # 14 days side by side
    assert page.faults == []


def test_the_heat_map_is_walked_by_keyboard(visit):
    page = visit("window")
    first = page.locator(".dc-cell").first
    first.focus()
    says = page.locator("#map-says")
    assert "from 00:00" in says.inner_text()
    page.keyboard.press("ArrowDown")
    assert "from 15:00" in says.inner_text()
    one = says.inner_text()
    page.keyboard.press("ArrowRight")
    assert "from 15:00" in says.inner_text()
    assert says.inner_text() != one
    page.keyboard.press("ArrowLeft")
    assert says.inner_text() == one
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.says") == says.inner_text()
    assert page.locator('.dc-cell[tabindex="0"]').count() == 1
    page.locator(".dc-cell").nth(3).hover()
    assert says.inner_text() == page.locator(".dc-cell").nth(3).get_attribute("data-says")
    assert page.faults == []


def test_the_heat_map_on_a_telephone(visit):
    page = visit("window", width=390)
    days = [box.bounding_box() for box in page.locator(".dc-day").all()]
    assert len({round(box["y"]) for box in days}) == 14  # one below the other
    assert all(box["x"] + box["width"] <= 390 for box in days)
    assert page.locator(".dc-cell").first.bounding_box()["height"] >= 40
    page.locator(".dc-cell").nth(5).click()
    assert page.locator("#map-says").inner_text().endswith(".")
    assert page.faults == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_history_is_drawn(visit, dark):
    page = visit("venue", dark=dark)
    plot = page.locator(".dc-history").bounding_box()
    spans = [span.bounding_box() for span in page.locator(".dc-span rect").all()]
    assert len(spans) == 120
    for box in spans:
        assert box["width"] >= 1
        assert plot["x"] - 1 <= box["x"]
        assert box["x"] + box["width"] <= plot["x"] + plot["width"] + 1
        assert plot["y"] <= box["y"] <= plot["y"] + plot["height"]
    fills = {
        page.eval_on_selector(f".dc-span-{name}", "one => getComputedStyle(one).fill")
        for name in ("open", "closed", "ended")
    }
    assert len(fills) == 3
    labels = [text.bounding_box() for text in page.locator(".dc-history .dc-tick").all()]
    assert 2 <= len(labels) <= 6
    for one, following in itertools.pairwise(labels):
        assert one["x"] + one["width"] < following["x"]
    page.locator(".dc-span").first.focus()
    page.keyboard.press("ArrowRight")
    said = page.locator("#history-says").inner_text()
    assert said == page.locator(".dc-span").nth(1).get_attribute("data-says")
    bars = [bar.bounding_box()["height"] for bar in page.locator(".dc-bar-value").all()]
    assert len(bars) == 24
    assert bars[17] == max(bars)
    assert page.faults == []


@pytest.mark.parametrize(
    ("width", "dark"), [(1440, False), (1440, True), (390, False), (390, True)]
)
def test_pages_have_no_faults_and_fit(visit, pages, width, dark):
    for name in pages:
        page = visit(name, width=width, dark=dark)
        check_fits(page, name)
        page.close()


def test_a_source_is_paused_by_its_button(visit):
    page = visit("window")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("text=is paused")
    assert page.locator(".dc-cell.dc-paused").count() == 28
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector("text=is resumed")
    assert page.faults == []


def test_a_dead_letter_is_retried_by_its_button(visit):
    page = visit("delivery")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector("text=It is due again.")
    assert page.locator(".sg-badge", has_text="pending").count() == 1
    assert page.faults == []


def test_a_mistake_in_the_form_is_told_at_its_field(visit):
    page = visit("source-form")
    page.locator("#id_timezone").fill("Mars/Olympus")
    page.locator("[name=_save]").first.click()
    page.wait_for_selector("text=Is no time zone")
    assert page.faults == []
