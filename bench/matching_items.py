"""Words and places for items that have seeded vectors, and people who look for them."""

import numpy as np

from bench import vector_data
from bench.harness import Bench, say

CITIES = 200
SEEKERS = 300

# Everything is drawn from a hash of the item's number. Words follow Zipf's law over 50,000 of them;
# an item lies within about 10 km of the middle of one of 200 cities.
_FUNCTIONS = """
CREATE FUNCTION pg_temp.draw(item bigint, turn integer) RETURNS float8 LANGUAGE sql IMMUTABLE
RETURN (hashint8extended(item * 64 + turn, 7) & 4294967295)::float8 / 4294967296;

CREATE FUNCTION pg_temp.words(item bigint, first integer, last integer) RETURNS text
LANGUAGE sql IMMUTABLE AS $fn$
    SELECT string_agg(translate(
        floor(exp(ln(50000) * pg_temp.draw(item, turn)))::text, '0123456789', 'dolemantis'), ' ')
    FROM generate_series(first, last) AS turn
$fn$;
"""

_ITEMS = """
INSERT INTO items (id, owner_id, kind, category, country, city, title, description, terms,
    latitude, longitude, happened_on, created_at)
SELECT
    item_id, owner, kind, category, country, 'City ' || city,
    title, description, title || chr(31) || description,
    -55 + 120 * pg_temp.draw(city, 50) + 0.2 * pg_temp.draw(item_id, 51) - 0.1,
    least(180, -180 + 360 * pg_temp.draw(city, 52) + 0.2 * pg_temp.draw(item_id, 53)),
    date '2026-06-30' - floor(365 * pg_temp.draw(item_id, 54))::integer,
    timestamptz '2026-06-30' - pg_temp.draw(item_id, 55) * interval '300 days'
FROM (
    SELECT
        item_id, kind, category, country,
        CASE kind WHEN 'found' THEN 1 ELSE 2 END AS owner,
        floor({cities} * pg_temp.draw(item_id, 60))::bigint AS city,
        pg_temp.words(item_id, 0, 3) AS title,
        pg_temp.words(item_id, 4, 15) AS description
    FROM item_embeddings
) AS drawn
"""

_BESIDE = """
INSERT INTO item_buckets (
    geohash6, category, item_id, created_at, kind, owner_id, geohash, location_point)
SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash, location_point
FROM items
ORDER BY 1, 2, 3;
INSERT INTO item_terms (kind, term, items)
SELECT i.kind, counted.term, sum(counted.items)
FROM items AS i, matching_counts(i.search, i.terms) AS counted
GROUP BY 1, 2;
"""


def make(bench: Bench, database: str, items: int) -> None:
    """`items` found items with vectors, words and places, and 300 lost ones that look for them."""
    shape = vector_data.Shape(items)
    vector_data.make(bench, database, shape, _fill)


def _fill(db, shape: vector_data.Shape) -> None:
    """The rows of `items` for all vectors, and what hangs on them; triggers are off."""
    asked = vector_data.searches(shape, SEEKERS)
    db.cursor().executemany(
        "INSERT INTO item_embeddings (item_id, model, kind, category, country, content_hash,"
        " text_embedding) VALUES (%s, %s, 'lost', 'rest 1', 'XX', '', %s::halfvec(384))",
        [
            (shape.items + number, vector_data.MODEL, str(np.round(vector, 5).tolist()))
            for number, vector in enumerate(asked, 1)
        ],
    )
    say("writing words and places")
    db.execute(
        "INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name,"
        " email, is_staff, is_active, date_joined)"
        " VALUES (2, '', false, 'seeker', '', '', '', false, true, now())"
    )
    db.execute(_FUNCTIONS)
    db.execute(_ITEMS.format(cities=CITIES))
    db.execute(_BESIDE)
