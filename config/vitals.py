"""Vital signs: the numbers by which staff see what is stale, stuck, drifting or growing.

A domain declares its own in `<app>/vitals.py` with `register`; those of the shared machinery are
in `config/admin/vitals.py`. The admin's first page reads them and shows how they moved in the last
hour and day, by the samples that the job `sample_vitals` takes.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from django.db import DatabaseError, connection
from django.utils.module_loading import autodiscover_modules

from config import prepared
from config.models import VitalSample
from config.sqlfiles import queries

logger = logging.getLogger("spyglass.vitals")

SAMPLED_EVERY = timedelta(minutes=5)
SLOT_SECONDS = 1_800  # of a trend; the last sample of each counts
SLOTS = 48
_HOUR_AGO, _DAY_AGO = 2, 48  # slots


class Question(StrEnum):
    """What staff ask first, and in this order."""

    STUCK = "stuck"
    STALE = "stale"
    DRIFTS = "drifts"
    GROWS = "grows"


@dataclass(frozen=True)
class Vital:
    """One number, and what it means now.

    `key` names its samples. `number` is sampled, in `unit` ("" for a count, "s", "bytes", "share");
    None where there is none now. `value` and `note` say it for people. `link` is the page with the
    button that helps, which `help` names. `level`: ok, info, warn, bad or quiet. `permission`: who
    sees it.
    """

    key: str
    question: Question
    title: str
    number: float | None
    value: str
    link: str
    note: str = ""
    help: str = ""
    level: str = "ok"
    permission: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Trend:
    """How a number moved. `hour_ago`, `day_ago`: what it was then; None where nobody sampled it.

    `slots`: a number for each half hour of the last day, oldest first, None where it lacks.
    """

    hour_ago: float | None = None
    day_ago: float | None = None
    slots: list[float | None] = field(default_factory=list)


Source = Callable[[], Iterable[Vital]]
_sources: list[Source] = []


def register(source: Source) -> Source:
    """Declare a function that yields vital signs; usable as a decorator."""
    _sources.append(source)
    return source


def read() -> tuple[list[Vital], list[str]]:
    """Every vital sign, and the names of the sources that could not be read."""
    autodiscover_modules("vitals")
    found, failed = [], []
    for source in _sources:
        try:
            found += source()
        except DatabaseError as error:
            name = source.__module__.partition(".")[0]
            logger.warning("The vital signs of %s cannot be read: %s", name, error)
            failed.append(name)
    return found, failed


def sample() -> int:
    """Store the numbers of all vital signs; how many."""
    found, _ = read()
    numbers = {vital.key: vital.number for vital in found if vital.number is not None}
    VitalSample.objects.bulk_create(
        [VitalSample(key=key, value=value) for key, value in numbers.items()], ignore_conflicts=True
    )
    return len(numbers)


def trends() -> dict[str, Trend]:
    """How each vital sign moved in the last day, by key."""
    rows = prepared.fetch(
        queries("config")["vital_trends"], {"slot_seconds": SLOT_SECONDS, "slots": SLOTS}
    )
    found: dict[str, dict[int, float]] = {}
    for key, slot, value in rows:
        found.setdefault(key, {})[slot] = value
    return {
        key: Trend(
            hour_ago=slots.get(_HOUR_AGO),
            day_ago=slots.get(_DAY_AGO),
            slots=[slots.get(slot) for slot in range(SLOTS, -1, -1)],
        )
        for key, slots in found.items()
    }


def table_sizes(limit: int) -> list[tuple[str, int]]:
    """The largest tables with their indexes and partitions, in bytes."""
    with connection.cursor() as cursor:
        cursor.execute(queries("config")["table_sizes"], {"limit": limit})
        return cursor.fetchall()
