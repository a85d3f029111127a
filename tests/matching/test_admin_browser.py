"""Matching's staff pages in a real browser: drawn, dark and narrow, with CSP and without faults."""

import itertools
import random

import pytest

from tests.browser import check_fits, shot
from tests.browser import marks as browser_marks

COMPONENTS = [
    {"name": "words", "raw": 0.61, "weight": 0.3, "contribution": 0.23},
    {"name": "meaning", "raw": 0.83, "weight": 0.25, "contribution": 0.21},
    {"name": "distance", "raw": 0.97, "weight": 0.2, "contribution": 0.19},
    {"name": "title", "raw": 0.4, "weight": 0.15, "contribution": 0.06},
    {"name": "date", "raw": 0.9, "weight": 0.1, "contribution": 0.09},
]

pytestmark = browser_marks


@pytest.fixture
def pages(transactional_db, ann, bob, post, suggest) -> dict[str, str]:
    """A lost phone among 40 items, ten matches of it, jobs in every state; pages by name."""
    from matching import queue
    from matching.models import Match, MatchJob

    rnd = random.Random(1)
    lost = post(
        ann,
        "lost",
        "Black iPhone 12 with a red case",
        description="Left on bus 9 near Commercial Drive. The screen has a crack.",
        category="phones",
        attributes={"colour": "black", "brand": "Apple", "gb": 128},
        country="CA",
        city="Vancouver",
        latitude=49.2626,
        longitude=-123.0695,
        happened_on=None,
    )
    found = [
        post(
            bob,
            "found" if at % 3 else "wanted",
            f"Phone number {at}, found somewhere",
            description="In a bag under a seat.",
            city="Vancouver",
            latitude=49.2626 + rnd.uniform(-0.007, 0.007),
            longitude=-123.0695 + rnd.uniform(-0.014, 0.014),
        )
        for at in range(40)
    ]
    states = iter(["confirmed", "dismissed", *["suggested"] * 98])
    matches = [
        suggest(lost, item, score=round(0.78 - at / 20, 2), components=COMPONENTS)
        for at, item in enumerate([item for item in found if item.kind == "found"][:10])
    ]
    for match in matches:
        Match.objects.filter(pk=match.pk).update(state=next(states))
    job = queue.submit_match(owner=ann.user, query={"kind": "lost", "title": "A blue umbrella"})
    error = "ValueError: vectors have 12 dimensions\nDETAIL: …"
    MatchJob.objects.filter(pk=job.pk).update(state="failed", attempts=3, error=error)
    return {
        "items": "item/",
        "item": f"item/{lost.pk}/change/",
        "matches": "match/",
        "match": f"match/{matches[0].pk}/change/",
        "jobs": "matchjob/",
        "job": f"matchjob/{job.pk}/change/",
        "weights": "pairweights/",
        "weights-form": "pairweights/lost_found/change/",
        "audit": "auditlog/",
    }


@pytest.fixture
def visit(open_admin, pages):
    """`visit(name, width=…, dark=…)` opens one of the pages."""

    def open_page(name: str, *, width: int = 1440, dark: bool = False):
        page = open_admin(f"matching/{pages[name]}", width=width, dark=dark)
        shot(page, f"{name}-{'dark' if dark else 'light'}-{width}")
        return page

    return open_page


def colours(page, selector: str, *properties: str) -> list[str]:
    script = "(one, names) => names.map(name => getComputedStyle(one)[name])"
    return page.eval_on_selector(selector, script, list(properties))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_cells_are_drawn(visit, dark):
    page = visit("item", dark=dark)
    assert page.evaluate("document.documentElement.classList.contains('dark')") is dark
    assert page.locator(".mt-cell").count() == 9
    assert page.locator(".mt-dot-counterpart").count() > 10
    picture = page.locator(".mt-cells").bounding_box()
    here = page.locator(".mt-here").bounding_box()
    middle = page.locator(".mt-cell-middle").bounding_box()
    assert picture["width"] > 300
    assert middle["x"] <= here["x"] + here["width"] / 2 <= middle["x"] + middle["width"]
    assert middle["y"] <= here["y"] + here["height"] / 2 <= middle["y"] + middle["height"]
    dot, other, ground = (
        colours(page, selector, name)[0]
        for selector, name in [
            (".mt-dot-counterpart", "fill"),
            (".mt-dot:not(.mt-dot-counterpart)", "fill"),
            (".sg-panel", "backgroundColor"),
        ]
    )
    assert len({dot, other, ground}) == 3
    page.locator(".mt-cells a").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/item/*/change/")
    assert page.faults == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_waterfall_descends(visit, dark):
    page = visit("match", dark=dark)
    boxes = [bar.bounding_box() for bar in page.locator("tbody .mt-bar").all()]
    assert len(boxes) == 5
    for one, following in itertools.pairwise(boxes):
        assert following["x"] == pytest.approx(one["x"] + one["width"], abs=1.5)
    total = page.locator(".mt-bar-total").bounding_box()
    assert total["x"] + total["width"] == pytest.approx(boxes[-1]["x"] + boxes[-1]["width"], abs=2)
    bar, track = (colours(page, s, "backgroundColor")[0] for s in ("tbody .mt-bar", ".mt-track"))
    assert bar != track
    assert page.faults == []


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1440, True), (390, True)])
def test_pages_have_no_faults_and_fit(visit, pages, width, dark):
    for name in pages:
        page = visit(name, width=width, dark=dark)
        check_fits(page, name)
        page.close()


def test_a_failed_job_is_retried_by_its_button(visit):
    page = visit("job")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_selector("text=The job is queued again.")
    assert page.locator(".sg-badge", has_text="queued").count() == 1
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=The job is cancelled.")
    assert page.faults == []


def test_weights_are_saved_by_the_form(visit):
    page = visit("weights-form")
    field = page.locator("form.sg-panel input[type=text]").first
    field.fill("7.5")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("text=Saved")
    assert "7.5" in page.locator("#main, main").first.text_content()
    assert page.faults == []
