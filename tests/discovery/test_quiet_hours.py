"""When a watch may be told: quiet hours on any day of the year, cooldown, and cap."""

from datetime import UTC, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

import pytest

from discovery import notifier

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("begins", "ends", "moment", "until_"),
    [
        # By day.
        ("13:00", "15:00", "2026-02-18T12:59:59", None),
        ("13:00", "15:00", "2026-02-18T13:00:00", "2026-02-18T15:00:00"),
        ("13:00", "15:00", "2026-02-18T14:59:59", "2026-02-18T15:00:00"),
        ("13:00", "15:00", "2026-02-18T15:00:00", None),
        # Over midnight: before it, at it, after it.
        ("22:00", "07:00", "2026-02-18T21:59:59", None),
        ("22:00", "07:00", "2026-02-18T22:00:00", "2026-02-19T07:00:00"),
        ("22:00", "07:00", "2026-02-19T00:00:00", "2026-02-19T07:00:00"),
        ("22:00", "07:00", "2026-02-19T06:59:59", "2026-02-19T07:00:00"),
        ("22:00", "07:00", "2026-02-19T07:00:00", None),
        ("00:00", "06:00", "2026-02-19T00:00:00", "2026-02-19T06:00:00"),
        ("22:00", "00:00", "2026-02-18T23:59:59", "2026-02-19T00:00:00"),
        ("22:00", "00:00", "2026-02-19T00:00:00", None),
        # The clock goes forward at 02:00 on 2026-03-29: the night is an hour shorter.
        ("22:00", "07:00", "2026-03-28T23:00:00", "2026-03-29T07:00:00"),
        # And back at 03:00 on 2026-10-25: an hour longer.
        ("22:00", "07:00", "2026-10-24T23:00:00", "2026-10-25T07:00:00"),
        ("22:00", "07:00", "2026-10-25T02:30:00", "2026-10-25T07:00:00"),
    ],
)
def test_quiet_hours(begins, ends, moment, until_):
    found = notifier.quiet_until(
        datetime.fromisoformat(moment).replace(tzinfo=BERLIN),
        BERLIN,
        clock.fromisoformat(begins),
        clock.fromisoformat(ends),
    )
    expected = until_ and datetime.fromisoformat(until_).replace(tzinfo=BERLIN)
    assert found == expected


def test_quiet_hours_whose_end_the_clock_shows_twice_or_never():
    def quiet(moment, begins, ends):
        at = datetime.fromisoformat(moment)
        return notifier.quiet_until(
            at, BERLIN, clock.fromisoformat(begins), clock.fromisoformat(ends)
        )

    # 02:30 comes twice on 2026-10-25, at 00:30 and 01:30 UTC: it is quiet until the second.
    assert quiet("2026-10-25T00:45+00:00", "22:00", "02:30") == datetime(
        2026, 10, 25, 1, 30, tzinfo=UTC
    )
    assert quiet("2026-10-25T01:30+00:00", "22:00", "02:30") is None
    # And begins with the first.
    assert quiet("2026-10-25T00:30+00:00", "02:30", "06:00") is not None
    # 02:30 never comes on 2026-03-29; what is not shown ends with the hour that is left out.
    assert quiet("2026-03-29T00:59+00:00", "22:00", "02:30") == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )
    assert quiet("2026-03-29T01:30+00:00", "22:00", "02:30") is None


def test_all_that_postpones_together():
    now = datetime(2026, 2, 18, 20, 0, tzinfo=UTC)
    plain = {
        "last_told_at": None,
        "cooldown_seconds": 600,
        "quiet_from": None,
        "quiet_to": None,
        "timezone": "UTC",
    }
    assert notifier.not_before(plain, now) == now
    cooling = plain | {"last_told_at": now - timedelta(seconds=60)}
    assert notifier.not_before(cooling, now) == now + timedelta(seconds=540)
    full = now - timedelta(minutes=10)
    assert notifier.not_before(cooling, now, full) == now + timedelta(minutes=50)
    # The hour is over in the middle of the quiet time.
    quiet = cooling | {"quiet_from": clock(20, 30), "quiet_to": clock(7)}
    assert notifier.not_before(quiet, now, full) == datetime(2026, 2, 19, 7, tzinfo=UTC)
    assert notifier.not_before(quiet, now) == now + timedelta(seconds=540)
