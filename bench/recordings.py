"""Recordings of real sources, as polls in the order of time: for tests and benchmarks."""

import csv
import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from zoneinfo import ZoneInfo

from bench.harness import SHARED_DATA

DATA = SHARED_DATA / "discovery"
BERLIN = ZoneInfo("Europe/Berlin")

Polls = Iterator[tuple[str, datetime, dict[str, dict[str, datetime | None]]]]


def calendars(name: str, sources: set[str] | None = None) -> Polls:
    """(source, time, {calendar: {slot: start}}), in the order of time."""
    with gzip.open(DATA / f"{name}_dev.csv.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not sources or row["source_id"] in sources]
    rows.sort(key=itemgetter("polled_at", "source_id"))
    for (moment, source), group in groupby(rows, key=itemgetter("polled_at", "source_id")):
        answered = {}
        for row in group:
            venue = row["location_id"]
            starts = filter(None, row["free_slots"].split("|"))
            answered[venue] = {f"{venue}|{start}": local(start) for start in starts}
        yield source, local(moment), answered


def counts(name: str) -> Polls:
    """The same of places with free counts: one slot each, open while something is free."""
    with gzip.open(DATA / f"{name}_dev.csv.gz", "rt", encoding="utf-8") as file:
        for moment, group in groupby(csv.DictReader(file), key=itemgetter("polled_at")):
            answered = {
                row["place_id"]: {row["place_id"]: None} if int(row["free"]) > 0 else {}
                for row in group
            }
            yield name, datetime.fromisoformat(moment), answered


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)
