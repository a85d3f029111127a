-- The day until which a line's prior low was in force. While it lies in the window of the next
-- change, that change knows its own prior low without reading the days of the line.
ALTER TABLE catalog_slug_seller_summary ADD COLUMN prior_low_until date;

-- Lines that stand are computed again, by the refreshes that follow.
INSERT INTO catalog_changes (slug, seller, currency)
SELECT slug, seller, currency FROM catalog_slug_seller_summary WHERE prior_low IS NOT NULL;

-- A plan for any list of products reads them all, and a session settles on one from its sixth fold:
-- three times the time. Planned for the list that it is given, it reads those products alone.
ALTER FUNCTION catalog_write_cards(text[]) SET plan_cache_mode = force_custom_plan;

-- Computes _points and _summaries from _history: the definition of both read models.
CREATE OR REPLACE FUNCTION catalog_compute()
RETURNS void LANGUAGE plpgsql SET client_min_messages = warning SET work_mem = '256MB' AS $fn$
BEGIN
    DROP TABLE IF EXISTS _points, _summaries;
    CREATE TEMP TABLE _points ON COMMIT DROP AS
    SELECT
        slug, seller, currency, day,
        prices[1] AS first_price, prices[cardinality(prices)] AS last_price, low, high, observations
    FROM (
        SELECT
            slug, seller, currency, (scraped_at AT TIME ZONE 'UTC')::date AS day,
            array_agg(price ORDER BY scraped_at) AS prices,
            min(price) AS low, max(price) AS high, count(*)::integer AS observations
        FROM _history
        WHERE price IS NOT NULL
        GROUP BY line, slug, seller, currency, day
    ) AS days;

    CREATE TEMP TABLE _summaries ON COMMIT DROP AS
    WITH total AS (
        SELECT
            line,
            min(scraped_at) AS first_at,
            max(scraped_at) FILTER (WHERE price IS NOT NULL) AS last_price_at,
            min(price) AS lowest, max(price) AS highest,
            min(seen_price) AS seen_low, max(seen_price) AS seen_high,
            sum(observations)::bigint AS observations
        FROM _history
        GROUP BY line
    ),
    newest AS (
        SELECT DISTINCT ON (line)
            line, slug, seller, currency, scraped_at AS last_at,
            is_available, is_preorder, code_and_name
        FROM _history
        ORDER BY line, scraped_at DESC
    ),
    priced AS (
        SELECT
            line, scraped_at, price,
            lag(price) OVER line AS previous, lead(scraped_at) OVER line AS next_at
        FROM _history
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
    -- A price is in force until the next one: what was so in the window, or as it opened.
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
        FROM _history
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
        prior.prior_low_until
    FROM newest
    JOIN total USING (line)
    LEFT JOIN run USING (line)
    LEFT JOIN prior USING (line)
    LEFT JOIN detailed USING (line)
    -- OFFSET 0: look each one up by its key, whatever the planner thinks of their number.
    LEFT JOIN LATERAL (
        SELECT s.category_tags, s.hero_image_url, s.description
        FROM product_price_snapshots AS s
        WHERE s.id = detailed.details_id AND s.scraped_at = detailed.scraped_at
        OFFSET 0
    ) AS d ON true;
    ANALYZE _points;
    ANALYZE _summaries;
END $fn$;

-- Folds the new moments of the lines on the fast path.
CREATE OR REPLACE FUNCTION catalog_fold_fast()
RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $fn$
BEGIN
    DROP TABLE IF EXISTS _moments;
    CREATE TEMP TABLE _moments ON COMMIT DROP AS
    SELECT
        l.line, n.scraped_at,
        min(n.price) AS price,
        bool_or(n.is_available) AS is_available,
        bool_or(n.is_preorder) AS is_preorder,
        count(*) AS observations,
        min(ARRAY[n.product_code, n.name COLLATE "C"]) AS code_and_name,
        max(n.snapshot_id) FILTER (WHERE n.has_details) AS details_id
    FROM _new AS n
    JOIN _lines AS l USING (slug, seller, currency)
    WHERE NOT l.slow
    GROUP BY 1, 2;
    CREATE INDEX ON _moments (line, scraped_at);
    ANALYZE _moments;

    DROP TABLE IF EXISTS _folded;
    CREATE TEMP TABLE _folded ON COMMIT DROP AS
    WITH latest AS (
        SELECT
            line,
            min(scraped_at) AS first_at,
            max(scraped_at) AS last_at,
            (array_agg(is_available ORDER BY scraped_at DESC))[1] AS is_available,
            (array_agg(is_preorder ORDER BY scraped_at DESC))[1] AS is_preorder,
            (array_agg(code_and_name[1] ORDER BY scraped_at DESC))[1] AS product_code,
            (array_agg(code_and_name[2] ORDER BY scraped_at DESC))[1] AS name,
            max(scraped_at) FILTER (WHERE price IS NOT NULL) AS last_price_at,
            (array_agg(price ORDER BY scraped_at DESC) FILTER (WHERE price IS NOT NULL))[1]
                AS last_price,
            max(scraped_at) FILTER (WHERE details_id IS NOT NULL) AS details_at,
            (array_agg(details_id ORDER BY scraped_at DESC)
                FILTER (WHERE details_id IS NOT NULL))[1] AS details_id,
            min(price) AS lowest, max(price) AS highest, sum(observations)::bigint AS observations
        FROM _moments
        GROUP BY line
    ),
    priced AS (
        SELECT
            line, m.scraped_at, m.price,
            coalesce(lag(m.price) OVER (PARTITION BY line ORDER BY m.scraped_at), l.last_price)
                AS previous,
            min(m.scraped_at) OVER (PARTITION BY line) AS first_at
        FROM _moments AS m
        JOIN _lines AS l USING (line)
        WHERE m.price IS NOT NULL
    ),
    run AS (
        SELECT DISTINCT ON (line)
            line, scraped_at AS price_since, previous AS previous_price,
            date_trunc('day', scraped_at, 'UTC') - interval '30 days' AS opens,
            (scraped_at AT TIME ZONE 'UTC')::date AS since_on,
            (first_at AT TIME ZONE 'UTC')::date AS first_on,
            1 = count(*) OVER (PARTITION BY line) AS once
        FROM priced
        WHERE previous IS DISTINCT FROM price
        ORDER BY line, scraped_at DESC
    ),
    -- The prior low, and the day until which it was in force. Where the price changed once, the
    -- line knows it: the price left, if none of the last window was lower; or that window's low, if
    -- it was still in force when this one opens. Else it is read from the days.
    prior AS (
        SELECT r.line, lowest.price AS prior_low, lowest.until AS prior_low_until
        FROM run AS r
        JOIN _lines AS l USING (line)
        CROSS JOIN LATERAL (
            SELECT r.previous_price AS price, r.since_on AS until
            WHERE r.once AND coalesce(r.previous_price <= l.prior_low, l.prior_low IS NULL)
            UNION ALL
            SELECT l.prior_low, l.prior_low_until
            WHERE r.once AND r.previous_price > l.prior_low AND l.prior_low_until >= r.since_on - 30
            UNION ALL
            (
                SELECT low.price, low.until
                FROM (
                    SELECT
                        CASE WHEN d.day < r.since_on - 30 THEN d.last_price ELSE d.low END AS price,
                        CASE WHEN d.day >= r.since_on - 30 AND d.low < d.last_price
                            THEN d.day ELSE d.next_on END AS until
                    FROM (
                        SELECT
                            newest.*, coalesce(lead(day) OVER (ORDER BY day), r.first_on) AS next_on
                        FROM (
                            SELECT p.day, p.low, p.last_price
                            FROM catalog_price_points AS p
                            WHERE p.slug = l.slug AND p.seller = l.seller
                                AND p.currency = l.currency AND p.day <= r.since_on
                            ORDER BY p.day DESC
                            LIMIT 32  -- 31 in the window, one before it
                        ) AS newest
                    ) AS d
                    WHERE d.next_on >= r.since_on - 30
                    UNION ALL
                    SELECT m.price, (m.next_at AT TIME ZONE 'UTC')::date
                    FROM (
                        SELECT m.price, lead(m.scraped_at) OVER (ORDER BY m.scraped_at) AS next_at
                        FROM _moments AS m
                        WHERE m.line = r.line AND m.price IS NOT NULL
                            AND m.scraped_at <= r.price_since
                    ) AS m
                    WHERE m.next_at >= r.opens
                ) AS low
                WHERE NOT r.once OR r.previous_price > l.prior_low
                    AND coalesce(l.prior_low_until < r.since_on - 30, true)
                ORDER BY price, until DESC
                LIMIT 1
            )
        ) AS lowest
        WHERE r.previous_price IS NOT NULL
    )
    SELECT
        l.slug, l.seller, l.currency, n.name, n.product_code,
        coalesce(d.category_tags, '{}') AS category_tags,
        coalesce(d.hero_image_url, '') AS hero_image_url,
        coalesce(d.description, '') AS description,
        n.details_at, n.first_at, n.last_at, n.is_available, n.is_preorder,
        n.last_price, n.last_price_at,
        run.price_since, run.previous_price, prior.prior_low,
        n.lowest, n.highest, n.lowest AS seen_low, n.highest AS seen_high,
        n.observations, prior.prior_low_until, l.known
    FROM latest AS n
    JOIN _lines AS l USING (line)
    LEFT JOIN run USING (line)
    LEFT JOIN prior USING (line)
    LEFT JOIN LATERAL (
        SELECT s.category_tags, s.hero_image_url, s.description
        FROM product_price_snapshots AS s
        WHERE s.id = n.details_id AND s.scraped_at = n.details_at
        OFFSET 0
    ) AS d ON true;
    ANALYZE _folded;

    UPDATE catalog_slug_seller_summary AS line SET
        name = f.name,
        product_code = f.product_code,
        category_tags = CASE WHEN f.details_at IS NULL
            THEN line.category_tags ELSE f.category_tags END,
        hero_image_url = CASE WHEN f.details_at IS NULL
            THEN line.hero_image_url ELSE f.hero_image_url END,
        description = CASE WHEN f.details_at IS NULL
            THEN line.description ELSE f.description END,
        details_at = coalesce(f.details_at, line.details_at),
        last_at = f.last_at,
        is_available = f.is_available,
        is_preorder = f.is_preorder,
        last_price = coalesce(f.last_price, line.last_price),
        last_price_at = coalesce(f.last_price_at, line.last_price_at),
        price_since = coalesce(f.price_since, line.price_since),
        previous_price = CASE WHEN f.price_since IS NULL
            THEN line.previous_price ELSE f.previous_price END,
        prior_low = CASE WHEN f.price_since IS NULL
            THEN line.prior_low ELSE f.prior_low END,
        prior_low_until = CASE WHEN f.price_since IS NULL
            THEN line.prior_low_until ELSE f.prior_low_until END,
        lowest = least(line.lowest, f.lowest),
        highest = greatest(line.highest, f.highest),
        seen_low = least(line.seen_low, f.seen_low),
        seen_high = greatest(line.seen_high, f.seen_high),
        observations = line.observations + f.observations
    FROM _folded AS f
    WHERE f.known
        AND line.slug = f.slug AND line.seller = f.seller AND line.currency = f.currency;

    INSERT INTO catalog_slug_seller_summary
    SELECT
        slug, seller, currency, name, product_code, category_tags, hero_image_url, description,
        details_at, first_at, last_at, is_available, is_preorder, last_price, last_price_at,
        price_since, previous_price, prior_low, lowest, highest, seen_low, seen_high, observations,
        prior_low_until
    FROM _folded
    WHERE NOT known
    ORDER BY slug, seller, currency;

    DROP TABLE IF EXISTS _days;
    CREATE TEMP TABLE _days ON COMMIT DROP AS
    SELECT
        l.slug, l.seller, l.currency, days.day,
        prices[1] AS first_price, prices[cardinality(prices)] AS last_price, low, high,
        observations, days.day = (l.last_price_at AT TIME ZONE 'UTC')::date AS stored
    FROM (
        SELECT
            line, (scraped_at AT TIME ZONE 'UTC')::date AS day,
            array_agg(price ORDER BY scraped_at) AS prices,
            min(price) AS low, max(price) AS high, count(*)::integer AS observations
        FROM _moments
        WHERE price IS NOT NULL
        GROUP BY 1, 2
    ) AS days
    JOIN _lines AS l USING (line);

    -- All moments are later than what the line has seen: only its last day can exist already.
    UPDATE catalog_price_points AS point SET
        last_price = d.last_price,
        low = least(point.low, d.low),
        high = greatest(point.high, d.high),
        observations = point.observations + d.observations
    FROM _days AS d
    WHERE d.stored
        AND point.slug = d.slug AND point.seller = d.seller AND point.currency = d.currency
        AND point.day = d.day;

    INSERT INTO catalog_price_points
    SELECT slug, seller, currency, day, first_price, last_price, low, high, observations
    FROM _days
    WHERE stored IS NOT true
    ORDER BY slug, seller, currency, day;
END $fn$;

-- Claims up to `at_most` changes and folds them into points and summaries, in this transaction:
-- killed, the changes are back. Returns the changes claimed, the lines touched, and how many of
-- those were computed from their history.
CREATE OR REPLACE FUNCTION catalog_fold_changes(
    at_most integer DEFAULT 100000, OUT changes bigint, OUT lines bigint, OUT computed bigint
) LANGUAGE plpgsql SET client_min_messages = warning SET work_mem = '128MB' AS $fn$
BEGIN
    -- A crash may lose the last folds, whole: their changes are back then, and folded again.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM catalog_lock_fold();
    DROP TABLE IF EXISTS _new, _lines;
    CREATE TEMP TABLE _new ON COMMIT DROP AS
    WITH claimed AS (
        -- By range: under the lock nobody else claims, and what commits meanwhile is not seen. A
        -- whole line counts as 200 changes, so that a part stays of one size; one always goes.
        DELETE FROM catalog_changes
        WHERE id <= (
            SELECT max(id)
            FROM (
                SELECT
                    id,
                    sum(CASE WHEN snapshot_id IS NULL THEN 200 ELSE 1 END)
                        OVER (ORDER BY id) AS work
                FROM (
                    SELECT id, snapshot_id FROM catalog_changes ORDER BY id LIMIT at_most
                ) AS part
            ) AS measured
            WHERE work <= greatest(at_most, 200)
        )
        RETURNING *
    )
    SELECT * FROM claimed;
    GET DIAGNOSTICS changes = ROW_COUNT;
    IF changes = 0 THEN
        lines := 0;
        computed := 0;
        RETURN;
    END IF;

    ANALYZE _new;
    CREATE TEMP TABLE _lines ON COMMIT DROP AS
    SELECT
        row_number() OVER ()::integer AS line,
        n.slug, n.seller, n.currency, s.slug IS NOT NULL AS known, s.last_price, s.last_price_at,
        s.prior_low, s.prior_low_until,
        CASE WHEN NOT n.whole THEN n.first_new END AS first_new,
        n.whole OR coalesce(n.first_new <= s.last_at, false) AS slow,
        n.whole OR coalesce(greatest(n.high, s.seen_high) > 3 * least(n.low, s.seen_low), false)
            AS wide
    FROM (
        SELECT
            slug, seller, currency, bool_or(snapshot_id IS NULL) AS whole,
            min(scraped_at) AS first_new, min(price) AS low, max(price) AS high
        FROM _new
        GROUP BY 1, 2, 3
    ) AS n
    LEFT JOIN catalog_slug_seller_summary AS s USING (slug, seller, currency);
    GET DIAGNOSTICS lines = ROW_COUNT;
    ANALYZE _lines;
    IF EXISTS (SELECT FROM _lines WHERE wide) THEN
        PERFORM catalog_flag_outliers();
    END IF;

    PERFORM catalog_fold_fast();

    DROP TABLE IF EXISTS _scope;
    CREATE TEMP TABLE _scope ON COMMIT DROP AS
        SELECT slug, seller, currency FROM _lines WHERE slow;
    GET DIAGNOSTICS computed = ROW_COUNT;
    IF computed > 0 THEN
        ANALYZE _scope;
        PERFORM catalog_load_history();
        PERFORM catalog_compute();
        PERFORM catalog_compare();
        PERFORM catalog_mend();
    END IF;
    PERFORM catalog_write_cards(ARRAY(
        SELECT slug FROM _lines UNION SELECT slug FROM catalog_move_shelves() AS slug
    ));
    UPDATE catalog_fold_state SET folded = folded + 1;
    PERFORM config_raise_generation('catalog_slug_seller_summary');
    PERFORM config_raise_generation('catalog_slug_summary');
END $fn$;
