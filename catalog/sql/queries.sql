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

-- name: raise_fold_state
-- Says that lines changed, so that the cards follow.
UPDATE catalog_fold_state SET folded = folded + 1

-- name: estimated_snapshots
-- The planner's idea of how many snapshots there are.
SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint
FROM pg_class
JOIN pg_inherits ON inhrelid = oid
WHERE inhparent = 'product_price_snapshots'::regclass

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
-- Where the cards differ from what the lines say.
SELECT slug, 'missing or old' AS what
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

-- name: record_stage
-- In the order of the natural key: concurrent ingests lock in one order, and each index page is
-- met once a chunk. The first row of a key wins, whether it stood already or comes in this chunk.
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

-- name: compare_stage
-- What stands in the place of each staged row that did not go in, one index look-up each: LIMIT
-- keeps the planner from a hash join over whole months.
SELECT s.position, s.price, p.price
FROM catalog_stage AS s
CROSS JOIN LATERAL (
    SELECT p.id, p.price
    FROM product_price_snapshots AS p
    WHERE p.product_name_normalized = s.product_name_normalized
        AND p.seller = s.seller
        AND p.scraped_at = s.scraped_at
        AND p.product_code = s.product_code
        AND p.currency = s.currency
    LIMIT 1
) AS p
WHERE p.id <> s.id
ORDER BY s.position
