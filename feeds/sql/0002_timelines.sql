-- Timelines that are kept. Whoever reads now and then has a row in feed_states: all posts of those they
-- follow that are newer than the floor are in user_feeds, or in what readers look up: fan-outs under way,
-- follows that are not filled, authors that are pulled. What is older than the floor is computed. A
-- floor in the year 1: there is nothing older; in the year 9999: it is to be built.

CREATE TABLE feed_states (
    user_id integer PRIMARY KEY REFERENCES profiles (user_id) ON DELETE CASCADE,
    floor_at timestamptz NOT NULL DEFAULT '9999-12-31 00:00+00',
    floor_id bigint NOT NULL DEFAULT 0,
    built_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_read_at timestamptz NOT NULL DEFAULT now(),
    visits bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
-- What is to be built.
CREATE INDEX feed_states_unbuilt ON feed_states (user_id) WHERE built_at IS NULL;
-- Who has not read for long.
CREATE INDEX feed_states_read ON feed_states (last_read_at);

-- `inserted_at` is the time of the post, the order of timelines; delivering again changes nothing. No
-- foreign keys: a delivery would pay for each twice. What is gone is not shown, and leaves with the cap.
CREATE TABLE user_feeds (
    user_id integer NOT NULL,
    post_id bigint NOT NULL,
    inserted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, inserted_at, post_id)
) PARTITION BY HASH (user_id);
DO $$
BEGIN
    FOR part IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE user_feeds_h%s PARTITION OF user_feeds'
            ' FOR VALUES WITH (MODULUS 16, REMAINDER %s)'
            ' WITH (autovacuum_vacuum_insert_scale_factor = 0.1)',
            lpad(part::text, 2, '0'), part);
    END LOOP;
END $$;

-- Posts whose delivery is under way: `tier` 0 goes to those who read lately, 1 to all who have a
-- timeline; up to `after_id` it is done. A row goes with the last delivery.
CREATE TABLE feed_fanouts (
    post_id bigint PRIMARY KEY REFERENCES posts (id) ON DELETE CASCADE,
    author_id integer NOT NULL,
    created_at timestamptz NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    tier smallint NOT NULL DEFAULT 0,
    after_id integer NOT NULL DEFAULT 0,
    delivered bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    error text NOT NULL DEFAULT ''
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- What a reader looks up.
CREATE INDEX feed_fanouts_author ON feed_fanouts (author_id);
-- The next one to deliver.
CREATE INDEX feed_fanouts_due ON feed_fanouts (due_at, post_id);

-- Follows whose followee's older posts a worker is to put into the follower's timeline.
CREATE TABLE feed_fills (
    follower_id integer NOT NULL,
    followee_id integer NOT NULL,
    PRIMARY KEY (follower_id, followee_id),
    FOREIGN KEY (follower_id, followee_id) REFERENCES follows ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Authors some of whose posts are pulled, and when the newest of these was posted.
CREATE TABLE pull_authors (
    author_id integer PRIMARY KEY REFERENCES profiles (user_id) ON DELETE CASCADE,
    newest_at timestamptz NOT NULL
) WITH (fillfactor = 70);

-- A page of a kept timeline, newest first, before (before_at, before_id): what was delivered, and what
-- is looked up. Each row has the floor; without a kept timeline there is one row of nulls, and where the
-- page is empty one with the floor alone.
--
-- STABLE: all statements in here see the snapshot of the one that calls, in which what is delivered
-- and what is under way belong together. The plans are kept: with one for each call, planning took
-- twice as long as reading.
CREATE FUNCTION feeds_kept_page(viewer integer, before_at timestamptz, before_id bigint, most bigint)
RETURNS TABLE (floor_at timestamptz, floor_id bigint, id bigint, created_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $fn$
#variable_conflict use_column
DECLARE
    bottom_at timestamptz;
    bottom_id bigint;
    hidden integer[];
    away integer[];
    ids bigint[];
    times timestamptz[];
    last_at timestamptz := before_at;
    last_id bigint := before_id;
    chunk bigint := most + 10;
    chunk_rows bigint;
    chunk_ids bigint[];
    chunk_times timestamptz[];
    found_rows bigint := 0;
BEGIN
    SELECT s.floor_at, s.floor_id INTO bottom_at, bottom_id
    FROM feed_states AS s WHERE s.user_id = viewer AND s.built_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN NEXT;
        RETURN;
    END IF;
    hidden := ARRAY(
        SELECT target_id FROM mutes WHERE user_id = viewer
        UNION ALL SELECT target_id FROM blocks WHERE user_id = viewer
        UNION ALL SELECT user_id FROM blocks WHERE target_id = viewer
    );

    -- Authors whose posts are not delivered, or not yet; of them, whom the viewer follows. Few as a rule,
    -- so that each is looked up: the viewer's follows, of which there may be thousands, are not read.
    away := ARRAY(
        SELECT author_id FROM pull_authors WHERE newest_at >= bottom_at
        UNION SELECT author_id FROM feed_fanouts
    );
    IF cardinality(away) > 1000 THEN
        away := ARRAY(
            SELECT followee_id FROM follows WHERE follower_id = viewer
            INTERSECT SELECT unnest(away)
            EXCEPT SELECT unnest(hidden)
        );
    ELSE
        away := ARRAY(
            SELECT followee_id FROM follows
            WHERE follower_id = viewer AND followee_id = ANY (away) AND followee_id <> ALL (hidden)
        );
    END IF;

    -- What they posted, what was posted in follows that are not filled, and by the viewer.
    SELECT array_agg(p.id), array_agg(p.created_at) INTO ids, times
    FROM (
        SELECT q.id, q.created_at
        FROM unnest(away) AS a (author_id)
        CROSS JOIN LATERAL (
            SELECT id, created_at FROM posts
            WHERE author_id = a.author_id AND delivery = 'pull' AND NOT is_deleted
                AND (created_at, id) < (before_at, before_id)
                AND (created_at, id) >= (bottom_at, bottom_id)
                AND visibility <> 'private'
            ORDER BY created_at DESC, id DESC LIMIT most
        ) AS q
        UNION ALL
        SELECT q.id, q.created_at
        FROM (
            SELECT followee_id AS author_id FROM follows WHERE follower_id = viewer AND NOT is_filled
            UNION ALL SELECT viewer
        ) AS a
        CROSS JOIN LATERAL (
            SELECT id, created_at FROM posts
            WHERE author_id = a.author_id AND NOT is_deleted
                AND (created_at, id) < (before_at, before_id)
                AND (created_at, id) >= (bottom_at, bottom_id)
                AND (visibility <> 'private' OR author_id = viewer)
            ORDER BY created_at DESC, id DESC LIMIT most
        ) AS q
        WHERE a.author_id <> ALL (hidden)
        UNION ALL
        SELECT q.id, q.created_at
        FROM feed_fanouts AS o JOIN posts AS q ON q.id = o.post_id
        WHERE o.author_id = ANY (away) AND NOT q.is_deleted AND q.visibility <> 'private'
            AND (q.created_at, q.id) < (before_at, before_id)
            AND (q.created_at, q.id) >= (bottom_at, bottom_id)
    ) AS p;

    -- Delivered: as many of the newest as fill a page, and some for those that are not shown any more.
    LOOP
        SELECT count(*), array_agg(c.post_id) FILTER (WHERE c.is_shown),
            array_agg(c.inserted_at) FILTER (WHERE c.is_shown),
            min(c.inserted_at), min(c.post_id) FILTER (WHERE c.is_last)
        INTO chunk_rows, chunk_ids, chunk_times, last_at, last_id
        FROM (
            SELECT u.post_id, u.inserted_at,
                row_number() OVER (ORDER BY u.inserted_at, u.post_id) = 1 AS is_last,
                EXISTS (
                    SELECT FROM posts AS p
                    WHERE p.id = u.post_id AND NOT p.is_deleted AND p.visibility <> 'private'
                        AND p.author_id <> ALL (hidden)
                        AND EXISTS (
                            SELECT FROM follows AS f
                            WHERE f.follower_id = viewer AND f.followee_id = p.author_id)
                ) AS is_shown
            FROM (
                SELECT post_id, inserted_at FROM user_feeds
                WHERE user_id = viewer AND (inserted_at, post_id) < (last_at, last_id)
                    AND (inserted_at, post_id) >= (bottom_at, bottom_id)
                ORDER BY inserted_at DESC, post_id DESC LIMIT chunk
            ) AS u
        ) AS c;
        ids := ids || chunk_ids;
        times := times || chunk_times;
        found_rows := found_rows + coalesce(cardinality(chunk_ids), 0);
        EXIT WHEN found_rows >= most OR chunk_rows < chunk;
        chunk := chunk * 4;
    END LOOP;

    RETURN QUERY
    SELECT bottom_at, bottom_id, f.id, f.created_at
    FROM (SELECT DISTINCT g.id, g.created_at FROM unnest(ids, times) AS g (id, created_at)) AS f
    ORDER BY f.created_at DESC, f.id DESC LIMIT most;
    IF NOT FOUND THEN
        floor_at := bottom_at;
        floor_id := bottom_id;
        RETURN NEXT;
    END IF;
END $fn$;
