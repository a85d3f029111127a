-- Statements of matching, by name.

-- name: own_item
-- An item of this owner, unless it is deleted.
SELECT {columns}
FROM items AS i
WHERE i.id = %(item)s AND i.owner_id = %(owner)s AND NOT i.is_deleted

-- name: own_items
-- A page of an owner's items, newest first: each status by its part of the index, then merged.
SELECT i.*
FROM unnest(%(statuses)s::text[]) AS wanted (status)
CROSS JOIN LATERAL (
    SELECT {columns}
    FROM items AS i
    WHERE i.owner_id = %(owner)s AND i.status = wanted.status AND NOT i.is_deleted
        AND (%(kind)s::text IS NULL OR i.kind = %(kind)s)
        AND (%(after_at)s::timestamptz IS NULL
            OR i.created_at <= %(after_at)s
                AND (i.created_at < %(after_at)s OR i.id < %(after_id)s))
    ORDER BY i.created_at DESC, i.id DESC
    LIMIT %(limit)s
) AS i
ORDER BY i.created_at DESC, i.id DESC
LIMIT %(limit)s

-- name: public_items
-- What everybody may see of these items, where they stand so.
SELECT {columns}
FROM items AS i
WHERE i.id = ANY (%(items)s) AND i.status = %(status)s AND NOT i.is_deleted

-- name: item_matches
-- A page of an item's matches, best first, each with what may be seen of the other item.
SELECT m.id AS match_id, m.pair, m.score, m.state, m.components, m.degraded,
    m.created_at AS found_at, m.updated_at AS scored_at,
    m.{my_confirmation} AS confirmed_at, m.{their_confirmation} AS other_confirmed_at, {columns}
FROM matches AS m
JOIN items AS i ON i.id = m.{theirs}
WHERE m.{mine} = %(item)s AND m.state = ANY (%(states)s) AND NOT i.is_deleted
    AND (%(after_score)s::float8 IS NULL
        OR m.score <= %(after_score)s::float8
            AND (m.score < %(after_score)s::float8 OR m.id < %(after_id)s))
ORDER BY m.score DESC, m.id DESC
LIMIT %(limit)s

-- name: own_match
-- A match in which this person owns one side, seen from there.
SELECT m.id AS match_id, m.pair, m.score, m.state, m.components, m.degraded,
    m.created_at AS found_at, m.updated_at AS scored_at,
    CASE WHEN mine.id = m.seeker_id THEN m.seeker_confirmed_at ELSE m.offer_confirmed_at END
        AS confirmed_at,
    CASE WHEN mine.id = m.seeker_id THEN m.offer_confirmed_at ELSE m.seeker_confirmed_at END
        AS other_confirmed_at, {columns}
FROM matches AS m
JOIN items AS mine ON mine.id IN (m.seeker_id, m.offer_id) AND mine.owner_id = %(owner)s
JOIN items AS i ON i.id = CASE WHEN mine.id = m.seeker_id THEN m.offer_id ELSE m.seeker_id END
WHERE m.id = %(match)s AND NOT mine.is_deleted AND NOT i.is_deleted

-- name: own_match_job
-- A match job of this owner; where it waits, how many are before it (1,000 at most are counted).
SELECT j.task_id, j.state, j.progress, j.attempts, j.item_id, j.submitted_at, j.started_at,
    j.finished_at, j.expires_at, j.result, j.degraded, j.error,
    coalesce(j.expires_at <= now(), false) AS is_expired,
    CASE WHEN j.state = 'queued' THEN (
        SELECT count(*) FROM (
            SELECT FROM match_jobs AS earlier
            WHERE earlier.state = 'queued'
                AND (earlier.priority, earlier.submitted_at) < (j.priority, j.submitted_at)
            LIMIT 1000
        ) AS counted
    ) END AS ahead
FROM match_jobs AS j
WHERE j.task_id = %(task)s AND j.owner_id = %(owner)s

-- name: badges
-- A person's counts, each over a bounded number of rows.
WITH open_items AS MATERIALIZED (
    SELECT id, kind FROM items
    WHERE owner_id = %(user)s AND status = 'open' AND NOT is_deleted
    ORDER BY created_at DESC LIMIT %(items)s
), found AS (  -- counted anew by each: together, one would leave no room to another
    SELECT best.state, best.confirmed_at, best.other_confirmed_at
    FROM (SELECT id, kind FROM open_items LIMIT %(items_looked_at)s) AS i
    CROSS JOIN LATERAL (
        SELECT m.state, m.seeker_confirmed_at AS confirmed_at,
            m.offer_confirmed_at AS other_confirmed_at
        FROM matches AS m
        WHERE m.seeker_id = i.id AND m.state IN ('suggested', 'confirmed')
            AND i.kind IN ('lost', 'wanted', 'resume')
        UNION ALL
        SELECT m.state, m.offer_confirmed_at, m.seeker_confirmed_at
        FROM matches AS m
        WHERE m.offer_id = i.id AND m.state IN ('suggested', 'confirmed')
            AND i.kind IN ('found', 'offered', 'job')
    ) AS best
)
SELECT
    (SELECT count(*) FROM open_items) AS open_items,
    (SELECT count(*) FROM (
        SELECT FROM found WHERE state = 'suggested' AND confirmed_at IS NULL LIMIT %(matches)s
    ) AS counted) AS matches_to_review,
    (SELECT count(*) FROM (
        SELECT FROM found
        WHERE state = 'suggested' AND other_confirmed_at IS NOT NULL AND confirmed_at IS NULL
        LIMIT %(matches)s
    ) AS counted) AS matches_awaiting_me,
    (SELECT count(*) FROM (
        SELECT FROM found WHERE state = 'confirmed' LIMIT %(matches)s
    ) AS counted) AS matches_confirmed,
    (SELECT count(*) FROM (
        SELECT FROM match_notifications
        WHERE user_id = %(user)s AND read_at IS NULL LIMIT %(notifications)s
    ) AS unread) AS unread_notifications

-- name: notifications
-- A page of what a person was told, newest first, with the two items that it is about.
SELECT n.id, n.subject, n.created_at, n.read_at, mine.id AS item_id, mine.title AS item_title,
    other.id AS other_id, other.title AS other_title
FROM match_notifications AS n
LEFT JOIN items AS mine ON mine.id IN (n.seeker_id, n.offer_id) AND mine.owner_id = n.user_id
LEFT JOIN items AS other ON other.id IN (n.seeker_id, n.offer_id) AND other.id <> mine.id
    AND NOT other.is_deleted
WHERE n.user_id = %(user)s AND (NOT %(unread)s OR n.read_at IS NULL)
    AND (%(after_at)s::timestamptz IS NULL
        OR n.created_at <= %(after_at)s
            AND (n.created_at < %(after_at)s OR n.id < %(after_id)s))
ORDER BY n.created_at DESC, n.id DESC
LIMIT %(limit)s

-- name: items_in_cells
-- Live items of these cells (6 characters), newest first: what the staff's cell view draws.
SELECT b.item_id, b.kind, b.geohash6 AS cell, b.location_point[1] AS latitude,
    b.location_point[0] AS longitude
FROM item_buckets AS b
WHERE b.geohash6 = ANY (%(cells)s) AND b.item_id <> %(item)s
ORDER BY b.created_at DESC
LIMIT %(limit)s

-- name: queue_by_priority
-- How many jobs wait and since when, by priority; 10,000 of each at most are counted.
SELECT wanted.priority, waiting.jobs, waiting.oldest
FROM generate_series(0, 2) AS wanted (priority)
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(j.submitted_at) AS oldest
    FROM (
        SELECT submitted_at FROM match_jobs
        WHERE state = 'queued' AND priority = wanted.priority
        ORDER BY submitted_at LIMIT 10000
    ) AS j
) AS waiting
ORDER BY wanted.priority

-- name: queue_at_work
-- Jobs that run, and those of them whose lease has run out.
SELECT count(*) AS running, count(*) FILTER (WHERE lease_expires_at <= now()) AS stuck
FROM (SELECT lease_expires_at FROM match_jobs WHERE state = 'running' LIMIT 10000) AS j

-- name: failure_reasons
-- Why jobs failed, the most frequent reason first; over the newest failures.
SELECT error, count(*) AS jobs, max(finished_at) AS last_at
FROM (
    SELECT left(split_part(error, E'\n', 1), 300) AS error, finished_at FROM match_jobs
    WHERE state = 'failed' ORDER BY submitted_at DESC LIMIT 1000
) AS failed
GROUP BY error
ORDER BY jobs DESC, error
LIMIT 10

-- Writes: items, matches and the queue ----------------------------------------------------------

-- name: lock_pairs
-- Locks pairs until the end of the transaction, lowest key first.
SELECT pg_advisory_xact_lock(key)
FROM (
    SELECT DISTINCT hashtextextended('spyglass pair ' || seeker || ' ' || offer, 0) AS key
    FROM unnest(%(seekers)s::bigint[], %(offers)s::bigint[]) AS pair (seeker, offer)
    ORDER BY key
) AS keys

-- name: counterparts
-- The other items of an item's dismissed pairs, newest first, and of its suggestions, best first.
SELECT
    ARRAY(
        SELECT {theirs} FROM match_dismissals
        WHERE {mine} = %(item)s
        ORDER BY dismissed_at DESC
        LIMIT %(dismissed)s
    ),
    ARRAY(
        SELECT {theirs} FROM matches
        WHERE {mine} = %(item)s AND state = 'suggested'
        ORDER BY score DESC
        LIMIT %(standing)s
    )

-- name: lock_live
-- Locks items against a change until the end of the transaction; those that are live, with owner and
-- when they changed last.
SELECT id, owner_id, updated_at
FROM items
WHERE id = ANY(%(items)s) AND status = 'open' AND NOT is_deleted
ORDER BY id
FOR SHARE

-- name: lock_matches
-- Locks the matches between an item and others, in the order of their ids.
SELECT id
FROM matches
WHERE {mine} = %(item)s
    AND {theirs} = ANY(%(others)s)
ORDER BY id
FOR NO KEY UPDATE

-- name: store_matches
-- Stores the matches of live pairs that nobody dismissed; how many, and how many of them are new.
WITH found AS (
    SELECT f.*
    FROM unnest(
        %(seekers)s::bigint[], %(offers)s::bigint[], %(scores)s::float8[], %(components)s::jsonb[]
    ) AS f (seeker_id, offer_id, score, components)
    WHERE f.seeker_id = ANY(%(live)s) AND f.offer_id = ANY(%(live)s)
        AND NOT EXISTS (
            SELECT FROM match_dismissals AS d
            WHERE d.seeker_id = f.seeker_id AND d.offer_id = f.offer_id
        )
), updated AS (
    UPDATE matches AS m SET
        score = f.score, components = f.components, degraded = %(degraded)s, state = 'suggested',
        updated_at = now()
    FROM found AS f
    WHERE m.seeker_id = f.seeker_id AND m.offer_id = f.offer_id
        AND m.state IN ('suggested', 'expired')
        AND (m.score, m.components, m.degraded, m.state)
            IS DISTINCT FROM (f.score, f.components, %(degraded)s, 'suggested')
), inserted AS (
    INSERT INTO matches (pair, seeker_id, offer_id, score, components, degraded)
    SELECT %(pair)s, f.seeker_id, f.offer_id, f.score, f.components, %(degraded)s
    FROM found AS f
    WHERE NOT EXISTS (
        SELECT FROM matches AS m WHERE m.seeker_id = f.seeker_id AND m.offer_id = f.offer_id
    )
    RETURNING id
)
SELECT (SELECT count(*) FROM found), (SELECT count(*) FROM inserted)

-- name: leave_out_pairs
-- Deletes from a month that is to come back what would show a pair twice, or one that is over.
DELETE FROM {month} AS old
WHERE EXISTS (
    SELECT FROM matches AS m WHERE m.seeker_id = old.seeker_id AND m.offer_id = old.offer_id
) OR old.state = 'suggested' AND (
    EXISTS (
        SELECT FROM match_dismissals AS d
        WHERE d.seeker_id = old.seeker_id AND d.offer_id = old.offer_id
    ) OR EXISTS (
        SELECT FROM items AS i
        WHERE i.id IN (old.seeker_id, old.offer_id) AND (i.status <> 'open' OR i.is_deleted)
    )
)

-- name: expire_pairs
-- Expires the suggestions between an item and others that nobody has confirmed.
UPDATE matches SET state = 'expired', updated_at = now()
WHERE {mine} = %(item)s
    AND {theirs} = ANY(%(others)s)
    AND state = 'suggested'
    AND seeker_confirmed_at IS NULL AND offer_confirmed_at IS NULL

-- name: expire_suggestions
-- Expires all suggestions of items; the owners of each pair that is over.
WITH over AS MATERIALIZED (
    SELECT id, created_at
    FROM matches
    WHERE (seeker_id = ANY(%(items)s) OR offer_id = ANY(%(items)s)) AND state = 'suggested'
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE matches AS m SET state = 'expired', updated_at = now()
FROM over, items AS seeker, items AS offer
WHERE m.id = over.id AND m.created_at = over.created_at
    AND seeker.id = m.seeker_id AND offer.id = m.offer_id
RETURNING seeker.owner_id, offer.owner_id

-- name: dismiss_pair
-- Keeps a pair from ever being suggested again.
INSERT INTO match_dismissals (seeker_id, offer_id, dismissed_by_id)
VALUES (%(seeker)s, %(offer)s, %(dismissed_by)s)
ON CONFLICT DO NOTHING

-- name: due_items
-- Open items whose time is over, locked, with their owners; those that others hold are left out.
SELECT id, owner_id
FROM items
WHERE status = 'open' AND NOT is_deleted AND expires_at <= now()
ORDER BY expires_at
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED

-- name: submit_item_job
-- Puts an item's job in the queue, or finds the one that waits and makes it as urgent; locks it.
INSERT INTO match_jobs (task_id, owner_id, item_id, priority, request_id)
VALUES (%(task)s, %(owner)s, %(item)s, %(priority)s, %(request)s)
ON CONFLICT (item_id) WHERE state = 'queued' AND item_id IS NOT NULL AND attempts = 0
DO UPDATE SET
    priority = least(match_jobs.priority, excluded.priority),
    request_id = coalesce(nullif(excluded.request_id, ''), match_jobs.request_id)
RETURNING task_id

-- name: submit_query_job
-- Puts the job of a description that is no item in the queue.
INSERT INTO match_jobs (task_id, owner_id, query, priority, request_id)
VALUES (%(task)s, %(owner)s, %(query)s, %(priority)s, %(request)s)
RETURNING task_id

-- name: lock_owner_quota
-- One at a time counts and adds to an owner's open jobs, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('spyglass match quota'), %(owner)s)

-- name: demote_job
-- A change that is one too many waits in the background.
UPDATE match_jobs SET priority = 2 WHERE task_id = %(task)s AND priority = 1

-- name: match_load
-- Of jobs as urgent or more: how many the owner has open, how many wait, both counted up to just
-- over the limit; and how long ago (seconds) the first of those that wait was submitted.
SELECT
    (
        SELECT count(*)
        FROM (
            SELECT FROM match_jobs
            WHERE owner_id = %(owner)s AND state IN ('queued', 'running')
                AND priority <= %(priority)s
            LIMIT %(quota)s + 1
        ) AS own
    ),
    (
        SELECT count(*)
        FROM (
            SELECT FROM match_jobs
            WHERE state = 'queued' AND priority <= %(priority)s
            LIMIT %(limit)s + 1
        ) AS waiting
    ),
    (
        SELECT extract(epoch FROM clock_timestamp() - submitted_at)::float8
        FROM match_jobs
        WHERE state = 'queued' AND priority <= %(priority)s
        ORDER BY priority, submitted_at
        LIMIT 1
    )

-- name: wake_workers
-- Tells the match workers, when the transaction commits, that there is something to do.
SELECT pg_notify('match_jobs', '')

-- name: claim_job
-- Takes the most urgent job that waits, the attempt being counted before it starts.
UPDATE match_jobs SET
    state = 'running', progress = 'looking', attempts = attempts + 1,
    lease_owner = %(lease)s, host = %(host)s, pid = %(pid)s,
    lease_expires_at = clock_timestamp() + %(length)s,
    started_at = clock_timestamp(), finished_at = NULL
WHERE task_id = (
    SELECT task_id
    FROM match_jobs
    WHERE state = 'queued'
    ORDER BY priority, submitted_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING task_id, owner_id, item_id, query, priority, attempts, request_id

-- name: extend_job
-- Pushes the end of a job's lease out; no row where it was lost.
UPDATE match_jobs SET lease_expires_at = clock_timestamp() + %(length)s
WHERE task_id = %(task)s AND lease_owner = %(lease)s AND state = 'running'

-- name: hold_job
-- Locks a job that this lease still holds; no row where it was lost.
SELECT FROM match_jobs
WHERE task_id = %(task)s AND lease_owner = %(lease)s AND state = 'running'
FOR NO KEY UPDATE

-- name: end_job
-- Ends a job that this lease still holds; how long the attempt took, in seconds.
UPDATE match_jobs SET
    state = %(state)s, progress = '', result = %(result)s, degraded = %(degraded)s,
    error = %(error)s, lease_owner = '', lease_expires_at = NULL,
    finished_at = clock_timestamp(), expires_at = clock_timestamp() + %(keep)s
WHERE task_id = %(task)s AND lease_owner = %(lease)s AND state = 'running'
RETURNING extract(epoch FROM finished_at - started_at)::float8

-- name: give_job_back
-- Ends an attempt without success: back to the queue, or failed after the last one. A lease that is
-- given as expired must be so still.
UPDATE match_jobs SET
    state = CASE WHEN attempts < %(attempts)s THEN 'queued' ELSE 'failed' END,
    progress = '', error = %(error)s, lease_owner = '', lease_expires_at = NULL,
    finished_at = CASE WHEN attempts < %(attempts)s THEN NULL ELSE clock_timestamp() END,
    expires_at =
        CASE WHEN attempts < %(attempts)s THEN NULL ELSE clock_timestamp() + %(keep)s END
WHERE task_id = %(task)s AND lease_owner = %(lease)s AND state = 'running'
    AND (NOT %(expired)s OR lease_expires_at < clock_timestamp())
RETURNING state

-- name: running_jobs
-- What is at work, and whether its lease is over; the oldest lease first.
SELECT task_id, lease_owner, pid, lease_expires_at < clock_timestamp()
FROM match_jobs
WHERE state = 'running'
ORDER BY lease_expires_at
LIMIT %(limit)s

-- name: lock_running_job
-- Locks a job that is at work under this lease, unless somebody else has locked it.
SELECT FROM match_jobs
WHERE task_id = %(task)s AND lease_owner = %(lease)s AND state = 'running'
FOR NO KEY UPDATE SKIP LOCKED

-- name: cancel_job
-- Cancels a job that waits or runs; a worker that is at it finds its lease gone and stores nothing.
UPDATE match_jobs SET
    state = 'cancelled', progress = '', error = %(error)s, lease_owner = '',
    lease_expires_at = NULL, finished_at = clock_timestamp(),
    expires_at = clock_timestamp() + %(keep)s
WHERE task_id = %(task)s AND state IN ('queued', 'running')

-- name: retry_job
-- Puts a job that failed or was cancelled back in the queue, with all its attempts.
UPDATE match_jobs SET
    state = 'queued', attempts = 0, progress = '', error = '', result = NULL, degraded = '',
    submitted_at = clock_timestamp(), started_at = NULL, finished_at = NULL, expires_at = NULL
WHERE task_id = %(task)s AND state IN ('failed', 'cancelled')

-- name: queue_gauges
-- How many jobs of each priority wait, and how long (seconds) the oldest of them has.
SELECT
    priority, count(*),
    extract(epoch FROM clock_timestamp() - min(submitted_at))::float8
FROM match_jobs
WHERE state = 'queued'
GROUP BY priority

-- name: largest_buckets
-- The fullest cells with a category, of the sides together.
SELECT geohash6, category, count(*)
FROM item_buckets
GROUP BY geohash6, category
ORDER BY count(*) DESC
LIMIT %(limit)s


-- name: term_statistics
-- How many live items of these kinds hold each term: a look-up by key each, whatever is asked for.
SELECT asked.term, sum(held.items)::bigint
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN unnest(%(terms)s::text[]) AS asked (term)
CROSS JOIN LATERAL (
    SELECT items FROM item_terms WHERE kind = side.kind AND term = asked.term LIMIT 1
) AS held
GROUP BY asked.term

-- name: similar_terms
-- Words of live items of these kinds that are spelt like a given one, the most alike first.
SELECT alike.term, alike.items, alike.similarity
FROM unnest(%(words)s::text[]) AS given (word)
CROSS JOIN LATERAL matching_similar_terms(%(kinds)s::text[], given.word, %(limit)s) AS alike

-- name: route_place
-- Live items around a place, nearest first, out of the rings of cells around it.
SELECT item_id
FROM (
    SELECT item_id,
        sind((location_point[1] - %(latitude)s) / 2) ^ 2
        + cosd(%(latitude)s) * cosd(location_point[1])
            * sind((location_point[0] - %(longitude)s) / 2) ^ 2 AS haversine
    FROM matching_around(
        %(kinds)s::text[], %(category)s::text, %(lows)s::text[], %(highs)s::text[],
        %(ends)s::integer[], %(wanted)s, %(most)s, %(owner)s)
) AS around
WHERE haversine <= %(haversine)s AND item_id <> ALL (%(exclude)s::bigint[])
ORDER BY haversine, item_id
LIMIT %(limit)s

-- name: route_words
-- Items that meet the most of what is looked up, by its weight; the newest of equals.
SELECT item_id
FROM matching_holding(
    %(queries)s::tsquery[], %(weights)s::float8[], %(at_most)s::integer[], %(status)s, %(owner)s)
WHERE item_id <> ALL (%(exclude)s::bigint[])
ORDER BY weight DESC, item_id DESC
LIMIT %(limit)s

-- name: route_words_near
-- Of the live items nearest to a place, those that meet the most of what is looked up.
SELECT around.item_id
FROM matching_around(
    %(kinds)s::text[], %(category)s::text, %(lows)s::text[], %(highs)s::text[],
    %(ends)s::integer[], %(most)s, %(most)s, %(owner)s) AS around
CROSS JOIN LATERAL (
    SELECT sum(asked.weight) AS weight
    FROM items AS i
    JOIN unnest(%(queries)s::tsquery[], %(weights)s::float8[]) AS asked (query, weight)
        ON i.search @@ asked.query
    WHERE i.id = around.item_id
) AS held
WHERE held.weight IS NOT NULL AND around.item_id <> ALL (%(exclude)s::bigint[])
    AND sind((location_point[1] - %(latitude)s) / 2) ^ 2
        + cosd(%(latitude)s) * cosd(location_point[1])
            * sind((location_point[0] - %(longitude)s) / 2) ^ 2 <= %(haversine)s
ORDER BY held.weight DESC, around.item_id DESC
LIMIT %(limit)s

-- name: route_newest_holding
-- Those of a side's newest items that meet a query which every twentieth item meets.
SELECT newest.id
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN LATERAL (
    SELECT id, created_at
    FROM (
        SELECT id, owner_id, search, created_at
        FROM items
        WHERE kind = side.kind AND status = 'open' AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT %(window)s
    ) AS of_side
    WHERE %(status)s = 'open' AND search @@ %(query)s::tsquery
        AND owner_id IS DISTINCT FROM %(owner)s::integer AND id <> ALL (%(exclude)s::bigint[])
    LIMIT %(limit)s
) AS newest
ORDER BY newest.created_at DESC, newest.id DESC
LIMIT %(limit)s

-- name: route_titles
-- Live items whose title is spelt alike, the most alike first.
SELECT item_id
FROM matching_similar_titles(%(title)s, %(kinds)s::text[], %(owner)s)
WHERE item_id <> ALL (%(exclude)s::bigint[])
ORDER BY similarity DESC, item_id DESC
LIMIT %(limit)s

-- name: route_newest
-- The newest items, each side by its part of the index, as far as the window goes.
SELECT newest.id
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN LATERAL (
    SELECT id, created_at
    FROM (
        SELECT id, owner_id, country, city, created_at
        FROM items
        WHERE kind = side.kind AND status = 'open' AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT %(window)s
    ) AS of_side
    WHERE %(status)s = 'open'
        AND (%(country)s = '' OR country = %(country)s) AND (%(city)s = '' OR city = %(city)s)
        AND owner_id IS DISTINCT FROM %(owner)s::integer AND id <> ALL (%(exclude)s::bigint[])
    LIMIT %(limit)s
) AS newest
ORDER BY newest.created_at DESC, newest.id DESC
LIMIT %(limit)s

-- name: route_newest_of_category
-- The newest items of a category, each side by its part of the index, as far as the window goes.
SELECT newest.id
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN LATERAL (
    SELECT id, created_at
    FROM (
        SELECT id, owner_id, country, city, created_at
        FROM items
        WHERE kind = side.kind AND category = %(category)s AND status = 'open' AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT %(window)s
    ) AS of_category
    WHERE %(status)s = 'open'
        AND (%(country)s = '' OR country = %(country)s) AND (%(city)s = '' OR city = %(city)s)
        AND owner_id IS DISTINCT FROM %(owner)s::integer AND id <> ALL (%(exclude)s::bigint[])
    LIMIT %(limit)s
) AS newest
ORDER BY newest.created_at DESC, newest.id DESC
LIMIT %(limit)s

-- name: route_newest_of_city
-- The newest items of a city, each side by its part of the index, as far as the window goes.
SELECT newest.id
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN LATERAL (
    SELECT id, created_at
    FROM (
        SELECT id, owner_id, status, created_at
        FROM items
        WHERE country = %(country)s AND city = %(city)s AND kind = side.kind AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT %(window)s
    ) AS of_city
    WHERE status = %(status)s
        AND owner_id IS DISTINCT FROM %(owner)s::integer AND id <> ALL (%(exclude)s::bigint[])
    LIMIT %(limit)s
) AS newest
ORDER BY newest.created_at DESC, newest.id DESC
LIMIT %(limit)s

-- name: load_candidates
-- What candidates are scored by, in the order given, for those that pass every filter. `coarse`: as
-- of places nothing finer is to be told than the cell of six characters, its centre stands for the
-- place, and within a radius is whose cell is.
SELECT i.id,
    1 - ((
        SELECT e.text_embedding FROM item_embeddings AS e
        WHERE e.item_id = i.id AND e.model = (SELECT model FROM item_embedding_serving)
    ) <=> %(vector)s::halfvec(384)) AS cosine,
    i.updated_at, i.features, i.kind, i.title, i.terms, i.category, i.country, i.city,
    CASE WHEN %(coarse)s THEN cell.latitude ELSE i.latitude END,
    CASE WHEN %(coarse)s THEN cell.longitude ELSE i.longitude END,
    i.happened_on
FROM unnest(%(items)s::bigint[]) WITH ORDINALITY AS wanted (id, position)
JOIN items AS i USING (id)
CROSS JOIN LATERAL (
    SELECT (least(32767, floor((i.latitude + 90) / 180 * 32768)) + 0.5) / 32768 * 180 - 90,
        (least(32767, floor((i.longitude + 180) / 360 * 32768)) + 0.5) / 32768 * 360 - 180
) AS cell (latitude, longitude)
CROSS JOIN LATERAL (  -- where in its cell it is nearest to the place, as seen from there
    SELECT greatest(cell.latitude - 90.0 / 32768,
            least(cell.latitude + 90.0 / 32768, %(latitude)s::float8)),
        greatest(0, 180 - abs(180 - abs(cell.longitude - %(longitude)s::float8)) - 180.0 / 32768)
) AS nearest (latitude, away)
WHERE i.kind = ANY (%(kinds)s) AND i.status = %(status)s AND NOT i.is_deleted
    AND i.owner_id IS DISTINCT FROM %(owner)s::integer AND i.id <> ALL (%(exclude)s::bigint[])
    AND (%(category)s = '' OR i.category = %(category)s)
    AND (%(country)s = '' OR i.country = %(country)s)
    AND (%(city)s = '' OR i.city = %(city)s)
    AND (%(date_from)s::date IS NULL
        OR coalesce(i.happened_on, i.created_at::date) >= %(date_from)s::date)
    AND (%(date_to)s::date IS NULL
        OR coalesce(i.happened_on, i.created_at::date) <= %(date_to)s::date)
    AND (%(haversine)s::float8 IS NULL
        OR sind((nearest.latitude - %(latitude)s::float8) / 2) ^ 2
            + cosd(%(latitude)s::float8) * cosd(nearest.latitude) * sind(nearest.away / 2) ^ 2
            <= %(haversine)s::float8)
ORDER BY wanted.position
LIMIT %(limit)s


-- name: own_live_items
-- The newest live items of an owner among these kinds.
SELECT id
FROM items
WHERE owner_id = %(owner)s::integer AND status = 'open' AND NOT is_deleted
    AND kind = ANY (%(kinds)s::text[])
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s::bigint

-- name: serving_model
-- The model whose vectors are searched; no row before the first vector.
SELECT model FROM item_embedding_serving

-- name: vector_estimate
-- The planner's guess at how many vectors pass a filter, from the statistics: reads no row of them.
EXPLAIN (FORMAT JSON)
SELECT FROM item_embeddings
WHERE kind = %(kind)s
    AND (%(category)s::text IS NULL OR category = %(category)s)
    AND (%(country)s::text IS NULL OR country = %(country)s)


-- name: nearest_exact
-- The nearest of all vectors that pass a filter. By the negative: the operator itself would let the
-- planner take the graph. Only the filters that are asked for stand in it: with `IS NULL OR …` the plan
-- that is kept reads the whole side.
SELECT item_id, 1 - (text_embedding <=> %(vector)s::halfvec(384)) AS cosine
FROM item_embeddings
WHERE model = (SELECT model FROM item_embedding_serving) AND kind = %(kind)s
    /* filters */
    AND item_id <> ALL (%(exclude)s::bigint[])
ORDER BY cosine DESC, item_id
LIMIT %(limit)s


-- name: nearest_coded
-- The nearest of those whose codes differ least, among all that pass a filter.
WITH alike AS MATERIALIZED (
    SELECT item_id, model
    FROM item_embeddings
    WHERE model = (SELECT model FROM item_embedding_serving) AND kind = %(kind)s
        /* filters */
        AND item_id <> ALL (%(exclude)s::bigint[])
    ORDER BY code <~> matching_code(%(vector)s::halfvec(384))
    LIMIT %(shortlist)s
)
SELECT item_id,
    -- A subquery is a look-up by key each; a join may be planned as a scan of the table.
    1 - ((
        SELECT e.text_embedding
        FROM item_embeddings AS e
        WHERE e.item_id = alike.item_id AND e.model = alike.model
    ) <=> %(vector)s::halfvec(384)) AS cosine
FROM alike
ORDER BY cosine DESC, item_id
LIMIT %(limit)s


-- name: nearest_by_graph
-- The nearest by the graph and the lists of a side, as far as they pass the filter; perhaps fewer than
-- exist.
WITH neighbours AS MATERIALIZED (
    SELECT *
    FROM matching_neighbours(
        %(kind)s, %(vector)s::halfvec(384), %(wanted)s::integer, %(effort)s::integer
    )
    UNION
    SELECT *
    FROM matching_listed(
        %(kind)s, %(vector)s::halfvec(384), %(wanted)s::integer, %(probes)s::integer
    )
    WHERE %(probes)s::integer > 0
)
SELECT item_id, 1 - distance AS cosine
FROM neighbours
WHERE model = (SELECT model FROM item_embedding_serving)
    AND (%(category)s::text IS NULL OR category = %(category)s)
    AND (%(country)s::text IS NULL OR country = %(country)s)
    AND item_id <> ALL (%(exclude)s::bigint[])
ORDER BY distance, item_id
LIMIT %(limit)s


-- name: vectors_by_kind
-- How many vectors each side has, of all models.
SELECT kind, count(*) FROM item_embeddings GROUP BY kind


-- name: vector_lists
-- The lists of vectors that stand: name, kind, how many, and whether the index is valid.
SELECT relname, found[1], found[2]::integer, indisvalid
FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid,
    regexp_match(relname, '^idx_items_embedding_ivfflat_([a-z]+)_([0-9]+)$') AS found
WHERE indrelid = 'item_embeddings'::regclass AND found IS NOT NULL


-- name: claim_embedding_changes
-- The oldest changes that no other drain has taken.
DELETE FROM item_embedding_changes
WHERE id IN (
    SELECT id FROM item_embedding_changes ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING item_id


-- name: items_without_model
-- Items with a vector of another model and none of this one, by id.
SELECT e.item_id
FROM item_embeddings AS e
WHERE e.item_id > %(after)s AND (e.model < %(model)s OR e.model > %(model)s)
    AND NOT EXISTS (
        SELECT FROM item_embeddings AS own
        WHERE own.item_id = e.item_id AND own.model = %(model)s
    )
ORDER BY e.item_id
LIMIT %(limit)s


-- name: items_to_embed
-- The texts of items, what is known to stand of them, and a fingerprint by which the write sees
-- whether they changed meanwhile.
SELECT i.id, i.status = 'open' AND NOT i.is_deleted, i.title, i.description, i.category,
    hashtextextended(concat_ws(chr(31), i.title, i.description, i.category), 0),
    coalesce((
        SELECT jsonb_object_agg(e.model, encode(e.content_hash, 'hex'))
        FROM item_embeddings AS e WHERE e.item_id = i.id
    ), '{}')
FROM items AS i
WHERE i.id = ANY (%(items)s::bigint[])
ORDER BY i.id


-- name: write_embeddings
-- Vectors of items that are live and say what was embedded. They stay so until the commit.
WITH embedded AS MATERIALIZED (
    SELECT *
    FROM unnest(
        %(items)s::bigint[], %(fingerprints)s::bigint[], %(hashes)s::text[], %(vectors)s::text[]
    ) AS e (item_id, fingerprint, content_hash, vector)
), held AS MATERIALIZED (
    SELECT i.id, i.kind, i.category, i.country, e.content_hash, e.vector
    FROM embedded AS e
    JOIN items AS i ON i.id = e.item_id
    WHERE i.status = 'open' AND NOT i.is_deleted
        AND hashtextextended(concat_ws(chr(31), i.title, i.description, i.category), 0)
            = e.fingerprint
    ORDER BY i.id
    FOR SHARE OF i
)
INSERT INTO item_embeddings
    (item_id, model, kind, category, country, content_hash, text_embedding)
SELECT id, %(model)s, kind, category, country, decode(content_hash, 'hex'), vector::halfvec(384)
FROM held
ORDER BY id
ON CONFLICT (item_id, model) DO UPDATE SET
    kind = excluded.kind, category = excluded.category, country = excluded.country,
    content_hash = excluded.content_hash, text_embedding = excluded.text_embedding


-- name: remove_embeddings
-- Vectors of texts without words.
DELETE FROM item_embeddings WHERE model = %(model)s AND item_id = ANY (%(items)s::bigint[])


-- name: remove_embeddings_of_others
-- What stands of these items although they are not live.
DELETE FROM item_embeddings AS e
USING items AS i
WHERE e.item_id = ANY (%(items)s::bigint[]) AND i.id = e.item_id
    AND (i.status <> 'open' OR i.is_deleted)


-- name: prune_embeddings
-- Some vectors of models that do not serve.
DELETE FROM item_embeddings
WHERE (item_id, model) IN (
    SELECT item_id, model FROM item_embeddings
    WHERE model < %(model)s OR model > %(model)s
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)


-- name: embedding_queue_depth
-- Changes that wait, and (up to 100,000) items whose vector is of another model alone.
SELECT (SELECT count(*) FROM item_embedding_changes)
    + CASE WHEN %(model)s <> '' THEN (
        SELECT count(*) FROM (
            SELECT FROM item_embeddings AS e
            WHERE (e.model < %(model)s OR e.model > %(model)s)
                AND NOT EXISTS (
                    SELECT FROM item_embeddings AS own
                    WHERE own.item_id = e.item_id AND own.model = %(model)s
                )
            LIMIT 100000
        ) AS other
    ) ELSE 0 END

-- name: import_straight
-- Takes in the rows of a chunk of which none stands yet.
COPY items (
    owner_id, kind, category, title, description, attributes, country, city, latitude, longitude,
    happened_on, external_id, terms, features
) FROM STDIN

-- name: create_import_stage
-- Rows on their way into items, for one transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS import_stage (
    kind text COLLATE "C", category text COLLATE "C", title text, description text,
    attributes jsonb, country text COLLATE "C", city text COLLATE "C", latitude float8,
    longitude float8, happened_on date, external_id text COLLATE "C", terms text, features jsonb
) ON COMMIT DROP

-- name: empty_import_stage
-- For a chunk in a transaction that has taken one before.
TRUNCATE import_stage

-- name: fill_import_stage
-- Takes in the rows of a chunk.
COPY import_stage (
    kind, category, title, description, attributes, country, city, latitude, longitude,
    happened_on, external_id, terms, features
) FROM STDIN

-- name: import_stage
-- Puts in the items that are new to their owner, in the order of their keys (no deadlocks).
INSERT INTO items (
    owner_id, kind, category, title, description, attributes, country, city, latitude, longitude,
    happened_on, external_id, terms, features
)
SELECT %(owner)s, kind, category, title, description, attributes, country, city, latitude,
    longitude, happened_on, external_id, terms, features
FROM import_stage
ORDER BY external_id
ON CONFLICT (owner_id, external_id) WHERE external_id <> '' DO NOTHING
RETURNING external_id

-- name: compare_import_stage
-- Whether the items that stand say the same as the rows that came again.
SELECT s.external_id,
    (s.kind, s.category, s.title, s.description, s.attributes, s.country, s.city, s.latitude,
        s.longitude, s.happened_on)
    IS NOT DISTINCT FROM
    (i.kind, i.category, i.title, i.description, i.attributes, i.country, i.city, i.latitude,
        i.longitude, i.happened_on)
FROM import_stage AS s
JOIN items AS i ON i.owner_id = %(owner)s AND i.external_id = s.external_id
WHERE s.external_id = ANY (%(external_ids)s) AND s.external_id <> ''

-- name: lock_terms
-- One fold of the words at a time; the lock goes with the transaction.
SELECT pg_advisory_xact_lock(hashtext('item_terms'))

-- name: fold_terms
-- Takes in the oldest changes of how many items hold a word; returns how many changes.
WITH claimed AS (
    DELETE FROM item_term_changes
    WHERE id IN (SELECT id FROM item_term_changes ORDER BY id LIMIT %(at_most)s)
    RETURNING kind, term, items
), summed AS (
    SELECT kind, term, sum(items) AS items, count(*) AS changes FROM claimed GROUP BY kind, term
), written AS (
    INSERT INTO item_terms AS stored (kind, term, items)
    SELECT kind, term, items FROM summed WHERE items <> 0 ORDER BY kind, term
    ON CONFLICT (kind, term) DO UPDATE SET items = stored.items + excluded.items
), raised AS (
    SELECT config_raise_generation('item_terms') FROM summed LIMIT 1
)
SELECT coalesce(sum(changes), 0)::bigint FROM summed LEFT JOIN raised ON true

-- name: drop_empty_terms
-- Words that no item holds any more. In the transaction of the fold.
DELETE FROM item_terms WHERE items = 0

-- name: count_term_changes
-- How many changes wait; a million at most are counted.
SELECT count(*) FROM (SELECT FROM item_term_changes LIMIT 1000000) AS waiting

-- name: compare_terms
-- What item_terms and the changes that wait for it lack of what the items say, all in one snapshot.
WITH truth AS (
    SELECT i.kind, counted.term, sum(counted.items) AS items
    FROM items AS i, matching_counts(i.search, i.terms) AS counted
    WHERE i.status = 'open' AND NOT i.is_deleted
    GROUP BY i.kind, counted.term
    HAVING sum(counted.items) <> 0
), stored AS (
    SELECT kind, term, sum(items) AS items
    FROM (
        SELECT kind, term, items FROM item_terms
        UNION ALL
        SELECT kind, term, items FROM item_term_changes
    ) AS known
    GROUP BY kind, term
    HAVING sum(items) <> 0
)
INSERT INTO compared_terms (kind, term, stored, truth)
SELECT kind, term, coalesce(stored.items, 0), coalesce(truth.items, 0)
FROM truth FULL JOIN stored USING (kind, term)
WHERE truth.items IS DISTINCT FROM stored.items

-- name: create_compared_terms
-- Where differences go, for one transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS compared_terms (
    kind text, term text, stored bigint, truth bigint
) ON COMMIT DROP

-- name: empty_compared_terms
-- For a comparison in a transaction that has made one before.
TRUNCATE compared_terms

-- name: count_compared_terms
-- How many words differ.
SELECT count(*) FROM compared_terms

-- name: sample_compared_terms
-- Some of the words that differ.
SELECT kind, term, stored, truth FROM compared_terms ORDER BY kind, term LIMIT %(limit)s

-- name: mend_terms
-- The differences as changes, for the fold: writers need not wait.
INSERT INTO item_term_changes (kind, term, items)
SELECT kind, term, truth - stored FROM compared_terms

-- name: count_terms
-- How many words are counted.
SELECT count(*) FROM item_terms

-- name: refresh_recent_items
-- Takes the recent items anew, and says so in the same transaction.
REFRESH MATERIALIZED VIEW CONCURRENTLY mv_recent_items

-- name: raise_generation
-- Readers of a read model have something new to see.
SELECT config_raise_generation(%(name)s)

-- name: count_recent_items
-- How many items the view has.
SELECT count(*) FROM mv_recent_items

-- name: posted_since_recent
-- How many items were posted since the view was taken; 100,000 at most are counted.
SELECT count(*)
FROM (
    SELECT FROM items
    WHERE id > (SELECT coalesce(max(id), 0) FROM mv_recent_items)
        AND NOT is_deleted AND created_at > now() - interval '30 days'
    LIMIT 100000
) AS newer

-- name: compare_recent_items
-- Where the view differs from its definition, among the items that did not change since.
SELECT coalesce(v.id, i.id), CASE WHEN v.id IS NULL THEN 'missing'
    WHEN i.id IS NULL THEN 'should not be there' ELSE 'differs' END
FROM mv_recent_items AS v
FULL JOIN (
    SELECT id, status, category, created_at, location_point, kind, title, country, city,
        happened_on
    FROM items
    WHERE NOT is_deleted AND created_at > now() - interval '30 days'
) AS i USING (id)
WHERE (v.status, v.category, v.created_at, v.kind, v.title, v.country, v.city, v.happened_on)
        IS DISTINCT FROM
        (i.status, i.category, i.created_at, i.kind, i.title, i.country, i.city, i.happened_on)
    AND coalesce(v.created_at > now() - interval '30 days', true)
    AND NOT EXISTS (
        SELECT FROM items AS changed
        WHERE changed.id = coalesce(v.id, i.id)
            AND greatest(changed.created_at, changed.updated_at) >= %(since)s
    )

-- name: newest_public
-- The newest open items of the last 30 days, of these kinds: only their ids.
SELECT id FROM mv_recent_items
WHERE status = 'open' AND kind = ANY (%(kinds)s::text[])
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s

-- name: newest_public_each
-- The newest open items of the last 30 days, so many of each kind.
SELECT newest.id
FROM unnest(%(kinds)s::text[]) AS side (kind)
CROSS JOIN LATERAL (
    SELECT id FROM mv_recent_items
    WHERE kind = side.kind AND status = 'open'
    ORDER BY created_at DESC, id DESC
    LIMIT %(limit)s
) AS newest

-- name: verdicts
-- The newest matches of a pair of kinds that an owner confirmed, or dismissed, with what was seen.
(
    SELECT seeker_id, offer_id, true AS confirmed, components::text
    FROM matches
    WHERE pair = %(pair)s
        AND (state = 'confirmed' OR state = 'suggested'
            AND coalesce(seeker_confirmed_at, offer_confirmed_at) IS NOT NULL)
    ORDER BY updated_at DESC
    LIMIT %(limit)s
)
UNION ALL
(
    SELECT seeker_id, offer_id, false, components::text
    FROM matches
    WHERE pair = %(pair)s AND state = 'dismissed'
    ORDER BY updated_at DESC
    LIMIT %(limit)s
)

-- name: date_back
-- Lets demo items that came in since have been posted on the day of which they tell.
UPDATE items AS i
SET created_at = least(
    now(), i.happened_on + interval '8 hours' + mod(i.id, 43200) * interval '1 second')
FROM auth_user AS u
WHERE u.id = i.owner_id AND u.username = ANY (%(people)s) AND i.created_at >= %(since)s
    AND i.external_id <> ''
