-- name: forget_month
-- Asks for every line of a detached month to be computed again.
INSERT INTO catalog_changes (slug, seller, currency)
SELECT DISTINCT product_name_normalized, seller, currency FROM {month}

-- name: fold_changes
-- Folds one part of the change log.
SELECT changes, lines, computed FROM catalog_fold_changes(%(at_most)s)

-- name: lock_fold
-- Waits until nobody folds, and keeps it so to the end of the transaction.
SELECT catalog_lock_fold()

-- name: load_history
-- Loads one hash slice of the snapshots, as far as they were folded.
SELECT catalog_load_history(%(slices)s, %(slice)s)

-- name: compute_lines
-- Computes what the read models should hold for the loaded slice.
SELECT catalog_compute()

-- name: compare_lines
-- Counts where the read models differ from it.
SELECT catalog_compare()

-- name: mend_lines
-- Makes the read models equal to it.
SELECT catalog_mend()

-- name: count_scope
-- How many lines the loaded slice has.
SELECT count(*) FROM _scope

-- name: sample_differences
-- Some differences of the loaded slice, as stored and as it should be.
(SELECT concat_ws(' ', slug, seller, currency), stored, truth FROM _summary_diff LIMIT %(limit)s)
UNION ALL
(SELECT concat_ws(' ', slug, seller, currency, day), stored, truth FROM _point_diff LIMIT %(limit)s)

-- name: spoil_cards
-- Says that any card may be wrong, so that all of them are projected anew.
UPDATE catalog_fold_state SET folded = folded + 1, all_cards_stale = true

-- name: project_cards
-- Brings the cards up to the lines; false where they were.
SELECT catalog_project_cards(%(force)s)

-- name: count_categories
-- Brings the category counts up to the cards; false where they were.
SELECT catalog_count_categories(%(force)s)

-- name: count_changes
-- How many changes wait for the fold.
SELECT count(*) FROM catalog_changes

-- name: cards_behind
-- How many folds the cards are behind.
SELECT folded - projected FROM catalog_fold_state

-- name: categories_behind
-- How many folds the category counts are behind the cards.
SELECT projected - categorised FROM catalog_fold_state

-- name: compare_cards
-- Where the cards, and what is known of their sellers, differ from what the lines say.
SELECT seller AS slug, 'its newest snapshot is not the one noted' AS what
FROM (SELECT seller, max(last_at) AS newest FROM catalog_slug_seller_summary GROUP BY seller) AS s
FULL JOIN catalog_seller_activity AS a USING (seller)
WHERE s.newest IS DISTINCT FROM a.newest
UNION
SELECT slug, 'missing or old'
FROM (TABLE catalog_slug_projection EXCEPT TABLE catalog_slug_summary) AS missing
UNION
SELECT slug, 'should not be'
FROM (TABLE catalog_slug_summary EXCEPT TABLE catalog_slug_projection) AS surplus
ORDER BY 1, 2

-- name: compare_categories
-- Where the category counts differ from what the cards say.
SELECT tag, 'missing or old' AS what
FROM (TABLE catalog_category_projection EXCEPT TABLE catalog_category_counts) AS missing
UNION
SELECT tag, 'should not be'
FROM (TABLE catalog_category_counts EXCEPT TABLE catalog_category_projection) AS surplus
ORDER BY 1, 2

-- name: count_table
-- How many rows a table or view has.
SELECT count(*) FROM {table}

-- name: create_stage
-- The rows of one chunk on their way in; gone with the transaction, so PgBouncer never sees it.
CREATE TEMP TABLE IF NOT EXISTS catalog_stage (
    position integer NOT NULL,
    id bigint NOT NULL DEFAULT nextval('product_price_snapshots_id_seq'),
    scraped_at timestamptz NOT NULL,
    seller text COLLATE "C" NOT NULL,
    product_code text COLLATE "C" NOT NULL,
    product_name_normalized text COLLATE "C" NOT NULL,
    product_name_original text NOT NULL,
    price numeric(14, 4),
    currency text COLLATE "C" NOT NULL,
    is_available boolean NOT NULL,
    is_preorder boolean NOT NULL,
    category_tags text[] NOT NULL,
    hero_image_url text NOT NULL,
    description text NOT NULL
) ON COMMIT DROP

-- name: empty_stage
-- For a second chunk in one transaction of the caller's.
TRUNCATE catalog_stage

-- name: fill_stage
-- COPY text: tab-separated, one row a line.
COPY catalog_stage (
    position, scraped_at, seller, product_code, product_name_normalized, product_name_original,
    price, currency, is_available, is_preorder, category_tags, hero_image_url, description
) FROM STDIN

-- name: record_straight
-- The rows of one chunk of which none stands yet, in the order of the natural key.
COPY product_price_snapshots (
    scraped_at, seller, product_code, product_name_normalized, product_name_original,
    price, currency, is_available, is_preorder, category_tags, hero_image_url, description,
    ingest_run_id
) FROM STDIN

-- name: record_stage
-- In the order of the natural key: concurrent ingests lock in one order, and each index page is
-- met once a chunk. The first row of a key wins, whether it stood already or comes in this chunk.
-- Returns the positions of those that did not go in.
WITH recorded AS (
    INSERT INTO product_price_snapshots (
        id, scraped_at, seller, product_code, product_name_normalized, product_name_original,
        price, currency, is_available, is_preorder, category_tags, hero_image_url, description,
        ingest_run_id)
    SELECT id, scraped_at, seller, product_code, product_name_normalized, product_name_original,
        price, currency, is_available, is_preorder, category_tags, hero_image_url, description,
        %(run)s
    FROM catalog_stage
    ORDER BY product_name_normalized, seller, scraped_at, product_code, currency, position
    ON CONFLICT (product_name_normalized, seller, scraped_at, product_code, currency) DO NOTHING
    RETURNING id
)
SELECT position FROM catalog_stage AS s
WHERE NOT EXISTS (SELECT FROM recorded WHERE recorded.id = s.id)
ORDER BY position

-- name: compare_stage
-- What stands in the place of staged rows that did not go in, one index look-up each: LIMIT keeps
-- the planner from a hash join over whole months. A statement of its own, to see what a concurrent
-- ingest committed in the meantime. The cast makes the planner hash the positions.
SELECT s.position, s.price, p.price
FROM catalog_stage AS s
CROSS JOIN LATERAL (
    SELECT p.price
    FROM product_price_snapshots AS p
    WHERE p.product_name_normalized = s.product_name_normalized
        AND p.seller = s.seller
        AND p.scraped_at = s.scraped_at
        AND p.product_code = s.product_code
        AND p.currency = s.currency
    LIMIT 1
) AS p
WHERE s.position = ANY(%(positions)s::integer[])
ORDER BY s.position

-- name: catalog_page
-- One page of cards. {where}, {key} and {order} come from catalog.queries.
SELECT
    slug, name, hero_image_url, category_tags, sellers, offers, is_available, is_preorder, last_at,
    {key} AS sort_key
FROM catalog_slug_summary
WHERE {where}
ORDER BY {order}
LIMIT %(limit)s OFFSET %(offset)s

-- name: catalog_count
-- How many cards match, counted no further than `at_most`.
SELECT count(*) FROM (
    SELECT FROM catalog_slug_summary WHERE {where} LIMIT %(at_most)s
) AS matching

-- name: catalog_estimate
-- How many cards match by the planner's statistics: plans, and reads no row.
EXPLAIN (FORMAT JSON) SELECT FROM catalog_slug_summary WHERE {where}

-- name: slugs_of_code
-- The products that some seller lists under exactly this code. The index starts with the seller:
-- PostgreSQL 18 skips from seller to seller.
SELECT DISTINCT slug FROM catalog_slug_seller_summary
WHERE product_code = %(code)s AND product_code <> '' LIMIT 100

-- name: search_query
-- Words as a tsquery: each as a prefix where some product has such a word, else what it may have
-- meant; `similar` adds that to the words that exist too. LIMITs bound what one word costs. A word
-- with a digit is not guessed at: 501 is another size than 500.
SELECT
    string_agg('(' || alternatives || ')', ' & ' ORDER BY position),
    bool_or(NOT known AND guessable)
FROM (
    SELECT
        position,
        known,
        guessable,
        concat_ws(
            '|',
            CASE WHEN known THEN quote_literal(word) || ':*' END,
            CASE WHEN NOT guessable THEN quote_literal(word)
                WHEN NOT known OR %(similar)s THEN coalesce(
                (
                    SELECT string_agg(quote_literal(near.word), '|')
                    FROM (
                        SELECT w.word
                        FROM catalog_word_variants AS v
                        JOIN catalog_words AS w USING (word)
                        WHERE length(asked.word) BETWEEN 3 AND 25 AND v.variant = ANY (ARRAY(
                            SELECT asked.word
                            UNION
                            SELECT left(asked.word, i - 1) || substr(asked.word, i + 1)
                            FROM generate_series(1, least(length(asked.word), 25)) AS i
                        ))
                        GROUP BY w.word, w.products
                        ORDER BY similarity(w.word, asked.word) DESC, w.products DESC, w.word
                        LIMIT 5
                    ) AS near
                ),
                (
                    SELECT string_agg(quote_literal(near.word), '|')
                    FROM (
                        SELECT word
                        FROM catalog_words
                        WHERE length(asked.word) BETWEEN 5 AND 40 AND word %% asked.word
                        ORDER BY similarity(word, asked.word) DESC, products DESC, word
                        LIMIT 3
                    ) AS near
                ),
                quote_literal(word)
            ) END
        ) AS alternatives
    FROM (
        SELECT
            word,
            position,
            word !~ '[0-9]' AS guessable,
            EXISTS (
                SELECT FROM catalog_words AS w
                WHERE w.word >= asked.word AND w.word < asked.word || chr(1114111)
            ) AS known
        FROM unnest(%(words)s::text[] COLLATE "C") WITH ORDINALITY AS asked (word, position)
    ) AS asked
) AS words

-- name: suggest_by_prefix
-- Products whose slug starts so, in its order: one range of the btree.
SELECT slug, name, hero_image_url, offers, is_available, is_preorder
FROM catalog_slug_summary
WHERE slug >= %(prefix)s AND slug < %(prefix)s || chr(1114111) AND {where}
ORDER BY slug
LIMIT %(limit)s

-- name: suggest_by_words
-- Products that have the words anywhere, the shortest names first; of very many matches, of the
-- first 300 that the index gives.
SELECT slug, name, hero_image_url, offers, is_available, is_preorder
FROM (
    SELECT slug, name, hero_image_url, offers, is_available, is_preorder
    FROM catalog_slug_summary
    WHERE array_to_tsvector(string_to_array(slug, '-')) @@ %(query)s::tsquery
        AND slug <> ALL (%(known)s) AND {where}
    LIMIT 300
) AS matching
ORDER BY length(slug), slug
LIMIT %(limit)s

-- name: product_card
-- One card with its description, and since when the product is known.
SELECT
    name, hero_image_url, description, category_tags, sellers, offers, is_available, is_preorder,
    last_at,
    (SELECT min(first_at) FROM catalog_slug_seller_summary WHERE slug = %(slug)s) AS first_at
FROM catalog_slug_summary
WHERE slug = %(slug)s

-- name: product_lines
-- Every line of one product with its newest outliers and points as JSON text; `moved_to` is a
-- newer slug of the same code at the same seller, first seen after this one was last seen.
SELECT
    line.seller, line.currency, line.name, line.product_code,
    line.is_available AND line.last_at >= seller.newest - interval '7 days' AS is_available,
    line.is_preorder AND line.last_at >= seller.newest - interval '7 days' AS is_preorder,
    line.last_price, line.last_price_at, line.price_since, line.previous_price, line.prior_low,
    line.lowest, line.highest, line.first_at, line.last_at, line.observations,
    moved.slug AS moved_to, outliers.found, points.series, points.truncated
FROM catalog_slug_seller_summary AS line
LEFT JOIN catalog_seller_activity AS seller USING (seller)
LEFT JOIN LATERAL (
    SELECT other.slug
    FROM catalog_slug_seller_summary AS other
    WHERE other.seller = line.seller AND other.product_code = line.product_code
        AND other.product_code <> '' AND other.slug <> line.slug
        AND other.first_at > line.last_at
    ORDER BY other.last_at DESC, other.slug
    LIMIT 1
) AS moved ON true
CROSS JOIN LATERAL (
    SELECT json_agg(json_build_object(
        'at', to_char(scraped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'price', trim_scale(price)::text,
        'median', trim_scale(median)::text,
        'state', state
    ) ORDER BY scraped_at)::text AS found
    FROM (
        SELECT scraped_at, price, median, state
        FROM catalog_outliers AS o
        WHERE (o.slug, o.seller, o.currency) = (line.slug, line.seller, line.currency)
            AND o.scraped_at >= %(start)s AND o.scraped_at < %(end)s
        ORDER BY scraped_at DESC
        LIMIT 100
    ) AS newest
) AS outliers
CROSS JOIN LATERAL ({points}) AS points
WHERE line.slug = %(slug)s
ORDER BY line.seller, line.currency
LIMIT %(lines)s

-- name: points_by_day
-- Part of product_lines: the newest days of a line as JSON text, oldest first.
SELECT
    '[' || coalesce(string_agg(format(
        '{{"at":"%%s","first":"%%s","last":"%%s","low":"%%s","high":"%%s"}}', day,
        trim_scale(first_price), trim_scale(last_price), trim_scale(low), trim_scale(high)
    ), ',' ORDER BY day) FILTER (WHERE position <= %(cap)s), '') || ']' AS series,
    count(*) > %(cap)s AS truncated
FROM (
    SELECT p.*, row_number() OVER (ORDER BY day DESC) AS position
    FROM catalog_price_points AS p
    WHERE (p.slug, p.seller, p.currency) = (line.slug, line.seller, line.currency)
        AND p.day BETWEEN %(first_day)s AND %(last_day)s
    ORDER BY day DESC
    LIMIT %(cap)s + 1
) AS newest

-- name: points_by_week
-- Part of product_lines: the same by weeks; `at` is their Monday.
SELECT
    '[' || coalesce(string_agg(format(
        '{{"at":"%%s","first":"%%s","last":"%%s","low":"%%s","high":"%%s"}}', week,
        trim_scale(first_price), trim_scale(last_price), trim_scale(low), trim_scale(high)
    ), ',' ORDER BY week) FILTER (WHERE position <= %(cap)s), '') || ']' AS series,
    count(*) > %(cap)s AS truncated
FROM (
    SELECT
        date_trunc('week', day::timestamp)::date AS week,
        (array_agg(first_price ORDER BY day))[1] AS first_price,
        (array_agg(last_price ORDER BY day DESC))[1] AS last_price,
        min(low) AS low, max(high) AS high,
        row_number() OVER (ORDER BY date_trunc('week', day::timestamp)::date DESC) AS position
    FROM catalog_price_points AS p
    WHERE (p.slug, p.seller, p.currency) = (line.slug, line.seller, line.currency)
        AND p.day BETWEEN %(first_day)s AND %(last_day)s
    GROUP BY 1
    ORDER BY 1 DESC
    LIMIT %(cap)s + 1
) AS newest

-- name: points_raw
-- Part of product_lines: the newest observations of a line, as they were recorded.
SELECT
    '[' || coalesce(string_agg(format(
        '{{"at":"%%s","price":%%s,"is_available":%%s,"is_preorder":%%s}}',
        to_char(scraped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        coalesce('"' || trim_scale(price) || '"', 'null'),
        CASE WHEN is_available THEN 'true' ELSE 'false' END,
        CASE WHEN is_preorder THEN 'true' ELSE 'false' END
    ), ',' ORDER BY scraped_at, id) FILTER (WHERE position <= %(cap)s), '') || ']' AS series,
    count(*) > %(cap)s AS truncated
FROM (
    SELECT newest.*, row_number() OVER () AS position
    FROM (
        SELECT s.id, s.scraped_at, s.price, s.is_available, s.is_preorder
        FROM product_price_snapshots AS s
        WHERE s.product_name_normalized = line.slug AND s.seller = line.seller
            AND s.currency = line.currency
            AND s.scraped_at >= %(start)s AND s.scraped_at < %(end)s
        ORDER BY s.scraped_at DESC
        LIMIT %(cap)s + 1
    ) AS newest
) AS numbered

-- name: categories
-- The categories that the most products carry.
SELECT tag, products, available FROM catalog_category_counts
ORDER BY products DESC, tag
LIMIT %(limit)s

-- name: recent_snapshots
-- The newest snapshots. Those of one moment come in the order of the index: a poll writes
-- thousands with one time, and to sort them all for a few would cost more than the page.
SELECT
    scraped_at, product_name_normalized AS slug, product_name_original AS name, seller,
    product_code, price, currency, is_available, is_preorder
FROM product_price_snapshots
ORDER BY scraped_at DESC
LIMIT %(limit)s
