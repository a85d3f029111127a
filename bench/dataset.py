"""The catalog data set: lines of daily snapshots, made inside PostgreSQL from hashes."""

from dataclasses import dataclass
from datetime import date, timedelta

import psycopg

from bench.harness import Bench, say

SLUGS = 11_059
SELLERS = ("tlamagames", "tlamagase", "planszeo")
ROWS = 2_090_000
# The newest day of every data set: late enough that a short history is as fresh as a long one.
LAST_DAY = date(2026, 6, 30)
AFTER = timedelta(days=60)  # room for the polls that a benchmark adds

# One day of every line. The price moves about weekly, within 40 % of the line's base, so that no
# price is an outlier; a tenth of the lines is out of stock on a given day.
_DAY = """
INSERT INTO product_price_snapshots (
    scraped_at, seller, product_code, product_name_normalized, product_name_original, price,
    currency, is_available, is_preorder, category_tags, hero_image_url, description)
SELECT
    %(last_day)s::timestamptz - %(ago)s::integer * interval '1 day'
        + interval '6 hours' + seller.number * interval '10 minutes',
    seller.name,
    'c' || slug.number,
    'expedition-' || slug.number || '-' || substr(md5(slug.number::text), 1, 8),
    'Expedition ' || slug.number || ' ' || substr(md5(slug.number::text), 1, 8),
    round((
        (5 + mod(abs(hashtext('b' || slug.number)::bigint), 9000) / 100.0)
        * (1 + 0.4 * mod(abs(hashtextextended(slug.number || seller.name,
            (10000 - %(ago)s::integer + mod(slug.number, 7)) / 7)), 1000) / 1000.0)
    )::numeric, 2),
    'EUR',
    mod(abs(hashtextextended(slug.number || seller.name, 20000 - %(ago)s::integer)), 10) > 0,
    false,
    ARRAY['category-' || mod(slug.number, 40), 'shelf-' || mod(slug.number, 7)],
    'https://example.org/images/' || slug.number || '.jpg',
    'What stands on the box of expedition ' || slug.number || ', for two to four players.'
FROM generate_series(%(first)s::integer, %(last)s::integer) AS slug (number),
    unnest(%(sellers)s::text[]) WITH ORDINALITY AS seller (name, number)
"""


@dataclass(frozen=True)
class Shape:
    """How much of what: `days` of one snapshot a day for every slug at every seller."""

    slugs: int
    days: int

    @property
    def lines(self) -> int:
        return self.slugs * len(SELLERS)

    @property
    def rows(self) -> int:
        return self.lines * self.days


def shape(rows: int) -> Shape:
    """The requirements' 11,059 slugs; fewer only where that would leave less than 20 days."""
    slugs = min(SLUGS, max(50, rows // (20 * len(SELLERS))))
    return Shape(slugs, max(10, round(rows / (slugs * len(SELLERS)))))


def make(bench: Bench, name: str, wanted: Shape) -> None:
    """The database `name`: migrated, filled in the order in which polls bring rows, refreshed."""
    say(f"{name}: {wanted.rows:,} snapshots, {wanted.lines:,} lines, {wanted.days} days")
    bench.create_database(name)
    bench.manage(name, "migrate", "--verbosity=0")
    ensure_partitions(bench, name, LAST_DAY - timedelta(days=wanted.days), LAST_DAY + AFTER)
    with bench.connect(name) as db:
        # Millions of changes would only be deleted again by a rebuild, one of them by one.
        db.execute("ALTER TABLE product_price_snapshots DISABLE TRIGGER USER")
        for ago in range(wanted.days, 0, -1):
            poll(db, ago=ago, last=wanted.slugs)
        db.execute("ALTER TABLE product_price_snapshots ENABLE TRIGGER USER")
        db.execute("VACUUM ANALYZE product_price_snapshots")
    bench.manage(name, "refresh", "--full")
    with bench.connect(name) as db:
        db.execute("VACUUM ANALYZE")
        db.execute("CHECKPOINT")


def ensure_partitions(bench: Bench, database: str, start: date, end: date) -> None:
    """Make the months that hold `start` to `end` with the project's own function."""
    call = f"ensure('product_price_snapshots', date.fromisoformat('{start}'),"
    call += f" date.fromisoformat('{end}'))"
    code = f"from datetime import date; from config.partitions import ensure; {call}"
    bench.manage(database, "shell", "--no-imports", "-c", code)


def poll(db: psycopg.Connection, *, ago: int, last: int, first: int = 1) -> int:
    """One snapshot of each line of the slugs `first` to `last`, `ago` days before LAST_DAY."""
    parameters = {
        "last_day": f"{LAST_DAY} 00:00+00",
        "ago": ago,
        "first": first,
        "last": last,
        "sellers": list(SELLERS),
    }
    return db.execute(_DAY, parameters).rowcount
