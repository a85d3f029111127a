"""The price chart in a real browser: drawn, driven by mouse and keys, dark and narrow, with CSP."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.browser import marks as browser_marks
from tests.browser import shot

SELLERS = ["tlamagames", "tlamagase", "fantasywelt", "milan", "philibert"]
DAYS = 730
START = datetime(2023, 11, 1, 6, tzinfo=UTC)

pytestmark = browser_marks


@pytest.fixture
def product(transactional_db) -> str:
    """Five sellers over two years with promotions and a stock-out, two outliers, two currencies."""
    from catalog.actions import record_snapshots
    from config import readmodels

    rows = []
    for rank, seller in enumerate(SELLERS):
        for day in range(DAYS):
            if 200 + 40 * rank < day < 230 + 40 * rank:
                continue
            price = 40 + 2 * rank + day // 90 - (8 if (day + 37 * rank) % 120 < 14 else 0)
            rows.append((seller, day, f"{price}.99", "EUR"))
    rows += [("tlamagames", day + 0.5, "399", "EUR") for day in (640,)]
    rows += [("milan", day + 0.5, "4", "EUR") for day in (400,)]
    rows += [("tlamagames", day, "949", "CZK") for day in range(600, DAYS)]
    snapshots = [
        {
            "product_name": "Catan",
            "seller": seller,
            "price": price,
            "currency": currency,
            "scraped_at": (START + timedelta(days=day)).isoformat(),
        }
        for seller, day, price, currency in rows
    ]
    for at in range(0, len(snapshots), 5_000):
        record_snapshots(rows=snapshots[at : at + 5_000], source="test")
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)
    return "catan"


@pytest.fixture
def visit(open_admin, product):
    """`visit(width=…, dark=…)` opens the product's page."""

    def open_page(**options):
        page = open_admin(f"catalog/slugsummary/{product}/change/", **options)
        page.wait_for_selector(".pc-svg .pc-line")
        return page

    return open_page


def spoken(page, has: str) -> str:
    page.wait_for_function(
        "has => document.querySelector('[data-part=live]').textContent.includes(has)", arg=has
    )
    return page.locator("[data-part=live]").text_content()


def test_chart_on_a_desk(visit):
    page = visit()
    assert page.locator("[data-part=legend] button").count() == 5
    assert page.locator(".pc-seller").count() == 5
    dashes = page.eval_on_selector_all(
        ".pc-seller .pc-line", "lines => lines.map(line => line.getAttribute('stroke-dasharray'))"
    )
    colours = page.eval_on_selector_all(
        ".pc-seller .pc-line", "lines => lines.map(line => getComputedStyle(line).stroke)"
    )
    assert len(set(dashes)) == len(set(colours)) == 5
    assert page.locator(".pc-outlier.pc-suspect").count() == 2
    assert any("399" in text for text in page.locator(".pc-outlier-price").all_text_contents())
    assert "30-day prior low" in page.locator(".pc-prior-label").first.text_content()
    shot(page, "chart-light")
    assert page.faults == []


def test_legend_currency_and_range(visit):
    page = visit()
    legend = page.locator("[data-part=legend] button")
    legend.nth(1).focus()
    page.keyboard.press("Space")
    assert legend.nth(1).get_attribute("aria-pressed") == "false"
    assert page.locator(".pc-seller").count() == 4
    page.get_by_role("button", name="90 days").click()
    assert "Aug" in page.locator(".pc-axes").text_content()
    assert page.locator(".pc-outlier").count() == 1  # the old one is out of the range
    page.get_by_role("button", name="CZK", exact=True).click()
    assert page.locator(".pc-seller").count() == 1
    assert "CZK" in page.locator(".pc-axes").text_content()
    assert page.faults == []


def test_keys_and_mouse_move_one_crosshair(visit):
    page = visit()
    picture = page.locator(".pc-svg")
    picture.focus()
    page.keyboard.press("End")
    assert "Oct 30, 2025" in spoken(page, "Oct 30")
    page.keyboard.press("Shift+ArrowLeft")
    text = spoken(page, "Oct 23")
    assert all(seller in text for seller in SELLERS)
    page.keyboard.press("o")
    assert "outlier €4.00 suspect" in spoken(page, "outlier")
    assert page.locator("[data-part=tip]").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("[data-part=tip]").is_hidden()
    box = picture.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "€" in page.locator("[data-part=tip]").text_content()
    assert page.faults == []


def test_table_holds_what_the_chart_shows(visit):
    page = visit()
    page.locator("[data-part=details] summary").click()
    page.wait_for_selector("[data-part=table] table thead th")  # filled when it is unfolded
    table = page.locator("[data-part=table] table")
    assert (
        table.locator("thead th").all_text_contents()[1:]
        == page.locator(".pc-key-name").all_text_contents()
    )
    assert "outlier €399.00, suspect" in table.text_content()
    assert page.faults == []


def test_dark_and_narrow(visit):
    page = visit(width=390, dark=True, has_touch=True, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.classList.contains('dark')")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(".pc-svg").bounding_box()["width"] <= 390
    ground, ink = page.eval_on_selector(
        ".pc", "pc => [getComputedStyle(pc).backgroundColor, getComputedStyle(pc).color]"
    )
    assert ground != ink
    page.locator(".pc-svg").tap()
    assert "€" in page.locator("[data-part=tip]").text_content()
    shot(page, "chart-dark-phone")
    assert page.faults == []


def test_a_verdict_redraws_the_chart(visit):
    page = visit()
    section = page.locator("section", has=page.locator("#outliers-title"))
    section.get_by_role("button", name="Reject: 399.00 EUR").click()
    page.wait_for_selector(".pc-outlier.pc-rejected")
    assert page.locator(".pc-outlier.pc-suspect").count() == 1
    assert page.faults == []
