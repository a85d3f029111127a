"""The catalog data set: lines of daily snapshots, made inside PostgreSQL from hashes."""

from dataclasses import dataclass

import psycopg

from bench.harness import say

SLUGS = 11_059
SELLERS = ("tlamagames", "tlamagase", "planszeo")
ROWS = 2_090_000
# The newest day of every data set: late enough that a short history is as fresh as a long one.
LAST_DAY = "2026-06-30"

# One day of every line. The price moves about weekly, within 40 % of the line's base, so that no
# price is an outlier; a tenth of the lines is out of stock on a given day.
_DAY = """
INSERT INTO product_price_snapshots (
    scraped_at, seller, product_code, product_name_normalized, product_name_original, price,
    currency, is_available, is_preorder, category_tags, hero_image_url, description)
SELECT
    %(last)s::timestamptz - %(ago)s::integer * interval '1 day'
        + interval '6 hours' + seller.number * interval '10 minutes',
    seller.name,
    'c' || slug.number,
    'expedition-' || slug.number || '-' || substr(md5(slug.number::text), 1, 8),
    'Expedition ' || slug.number || ' ' || substr(md5(slug.number::text), 1, 8),
    round((
        (5 + mod(abs(hashtext('b' || slug.number)::bigint), 9000) / 100.0)
        * (1 + 0.4 * mod(abs(hashtextextended(slug.number || seller.name,
            (%(ago)s::integer + mod(slug.number, 7)) / 7)), 1000) / 1000.0)
    )::numeric, 2),
    'EUR',
    mod(abs(hashtextextended(slug.number || seller.name, 1000 + %(ago)s::integer)), 10) > 0,
    false,
    ARRAY['category-' || mod(slug.number, 40), 'shelf-' || mod(slug.number, 7)],
    'https://example.org/images/' || slug.number || '.jpg',
    'What stands on the box of expedition ' || slug.number || ', for two to four players.'
FROM generate_series(%(first)s::integer, %(slugs)s::integer) AS slug (number),
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
    """At most the requirements' 11,059 slugs; fewer only where that leaves no 20 days."""
    slugs = min(SLUGS, max(50, rows // (20 * len(SELLERS))))
    return Shape(slugs, max(1, round(rows / (slugs * len(SELLERS)))))


def fill(db: psycopg.Connection, wanted: Shape) -> None:
    """Snapshots in the order in which polls bring them, then the read models from scratch."""
    say(f"filling {wanted.rows:,} snapshots of {wanted.lines:,} lines over {wanted.days} days")
    db.execute("ALTER TABLE product_price_snapshots DISABLE TRIGGER USER")
    for ago in range(wanted.days, 0, -1):
        poll(db, ago=ago, slugs=wanted.slugs)
    db.execute("ALTER TABLE product_price_snapshots ENABLE TRIGGER USER")
    db.execute("VACUUM ANALYZE product_price_snapshots")
    rebuild(db)


def poll(db: psycopg.Connection, *, ago: int, slugs: int, first: int = 1) -> int:
    """One snapshot of each line of the slugs `first` to `slugs`, `ago` days before LAST_DAY."""
    parameters = {
        "last": f"{LAST_DAY} 00:00+00",
        "ago": ago,
        "first": first,
        "slugs": slugs,
        "sellers": list(SELLERS),
    }
    return db.execute(_DAY, parameters).rowcount


def rebuild(db: psycopg.Connection, slices: int = 8) -> None:
    """The read models from the snapshots, as `manage.py refresh --full` makes them."""
    for number in range(slices):
        with db.transaction():
            db.execute("SELECT catalog_load_history(%s, %s)", [slices, number])
            db.execute("SELECT catalog_compute()")
            db.execute("SELECT catalog_compare()")
            db.execute("SELECT catalog_mend()")
    db.execute("SELECT catalog_project_cards(true)")
    db.execute("VACUUM ANALYZE catalog_price_points")
    db.execute("VACUUM ANALYZE catalog_slug_seller_summary")
    db.execute("VACUUM ANALYZE catalog_slug_summary")
    db.execute("CHECKPOINT")
