"""What the staff pages of discovery draw: a window as a heat map, a venue's history, its hours.

Pure: plain data in, plain data out. Positions are in percent of the width, so that a picture fits
a telephone and a wide screen with text of one size; heights are in pixels.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from config.admin.base import span

LEVELS = 5  # of colour, besides none
MARKS = {"fresh": "", "failing": "!", "frozen": "?", "paused": "‖", "new": "–"}
STATES = {
    "fresh": "",
    "failing": "failing: the last polls brought no answer",
    "frozen": "frozen: nobody knows what is open now",
    "paused": "paused by staff",
    "new": "never checked",
}
_EDGE = 1.0  # free at either side of a plot, percent
_LANES = 40
_LANES_HEIGHT = 240  # of all lanes together, at most
_LANE = (3.0, 14.0)  # height of one lane, least and most
_TOP = 8
_AXIS = 24
_TICKS = 5
_STEPS = (
    *(timedelta(minutes=minutes) for minutes in (5, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 7, 14, 30, 90)),
)
_BARS_HEIGHT = 110


def heat_map(buckets: Sequence[Mapping[str, Any]], *, now: datetime) -> dict[str, Any]:
    """Days with their cells, out of the rows of `queries.bucket_health` for one source.

    A cell has the number of open slots, a level of colour (0 to 5, by the square root of its share
    of the most), its state with a mark, how long ago it was checked, and a sentence.
    """
    most = max((row["open_slots"] for row in buckets), default=0)
    days: dict[Any, dict[str, Any]] = {}
    for row in buckets:
        day = days.setdefault(row["day"], _day(row["day"]))
        day["cells"].append(_cell(row, most, now))
    states = [row["state"] for row in buckets]
    return {
        "days": list(days.values()),
        "most": most,
        "open": sum(row["open_slots"] for row in buckets),
        "buckets": len(buckets),
        "wide": len(days) > 1,
        "states": [
            {"name": name, "mark": MARKS[name], "buckets": states.count(name)}
            for name in MARKS
            if name in states
        ],
    }


def _day(day: Any) -> dict[str, Any]:
    if day is None:
        return {"weekday": "now", "date": "", "cells": []}
    return {"weekday": f"{day:%a}", "date": f"{day.day} {day:%b}", "cells": []}


def _cell(row: Mapping[str, Any], most: int, now: datetime) -> dict[str, Any]:
    count, state = row["open_slots"], row["state"]
    checked = _since(row["checked_at"], now)
    answered = _since(row["last_success_at"], now)
    parts = [f"{count:,} {'slot' if count == 1 else 'slots'} open"]
    parts.append(f"checked {checked} ago" if checked else "never checked")
    if row["changed_at"]:
        parts.append(f"changed {_since(row['changed_at'], now)} ago")
    if state not in ("fresh", "new"):
        parts.append(STATES[state])
    if row["consecutive_failures"]:
        parts.append(f"{row['consecutive_failures']:,} failures in a row")
    day = row["day"]
    name = f"{day:%A} {day.day} {day:%B %Y}" if day else "Now"
    if row["time_slot"]:
        name = f"{name}, from {row['time_slot']}"
    return {
        "part": row["time_slot"],
        "count": f"{count:,}" if row["checked_at"] else "",
        "level": _level(count, most),
        "state": state,
        "mark": MARKS[state],
        "age": answered or checked,
        "says": f"{name}: {', '.join(parts)}.",
    }


def _level(count: int, most: int) -> int:
    return math.ceil(LEVELS * math.sqrt(count / most)) if count else 0


def _since(moment: datetime | None, now: datetime) -> str:
    return span(max(0.0, (now - moment).total_seconds())) if moment else ""


def history(
    drops: Sequence[Mapping[str, Any]], *, now: datetime, zone: tzinfo
) -> dict[str, Any] | None:
    """Drops as spans over time, each from its opening to its closing; None without any.

    `drops`: rows of `queries.venue_drops`, in any order. Spans that overlap lie in lanes, where
    there is room for them. One that is open reaches to the end; one whose day ended before anybody
    saw it close is a tick.
    """
    if not drops:
        return None
    ordered = sorted(drops, key=lambda drop: (drop["opened_at"], drop["id"]))
    start, end = _range(ordered, now)
    scale = (100 - 2 * _EDGE) / (end - start).total_seconds()

    def place(moment: datetime) -> float:
        return _EDGE + (min(max(moment, start), end) - start).total_seconds() * scale

    lanes = _lanes(ordered, end)
    count = min(max(lanes) + 1, _LANES)
    height = min(_LANE[1], max(_LANE[0], _LANES_HEIGHT / count))
    bottom = _TOP + count * height
    spans = [
        _span(drop, lane % _LANES, height, place, now, zone)
        for drop, lane in zip(ordered, lanes, strict=True)
    ]
    states = [one["state"] for one in spans]
    return {
        "spans": spans,
        "ticks": _ticks(start, end, place, zone),
        "bottom": f"{bottom:.1f}",
        "label_y": f"{bottom + 16:.1f}",
        "height": f"{bottom + _AXIS:.0f}",
        "since": f"{ordered[0]['opened_at'].astimezone(zone):%Y-%m-%d %H:%M}",
        "counts": {name: states.count(name) for name in ("open", "closed", "ended")},
    }


def _range(ordered: Sequence[Mapping[str, Any]], now: datetime) -> tuple[datetime, datetime]:
    """From the first opening to now; to the last event where that is long ago: a recording."""
    start = ordered[0]["opened_at"]
    moments = [moment for drop in ordered for moment in (drop["opened_at"], drop["closed_at"])]
    last = max(moment for moment in moments if moment)
    is_recent = any(drop["is_open"] for drop in ordered) or now - last <= last - start
    end = max(now, last) if is_recent or now - last < timedelta(days=1) else last
    if end - start < timedelta(hours=1):
        start = end - timedelta(hours=1)
    return start, end


def _lanes(ordered: Sequence[Mapping[str, Any]], end: datetime) -> list[int]:
    """A lane for each span: the lowest that is free, by first fit."""
    gap = (end - ordered[0]["opened_at"]) / 200
    free_from: list[datetime] = []
    lanes = []
    for drop in ordered:
        opened = drop["opened_at"]
        until = (drop["closed_at"] or (end if drop["is_open"] else opened)) + gap
        lane = next((at for at, free in enumerate(free_from) if free <= opened), len(free_from))
        if lane == len(free_from):
            free_from.append(until)
        free_from[lane] = until
        lanes.append(lane)
    return lanes


def _span(
    drop: Mapping[str, Any], lane: int, height: float, place, now: datetime, zone: tzinfo
) -> dict[str, Any]:
    state = "closed" if drop["closed_at"] else "open" if drop["is_open"] else "ended"
    opened = drop["opened_at"]
    until = drop["closed_at"] or (now if state == "open" else opened)
    left, right = place(opened), place(until)
    y, thick = _TOP + lane * height, max(2.0, height - 2)
    return {
        "state": state,
        "x": f"{left:.3f}",
        "width": f"{max(0.15, right - left):.3f}",
        "right": f"{right:.3f}",
        "y": f"{y:.1f}",
        "height": f"{thick:.1f}",
        "middle": f"{y + thick / 2:.1f}",
        "says": _says(drop, state, until - opened, zone),
    }


def _says(drop: Mapping[str, Any], state: str, length: timedelta, zone: tzinfo) -> str:
    opened = drop["opened_at"].astimezone(zone)
    seconds = max(0.0, length.total_seconds())
    what = f"{_short(drop['slot_id'])} opened {opened:%a} {opened.day} {opened:%b %Y %H:%M}"
    ends = {
        "closed": f"open for {span(seconds)}",
        "open": f"still open after {span(seconds)}",
        "ended": "its day ended before it was seen to close",
    }
    return f"{what}, {ends[state]}."


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _ticks(start: datetime, end: datetime, place, zone: tzinfo) -> list[dict[str, str]]:
    """At most five, at round local times."""
    step = next((one for one in _STEPS if (end - start) / one <= _TICKS), _STEPS[-1])
    local = start.astimezone(zone).replace(tzinfo=None)
    first = local.replace(hour=0, minute=0, second=0, microsecond=0)
    first += max(0, math.ceil((local - first) / step)) * step
    ticks = []
    at = first
    while len(ticks) <= _TICKS and (moment := at.replace(tzinfo=zone)) <= end:
        x = place(moment)
        is_day = step >= timedelta(days=1) or (at.hour, at.minute) == (0, 0)
        ticks.append(
            {
                "x": f"{x:.3f}",
                "label": f"{at.day} {at:%b}" if is_day else f"{at:%H:%M}",
                "anchor": "start" if x < 6 else "end" if x > 94 else "middle",
            }
        )
        at += step
    return ticks


def hours(counts: Sequence[int]) -> dict[str, Any]:
    """Drops by hour of the day as bars; `usual`: the hour with the most, None without any."""
    most = max(counts, default=0)
    usual = list(counts).index(most) if most else None
    width = 100 / 24
    return {
        "usual": usual,
        "most": f"{most:,}",
        "base": _BARS_HEIGHT + 16,
        "label_y": _BARS_HEIGHT + 32,
        "height": _BARS_HEIGHT + 40,
        "bars": [
            {
                "x": f"{at * width + width * 0.1:.3f}",
                "width": f"{width * 0.8:.3f}",
                "middle": f"{(at + 0.5) * width:.3f}",
                "y": f"{16 + _BARS_HEIGHT * (1 - count / most):.1f}" if most else _BARS_HEIGHT + 16,
                "height": f"{_BARS_HEIGHT * count / most:.1f}" if most else "0",
                "label": f"{at:02}" if at % 3 == 0 else "",
                "is_most": at == usual,
                "count": f"{count:,}",
                "says": f"{at:02}:00 to {at:02}:59: {count:,} {'drop' if count == 1 else 'drops'}.",
            }
            for at, count in enumerate(counts)
        ],
    }
