"""How long a refresh of the catalog takes: against REFRESH … CONCURRENTLY, and as history grows."""

import psycopg

from bench import dataset
from bench.harness import Bench, Figure, figure, median, say, seconds

ROUNDS = 5
CHANGED_SLUGS = 2_000

# The content of both read models, as the requirements planned it: materialized views over the
# snapshots. The definitions are those of catalog_compute and catalog_cards_of, the price
# points in an array in the summary. (As a view of their own they take longer to refresh.)
_VIEWS = """
CREATE MATERIALIZED VIEW bench_slug_seller_summary AS
WITH history AS MATERIALIZED (
    SELECT
        dense_rank() OVER (ORDER BY s.slug, s.seller, s.currency)::integer AS line,
        s.slug, s.seller, s.currency, s.scraped_at,
        CASE WHEN o.id IS NULL THEN s.price END AS price,
        s.price AS seen_price,
        s.is_available, s.is_preorder, s.observations, s.code_and_name, s.details_id
    FROM (
        SELECT
            product_name_normalized AS slug, seller, currency, scraped_at,
            min(price) AS price,
            bool_or(is_available) AS is_available,
            bool_or(is_preorder) AS is_preorder,
            count(*) AS observations,
            min(ARRAY[product_code, product_name_original COLLATE "C"]) AS code_and_name,
            max(id) FILTER (WHERE category_tags <> '{}' OR hero_image_url <> ''
                OR description <> '') AS details_id
        FROM product_price_snapshots
        GROUP BY 1, 2, 3, 4
    ) AS s
    LEFT JOIN catalog_outliers AS o
        ON (o.slug, o.seller, o.currency, o.scraped_at)
            = (s.slug, s.seller, s.currency, s.scraped_at)
        AND o.state IN ('suspect', 'rejected')
),
point AS (
    SELECT
        line, (scraped_at AT TIME ZONE 'UTC')::date AS day,
        array_agg(price ORDER BY scraped_at) AS prices,
        min(price) AS low, max(price) AS high, count(*)::integer AS observations
    FROM history
    WHERE price IS NOT NULL
    GROUP BY 1, 2
),
points AS (
    SELECT
        line,
        jsonb_agg(
            jsonb_build_array(day, prices[1], prices[cardinality(prices)], low, high, observations)
            ORDER BY day) AS price_points
    FROM point
    GROUP BY line
),
total AS (
    SELECT
        line, min(scraped_at) AS first_at,
        max(scraped_at) FILTER (WHERE price IS NOT NULL) AS last_price_at,
        min(price) AS lowest, max(price) AS highest,
        min(seen_price) AS seen_low, max(seen_price) AS seen_high,
        sum(observations)::bigint AS observations
    FROM history
    GROUP BY line
),
newest AS (
    SELECT DISTINCT ON (line)
        line, slug, seller, currency, scraped_at AS last_at, is_available, is_preorder,
        code_and_name
    FROM history
    ORDER BY line, scraped_at DESC
),
priced AS (
    SELECT
        line, scraped_at, price,
        lag(price) OVER line AS previous, lead(scraped_at) OVER line AS next_at
    FROM history
    WHERE price IS NOT NULL
    WINDOW line AS (PARTITION BY line ORDER BY scraped_at)
),
run AS (
    SELECT DISTINCT ON (line)
        line, price AS last_price, scraped_at AS price_since, previous AS previous_price,
        date_trunc('day', scraped_at, 'UTC') - interval '30 days' AS opens
    FROM priced
    WHERE previous IS DISTINCT FROM price
    ORDER BY line, scraped_at DESC
),
prior AS (
    SELECT DISTINCT ON (line)
        line, p.price AS prior_low, (p.next_at AT TIME ZONE 'UTC')::date AS prior_low_until
    FROM run AS r
    JOIN priced AS p USING (line)
    WHERE p.scraped_at < r.price_since AND p.next_at >= r.opens
    ORDER BY line, p.price, p.next_at DESC
),
detailed AS (
    SELECT DISTINCT ON (line) line, scraped_at, details_id
    FROM history
    WHERE details_id IS NOT NULL
    ORDER BY line, scraped_at DESC
)
SELECT
    newest.slug, newest.seller, newest.currency,
    newest.code_and_name[2] AS name, newest.code_and_name[1] AS product_code,
    coalesce(d.category_tags, '{}') AS category_tags,
    coalesce(d.hero_image_url, '') AS hero_image_url,
    coalesce(d.description, '') AS description,
    detailed.scraped_at AS details_at,
    total.first_at, newest.last_at, newest.is_available, newest.is_preorder,
    run.last_price, total.last_price_at, run.price_since, run.previous_price, prior.prior_low,
    total.lowest, total.highest, total.seen_low, total.seen_high, total.observations,
    prior.prior_low_until, points.price_points
FROM newest
JOIN total USING (line)
LEFT JOIN points USING (line)
LEFT JOIN run USING (line)
LEFT JOIN prior USING (line)
LEFT JOIN detailed USING (line)
LEFT JOIN LATERAL (
    SELECT s.category_tags, s.hero_image_url, s.description
    FROM product_price_snapshots AS s
    WHERE s.id = detailed.details_id AND s.scraped_at = detailed.scraped_at
    OFFSET 0
) AS d ON true;

CREATE UNIQUE INDEX ON bench_slug_seller_summary (slug, seller, currency);

DO $do$
DECLARE
    definition text := (SELECT prosrc FROM pg_proc WHERE proname = 'catalog_cards_of');
BEGIN
    definition := replace(definition, 'only_slugs', 'NULL::text[]');
    definition := replace(
        definition, 'catalog_slug_seller_summary', 'bench_slug_seller_summary');
    definition := replace(
        definition, 'catalog_seller_activity',
        '(SELECT seller, max(last_at) AS newest FROM bench_slug_seller_summary GROUP BY seller)');
    EXECUTE 'CREATE MATERIALIZED VIEW bench_slug_summary AS ' || definition;
END $do$;

CREATE UNIQUE INDEX ON bench_slug_summary (slug);
CREATE INDEX ON bench_slug_summary USING gin (category_tags);
CREATE INDEX ON bench_slug_summary USING gin (array_to_tsvector(string_to_array(slug, '-')));
ANALYZE bench_slug_seller_summary, bench_slug_summary;
"""

# Where the views and the read models say something else.
_DIFFERENCES = """
SELECT
    (SELECT count(*) FROM (
        TABLE catalog_slug_seller_summary EXCEPT ALL
        SELECT slug, seller, currency, name, product_code, category_tags, hero_image_url,
            description, details_at, first_at, last_at, is_available, is_preorder, last_price,
            last_price_at, price_since, previous_price, prior_low, lowest, highest, seen_low,
            seen_high, observations, prior_low_until
        FROM bench_slug_seller_summary) AS lines)
    + (SELECT count(*) FROM (
        TABLE catalog_slug_summary EXCEPT ALL TABLE bench_slug_summary) AS cards)
    + abs((SELECT count(*) FROM catalog_price_points)
        - (SELECT sum(jsonb_array_length(price_points)) FROM bench_slug_seller_summary))
"""


def speedup(bench: Bench, database: str, slugs: int) -> Figure:
    """An incremental refresh after 2,000 slugs changed, against materialized views."""
    ours, parts, views = [], [], []
    with bench.connect(database) as db:
        say("making the materialized views to compare with")
        db.execute("SET work_mem = '128MB'")  # the fold gives itself the same
        db.execute(_VIEWS)
        for _ in range(bench.rounds(ROUNDS)):
            _change(db, slugs)
            parts.append(_refresh_parts(db))
            ours.append(sum(parts[-1]))
            views.append(
                seconds(
                    lambda: [
                        db.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY " + view)
                        for view in ("bench_slug_seller_summary", "bench_slug_summary")
                    ]
                )
            )
            say(f"refresh: {ours[-1]:.3f} s, materialized views: {views[-1]:.1f} s")
        differences = db.execute(_DIFFERENCES).fetchone()[0]
        db.execute("DROP MATERIALIZED VIEW bench_slug_summary, bench_slug_seller_summary")
    return figure(
        "refresh_speedup",
        median(views) / median(ours),
        "x",
        ">= 50",
        refresh_seconds=[round(each, 3) for each in ours],
        fold_seconds=round(median(part[0] for part in parts), 3),
        cards_seconds=round(median(part[1] for part in parts), 3),
        concurrently_seconds=[round(each, 2) for each in views],
        changed_slugs=min(CHANGED_SLUGS, slugs),
        differences_between_both=int(differences),
    )


def history_growth(bench: Bench, short: str, long: str, slugs: int) -> Figure:
    """The same refresh on both databases in turn; they differ in the days of history alone."""
    times = {short: [], long: []}
    with bench.connect(short) as short_db, bench.connect(long) as long_db:
        for _ in range(bench.rounds(2 * ROUNDS)):
            for name, db in ((short, short_db), (long, long_db)):
                _change(db, slugs)
                times[name].append(_refresh_parts(db))
        rows = {
            name: db.execute("SELECT count(*) FROM product_price_snapshots").fetchone()[0]
            for name, db in ((short, short_db), (long, long_db))
        }
    middle = {name: median(sum(parts) for parts in each) for name, each in times.items()}
    return figure(
        "refresh_history_growth",
        middle[long] / middle[short],
        "x",
        "<= 1.3",
        snapshots=[rows[short], rows[long]],
        refresh_seconds=[round(middle[short], 3), round(middle[long], 3)],
        rounds={name: [round(sum(parts), 3) for parts in times[name]] for name in (short, long)},
        fold_seconds=[round(median(part[0] for part in times[name]), 3) for name in (short, long)],
        cards_seconds=[round(median(part[1] for part in times[name]), 3) for name in (short, long)],
    )


def _change(db: psycopg.Connection, slugs: int) -> None:
    """One new snapshot of each line of 2,000 slugs, others each time, a day after the last."""
    (newest,) = db.execute("SELECT max(scraped_at) FROM product_price_snapshots").fetchone()
    ahead = (newest.date() - dataset.LAST_DAY).days + 1
    count = min(CHANGED_SLUGS, slugs)
    first = 1 + ahead * count % max(1, slugs - count + 1)
    dataset.poll(db, ago=-ahead, first=first, last=first + count - 1)
    db.execute("CHECKPOINT")  # a refresh in production follows on one: every page is logged whole


def _refresh_parts(db: psycopg.Connection) -> tuple[float, float]:
    """Seconds of the fold, and of the cards with what hangs on them."""
    fold = seconds(lambda: db.execute("SELECT catalog_fold_changes()"))
    return fold, seconds(lambda: db.execute("SELECT refresh_catalog_aggregates()"))
