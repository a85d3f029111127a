"""Demo data of matching: things that people lose and find, want and offer, and work.

A day's posts are a function of seed and day alone: loading again adds the days that have passed
since, nothing twice. Most things are posted from both sides, by two people, in their own words and
near one another. The days end yesterday (UTC).
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from config import jobs
from config.sqlfiles import queries
from matching import queue
from matching.importing import Mapped, import_file
from matching.kinds import SEEKERS
from matching.models import Item, MatchJob

SIZES = {"small": (28, 12), "medium": (90, 60)}  # days, things a day
MATCHED = 60  # of the newest items that seek, counterparts are looked for at once
POSTED_TWICE = 0.65  # of the things, seen from both sides

PEOPLE = ("demo-anna", "demo-ben", "demo-chloe", "demo-dimitri", "demo-eva", "demo-farid")
CITIES = (
    ("FR", "Lyon", 45.7640, 4.8357),
    ("CA", "Vancouver", 49.2827, -123.1207),
    ("GB", "Edinburgh", 55.9533, -3.1883),
    ("GR", "Athens", 37.9838, 23.7275),
    ("DE", "Berlin", 52.5200, 13.4050),
    ("NZ", "Auckland", -36.8485, 174.7633),
)
COLOURS = ("black", "dark blue", "red", "green", "brown", "grey", "white", "silver")
SPOTS = ("the central station", "the old market", "the park", "a tram stop", "the library")

# What is lost: name, as others would call it, category, makers, what tells it apart.
THINGS = (
    (
        "wallet",
        "purse",
        "wallets",
        ("leather", "Fossil", "fabric"),
        ("with a bus card", "with two keys inside", "with a torn corner"),
    ),
    (
        "phone",
        "smartphone",
        "phones",
        ("Samsung Galaxy S23", "iPhone 13", "Pixel 8", "Fairphone 5"),
        ("with a cracked screen", "in a clear case", "with a cat sticker"),
    ),
    (
        "backpack",
        "rucksack",
        "bags",
        ("Deuter", "Eastpak", "Fjällräven"),
        ("with a laptop sleeve", "with a bottle of water", "with gym clothes"),
    ),
    (
        "umbrella",
        "umbrella",
        "accessories",
        ("folding", "long", "automatic"),
        ("with a wooden handle", "with one bent rib", "with white dots"),
    ),
    (
        "cat",
        "cat",
        "pets",
        ("tabby", "British shorthair", "Maine Coon"),
        ("with a white paw", "with a red collar", "that limps a little"),
    ),
    (
        "dog",
        "dog",
        "pets",
        ("terrier", "beagle", "labrador"),
        ("with a blue harness", "who answers to Luna", "with one floppy ear"),
    ),
    (
        "bunch of keys",
        "set of keys",
        "keys",
        ("house", "car", "bicycle"),
        ("on a carabiner", "with a bottle opener", "on a green lanyard"),
    ),
    (
        "headphones",
        "earphones",
        "electronics",
        ("Sony WH-1000XM5", "AirPods Pro", "Bose QC45"),
        ("in their case", "without the case", "with worn pads"),
    ),
)
# What is traded: name, category, makers, what tells it apart, about what it costs in euro.
GOODS = (
    (
        "road bike",
        "bicycles",
        ("Canyon Endurace", "Trek Domane", "Giant Defy"),
        ("size 56", "size 54", "with new tyres"),
        900,
    ),
    (
        "mirrorless camera",
        "cameras",
        ("Sony A7 III", "Fujifilm X-T4", "Canon EOS R6"),
        ("with a 50 mm lens", "body only", "with two batteries"),
        1100,
    ),
    (
        "dishwasher",
        "appliances",
        ("Bosch SMS4", "Miele G5000", "LG DF325"),
        ("60 cm", "45 cm", "built-in"),
        420,
    ),
    (
        "bookshelf",
        "furniture",
        ("IKEA Billy", "oak", "string"),
        ("80 cm wide", "40 cm wide", "with glass doors"),
        90,
    ),
    (
        "graphics card",
        "computers",
        ("GeForce RTX 4070", "Radeon RX 7800 XT", "GeForce RTX 3060"),
        ("12 GB", "16 GB", "still boxed"),
        480,
    ),
    (
        "digital piano",
        "instruments",
        ("Yamaha P-145", "Roland FP-30X", "Kawai ES120"),
        ("with a stand", "with a bench", "with weighted keys"),
        550,
    ),
)
# Work: role, category, what one needs.
ROLES = (
    ("backend developer", "software", ("Python", "Django", "PostgreSQL", "Redis", "Docker", "AWS")),
    ("frontend developer", "software", ("TypeScript", "React", "CSS", "accessibility", "Vite")),
    ("data analyst", "data", ("SQL", "Excel", "Python", "dashboards", "statistics", "dbt")),
    ("nurse", "health", ("intensive care", "night shifts", "geriatrics", "wound care")),
    ("line cook", "hospitality", ("sushi", "pastry", "grill", "menu planning", "hygiene rules")),
    ("electrician", "trades", ("wiring", "photovoltaics", "fault finding", "lifts", "KNX")),
)


def is_empty() -> bool:
    """Whether no item stands yet."""
    return not Item.objects.exists()


def load(*, size: str, seed: int, progress: Callable[[str], None] = lambda text: None) -> int:
    """Import the demo items, look for counterparts, refresh the read models; how many are new.

    `size`: a key of SIZES. Raises `config.runs.JobFailed` where a job fails.
    """
    days, things = SIZES[size]
    last = datetime.now(UTC).date() - timedelta(days=1)
    posts = [
        post
        for back in reversed(range(days))
        for post in _day(seed, last - timedelta(days=back), things)
        if post[1]["happened_on"] <= last.isoformat()
    ]
    started, added = datetime.now(UTC), 0
    with tempfile.TemporaryDirectory(prefix="spyglass-demo-") as folder:
        for name in PEOPLE:
            owner = _person(name)
            path = Path(folder, f"{name}.ndjson")
            path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for by, one in posts if by == name))
            report = import_file(
                path=str(path), owner_id=owner.pk, mapped=Mapped(), rejects_path=f"{path}.rejects"
            )
            added += report.counts.accepted
    _date_back(started)
    progress(f"{added:,} items of {len(PEOPLE)} people")
    for name in ("embed_items", "refresh_matching"):
        progress(f"running {name}")
        jobs.run_job(name, trigger="command")
    if added:
        progress("looking for counterparts")
        _match_newest()
    return added


def _person(name: str):
    """A user who cannot log in with a password, as staff may give them one."""
    user, is_new = get_user_model().objects.get_or_create(username=name)
    if is_new:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def _date_back(since: datetime) -> None:
    """Let the new items have been posted on the day of which they tell."""
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["date_back"], {"people": list(PEOPLE), "since": since})


def _match_newest() -> None:
    """Submit the newest items that seek, as far as the queue takes them, and do what nobody else
    does."""
    seeking = Item.objects.filter(
        owner__username__in=PEOPLE, kind__in=list(SEEKERS), status=Item.Status.OPEN
    )
    for item in seeking.select_related("owner").order_by("-created_at", "-pk")[:MATCHED]:
        try:
            with transaction.atomic():
                queue.submit_match(
                    owner=item.owner, item=item, priority=MatchJob.Priority.BACKGROUND
                )
        except queue.QueueFull:
            break
    jobs.run_job("match_queue", trigger="command")


def _day(seed: int, day: date, things: int) -> Iterator[tuple[str, dict]]:
    """(who, item) of what is posted of a day's things, seekers first."""
    for number in range(things):
        chance = random.Random(f"{seed} {day} {number}")  # noqa: S311 -- demo data
        make = chance.choices((_lost_and_found, _trade, _work), (5, 3, 2))[0]
        country, city, latitude, longitude = chance.choice(CITIES)
        here = latitude + chance.gauss(0, 0.03), longitude + chance.gauss(0, 0.04)
        sides = list(make(chance, city))
        if chance.random() > POSTED_TWICE:
            del sides[chance.randrange(2)]
        people = chance.sample(PEOPLE, 2)
        for who, side in zip(people, sides, strict=False):
            happened = day + timedelta(days=chance.choice((0, 0, 0, 1, 2)))
            yield (
                who,
                side
                | {
                    "country": country,
                    "city": city,
                    "latitude": round(here[0] + chance.gauss(0, 0.002), 6),
                    "longitude": round(here[1] + chance.gauss(0, 0.003), 6),
                    "happened_on": happened.isoformat(),
                    "external_id": f"demo-{seed}-{day}-{number}-{side['kind']}",
                },
            )


def _lost_and_found(chance: random.Random, city: str) -> Iterator[dict]:
    name, other_name, category, makers, details = chance.choice(THINGS)
    colour, maker, detail = (chance.choice(each) for each in (COLOURS, makers, details))
    spot = chance.choice(SPOTS)
    attributes = {"colour": colour, "make": maker}
    yield {
        "kind": "lost",
        "title": f"Lost: {colour} {maker} {name}",
        "description": f"I lost my {colour} {name} ({maker}) {detail} near {spot} in {city}."
        " Finder's reward!",
        "category": category,
        "attributes": attributes | {"reward": chance.choice((10, 20, 50))},
    }
    yield {
        "kind": "found",
        "title": f"Found {chance.choice((colour, maker))} {other_name}",
        "description": f"Found a {colour} {other_name} {detail} at {spot}. Tell me what else you"
        " know of it and it is yours.",
        "category": category,
        "attributes": attributes if chance.random() < 0.6 else {"colour": colour},
    }


def _trade(chance: random.Random, city: str) -> Iterator[dict]:
    name, category, makers, details, price = chance.choice(GOODS)
    maker, detail = chance.choice(makers), chance.choice(details)
    state = chance.choice(("hardly used", "good as new", "some scratches"))
    yield {
        "kind": "wanted",
        "title": f"Wanted: {maker} {name}",
        "description": f"Looking for a used {name}, best a {maker} {detail}. I can pick it up in"
        f" {city}.",
        "category": category,
        "attributes": {"make": maker, "price": round(price * chance.uniform(0.9, 1.15))},
    }
    yield {
        "kind": "offered",
        "title": f"{maker} {name}, {detail}",
        "description": f"Selling my {name}, {state}. {maker}, {detail}. Pick-up only.",
        "category": category,
        "attributes": {"make": maker, "price": round(price * chance.uniform(0.85, 1.05))},
    }


def _work(chance: random.Random, city: str) -> Iterator[dict]:
    role, category, skills = chance.choice(ROLES)
    years, hours = chance.randint(1, 12), chance.choice((20, 30, 38, 40))
    have, want = (chance.sample(skills, min(len(skills), 4)) for _ in range(2))
    yield {
        "kind": "resume",
        "title": f"{role.capitalize()}, {years} years of experience",
        "description": f"{role.capitalize()} with {', '.join(have)}. Looking for {hours} hours a"
        f" week in or around {city}.",
        "category": category,
        "attributes": {"years": years, "hours": hours, "skills": ", ".join(have)},
    }
    yield {
        "kind": "job",
        "title": f"{role.capitalize()} ({hours} h/week)",
        "description": f"We are looking for a {role} in {city}. You bring {', '.join(want)} and"
        f" at least {max(1, years - chance.randint(0, 3))} years of practice.",
        "category": category,
        "attributes": {"hours": hours, "skills": ", ".join(want)},
    }
