-- The fold: change log -> price points and line summaries. Two paths write the same rows:
--   fast: the line's new moments are all later than what it has seen; they are folded in.
--   slow: anything else (late rows, outliers, deletions); the line is computed from its history.
-- Lines on the slow path are few. What computes them also rebuilds (--full) and reconciles.
--
-- Within one transaction the functions hand on temporary tables. Lines are numbered in them, so
-- that the joins are on one integer, which the planner estimates well:
--   _new       claimed changes              _lines     the lines they touch, and by which path
--   _moments   new rows, one a line and time
--   _scope     lines to compute             _history   their rows, one a line and time
--   _points, _summaries                     what the read model should hold for _scope
--   _point_diff, _summary_diff              where it does not

-- Loads _history for the lines of _scope, or for one of `slices` hash slices of everything.
-- Outliers that do not count lose their price; rows still in the change log are left out, as the
-- read model has not seen them.
CREATE FUNCTION catalog_load_history(slices integer DEFAULT NULL, slice integer DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET client_min_messages = warning SET work_mem = '256MB' AS $fn$
DECLARE
    rows_of text := CASE WHEN slices IS NULL
        THEN '_scope AS l JOIN product_price_snapshots AS s
                ON s.product_name_normalized = l.slug AND s.seller = l.seller
                AND s.currency = l.currency
              WHERE true'
        ELSE 'product_price_snapshots AS s
              WHERE mod(abs(hashtext(s.product_name_normalized)::bigint), $1) = $2' END;
BEGIN
    DROP TABLE IF EXISTS _history;
    EXECUTE format($sql$
        CREATE TEMP TABLE _history ON COMMIT DROP AS
        SELECT
            dense_rank() OVER (ORDER BY s.slug, s.seller, s.currency)::integer AS line,
            s.slug, s.seller, s.currency, s.scraped_at,
            CASE WHEN o.id IS NULL THEN s.price END AS price,
            s.price AS seen_price,
            s.is_available, s.is_preorder, s.observations, s.code_and_name, s.details_id
        FROM (
            SELECT
                s.product_name_normalized AS slug, s.seller, s.currency, s.scraped_at,
                min(s.price) AS price,
                bool_or(s.is_available) AS is_available,
                bool_or(s.is_preorder) AS is_preorder,
                count(*) AS observations,
                min(ARRAY[s.product_code, s.product_name_original COLLATE "C"]) AS code_and_name,
                max(s.id) FILTER (WHERE s.category_tags <> '{}' OR s.hero_image_url <> ''
                    OR s.description <> '') AS details_id
            FROM %s
                AND NOT EXISTS (SELECT FROM catalog_changes AS c WHERE c.snapshot_id = s.id)
            GROUP BY 1, 2, 3, 4
        ) AS s
        LEFT JOIN catalog_outliers AS o
            ON (o.slug, o.seller, o.currency, o.scraped_at)
                = (s.slug, s.seller, s.currency, s.scraped_at)
            AND o.state IN ('suspect', 'rejected')
    $sql$, rows_of) USING slices, slice;
    IF slices IS NOT NULL THEN
        -- A line that waits to be computed again (rows were deleted) is behind until then.
        DELETE FROM _history AS h USING catalog_changes AS c
        WHERE c.snapshot_id IS NULL
            AND (c.slug, c.seller, c.currency) = (h.slug, h.seller, h.currency);
        DROP TABLE IF EXISTS _scope;
        CREATE TEMP TABLE _scope ON COMMIT DROP AS
            SELECT slug, seller, currency FROM catalog_slug_seller_summary
            WHERE mod(abs(hashtext(slug)::bigint), slices) = slice
            UNION SELECT slug, seller, currency FROM catalog_price_points
            WHERE mod(abs(hashtext(slug)::bigint), slices) = slice
            UNION SELECT slug, seller, currency FROM _history
            EXCEPT SELECT slug, seller, currency FROM catalog_changes WHERE snapshot_id IS NULL;
        ANALYZE _scope;
    END IF;
    ANALYZE _history;
END $fn$;

-- Computes _points and _summaries from _history: the definition of both read models.
CREATE FUNCTION catalog_compute()
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
            lag(price) OVER (PARTITION BY line ORDER BY scraped_at) AS previous
        FROM _history
        WHERE price IS NOT NULL
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
        SELECT
            line,
            least(
                min(p.price) FILTER (WHERE p.scraped_at >= r.opens),
                (array_agg(p.price ORDER BY p.scraped_at DESC)
                    FILTER (WHERE p.scraped_at < r.opens))[1]
            ) AS prior_low
        FROM run AS r
        JOIN _history AS p USING (line)
        WHERE p.scraped_at < r.price_since AND p.price IS NOT NULL
        GROUP BY line
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
        total.lowest, total.highest, total.seen_low, total.seen_high, total.observations
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

-- Compares _points and _summaries with the read model within _scope. Returns the differences.
CREATE FUNCTION catalog_compare()
RETURNS bigint LANGUAGE plpgsql SET client_min_messages = warning AS $fn$
BEGIN
    DROP TABLE IF EXISTS _point_diff, _summary_diff;
    CREATE TEMP TABLE _point_diff ON COMMIT DROP AS
    SELECT slug, seller, currency, day, to_jsonb(truth) AS truth, to_jsonb(stored) AS stored
    FROM _points AS truth
    FULL JOIN (
        SELECT p.* FROM catalog_price_points AS p JOIN _scope USING (slug, seller, currency)
    ) AS stored USING (slug, seller, currency, day)
    WHERE truth.* IS DISTINCT FROM stored.*;

    CREATE TEMP TABLE _summary_diff ON COMMIT DROP AS
    SELECT slug, seller, currency, to_jsonb(truth) AS truth, to_jsonb(stored) AS stored
    FROM _summaries AS truth
    FULL JOIN (
        SELECT s.* FROM catalog_slug_seller_summary AS s JOIN _scope USING (slug, seller, currency)
    ) AS stored USING (slug, seller, currency)
    WHERE truth.* IS DISTINCT FROM stored.*;
    RETURN (SELECT count(*) FROM _point_diff) + (SELECT count(*) FROM _summary_diff);
END $fn$;

-- Makes the read model equal to _points and _summaries. Call under the fold's lock.
CREATE FUNCTION catalog_mend()
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    DELETE FROM catalog_price_points AS p USING _point_diff AS d
    WHERE (p.slug, p.seller, p.currency, p.day) = (d.slug, d.seller, d.currency, d.day);
    INSERT INTO catalog_price_points
    SELECT p.* FROM _points AS p JOIN _point_diff USING (slug, seller, currency, day);

    DELETE FROM catalog_slug_seller_summary AS s USING _summary_diff AS d
    WHERE (s.slug, s.seller, s.currency) = (d.slug, d.seller, d.currency);
    INSERT INTO catalog_slug_seller_summary
    SELECT s.* FROM _summaries AS s JOIN _summary_diff USING (slug, seller, currency);
    PERFORM config_raise_generation('catalog_slug_seller_summary');
END $fn$;

-- Judges the latest moments of the lines in _lines that are `wide` (their prices span more than
-- x3, so that an outlier is possible at all), records what it finds, and sends a line whose
-- verdicts changed to the slow path. An outlier is beyond x3 or /3 of the median of the 30 rows
-- before it, given three (the rule of Open Prices); it is confirmed by a neighbour within 10 %
-- that deviates as well. Staff's verdicts stand. Each step is a table of its own, so that the next
-- one is planned by its real size.
CREATE FUNCTION catalog_flag_outliers()
RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $fn$
BEGIN
    DROP TABLE IF EXISTS _pending, _windows, _rows, _verdicts, _judged;
    CREATE TEMP TABLE _pending ON COMMIT DROP AS
    SELECT c.snapshot_id
    FROM catalog_changes AS c
    JOIN _lines AS l USING (slug, seller, currency)
    WHERE l.wide AND c.snapshot_id IS NOT NULL;
    CREATE UNIQUE INDEX ON _pending (snapshot_id);
    ANALYZE _pending;

    -- From two moments before the first new one: the verdict on the last known moment may change
    -- (confirmed by a new one), and needs its own predecessor.
    CREATE TEMP TABLE _windows ON COMMIT DROP AS
    SELECT
        l.line, l.slug, l.seller, l.currency,
        coalesce(min(two.scraped_at), l.first_new, '-infinity') AS load_from,
        coalesce(max(two.scraped_at), l.first_new, '-infinity') AS judge_from
    FROM _lines AS l
    LEFT JOIN LATERAL (
        SELECT DISTINCT s.scraped_at
        FROM product_price_snapshots AS s
        WHERE s.product_name_normalized = l.slug AND s.seller = l.seller
            AND s.currency = l.currency AND s.price IS NOT NULL
            AND s.scraped_at < l.first_new
            AND NOT EXISTS (SELECT FROM _pending AS p WHERE p.snapshot_id = s.id)
        ORDER BY s.scraped_at DESC
        LIMIT 2
    ) AS two ON true
    WHERE l.wide
    GROUP BY l.line, l.slug, l.seller, l.currency, l.first_new;
    ANALYZE _windows;

    CREATE TEMP TABLE _rows ON COMMIT DROP AS
    SELECT w.line, part.scraped_at, part.price
    FROM _windows AS w
    CROSS JOIN LATERAL (
        (
            SELECT s.scraped_at, s.price
            FROM product_price_snapshots AS s
            WHERE s.product_name_normalized = w.slug AND s.seller = w.seller
                AND s.currency = w.currency AND s.price IS NOT NULL
                AND s.scraped_at < w.load_from
                AND NOT EXISTS (SELECT FROM _pending AS p WHERE p.snapshot_id = s.id)
            ORDER BY s.scraped_at DESC, s.price
            LIMIT 30
        )
        UNION ALL
        SELECT s.scraped_at, s.price
        FROM product_price_snapshots AS s
        WHERE s.product_name_normalized = w.slug AND s.seller = w.seller
            AND s.currency = w.currency AND s.price IS NOT NULL
            AND s.scraped_at >= w.load_from
            AND NOT EXISTS (SELECT FROM _pending AS p WHERE p.snapshot_id = s.id)
        OFFSET 0
    ) AS part;
    CREATE INDEX ON _rows (line, scraped_at DESC, price);
    ANALYZE _rows;

    CREATE TEMP TABLE _verdicts ON COMMIT DROP AS
    WITH moment AS (
        SELECT line, r.scraped_at, min(r.price) AS price
        FROM _rows AS r
        JOIN _windows AS w USING (line)
        WHERE r.scraped_at >= w.load_from
        GROUP BY 1, 2
    ),
    measured AS (
        SELECT
            m.line, m.scraped_at, m.price, before.median,
            before.known >= 3
                AND (m.price > 3 * before.median OR 3 * m.price < before.median) AS deviates
        FROM moment AS m
        CROSS JOIN LATERAL (
            SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY price) AS median, count(*) AS known
            FROM (
                SELECT r.price FROM _rows AS r
                WHERE r.line = m.line AND r.scraped_at < m.scraped_at
                ORDER BY r.scraped_at DESC, r.price
                LIMIT 30
            ) AS recent
        ) AS before
    ),
    seen AS (
        SELECT
            measured.*,
            coalesce(lag(deviates) OVER line AND abs(price / lag(price) OVER line - 1) <= 0.1, false)
            OR coalesce(lead(deviates) OVER line AND abs(lead(price) OVER line / price - 1) <= 0.1,
                false) AS agreed
        FROM measured
        WINDOW line AS (PARTITION BY measured.line ORDER BY scraped_at)
    )
    SELECT
        w.slug, w.seller, w.currency, seen.scraped_at, seen.price, seen.median,
        CASE WHEN deviates AND agreed THEN 'confirmed' WHEN deviates THEN 'suspect' END AS verdict
    FROM seen
    JOIN _windows AS w USING (line)
    WHERE seen.scraped_at >= w.judge_from;
    CREATE INDEX ON _verdicts (slug, seller, currency, scraped_at);
    ANALYZE _verdicts;

    CREATE TEMP TABLE _judged (slug text COLLATE "C", seller text COLLATE "C", currency text
        COLLATE "C") ON COMMIT DROP;
    WITH gone AS (
        DELETE FROM catalog_outliers AS o USING _verdicts AS v
        WHERE (o.slug, o.seller, o.currency, o.scraped_at)
                = (v.slug, v.seller, v.currency, v.scraped_at)
            AND v.verdict IS NULL AND o.state IN ('suspect', 'confirmed')
        RETURNING o.slug, o.seller, o.currency
    )
    INSERT INTO _judged SELECT * FROM gone;

    -- Where the whole line was judged, what has no moment any more is gone.
    WITH gone AS (
        DELETE FROM catalog_outliers AS o USING _lines AS l
        WHERE l.wide AND l.first_new IS NULL
            AND (o.slug, o.seller, o.currency) = (l.slug, l.seller, l.currency)
            AND NOT EXISTS (
                SELECT FROM _verdicts AS v
                WHERE (v.slug, v.seller, v.currency, v.scraped_at)
                    = (o.slug, o.seller, o.currency, o.scraped_at)
            )
        RETURNING o.slug, o.seller, o.currency
    )
    INSERT INTO _judged SELECT * FROM gone;

    WITH judged AS (
        INSERT INTO catalog_outliers AS o (slug, seller, currency, scraped_at, price, median, state)
        SELECT slug, seller, currency, scraped_at, price, median, verdict
        FROM _verdicts
        WHERE verdict IS NOT NULL
        ON CONFLICT (slug, seller, currency, scraped_at) DO UPDATE SET
            price = excluded.price, median = excluded.median, state = excluded.state
        WHERE o.state IN ('suspect', 'confirmed')
            AND (o.price, o.state) IS DISTINCT FROM (excluded.price, excluded.state)
        RETURNING o.slug, o.seller, o.currency
    )
    INSERT INTO _judged SELECT * FROM judged;

    UPDATE _lines AS l SET slow = true
    FROM (SELECT DISTINCT slug, seller, currency FROM _judged) AS changed
    WHERE (l.slug, l.seller, l.currency) = (changed.slug, changed.seller, changed.currency);
END $fn$;

-- Folds the new moments of the lines on the fast path.
CREATE FUNCTION catalog_fold_fast()
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
    WITH total AS (
        SELECT
            line,
            min(scraped_at) AS first_at,
            max(scraped_at) FILTER (WHERE price IS NOT NULL) AS last_price_at,
            (array_agg(price ORDER BY scraped_at DESC) FILTER (WHERE price IS NOT NULL))[1]
                AS last_price,
            min(price) AS lowest, max(price) AS highest, sum(observations)::bigint AS observations
        FROM _moments
        GROUP BY line
    ),
    newest AS (
        SELECT DISTINCT ON (line)
            line, scraped_at AS last_at, is_available, is_preorder, code_and_name
        FROM _moments
        ORDER BY line, scraped_at DESC
    ),
    priced AS (
        SELECT
            line, m.scraped_at, m.price,
            coalesce(lag(m.price) OVER (PARTITION BY line ORDER BY m.scraped_at), l.last_price)
                AS previous
        FROM _moments AS m
        JOIN _lines AS l USING (line)
        WHERE m.price IS NOT NULL
    ),
    run AS (
        SELECT DISTINCT ON (line)
            line, scraped_at AS price_since, previous AS previous_price,
            date_trunc('day', scraped_at, 'UTC') - interval '30 days' AS opens
        FROM priced
        WHERE previous IS DISTINCT FROM price
        ORDER BY line, scraped_at DESC
    ),
    -- The stored points end before the first new moment, so the day of the change itself counts.
    prior AS (
        SELECT
            line,
            least(
                (SELECT min(p.low) FROM catalog_price_points AS p
                WHERE p.slug = l.slug AND p.seller = l.seller AND p.currency = l.currency
                    AND p.day >= (r.opens AT TIME ZONE 'UTC')::date
                    AND p.day <= (r.price_since AT TIME ZONE 'UTC')::date),
                (SELECT min(m.price) FROM _moments AS m
                WHERE m.line = r.line AND m.scraped_at >= r.opens
                    AND m.scraped_at < r.price_since),
                coalesce(
                    (SELECT m.price FROM _moments AS m
                    WHERE m.line = r.line AND m.scraped_at < r.opens AND m.price IS NOT NULL
                    ORDER BY m.scraped_at DESC LIMIT 1),
                    (SELECT p.last_price FROM catalog_price_points AS p
                    WHERE p.slug = l.slug AND p.seller = l.seller AND p.currency = l.currency
                        AND p.day < (r.opens AT TIME ZONE 'UTC')::date
                    ORDER BY p.day DESC LIMIT 1)
                )
            ) AS prior_low
        FROM run AS r
        JOIN _lines AS l USING (line)
        WHERE r.previous_price IS NOT NULL
    ),
    detailed AS (
        SELECT DISTINCT ON (line) line, scraped_at, details_id
        FROM _moments
        WHERE details_id IS NOT NULL
        ORDER BY line, scraped_at DESC
    )
    SELECT
        l.slug, l.seller, l.currency,
        newest.code_and_name[2] AS name, newest.code_and_name[1] AS product_code,
        coalesce(d.category_tags, '{}') AS category_tags,
        coalesce(d.hero_image_url, '') AS hero_image_url,
        coalesce(d.description, '') AS description,
        detailed.scraped_at AS details_at,
        total.first_at, newest.last_at, newest.is_available, newest.is_preorder,
        total.last_price, total.last_price_at,
        run.price_since, run.previous_price, prior.prior_low,
        total.lowest, total.highest, total.lowest AS seen_low, total.highest AS seen_high,
        total.observations, l.known
    FROM newest
    JOIN total USING (line)
    JOIN _lines AS l USING (line)
    LEFT JOIN run USING (line)
    LEFT JOIN prior USING (line)
    LEFT JOIN detailed USING (line)
    LEFT JOIN LATERAL (
        SELECT s.category_tags, s.hero_image_url, s.description
        FROM product_price_snapshots AS s
        WHERE s.id = detailed.details_id AND s.scraped_at = detailed.scraped_at
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
        price_since, previous_price, prior_low, lowest, highest, seen_low, seen_high, observations
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

-- Notes up to when the sellers in _new are known now. Returns the products of which a listing went
-- off its shelf by that, or came back.
CREATE FUNCTION catalog_move_shelves()
RETURNS SETOF text LANGUAGE plpgsql SET client_min_messages = warning AS $fn$
BEGIN
    DROP TABLE IF EXISTS _moved;
    CREATE TEMP TABLE _moved ON COMMIT DROP AS
    SELECT seller, a.newest AS before, after.newest AS after
    FROM (
        SELECT seller, max(scraped_at) AS newest, bool_or(snapshot_id IS NULL) AS whole
        FROM _new
        GROUP BY seller
    ) AS n
    LEFT JOIN catalog_seller_activity AS a USING (seller)
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN n.whole THEN (
                SELECT max(s.last_at) FROM catalog_slug_seller_summary AS s
                WHERE s.seller = n.seller
            )
            ELSE greatest(a.newest, n.newest)
        END AS newest
    ) AS after
    WHERE a.newest IS DISTINCT FROM after.newest;

    DELETE FROM catalog_seller_activity AS a USING _moved AS m
    WHERE a.seller = m.seller AND m.after IS NULL;
    INSERT INTO catalog_seller_activity
    SELECT seller, after FROM _moved WHERE after IS NOT NULL
    ON CONFLICT (seller) DO UPDATE SET newest = excluded.newest;

    RETURN QUERY
    SELECT s.slug
    FROM _moved AS m
    JOIN catalog_slug_seller_summary AS s USING (seller)
    WHERE s.last_at >= least(m.before, m.after) - interval '7 days'
        AND s.last_at < greatest(m.before, m.after) - interval '7 days';
END $fn$;

-- Makes the cards of these products, or of all for NULL, what catalog_cards_of says.
CREATE FUNCTION catalog_write_cards(slugs text[])
RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $fn$
BEGIN
    DROP TABLE IF EXISTS _cards;
    CREATE TEMP TABLE _cards (LIKE catalog_slug_summary) ON COMMIT DROP;
    INSERT INTO _cards SELECT * FROM catalog_cards_of(slugs);
    ANALYZE _cards;
    UPDATE catalog_slug_summary AS card SET
        name = c.name, seller = c.seller, hero_image_url = c.hero_image_url,
        description = c.description, category_tags = c.category_tags, sellers = c.sellers,
        offers = c.offers, is_available = c.is_available, is_preorder = c.is_preorder,
        discount = c.discount, last_at = c.last_at
    FROM _cards AS c
    WHERE card.slug = c.slug AND card.* IS DISTINCT FROM c.*;

    WITH gone AS (
        DELETE FROM catalog_slug_summary AS card
        WHERE (slugs IS NULL OR card.slug = ANY (slugs))
            AND NOT EXISTS (SELECT FROM _cards AS c WHERE c.slug = card.slug)
        RETURNING 1
    ),
    come AS (
        INSERT INTO catalog_slug_summary
        SELECT c.* FROM _cards AS c
        WHERE NOT EXISTS (SELECT FROM catalog_slug_summary AS card WHERE card.slug = c.slug)
        RETURNING 1
    )
    UPDATE catalog_fold_state SET slug_set = slug_set + 1
    WHERE EXISTS (SELECT FROM gone) OR EXISTS (SELECT FROM come);
END $fn$;

-- Only one process folds, rebuilds or mends at a time; held to the end of the transaction.
CREATE FUNCTION catalog_lock_fold()
RETURNS void LANGUAGE sql AS $fn$ SELECT pg_advisory_xact_lock(hashtext('catalog_fold')) $fn$;

-- Claims up to `at_most` changes and folds them into points and summaries, in this transaction:
-- killed, the changes are back. Returns the changes claimed, the lines touched, and how many of
-- those were computed from their history.
CREATE FUNCTION catalog_fold_changes(
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
                    sum(CASE WHEN snapshot_id IS NULL THEN 200 ELSE 1 END) OVER (ORDER BY id) AS work
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

-- Brings to the cards what folds did not write there (the order of sellers, what was mended), and
-- the search up to the cards. Returns whether there is anything new to see.
CREATE FUNCTION catalog_project_cards(force boolean DEFAULT false)
RETURNS boolean LANGUAGE plpgsql SET work_mem = '128MB' AS $fn$
DECLARE
    state catalog_fold_state;
BEGIN
    PERFORM catalog_lock_fold();
    SELECT * INTO state FROM catalog_fold_state;
    IF force OR state.all_cards_stale THEN
        DELETE FROM catalog_seller_activity AS a
        WHERE NOT EXISTS (SELECT FROM catalog_slug_seller_summary AS s WHERE s.seller = a.seller);
        INSERT INTO catalog_seller_activity
        SELECT seller, max(last_at) FROM catalog_slug_seller_summary GROUP BY seller
        ON CONFLICT (seller) DO UPDATE SET newest = excluded.newest;
        PERFORM catalog_write_cards(NULL);
    ELSIF state.folded = state.projected THEN
        RETURN false;
    END IF;
    IF force OR (SELECT slug_set <> searched FROM catalog_fold_state) THEN
        PERFORM catalog_project_search(force);
    END IF;
    -- What staff changed since the first look stays to be done: they do not wait for the lock.
    UPDATE catalog_fold_state SET
        projected = state.folded, searched = slug_set, all_cards_stale = folded <> state.folded;
    PERFORM config_raise_generation('catalog_slug_summary');
    RETURN true;
END $fn$;

-- Brings the category counts up to the cards. Returns whether they were behind.
CREATE FUNCTION catalog_count_categories(force boolean DEFAULT false)
RETURNS boolean LANGUAGE plpgsql AS $fn$
BEGIN
    PERFORM catalog_lock_fold();
    IF NOT force AND (SELECT projected = categorised FROM catalog_fold_state) THEN
        RETURN false;
    END IF;
    REFRESH MATERIALIZED VIEW CONCURRENTLY catalog_category_counts;
    UPDATE catalog_fold_state SET categorised = projected;
    PERFORM config_raise_generation('catalog_categories');
    RETURN true;
END $fn$;

-- The entry point: everything that waits, folded and on the cards, in this one transaction.
-- Safe to run at any time and from anywhere, psql and cron included. `manage.py refresh` commits
-- large backlogs in parts before it calls the same functions.
CREATE FUNCTION refresh_catalog_aggregates()
RETURNS bigint LANGUAGE plpgsql AS $fn$
DECLARE
    waiting bigint := (SELECT count(*) FROM catalog_changes);
    folded_now bigint := 0;
    part bigint;
BEGIN
    -- Not until nothing waits: beside a busy ingest that never comes.
    WHILE folded_now < waiting LOOP
        SELECT changes INTO part FROM catalog_fold_changes();
        EXIT WHEN part = 0;
        folded_now := folded_now + part;
    END LOOP;
    PERFORM catalog_project_cards();
    PERFORM catalog_count_categories();
    RETURN folded_now;
END $fn$;
