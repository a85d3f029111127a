-- Statements of discovery, by name.

-- name: record_poll
-- One poll of one bucket; see 0002_record_poll.sql.
SELECT outcome, opened, closed, baseline, unchanged, missing, quarantined, spared, left_out,
    late_calendars, replayed_calendars
FROM discovery_record_poll(
    %(bucket)s::bigint, %(polled_at)s::timestamptz, %(calendars)s::text[],
    %(slots)s::text[], %(venues)s::text[], %(starts)s::timestamptz[], %(times)s::text[],
    %(party_min)s::smallint[], %(party_max)s::smallint[], %(payloads)s::text[],
    %(misses)s::integer, %(cooldown)s::integer * interval '1 second',
    %(confirmations)s::integer, %(cap)s::integer)

-- name: record_nothing
-- The same poll for the buckets of which it shows no slot, all in one.
SELECT r.outcome, r.opened, r.closed, r.baseline, r.unchanged, r.missing, r.quarantined, r.spared,
    r.left_out, r.late_calendars, r.replayed_calendars
FROM unnest(%(buckets)s::bigint[]) AS b (bucket_id)
CROSS JOIN LATERAL discovery_record_poll(
    b.bucket_id, %(polled_at)s::timestamptz, %(calendars)s::text[],
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', %(misses)s::integer,
    %(cooldown)s::integer * interval '1 second', %(confirmations)s::integer, %(cap)s::integer) AS r

-- name: window_buckets
-- The buckets of a source from one day to another, both included; the standing one for NULL.
SELECT day, time_slot, bucket_id, open_slots
FROM discovery_buckets
WHERE source_id = %(source)s
    AND CASE WHEN %(first)s::date IS NULL THEN day IS NULL
        ELSE day BETWEEN %(first)s::date AND %(last)s::date END

-- name: make_buckets
-- The missing buckets of a source's window, in one statement.
INSERT INTO discovery_buckets (source_id, day, time_slot)
SELECT %(source)s, b.day, b.time_slot
FROM unnest(%(days)s::date[], %(parts)s::text[]) AS b (day, time_slot)
ON CONFLICT DO NOTHING

-- name: make_all_buckets
-- The missing buckets of every source's window from its own today on, in one statement.
INSERT INTO discovery_buckets (source_id, day, time_slot)
SELECT s.id, b.day, b.time_slot
FROM discovery_sources AS s
CROSS JOIN LATERAL (
    SELECT d.day::date, part.time_slot
    FROM generate_series(
        (now() AT TIME ZONE s.timezone)::date::timestamp,
        (now() AT TIME ZONE s.timezone)::date
            + (coalesce(s.window_days, %(days)s) - 1) * interval '1 day',
        interval '1 day') AS d (day)
    CROSS JOIN unnest(%(parts)s::text[]) AS part (time_slot)
    WHERE coalesce(s.window_days, %(days)s) > 0
    UNION ALL
    SELECT NULL, '' WHERE coalesce(s.window_days, %(days)s) = 0
) AS b
WHERE NOT s.is_paused
ON CONFLICT DO NOTHING

-- name: describe_venues
-- What a source says of its venues, where it differs from what is known. What it leaves blank stays,
-- for staff may have typed it.
INSERT INTO venues AS stored
    (source_id, key, name, city, latitude, longitude, url, capacity, last_seen_at)
SELECT %(source)s, said.key, coalesce(nullif(said.name, ''), v.name, ''),
    coalesce(nullif(said.city, ''), v.city, ''), coalesce(said.latitude, v.latitude),
    coalesce(said.longitude, v.longitude), coalesce(nullif(said.url, ''), v.url, ''),
    coalesce(said.capacity, v.capacity), %(seen_at)s::timestamptz
FROM unnest(
    %(keys)s::text[], %(names)s::text[], %(cities)s::text[], %(latitudes)s::float8[],
    %(longitudes)s::float8[], %(urls)s::text[], %(capacities)s::integer[]
) AS said (key, name, city, latitude, longitude, url, capacity)
LEFT JOIN venues AS v ON v.source_id = %(source)s AND v.key = said.key
WHERE v.venue_id IS NULL
    OR (v.name, v.city, v.latitude, v.longitude, v.url, v.capacity) IS DISTINCT FROM (
        coalesce(nullif(said.name, ''), v.name), coalesce(nullif(said.city, ''), v.city),
        coalesce(said.latitude, v.latitude), coalesce(said.longitude, v.longitude),
        coalesce(nullif(said.url, ''), v.url), coalesce(said.capacity, v.capacity))
ORDER BY said.key
ON CONFLICT (source_id, key) DO UPDATE SET
    name = excluded.name, city = excluded.city, latitude = excluded.latitude,
    longitude = excluded.longitude, url = excluded.url, capacity = excluded.capacity,
    last_seen_at = greatest(stored.last_seen_at, excluded.last_seen_at)

-- name: note_scan
-- Writes a scan of a source down, and how the source is.
WITH noted AS (
    UPDATE discovery_sources SET
        last_attempt_at = greatest(last_attempt_at, %(polled_at)s::timestamptz),
        last_success_at = greatest(last_success_at, %(polled_at)s::timestamptz),
        consecutive_failures = 0, last_error = ''
    WHERE id = %(source)s AND %(outcome)s::text IN ('recorded', 'unchanged')
)
INSERT INTO discovery_scans (
    source_id, polled_at, outcome, buckets, slots, opened, closed, spared, left_out, milliseconds
)
VALUES (
    %(source)s, %(polled_at)s::timestamptz, %(outcome)s::text, %(buckets)s, %(slots)s, %(opened)s,
    %(closed)s, %(spared)s, %(left_out)s, %(milliseconds)s
)

-- name: note_unchanged
-- A source says that nothing changed: its buckets were checked, and what it showed last still holds.
WITH held AS MATERIALIZED (
    SELECT bucket_id FROM discovery_buckets
    WHERE source_id = %(source)s AND checked_at IS NOT NULL
        AND (day IS NULL OR day >= %(today)s::date)
    ORDER BY day, time_slot
    FOR NO KEY UPDATE
)
UPDATE discovery_buckets AS b SET
    checked_at = greatest(b.checked_at, %(polled_at)s::timestamptz),
    last_success_at = greatest(b.last_success_at, %(polled_at)s::timestamptz),
    consecutive_failures = 0
FROM held
WHERE b.bucket_id = held.bucket_id

-- name: note_failure
-- A poll that failed: nothing opens or closes; the source and its buckets count it. Once, and not where
-- a newer one succeeded.
WITH noted AS (
    UPDATE discovery_sources AS s SET
        last_attempt_at = greatest(s.last_attempt_at, %(polled_at)s::timestamptz),
        consecutive_failures = s.consecutive_failures + 1, last_error = %(error)s
    WHERE s.id = %(source)s
        AND coalesce(s.last_success_at < %(polled_at)s::timestamptz, true)
        AND NOT EXISTS (
            SELECT FROM discovery_scans AS c
            WHERE c.source_id = s.id AND c.outcome = 'failed'
                AND c.polled_at = %(polled_at)s::timestamptz
                AND c.recorded_at > now() - interval '1 day'
        )
    RETURNING s.id
), held AS MATERIALIZED (
    SELECT b.bucket_id FROM discovery_buckets AS b JOIN noted ON noted.id = b.source_id
    WHERE b.day IS NULL OR b.day >= %(today)s::date
    ORDER BY b.day, b.time_slot
    FOR NO KEY UPDATE OF b
), counted AS (
    UPDATE discovery_buckets AS b SET consecutive_failures = b.consecutive_failures + 1
    FROM held
    WHERE b.bucket_id = held.bucket_id
)
INSERT INTO discovery_scans (source_id, polled_at, outcome, error)
SELECT id, %(polled_at)s::timestamptz, 'failed', %(error)s FROM noted

-- name: lock_publishing
-- One at a time publishes, to the end of the transaction: so what is published commits in order.
SELECT pg_advisory_xact_lock(hashtext('spyglass publish_drops'))

-- name: lock_unpublished
-- Locks drops that nobody could see yet; those that a poll is writing to are left for the next time.
SELECT id, opened_minute
FROM drop_events
WHERE published_at IS NULL
ORDER BY id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED

-- name: publish_drops
-- Gives drops their moment: unique, later than all before. How many, how many are told, the new
-- generation. They are locked by the statement before, whose snapshot may be older than their last
-- change: in one statement, PostgreSQL 18.6 has crashed when it looked at such a row again
-- (EvalPlanQual) among partitions that it prunes while it runs.
WITH last AS (
    SELECT greatest(
        clock_timestamp(),
        (SELECT max(published_at) FROM drop_events) + interval '1 microsecond') AS at
), numbered AS (
    SELECT id, opened_minute, place
    FROM unnest(%(ids)s::bigint[], %(minutes)s::timestamptz[])
        WITH ORDINALITY AS locked (id, opened_minute, place)
), published AS (
    UPDATE drop_events AS d
    SET published_at = last.at + numbered.place * interval '1 microsecond'
    FROM numbered, last
    WHERE d.id = numbered.id AND d.opened_minute = numbered.opened_minute
    RETURNING d.*
), fitting AS (
    SELECT w.id AS watch_id, w.user_id, d.id AS drop_id, d.opened_minute
    FROM published AS d
    CROSS JOIN LATERAL discovery_fitting_watches(
        d.source_id, d.venue_id, d.starts_at, d.local_time, d.party_min, d.party_max) AS w
    WHERE d.opened_at > now() - %(within)s::integer * interval '1 minute'
), told AS (
    INSERT INTO user_notifications (watch_id, user_id, drop_id, drop_minute)
    SELECT watch_id, user_id, drop_id, opened_minute FROM fitting ORDER BY watch_id, drop_id
    ON CONFLICT (watch_id, drop_id, drop_minute) DO NOTHING
    RETURNING id
), raised AS (
    SELECT config_raise_generation('drop_events') FROM published LIMIT 1
)
SELECT (SELECT count(*) FROM published), (SELECT count(*) FROM told),
    -- As it is after being raised: only who holds the lock raises it.
    coalesce((SELECT generation FROM config_readmodelstate WHERE name = 'drop_events'), 0)
        + (SELECT count(*) FROM raised)

-- name: freshness
-- How every source is: when it answered last, and whether its buckets are frozen.
SELECT s.name AS source, s.last_success_at, s.consecutive_failures,
    discovery_state(s.is_paused, s.last_success_at, s.consecutive_failures, s.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS state
FROM discovery_sources AS s
ORDER BY s.name
LIMIT %(limit)s::integer

-- name: just_opened
-- Drops of the last minutes, newest first.
SELECT d.id, d.event_type, d.slot_id, d.starts_at, d.local_time, d.party_min, d.party_max,
    d.payload, d.opened_at, d.closed_at, s.name AS source, v.venue_id, v.key, v.name, v.city,
    discovery_state(s.is_paused, s.last_success_at, s.consecutive_failures, s.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS source_state
FROM drop_events AS d
JOIN venues AS v ON v.venue_id = d.venue_id
JOIN discovery_sources AS s ON s.id = d.source_id
WHERE d.event_type IN ('opened', 'reopened') AND d.published_at IS NOT NULL
    AND d.opened_at > now() - %(minutes)s::integer * interval '1 minute'
    AND d.opened_minute > now() - (%(minutes)s::integer + 1) * interval '1 minute'
ORDER BY d.opened_at DESC, d.id DESC
LIMIT %(limit)s::integer

-- name: still_open
-- Slots that dropped before that and are open still, newest first. What has begun is over.
SELECT a.drop_id AS id, d.event_type, a.slot_id, a.starts_at, a.local_time, a.party_min,
    a.party_max, a.payload, a.opened_at, NULL::timestamptz AS closed_at, s.name AS source,
    v.venue_id, v.key, v.name, v.city, a.missing_since,
    discovery_state(s.is_paused, s.last_success_at, s.consecutive_failures, s.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS source_state
FROM (
    SELECT * FROM availability_state
    WHERE drop_id IS NOT NULL AND coalesce(starts_at > now(), true)
        AND opened_at <= now() - %(minutes)s::integer * interval '1 minute'
    ORDER BY opened_at DESC, bucket_id, slot_id
    LIMIT %(limit)s::integer
) AS a
-- Each looked up by itself: joined, all drops of all days could be read in the order of their ids.
CROSS JOIN LATERAL (
    SELECT event_type FROM drop_events
    WHERE id = a.drop_id AND opened_minute = a.drop_minute OFFSET 0
) AS d
JOIN venues AS v ON v.venue_id = a.venue_id
JOIN discovery_sources AS s ON s.id = v.source_id
ORDER BY a.opened_at DESC, a.bucket_id, a.slot_id

-- name: ranked_board
-- Venues with open drops: many, fresh, and rare ones first. A drop's worth halves in 42 minutes; a
-- venue that drops all day counts less than one that never does.
SELECT v.venue_id, v.key, v.name, v.city, s.name AS source, open.slots, open.newest,
    coalesce(t.drops, 0) AS drops_ever,
    discovery_state(s.is_paused, s.last_success_at, s.consecutive_failures, s.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS source_state,
    open.worth / ln(2.718281828 + coalesce(t.drops, 0)
        / greatest(1, extract(epoch FROM now() - v.created_at) / 86400)) AS score
FROM (
    SELECT a.venue_id, count(*) AS slots, max(a.opened_at) AS newest,
        sum(exp(-greatest(0, extract(epoch FROM now() - a.opened_at)) / 3600)) AS worth
    FROM (
        SELECT venue_id, opened_at FROM availability_state
        WHERE drop_id IS NOT NULL AND coalesce(starts_at > now(), true)
        ORDER BY opened_at DESC, bucket_id, slot_id
        LIMIT %(looked_at)s::integer
    ) AS a
    GROUP BY a.venue_id
) AS open
JOIN venues AS v ON v.venue_id = open.venue_id
JOIN discovery_sources AS s ON s.id = v.source_id
LEFT JOIN venue_stats AS t ON t.venue_id = v.venue_id
ORDER BY score DESC, v.venue_id
LIMIT %(limit)s::integer

-- name: new_drops
-- Drops that pollers could see first after a moment, in the order in which they could.
SELECT d.id, d.event_type, d.slot_id, d.starts_at, d.local_time, d.party_min, d.party_max,
    d.payload, d.opened_at, d.closed_at, s.name AS source, v.venue_id, v.key, v.name, v.city,
    d.published_at
FROM drop_events AS d
JOIN venues AS v ON v.venue_id = d.venue_id
JOIN discovery_sources AS s ON s.id = d.source_id
WHERE d.published_at > %(since)s::timestamptz
ORDER BY d.published_at
LIMIT %(limit)s::integer

-- name: last_published
-- When the newest drop could be seen first.
SELECT max(published_at) FROM drop_events

-- name: read_segment
-- A rendered answer of the feed.
SELECT payload FROM feed_cache WHERE segment = %(segment)s

-- name: lock_feed
-- One at a time builds the feed, to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('spyglass feed_cache'))

-- name: write_segment
-- Puts a rendered answer in place.
INSERT INTO feed_cache AS stored (segment, payload, items)
VALUES (%(segment)s, %(payload)s, %(items)s)
ON CONFLICT (segment) DO UPDATE SET
    payload = excluded.payload, items = excluded.items, built_at = clock_timestamp()

-- name: raise_generation
-- Readers of a read model have something new to see.
SELECT config_raise_generation(%(name)s)

-- name: count_unpublished
-- Drops that nobody could see yet; 100,000 at most are counted.
SELECT count(*) FROM (SELECT FROM drop_events WHERE published_at IS NULL LIMIT 100000) AS waiting

-- name: bucket_health
-- The buckets of a window with how each is, all sources or one, in one query.
SELECT b.bucket_id, s.name AS source, b.day, b.time_slot, b.open_slots, b.checked_at, b.changed_at,
    b.last_success_at, b.consecutive_failures,
    discovery_state(s.is_paused, b.last_success_at, s.consecutive_failures, b.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS state
FROM discovery_buckets AS b
JOIN discovery_sources AS s ON s.id = b.source_id
WHERE (b.day IS NULL OR b.day >= (now() AT TIME ZONE s.timezone)::date)
    AND (%(source)s::text IS NULL OR s.name = %(source)s::text)
ORDER BY s.name, b.day NULLS FIRST, b.time_slot
LIMIT %(limit)s::integer

-- name: last_scans
-- The newest scan of each source and what its buckets hold, in one query.
SELECT s.name AS source, s.provider, s.is_paused, s.consecutive_failures, s.last_error,
    s.last_success_at, scan.polled_at, scan.recorded_at, scan.outcome, scan.slots, scan.opened,
    scan.closed, coalesce(held.open_slots, 0) AS open_slots, coalesce(held.buckets, 0) AS buckets
FROM discovery_sources AS s
LEFT JOIN LATERAL (
    SELECT * FROM discovery_scans AS c WHERE c.source_id = s.id
    ORDER BY c.recorded_at DESC LIMIT 1
) AS scan ON true
LEFT JOIN LATERAL (
    SELECT sum(b.open_slots)::bigint AS open_slots, count(*) AS buckets
    FROM discovery_buckets AS b
    WHERE b.source_id = s.id AND (b.day IS NULL OR b.day >= (now() AT TIME ZONE s.timezone)::date)
) AS held ON true
ORDER BY s.name
LIMIT %(limit)s::integer

-- name: source_overview
-- Sources with their state and what their buckets hold: those of some ids, or all of them.
SELECT s.id, s.name AS source, s.consecutive_failures, s.last_success_at,
    discovery_state(s.is_paused, s.last_success_at, s.consecutive_failures, s.consecutive_failures,
        %(failures)s::integer, %(silence)s::float8) AS state,
    coalesce(held.open_slots, 0) AS open_slots, held.buckets
FROM discovery_sources AS s
CROSS JOIN LATERAL (
    SELECT sum(b.open_slots)::bigint AS open_slots, count(*) AS buckets
    FROM discovery_buckets AS b
    WHERE b.source_id = s.id AND (b.day IS NULL OR b.day >= (now() AT TIME ZONE s.timezone)::date)
) AS held
WHERE %(ids)s::bigint[] IS NULL OR s.id = ANY (%(ids)s::bigint[])
ORDER BY s.name
LIMIT %(limit)s::integer

-- name: venue_drops
-- The newest drops of a venue, and whether each is open still.
SELECT d.id, d.event_type, d.slot_id, d.local_time, d.starts_at, d.opened_at, d.closed_at,
    a.drop_id IS NOT NULL AS is_open
FROM (
    SELECT * FROM drop_events
    WHERE venue_id = %(venue)s
    ORDER BY opened_at DESC
    LIMIT %(limit)s::integer
) AS d
LEFT JOIN availability_state AS a
    ON a.bucket_id = d.bucket_id AND a.slot_id = d.slot_id AND a.drop_id = d.id
ORDER BY d.opened_at DESC, d.id DESC

-- name: delivery_gauges
-- What waits to be told, for how long the most overdue has, and what was given up; 100,000 at most
-- are counted.
SELECT
    (SELECT count(*) FROM (
        SELECT FROM user_notifications WHERE state = 'pending' LIMIT 100000) AS pending)
    + (SELECT count(*) FROM (
        SELECT FROM user_notifications WHERE state = 'sending' LIMIT 100000) AS sending)
        AS waiting,
    (SELECT count(*) FROM (
        SELECT FROM user_notifications WHERE state = 'dead' LIMIT 100000) AS dead) AS dead,
    coalesce(greatest(0, extract(epoch FROM now() - (
        SELECT min(due_at) FROM user_notifications WHERE state = 'pending'))), 0)::float8
        AS overdue_seconds

-- name: feed_age
-- How old the oldest part of the feed is, in seconds; NULL where it was never built.
SELECT extract(epoch FROM now() - min(built_at))::float8 FROM feed_cache

-- name: due_watch
-- Locks the watch that has something to tell for the longest, and that nobody else looks at.
SELECT w.id, w.user_id, w.name, w.channel, w.target, w.secret, w.timezone, w.quiet_from, w.quiet_to,
    w.cooldown_seconds, w.max_per_hour, w.last_told_at, w.is_active AND u.is_active AS is_active
FROM (
    SELECT n.watch_id, min(n.due_at) AS due_at
    FROM (
        SELECT watch_id, due_at FROM user_notifications
        WHERE state = 'pending' AND due_at <= now()
        ORDER BY due_at
        LIMIT %(looked_at)s::integer
    ) AS n
    GROUP BY n.watch_id
) AS due
JOIN discovery_watches AS w ON w.id = due.watch_id
JOIN auth_user AS u ON u.id = w.user_id
ORDER BY due.due_at, w.id
LIMIT 1
FOR NO KEY UPDATE OF w SKIP LOCKED

-- name: watch_load
-- Whether a message of a watch is being sent; since when it told as many in an hour as it may.
SELECT
    EXISTS (
        SELECT FROM user_notifications WHERE watch_id = %(watch)s AND state = 'sending'
    ) AS is_sending,
    (
        SELECT m.told_at
        FROM (
            SELECT DISTINCT told_at FROM user_notifications
            WHERE watch_id = %(watch)s AND told_at > now() - interval '1 hour'
        ) AS m
        ORDER BY m.told_at DESC
        OFFSET %(most)s::integer - 1 LIMIT 1
    ) AS full_since

-- name: postpone_notifications
-- What a watch would tell now, it tells later.
UPDATE user_notifications SET due_at = %(until)s::timestamptz
WHERE watch_id = %(watch)s AND state = 'pending' AND due_at <= now()

-- name: mark_gone
-- What has closed since is not told: its drop is over, or its slot is not open by this drop.
UPDATE user_notifications AS n SET state = 'gone', already_gone = true
WHERE n.watch_id = %(watch)s AND n.state = 'pending' AND n.due_at <= now()
    AND NOT EXISTS (
        SELECT FROM drop_events AS d
        JOIN availability_state AS a
            ON a.bucket_id = d.bucket_id AND a.slot_id = d.slot_id AND a.drop_id = d.id
        WHERE d.id = n.drop_id AND d.opened_minute = n.drop_minute AND d.closed_at IS NULL
            AND coalesce(d.starts_at > now(), true)
    )

-- name: claim_message
-- Takes what a watch tells with its next message: one that was tried before, or what is new, the
-- oldest first. The attempt is counted before it starts.
WITH next AS (
    SELECT message_id FROM user_notifications
    WHERE watch_id = %(watch)s AND state = 'pending' AND due_at <= now()
    ORDER BY message_id IS NULL, due_at, id
    LIMIT 1
), due AS (
    SELECT n.id, n.drop_minute
    FROM user_notifications AS n, next
    WHERE n.watch_id = %(watch)s AND n.state = 'pending' AND n.due_at <= now()
        AND n.message_id IS NOT DISTINCT FROM next.message_id
    ORDER BY n.id
    LIMIT %(limit)s::integer
), claimed AS (
    UPDATE user_notifications AS n SET
        state = 'sending', attempts = attempts + 1,
        message_id = coalesce(n.message_id, %(message)s::uuid),
        lease_owner = %(lease)s, lease_expires_at = clock_timestamp() + %(length)s::interval
    FROM due
    WHERE n.id = due.id AND n.drop_minute = due.drop_minute
    RETURNING n.id, n.drop_id, n.drop_minute, n.message_id, n.attempts
)
SELECT c.message_id, c.attempts, d.id, d.event_type, d.slot_id, d.starts_at, d.local_time,
    d.party_min, d.party_max, d.opened_at, d.payload, s.name AS source, s.timezone, v.venue_id,
    v.key, v.name, v.city, v.url
FROM claimed AS c
JOIN drop_events AS d ON d.id = c.drop_id AND d.opened_minute = c.drop_minute
JOIN venues AS v ON v.venue_id = d.venue_id
JOIN discovery_sources AS s ON s.id = d.source_id
ORDER BY c.id

-- name: end_message
-- A message went out: what it told is sent, under the lease alone, and its watch remembers when.
WITH told AS (
    UPDATE user_notifications SET
        state = 'sent', told_at = %(at)s::timestamptz, error = '', lease_owner = '',
        lease_expires_at = NULL
    WHERE watch_id = %(watch)s AND state = 'sending' AND lease_owner = %(lease)s
    RETURNING id
), noted AS (
    UPDATE discovery_watches SET last_told_at = greatest(last_told_at, %(at)s::timestamptz)
    WHERE id = %(watch)s AND EXISTS (SELECT FROM told)
)
SELECT count(*) FROM told

-- name: give_message_back
-- A message did not go out: it is tried again, or given up.
UPDATE user_notifications SET
    state = CASE WHEN %(permanent)s::boolean OR attempts >= %(most)s::integer THEN 'dead'
        ELSE 'pending' END,
    due_at = clock_timestamp() + %(pause)s::interval, error = %(error)s, lease_owner = '',
    lease_expires_at = NULL
WHERE watch_id = %(watch)s AND state = 'sending' AND lease_owner = %(lease)s
RETURNING state

-- name: rescue_messages
-- What a notifier took and did not end in time: it is tried again, or given up.
UPDATE user_notifications AS n SET
    state = CASE WHEN n.attempts >= %(most)s::integer THEN 'dead' ELSE 'pending' END,
    due_at = clock_timestamp(), error = %(error)s, lease_owner = '', lease_expires_at = NULL
FROM (
    SELECT id, drop_minute FROM user_notifications
    WHERE state = 'sending' AND lease_expires_at < clock_timestamp()
    ORDER BY lease_expires_at
    LIMIT %(limit)s::integer
    FOR UPDATE SKIP LOCKED
) AS late
WHERE n.id = late.id AND n.drop_minute = late.drop_minute
RETURNING n.state

-- name: settle_notifications
-- What a watch has to tell is taken note of, and told by nothing but the list.
UPDATE user_notifications SET state = 'sent', told_at = %(at)s::timestamptz
WHERE watch_id = %(watch)s AND state = 'pending' AND due_at <= now()

-- name: forget_pending
-- What a watch had to tell is told to nobody.
DELETE FROM user_notifications WHERE watch_id = %(watch)s AND state = 'pending'

-- name: forget_orphans
-- Forgets what watches had to tell that are no more.
DELETE FROM user_notifications AS n
USING (
    SELECT id, drop_minute, watch_id FROM user_notifications
    WHERE state = 'pending' AND due_at <= now()
    ORDER BY due_at
    LIMIT %(looked_at)s::integer
) AS due
WHERE n.id = due.id AND n.drop_minute = due.drop_minute
    AND NOT EXISTS (SELECT FROM discovery_watches AS w WHERE w.id = due.watch_id)

-- name: retry_dead
-- What was given up is tried again, from its first attempt on, where its watch still is.
UPDATE user_notifications AS n SET
    state = 'pending', attempts = 0, due_at = clock_timestamp(), error = ''
WHERE n.id = ANY (%(ids)s::bigint[]) AND n.state = 'dead'
    AND EXISTS (SELECT FROM discovery_watches AS w WHERE w.id = n.watch_id)

-- name: own_watches
-- A person's watches with the venues that they name, newest first.
SELECT w.id, w.name, w.is_active, s.name AS source,
    ARRAY(SELECT v.venue_id FROM discovery_watch_venues AS v WHERE v.watch_id = w.id
        ORDER BY v.venue_id) AS venues,
    w.date_from, w.date_to, w.weekdays, w.time_from, w.time_to, w.party_size, w.latitude,
    w.longitude, w.radius_m, w.channel, w.target, w.timezone, w.quiet_from, w.quiet_to,
    w.cooldown_seconds, w.max_per_hour, w.last_told_at, w.created_at, w.updated_at
FROM discovery_watches AS w
LEFT JOIN discovery_sources AS s ON s.id = w.source_id
WHERE w.user_id = %(user)s
    AND (%(watch)s::bigint IS NULL OR w.id = %(watch)s::bigint)
    AND (%(before)s::bigint IS NULL OR w.id < %(before)s::bigint)
ORDER BY w.id DESC
LIMIT %(limit)s::integer

-- name: watch_notifications
-- What a watch told or has to tell, the newest drop first.
SELECT n.id, n.state, n.already_gone, n.created_at, n.told_at, n.attempts, n.error, n.message_id,
    d.id AS drop_id, d.event_type, d.slot_id, d.starts_at, d.local_time, d.party_min, d.party_max,
    d.opened_at, d.closed_at, s.name AS source, v.venue_id, v.key, v.name, v.city,
    n.drop_id AS position
FROM user_notifications AS n
LEFT JOIN drop_events AS d ON d.id = n.drop_id AND d.opened_minute = n.drop_minute
LEFT JOIN venues AS v ON v.venue_id = d.venue_id
LEFT JOIN discovery_sources AS s ON s.id = d.source_id
WHERE n.watch_id = %(watch)s
    AND (%(before)s::bigint IS NULL OR n.drop_id < %(before)s::bigint)
ORDER BY n.drop_id DESC
LIMIT %(limit)s::integer

-- name: set_watch_venues
-- The venues that a watch names, instead of those before.
WITH dropped AS (
    DELETE FROM discovery_watch_venues
    WHERE watch_id = %(watch)s AND venue_id <> ALL (%(venues)s::bigint[])
)
INSERT INTO discovery_watch_venues (watch_id, venue_id)
SELECT %(watch)s, named FROM unnest(%(venues)s::bigint[]) AS named
ON CONFLICT DO NOTHING

-- name: claim_sources
-- Takes the sources that are due, for one poller; never sooner after the last time than they allow.
WITH due AS (
    SELECT id FROM discovery_sources
    WHERE NOT is_paused AND next_poll_at <= now() AND provider = ANY (%(providers)s::text[])
        AND (lease_expires_at IS NULL OR lease_expires_at < now())
        AND (last_attempt_at IS NULL OR last_attempt_at <= now() - interval '1 second' * greatest(
            poll_seconds, coalesce((validators ->> 'floor_seconds')::integer, 0)))
        AND id <> ALL (%(busy)s::bigint[])
    ORDER BY next_poll_at
    LIMIT %(limit)s::integer
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE discovery_sources AS s SET
    lease_owner = %(lease)s::text, lease_expires_at = now() + %(length)s::interval,
    last_attempt_at = now()
FROM due
WHERE s.id = due.id
RETURNING s.id, s.last_attempt_at

-- name: keep_source_leases
-- Pushes the end of a poller's leases out; the sources that are still its own, and their names.
UPDATE discovery_sources AS s SET lease_expires_at = now() + %(length)s::interval
FROM unnest(%(sources)s::bigint[], %(leases)s::text[]) AS held (source, lease)
WHERE s.id = held.source AND s.lease_owner = held.lease
RETURNING s.id, s.name

-- name: end_source_poll
-- Gives a source back: when to poll it next, and what to ask it with then.
UPDATE discovery_sources SET
    lease_owner = '', lease_expires_at = NULL,
    next_poll_at = now() + %(pause)s::float8 * interval '1 second',
    validators = coalesce(%(memory)s::jsonb, validators)
WHERE id = %(source)s::bigint AND lease_owner = %(lease)s::text

-- name: note_calendars
-- Whether a source is polled by calendar: settled by its first poll.
UPDATE discovery_sources SET is_by_calendar = coalesce(is_by_calendar, %(by_calendar)s)
WHERE id = %(source)s
RETURNING is_by_calendar

-- name: forget_calendars
-- Calendars of standing buckets that have not answered for long go, and what they showed with them.
WITH held AS MATERIALIZED (
    SELECT b.bucket_id FROM discovery_buckets AS b
    WHERE b.day IS NULL AND EXISTS (
        SELECT FROM bucket_calendars AS k
        WHERE k.bucket_id = b.bucket_id AND k.calendar <> '' AND k.polled_at < %(before)s
    )
    ORDER BY b.bucket_id
    FOR NO KEY UPDATE SKIP LOCKED
), silent AS (
    DELETE FROM bucket_calendars AS k USING held
    WHERE k.bucket_id = held.bucket_id AND k.calendar <> '' AND k.polled_at < %(before)s
    RETURNING k.bucket_id, k.calendar
), gone AS (
    DELETE FROM availability_state AS a USING silent
    WHERE a.bucket_id = silent.bucket_id AND a.calendar = silent.calendar
    RETURNING a.bucket_id
), counted AS (
    UPDATE discovery_buckets AS b SET open_slots = b.open_slots - of_bucket.slots
    FROM (SELECT bucket_id, count(*) AS slots FROM gone GROUP BY bucket_id) AS of_bucket
    WHERE b.bucket_id = of_bucket.bucket_id
)
SELECT count(*) FROM silent

-- name: begin_anew
-- A source shows something else from now on: its buckets go, and the next poll is a baseline.
WITH gone AS (
    DELETE FROM discovery_buckets WHERE source_id = %(source)s RETURNING bucket_id
)
UPDATE discovery_sources SET is_by_calendar = NULL, validators = '{}' WHERE id = %(source)s
