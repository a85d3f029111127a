"""Demo data of the catalog: five sellers, plausible prices, and what goes wrong with them.

A price is a function of seed, product, seller and day alone. So the same seed gives the same
prices whenever it is loaded; loading again adds the days that have passed since, nothing twice.
The days end yesterday (UTC).
"""

import csv
import html
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path

from catalog import demo_names
from catalog.actions import ingest_file
from catalog.curation import reorder_sellers
from catalog.demo_names import Product
from catalog.models import IngestRun, SellerPriority, Snapshot
from catalog.slugs import slug
from config import jobs

SIZES = {"small": (300, 120), "medium": (3_000, 365)}  # products, days
BATCH_PRODUCTS = 300  # one ingest run each
SEASON_DAYS = 60  # at most one promotion, one stock-out and one slip of a line in each
PREORDER_CYCLE = 400  # days from one printing of a pre-ordered product to the next
PREORDER_DAYS = 45

_COLUMNS = (
    "product_name",
    "product_code",
    "seller",
    "price",
    "currency",
    "scraped_at",
    "availability",
    "category_tags",
    "hero_image_url",
    "description",
)


@dataclass(frozen=True)
class Seller:
    """`level` is its usual price over that of others; `hour` (UTC) is when it is polled.

    `abroad`: another currency, its rate to the euro, and the share of its listings that have a
    price in it as well. `spell` is how it writes names; every spelling has the same slug.
    """

    name: str
    level: float
    hour: int
    departments: tuple[str, ...] = ("board-games", "groceries", "electronics")
    abroad: tuple[str, float, float] | None = None
    spell: Callable[[str], str] = str


SELLERS = (
    Seller("tlamagames", 1.0, 5),
    Seller("tlamagase", 1.04, 6, abroad=("SEK", 11.2, 0.4)),
    Seller("nordmarkt", 0.97, 4, spell=lambda name: html.escape(name).replace("ü", "&uuml;")),
    Seller("agora-online", 1.02, 7, spell=str.upper),
    Seller("corner-and-co", 1.08, 8, abroad=("GBP", 0.86, 0.3)),
)


def is_empty() -> bool:
    """Whether no snapshot stands yet."""
    return not Snapshot.objects.exists()


def load(*, size: str, seed: int, progress: Callable[[str], None] = lambda text: None) -> int:
    """Ingest the demo data and refresh the read models; how many snapshots are new.

    `size`: a key of SIZES. Raises `config.runs.JobFailed` where the refresh fails.
    """
    products, days = SIZES[size]
    newest = datetime.now(UTC).date() - timedelta(days=1)
    span = range(newest.toordinal() - days + 1, newest.toordinal() + 1)
    accepted, every = 0, _products(seed)
    with tempfile.TemporaryDirectory(prefix="spyglass-demo-") as folder:
        for first in range(0, products, BATCH_PRODUCTS):
            batch = list(islice(every, min(BATCH_PRODUCTS, products - first)))
            path = Path(folder, f"demo-{seed}-{first + 1}-{first + len(batch)}.csv")
            _write(path, seed, batch, span)
            report = ingest_file(path=str(path), rejects_path=f"{path}.rejects", user_label="demo")
            path.unlink()
            IngestRun.objects.filter(pk=report.run_id).update(source=path.name)
            accepted += report.counts.accepted
            progress(f"{first + len(batch):,} of {products:,} products, {accepted:,} snapshots")
    _rank_sellers()
    progress("refreshing the read models")
    jobs.run_job("refresh_catalog", trigger="command")
    return accepted


def _rank_sellers() -> None:
    """Give the demo's sellers a rank behind those that have one."""
    known = list(SellerPriority.objects.values_list("seller", flat=True))
    new = [seller.name for seller in SELLERS if seller.name not in known]
    if new:
        reorder_sellers(sellers=known + new)


def _products(seed: int) -> Iterator[Product]:
    """Products without end, no two with one slug; the first ones are the same for every size."""
    taken = set()
    for number in count():
        chance = random.Random(f"{seed} product {number}")  # noqa: S311 -- demo data
        product = demo_names.make(number, chance)
        while slug(product.name) in taken:
            product = demo_names.make(number, chance)
        taken.add(slug(product.name))
        yield product


def _write(path: Path, seed: int, products: list[Product], span: range) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for product in products:
            for seller in SELLERS:
                writer.writerows(_listing(seed, product, seller, span))


def _listing(seed: int, product: Product, seller: Seller, span: range) -> Iterator[tuple]:
    """The rows of one product at one seller on the days (ordinals) of `span`."""
    key = f"{seed} {product.number} {seller.name}"
    if product.department not in seller.departments or _share(key, "listed") > 0.75:
        return
    chance = random.Random(f"{key} line")  # noqa: S311 -- demo data
    walk = _Walk(key, product.price * seller.level * chance.uniform(0.93, 1.08), chance)
    preorders = product.department == "board-games" and _share(seed, product.number) < 0.12
    missed, release = chance.randrange(40), chance.randrange(PREORDER_CYCLE)
    code = f"{seller.name[:2].upper()}-{chance.randrange(10**6):06}-{product.number}"
    name = seller.spell(product.name)
    prices = [("EUR", 1.0)]
    if seller.abroad and chance.random() < seller.abroad[2]:
        prices.append(seller.abroad[:2])
    for day in span:
        if (day * 7 + missed) % 41 == 0:  # the poll was cut short before this product
            continue
        moment = f"{date.fromordinal(day)}T{seller.hour:02}:{(day + product.number) % 60:02}:00Z"
        euro, stocked = walk.on(day)
        coming = preorders and (day + release) % PREORDER_CYCLE < PREORDER_DAYS
        state = "preorder" if coming else "available" if stocked else "unavailable"
        # Half of the sellers take the price off the page when they run out.
        shown = stocked or coming or seller.hour % 2
        details = ("", "", "")
        if day % 7 == 1 or day == span.start:  # Mondays: a scraper reads the long page less often
            details = "|".join(product.tags), product.image, product.description
        for currency, rate in prices:
            price = _shelf_price(euro * rate, currency) if shown else ""
            yield (name, code, seller.name, price, currency, moment, state, *details)


class _Walk:
    """The price of one line, day by day.

    It drifts over months, steps every one to four weeks, and has one chance of a promotion, a
    stock-out and a slip of the decimal point in each season.
    """

    def __init__(self, key: str, base: float, chance: random.Random) -> None:
        self.key = key
        self.base = base
        self.step = chance.randint(7, 28)
        self.phase = chance.randrange(10_000)
        self._season = None, {}, set()
        self._level = None, 0.0

    def on(self, day: int) -> tuple[float, bool]:
        """The price in euro on `day`, and whether it is in stock."""
        day += self.phase
        season = day // SEASON_DAYS
        if self._season[0] != season:
            self._season = season, *_season(f"{self.key} season {season}")
        _, factors, empty = self._season
        within = day % SEASON_DAYS
        return self._standing(day) * factors.get(within, 1.0), within not in empty

    def _standing(self, day: int) -> float:
        step = day // self.step
        if self._level[0] != step:
            drift = _interpolated(self.key, step / 8)
            wobble = _share(self.key, f"step {step}") - 0.5
            self._level = step, self.base * (1 + 0.3 * (drift - 0.5) + 0.08 * wobble)
        return self._level[1]


def _season(key: str) -> tuple[dict[int, float], set[int]]:
    """Factors on the price by day of the season, and the days without stock."""
    chance = random.Random(key)  # noqa: S311 -- demo data
    factors, kind, start = {}, chance.random(), chance.randint(12, 34)
    reduced = range(start, start + chance.randint(5, 14))
    if kind < 0.30:
        cut = 1 - chance.choice((0.10, 0.15, 0.20, 0.25, 0.30, 0.40))
        factors = dict.fromkeys(reduced, cut)
    elif kind < 0.38:
        # Raised for ten days first, so that the old price looks like a bargain.
        factors = dict.fromkeys(range(start - 10, start), chance.uniform(1.18, 1.4))
        factors |= dict.fromkeys(reduced, chance.uniform(0.96, 1.0))
    if chance.random() < 0.02:
        slip = chance.choice((10.0, 0.1))  # the decimal point one place off, for a day or two
        at = chance.randrange(SEASON_DAYS - 1)
        factors |= dict.fromkeys(range(at, at + chance.choice((1, 1, 1, 1, 1, 2))), slip)
    empty = set()
    if chance.random() < 0.18:
        at = chance.randrange(SEASON_DAYS)
        empty = set(range(at, at + chance.randint(3, 25)))
    return factors, empty


def _interpolated(key: str, at: float) -> float:
    """Value noise: between hashed values at whole numbers, 0…1."""
    left = int(at)
    share = at - left
    return _share(key, f"drift {left}") * (1 - share) + _share(key, f"drift {left + 1}") * share


def _share(key: object, what: object) -> float:
    """A number in 0…1 that depends on the words alone, the same on every machine."""
    digest = blake2b(f"{key} {what}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def _shelf_price(amount: float, currency: str) -> str:
    """As shops write prices: 3.49, 24.99, 1,249 crowns."""
    if currency == "SEK":
        return str(max(1, round(amount)))
    if amount < 10:
        return f"{max(0.05, amount):.2f}"
    return f"{int(amount)}.{'99' if amount < 100 else '00'}"
