"""What the pictures of discovery are made of: nothing falls out of them, whatever is drawn."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import charts

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 25, 21, 30, tzinfo=UTC)


def drop(number: int, hours: float, length: float | None, *, is_open: bool = False) -> dict:
    opened = NOW - timedelta(hours=hours)
    return {
        "id": number,
        "slot_id": f"slot {number}",
        "opened_at": opened,
        "closed_at": None if length is None else opened + timedelta(hours=length),
        "is_open": is_open,
    }


def bucket(day: date | None = date(2026, 11, 26), slot: str = "15:00", **fields) -> dict:
    given = {
        "day": day,
        "time_slot": slot,
        "open_slots": 0,
        "checked_at": NOW - timedelta(minutes=3),
        "changed_at": None,
        "last_success_at": NOW - timedelta(minutes=3),
        "consecutive_failures": 0,
        "state": "fresh",
    }
    return given | fields


def test_no_drop_is_no_history():
    assert charts.history([], now=NOW, zone=BERLIN) is None


def test_one_drop():
    found = charts.history([drop(1, 2, 0.5)], now=NOW, zone=BERLIN)
    [span] = found["spans"]
    assert (span["state"], span["says"]) == (
        "closed",
        "slot 1 opened Wed 25 Nov 2026 20:30, open for 30 min.",
    )
    assert float(span["x"]) == pytest.approx(1)
    assert float(span["width"]) == pytest.approx(98 / 4)
    assert [tick["label"] for tick in found["ticks"]] == [
        "20:30",
        "21:00",
        "21:30",
        "22:00",
        "22:30",
    ]


def test_states_of_drops():
    drops = [drop(1, 3, 1), drop(2, 2, None, is_open=True), drop(3, 1, None)]
    found = charts.history(drops, now=NOW, zone=BERLIN)
    assert found["counts"] == {"open": 1, "closed": 1, "ended": 1}
    closed, is_open, ended = found["spans"]
    assert float(is_open["right"]) == pytest.approx(99)
    assert "still open after 2 h" in is_open["says"]
    assert float(ended["width"]) < 1
    assert "before it was seen to close" in ended["says"]
    assert closed["y"] == found["spans"][0]["y"]


def test_spans_that_overlap_lie_in_lanes():
    found = charts.history([drop(at, 10, 2) for at in range(3)], now=NOW, zone=BERLIN)
    assert len({span["y"] for span in found["spans"]}) == 3
    apart = charts.history([drop(1, 10, 1), drop(2, 5, 1)], now=NOW, zone=BERLIN)
    assert len({span["y"] for span in apart["spans"]}) == 1


def test_a_recording_of_the_past_fills_the_plot():
    drops = [drop(1, 24 * 300, 1), drop(2, 24 * 298, 1)]
    found = charts.history(drops, now=NOW, zone=BERLIN)
    assert float(found["spans"][1]["right"]) == pytest.approx(99)


hours = st.floats(0, 24 * 40)


@given(st.lists(st.tuples(hours, st.none() | hours, st.booleans()), min_size=1, max_size=500))
def test_nothing_lies_outside(rows):
    drops = [
        drop(at, age, None if length is None else min(length, age), is_open=is_open)
        for at, (age, length, is_open) in enumerate(rows)
    ]
    found = charts.history(drops, now=NOW, zone=BERLIN)
    assert len(found["spans"]) == len(drops)
    assert float(found["height"]) < 320
    assert len(found["ticks"]) <= 6
    for span in found["spans"]:
        assert 0 <= float(span["x"]) <= 100
        assert float(span["x"]) + float(span["width"]) <= 100.01
        assert float(span["y"]) + float(span["height"]) <= float(found["bottom"]) + 0.1
    for tick in found["ticks"]:
        assert 0 <= float(tick["x"]) <= 100


def test_hours():
    counts = [0] * 24
    counts[17], counts[9] = 40, 10
    found = charts.hours(counts)
    assert found["usual"] == 17
    assert float(found["bars"][17]["height"]) == 4 * float(found["bars"][9]["height"])
    assert [bar["label"] for bar in found["bars"] if bar["label"]] == [
        "00", "03", "06", "09", "12", "15", "18", "21",
    ]  # fmt: skip
    assert charts.hours([0] * 24)["usual"] is None


def test_a_heat_map():
    rows = [
        bucket(slot="00:00", open_slots=1, changed_at=NOW - timedelta(hours=2)),
        bucket(open_slots=100, state="failing", consecutive_failures=2),
        bucket(day=date(2026, 11, 27), state="frozen", open_slots=25),
        bucket(day=date(2026, 11, 28), checked_at=None, last_success_at=None, state="new"),
    ]
    found = charts.heat_map(rows, now=NOW)
    assert (found["most"], found["open"], found["buckets"]) == (100, 126, 4)
    assert [day["date"] for day in found["days"]] == ["26 Nov", "27 Nov", "28 Nov"]
    cells = [cell for day in found["days"] for cell in day["cells"]]
    assert [cell["level"] for cell in cells] == [1, 5, 3, 0]
    assert [cell["mark"] for cell in cells] == ["", "!", "?", "–"]
    first, second, third, fourth = (cell["says"] for cell in cells)
    day = "Thursday 26 November 2026"
    assert first == f"{day}, from 00:00: 1 slot open, checked 3 min ago, changed 2 h ago."
    assert second.startswith(f"{day}, from 15:00: 100 slots open, checked 3 min ago, failing: ")
    assert second.endswith(", 2 failures in a row.")
    assert third.endswith(
        "25 slots open, checked 3 min ago, frozen: nobody knows what is open now."
    )
    assert fourth == "Saturday 28 November 2026, from 15:00: 0 slots open, never checked."


def test_an_empty_heat_map():
    assert charts.heat_map([], now=NOW)["days"] == []


def test_the_standing_bucket():
    found = charts.heat_map([bucket(day=None, slot="", open_slots=7)], now=NOW)
    assert not found["wide"]
    assert found["days"][0]["cells"][0]["says"] == "Now: 7 slots open, checked 3 min ago."
