"""The first page in a real browser: wide and narrow, light and dark, calm and in trouble."""

from datetime import timedelta

import pytest
from django.utils import timezone

from config import runs, vitals
from config.jobs import run_job
from config.models import JobRun, ReadModelState, VitalSample
from tests.browser import check_fits, serious_barriers, shot
from tests.browser import marks as browser_marks

pytestmark = browser_marks


@pytest.fixture
def day() -> None:
    """A day of samples, so that there are changes and trends to draw."""
    now = timezone.now()
    VitalSample.objects.bulk_create(
        VitalSample(at=now - timedelta(minutes=30 * at), key=vital.key, value=(7 * at) % 31)
        for vital in vitals.read()[0]
        for at in range(1, 50)
    )


@pytest.fixture
def troubled(day) -> None:
    """A silent worker, a failed job, a read model that is off and one that is stale."""
    JobRun.objects.create(
        job="prune", trigger="schedule", state="failed", owner="x", host="h", pid=1, error="no"
    )
    for name, differences in (("catalog_slug_summary", 12), ("feed_timelines", 0)):
        ReadModelState.objects.create(
            name=name, differences=differences, reconciled_at=timezone.now(),
            refreshed_at=timezone.now() - timedelta(days=3),
        )  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_in_trouble(open_admin, troubled, width, dark):
    page = open_admin("", width=width, dark=dark)
    shot(page, f"home-{'dark' if dark else 'light'}-{width}")
    check_fits(page, "home")
    assert page.locator(".sg-verdict-bad").count() == 1
    assert page.get_by_role("link", name="See why, and run them again").is_visible()
    assert page.locator(".sg-spark").count() > 20
    for folded in page.locator("details summary").all():
        folded.click()
    check_fits(page, "home, all unfolded")
    shot(page, f"home-unfolded-{'dark' if dark else 'light'}-{width}")
    assert serious_barriers(page) == []


def test_calm(open_admin, day):
    runs.beat(runs.WORKER)
    run_job("partitions_ahead", trigger="test")
    page = open_admin("")
    shot(page, "home-calm")
    assert page.locator("text=Nothing is stuck.").is_visible()
    assert serious_barriers(page) == []
