"""A made-up source: the tables of a dozen restaurants, which are booked and given back.

What it shows is a function of its seed and the time alone: every poller, and every recording of the
past, sees the same. No network.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from django.conf import settings
from django.utils import timezone

from discovery.models import Source
from discovery.polls import Poll, Slot, VenueDetails, local_day, zone_of
from discovery.providers.base import Fetched, unknown_keys

TIMES = ("12:30", "18:00", "19:30", "21:00")
TABLES = ((1, 2), (2, 4), (4, 8))  # the parties that a table is for
CYCLE_HOURS = (2, 5, 11, 23)  # how often a table may change hands


@dataclass(frozen=True)
class Restaurant:
    """A made-up venue. `sought`, 0 to 1: the more, the more seldom a table is free."""

    key: str
    name: str
    city: str
    latitude: float
    longitude: float
    sought: float


RESTAURANTS = (
    Restaurant("chez-odile", "Chez Odile", "Lyon", 45.7676, 4.8344, 0.9),
    Restaurant("la-navette", "La Navette", "Lyon", 45.7589, 4.8320, 0.6),
    Restaurant("bouchon-du-quai", "Bouchon du Quai", "Lyon", 45.7622, 4.8279, 0.7),
    Restaurant("le-petit-canut", "Le Petit Canut", "Lyon", 45.7745, 4.8320, 0.4),
    Restaurant("table-de-fourviere", "Table de Fourvière", "Lyon", 45.7621, 4.8226, 0.95),
    Restaurant("rhone-et-sel", "Rhône & Sel", "Lyon", 45.7560, 4.8415, 0.5),
    Restaurant("zum-alten-ahorn", "Zum alten Ahorn", "Berlin", 52.5381, 13.4132, 0.5),
    Restaurant("kupferkessel", "Kupferkessel", "Berlin", 52.4990, 13.4180, 0.8),
    Restaurant("miso-und-mond", "Miso & Mond", "Berlin", 52.5290, 13.4010, 0.9),
    Restaurant("brot-und-zeit", "Brot und Zeit", "Berlin", 52.5005, 13.3160, 0.3),
    Restaurant("osteria-pergola", "Osteria Pergola", "Berlin", 52.4880, 13.4240, 0.6),
    Restaurant("die-fuenfte-bank", "Die fünfte Bank", "Berlin", 52.5450, 13.3550, 0.7),
)


class Demo:
    """`{"seed": 1}`; without it, 1."""

    def check(self, config: Mapping[str, Any]) -> dict[str, str]:
        errors = unknown_keys(config, ("seed",))
        seed = config.get("seed", 1)
        if isinstance(seed, bool) or not isinstance(seed, int):
            errors["seed"] = "Must be an integer."
        return errors

    def is_standing(self, config: Mapping[str, Any]) -> bool:
        return False

    async def fetch(self, session: aiohttp.ClientSession, source: Source) -> Fetched:
        return Fetched(await asyncio.to_thread(shown_at, source, timezone.now()))


def shown_at(source: Source, at: datetime) -> Poll:
    """What the source shows at a moment (aware): its free tables that lie ahead."""
    seed, zone = source.config.get("seed", 1), zone_of(source.timezone)
    days = settings.DISCOVERY_WINDOW_DAYS if source.window_days is None else source.window_days
    first = local_day(at, zone)
    slots = []
    for place in RESTAURANTS:
        for day in (first + timedelta(days=number) for number in range(days)):
            for text in TIMES:
                starts_at = datetime.fromisoformat(f"{day}T{text}").replace(tzinfo=zone)
                if starts_at > at:
                    slots += _free_tables(seed, place, starts_at, at)
    venues = [
        VenueDetails(one.key, one.name, one.city, one.latitude, one.longitude)
        for one in RESTAURANTS
    ]
    return Poll(source.name, at, slots, venues=venues)


def _free_tables(seed: int, place: Restaurant, starts_at: datetime, at: datetime) -> Iterator[Slot]:
    for least, most in TABLES:
        slot_id = f"{place.key}|{starts_at:%Y-%m-%dT%H:%M}|{least}-{most}"
        if _is_free(f"{seed} {slot_id}", place.sought, at):
            yield Slot(slot_id, place.key, starts_at, least, most, {"table": f"{least} to {most}"})


def _is_free(name: str, sought: float, at: datetime) -> bool:
    """A table's time passes in cycles; in some of them it is given back for a part.

    Each slot has cycles of its own length and phase, and chance decides each one anew.
    """
    length_roll, phase = _rolls(name)[:2]
    length = CYCLE_HOURS[int(length_roll * len(CYCLE_HOURS))] * 3600
    cycle, passed = divmod(at.timestamp() + phase * length, length)
    is_given_back, begins, lasts = _rolls(f"{name} {cycle:.0f}")[:3]
    if is_given_back > 1.1 - sought:
        return False
    start = begins * 0.8
    return start <= passed / length < start + 0.05 + lasts * 0.4


def _rolls(name: str) -> list[float]:
    """Numbers from 0 to 1 that hang on a name alone."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return [int.from_bytes(digest[at : at + 4], "big") / 2**32 for at in range(0, 16, 4)]
