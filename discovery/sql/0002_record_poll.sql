-- One poll of one bucket: what opened, what closed, what stayed. The rules are docs/discovery.md's.

-- `hours` with so many more at an hour of the day, 0 to 23.
CREATE FUNCTION discovery_count_hour(hours bigint[], at_hour integer, times bigint)
RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hours[:at_hour] || (hours[at_hour + 1] + times) || hours[at_hour + 2:];

-- Records a poll and says what it changed. Idempotent: the same poll again changes nothing.
--
-- `calendars`: which calendars of the bucket answered ('' alone: the whole bucket). Slots come as
-- columns side by side; each is of one of these calendars, and no slot comes twice. `misses`: in how
-- many polls in a row a slot must be missing before it closes. `confirmations`: how many empty polls
-- in a row are not believed of a calendar that had slots. `cap`: slots of a bucket at most.
--
-- outcome: recorded, replayed (all calendars were polled at this moment already), late (a newer poll
-- came before) or unknown (no such bucket). The lock on the bucket lets one poll in at a time, and as
-- each statement in here sees what was committed before it, that is enough.
CREATE FUNCTION discovery_record_poll(
    bucket bigint, polled timestamptz, calendars text[],
    slots text[], slot_venues text[], slot_starts timestamptz[], slot_times text[],
    slot_party_min smallint[], slot_party_max smallint[], slot_payloads text[],
    misses_to_close integer, cooldown interval, confirmations integer, cap integer
)
RETURNS TABLE (
    outcome text, opened text[], closed text[], baseline integer, unchanged integer,
    missing integer, quarantined integer, spared integer, left_out integer,
    late_calendars integer, replayed_calendars integer
) LANGUAGE plpgsql AS $fn$
#variable_conflict use_column
DECLARE
    of_source bigint;
    zone text;
    whole boolean := calendars = ARRAY[''];
    taken text[];
    first_time text[];
    local_hour integer;
    was_full boolean;
    resumed bigint[];
    resumed_minutes timestamptz[];
BEGIN
    SELECT b.source_id, s.timezone, b.is_full INTO of_source, zone, was_full
    FROM discovery_buckets AS b JOIN discovery_sources AS s ON s.id = b.source_id
    WHERE b.bucket_id = bucket
    FOR NO KEY UPDATE OF b;
    IF NOT FOUND THEN
        outcome := 'unknown';
        RETURN NEXT;
        RETURN;
    END IF;
    local_hour := extract(hour FROM polled AT TIME ZONE zone);

    SELECT array_agg(asked.calendar) FILTER (WHERE k.polled_at IS NULL OR k.polled_at < polled),
        array_agg(asked.calendar) FILTER (WHERE k.polled_at IS NULL),
        count(*) FILTER (WHERE k.polled_at > polled), count(*) FILTER (WHERE k.polled_at = polled)
    INTO taken, first_time, late_calendars, replayed_calendars
    FROM unnest(calendars) AS asked (calendar)
    LEFT JOIN bucket_calendars AS k ON k.bucket_id = bucket AND k.calendar = asked.calendar;
    IF taken IS NULL THEN
        outcome := CASE WHEN late_calendars > 0 THEN 'late' ELSE 'replayed' END;
        RETURN NEXT;
        RETURN;
    END IF;

    -- Nothing was there and nothing is: most parts of most days of a small source.
    IF cardinality(slots) = 0 AND NOT EXISTS (
        SELECT FROM availability_state AS a
        WHERE a.bucket_id = bucket AND (whole OR a.calendar = ANY (taken))
    ) THEN
        INSERT INTO bucket_calendars AS k
            (bucket_id, calendar, baseline_at, polled_at, empty_polls)
        SELECT bucket, t.calendar, polled, polled, 1
        FROM unnest(taken) AS t (calendar)
        ORDER BY t.calendar
        ON CONFLICT (bucket_id, calendar) DO UPDATE SET
            polled_at = excluded.polled_at, empty_polls = least(k.empty_polls + 1, 32767);
        UPDATE discovery_buckets AS b SET
            checked_at = greatest(b.checked_at, polled),
            last_success_at = greatest(b.last_success_at, polled), consecutive_failures = 0
        WHERE b.bucket_id = bucket;
        outcome := 'recorded';
        RETURN NEXT;
        RETURN;
    END IF;

    -- Venues that are new, or were not seen for an hour; in one order everywhere. One that answers has
    -- been seen, though it has nothing.
    INSERT INTO venues AS stored (source_id, key, last_seen_at)
    SELECT of_source, seen.key, polled
    FROM (
        SELECT given.venue AS key FROM unnest(slot_venues) AS given (venue)
        UNION
        SELECT answered.calendar FROM unnest(taken) AS answered (calendar) WHERE NOT whole
    ) AS seen
    LEFT JOIN venues AS v ON v.source_id = of_source AND v.key = seen.key
    WHERE v.venue_id IS NULL OR v.last_seen_at < polled - interval '1 hour'
    ORDER BY seen.key
    ON CONFLICT (source_id, key) DO UPDATE
        SET last_seen_at = greatest(stored.last_seen_at, excluded.last_seen_at);

    WITH given AS MATERIALIZED (
        SELECT g.slot_id, v.venue_id, CASE WHEN whole THEN '' ELSE g.venue END AS calendar,
            g.starts_at, g.local_time, g.party_min, g.party_max, g.payload
        FROM unnest(slots, slot_venues, slot_starts, slot_times, slot_party_min, slot_party_max,
            slot_payloads)
            AS g (slot_id, venue, starts_at, local_time, party_min, party_max, payload)
        JOIN venues AS v ON v.source_id = of_source AND v.key = g.venue
        WHERE whole OR g.venue = ANY (taken)
    ), known AS MATERIALIZED (
        SELECT a.slot_id, a.calendar, a.misses
        FROM availability_state AS a
        WHERE a.bucket_id = bucket AND (whole OR a.calendar = ANY (taken))
    ), answered AS MATERIALIZED (
        -- What each calendar brought; nothing, where it had something, is not believed at first.
        SELECT c.calendar, count(g.slot_id) AS slots,
            count(g.slot_id) = 0 AND coalesce(k.empty_polls, 0) < confirmations
                AND EXISTS (SELECT FROM known WHERE known.calendar = c.calendar) AS doubted
        FROM unnest(taken) AS c (calendar)
        LEFT JOIN bucket_calendars AS k ON k.bucket_id = bucket AND k.calendar = c.calendar
        LEFT JOIN given AS g ON g.calendar = c.calendar
        GROUP BY c.calendar, k.empty_polls
    ), back AS (
        UPDATE availability_state AS a SET misses = 0, missing_since = NULL
        FROM known JOIN given USING (slot_id)
        WHERE a.bucket_id = bucket AND a.slot_id = known.slot_id AND known.misses > 0
        RETURNING a.slot_id
    ), gone AS MATERIALIZED (
        SELECT known.slot_id, known.misses + 1 AS misses
        FROM known JOIN answered ON answered.calendar = known.calendar AND NOT answered.doubted
        WHERE NOT EXISTS (SELECT FROM given WHERE given.slot_id = known.slot_id)
    ), missed AS (
        UPDATE availability_state AS a
        SET misses = gone.misses, missing_since = coalesce(a.missing_since, polled)
        FROM gone
        WHERE gone.misses < misses_to_close AND a.bucket_id = bucket AND a.slot_id = gone.slot_id
        RETURNING a.slot_id
    ), shut AS (
        DELETE FROM availability_state AS a
        USING gone
        WHERE gone.misses >= misses_to_close AND a.bucket_id = bucket AND a.slot_id = gone.slot_id
        RETURNING a.slot_id, a.venue_id, a.local_time, a.opened_at, a.drop_id, a.drop_minute,
            coalesce(a.missing_since, polled) AS closed_at
    ), ended AS (
        UPDATE drop_events AS d SET closed_at = shut.closed_at
        FROM shut
        WHERE d.id = shut.drop_id AND d.opened_minute = shut.drop_minute
        RETURNING d.id
    ), remembered AS (
        INSERT INTO slot_closures AS c
            (bucket_id, slot_id, closed_at, opened_at, drop_id, drop_minute)
        SELECT bucket, slot_id, closed_at, opened_at, drop_id, drop_minute FROM shut
        ON CONFLICT (bucket_id, slot_id) DO UPDATE SET
            closed_at = excluded.closed_at, opened_at = excluded.opened_at,
            drop_id = excluded.drop_id, drop_minute = excluded.drop_minute
        RETURNING c.slot_id
    ), unknown AS MATERIALIZED (
        SELECT given.* FROM given
        WHERE NOT EXISTS (SELECT FROM known WHERE known.slot_id = given.slot_id)
    ), appeared AS MATERIALIZED (
        -- A slot may stand under a calendar that did not answer: it is open, then. What comes into a bucket that could not hold all may have been there all along.
        SELECT u.*, was_full OR coalesce(u.calendar = ANY (first_time), false) AS is_baseline,
            row_number() OVER (ORDER BY u.slot_id) AS place
        FROM unknown AS u
        WHERE whole OR NOT EXISTS (
            SELECT FROM availability_state AS a
            WHERE a.bucket_id = bucket AND a.slot_id = u.slot_id
        )
    ), fresh AS MATERIALIZED (
        SELECT a.*, c.closed_at AS closed_before, c.opened_at AS opened_before,
            c.drop_id AS drop_before, c.drop_minute AS minute_before,
            coalesce(polled - c.closed_at < cooldown, false) AND NOT a.is_baseline AS flickers
        FROM appeared AS a
        LEFT JOIN slot_closures AS c ON c.bucket_id = bucket AND c.slot_id = a.slot_id
        WHERE a.place <= cap - (SELECT b.open_slots FROM discovery_buckets AS b
            WHERE b.bucket_id = bucket) + (SELECT count(*) FROM shut)
    ), dropped AS (
        INSERT INTO drop_events AS d (
            event_type, source_id, bucket_id, slot_id, venue_id, opened_at, opened_minute,
            starts_at, local_time, party_min, party_max, payload
        )
        SELECT CASE WHEN closed_before IS NULL THEN 'opened' ELSE 'reopened' END, of_source, bucket,
            slot_id, venue_id, polled, date_trunc('minute', polled, 'UTC'), starts_at, local_time,
            party_min, party_max, nullif(payload, '')::jsonb
        FROM fresh
        WHERE NOT is_baseline AND NOT flickers
        ORDER BY slot_id
        ON CONFLICT (bucket_id, slot_id, venue_id, opened_minute) DO UPDATE SET closed_at = NULL
        RETURNING d.id, d.slot_id, d.venue_id, d.local_time, d.opened_at, d.opened_minute,
            d.opened_at = polled AS is_new
    ), entered AS (
        INSERT INTO availability_state (
            bucket_id, slot_id, venue_id, calendar, starts_at, local_time, party_min, party_max,
            payload, opened_at, drop_id, drop_minute
        )
        SELECT bucket, fresh.slot_id, fresh.venue_id, fresh.calendar, fresh.starts_at,
            fresh.local_time, fresh.party_min, fresh.party_max, nullif(fresh.payload, '')::jsonb,
            CASE WHEN fresh.flickers THEN fresh.opened_before
                ELSE coalesce(dropped.opened_at, polled) END,
            coalesce(dropped.id, CASE WHEN fresh.flickers THEN fresh.drop_before END),
            coalesce(dropped.opened_minute, CASE WHEN fresh.flickers THEN fresh.minute_before END)
        FROM fresh LEFT JOIN dropped ON dropped.slot_id = fresh.slot_id
        ORDER BY fresh.slot_id
        RETURNING slot_id
    ), counted AS MATERIALIZED (
        -- How long is known of drops alone: a slot of the baseline was open before.
        SELECT venue_id, local_time, 1::bigint AS drops, 0 AS closings, 0::float8 AS seconds,
            opened_at, NULL::timestamptz AS closed_at
        FROM dropped WHERE is_new
        UNION ALL
        SELECT venue_id, local_time, 0, 1, extract(epoch FROM closed_at - opened_at), NULL,
            closed_at
        FROM shut WHERE drop_id IS NOT NULL
        UNION ALL
        SELECT fresh.venue_id, fresh.local_time, 0, -1,
            -extract(epoch FROM closed_before - opened_before), NULL, NULL
        FROM fresh LEFT JOIN dropped USING (slot_id)
        WHERE drop_before IS NOT NULL AND (flickers OR NOT dropped.is_new)
    ), of_venues AS (
        INSERT INTO venue_stats AS s
            (venue_id, drops, closings, open_seconds, hours, last_opened_at, last_closed_at)
        SELECT venue_id, sum(drops), sum(closings), sum(seconds),
            discovery_count_hour(array_fill(0::bigint, ARRAY[24]), local_hour, sum(drops)::bigint),
            max(opened_at), max(closed_at)
        FROM counted
        GROUP BY venue_id
        ORDER BY venue_id
        ON CONFLICT (venue_id) DO UPDATE SET
            drops = s.drops + excluded.drops, closings = s.closings + excluded.closings,
            open_seconds = s.open_seconds + excluded.open_seconds,
            hours = discovery_count_hour(s.hours, local_hour, excluded.drops),
            last_opened_at = coalesce(excluded.last_opened_at, s.last_opened_at),
            last_closed_at = coalesce(excluded.last_closed_at, s.last_closed_at)
        RETURNING s.venue_id
    ), of_slots AS (
        INSERT INTO slot_stats AS s
            (venue_id, local_time, drops, closings, open_seconds, hours, last_opened_at,
            last_closed_at)
        SELECT venue_id, local_time, sum(drops), sum(closings), sum(seconds),
            discovery_count_hour(array_fill(0::bigint, ARRAY[24]), local_hour, sum(drops)::bigint),
            max(opened_at), max(closed_at)
        FROM counted
        GROUP BY venue_id, local_time
        ORDER BY venue_id, local_time
        ON CONFLICT (venue_id, local_time) DO UPDATE SET
            drops = s.drops + excluded.drops, closings = s.closings + excluded.closings,
            open_seconds = s.open_seconds + excluded.open_seconds,
            hours = discovery_count_hour(s.hours, local_hour, excluded.drops),
            last_opened_at = coalesce(excluded.last_opened_at, s.last_opened_at),
            last_closed_at = coalesce(excluded.last_closed_at, s.last_closed_at)
        RETURNING s.venue_id
    ), polled_calendars AS (
        INSERT INTO bucket_calendars AS k
            (bucket_id, calendar, baseline_at, polled_at, empty_polls)
        SELECT bucket, a.calendar, polled, polled, (a.slots = 0)::integer
        FROM answered AS a
        ORDER BY a.calendar
        ON CONFLICT (bucket_id, calendar) DO UPDATE SET
            polled_at = excluded.polled_at,
            empty_polls = CASE WHEN excluded.empty_polls = 0 THEN 0
                ELSE least(k.empty_polls + 1, 32767) END
        RETURNING k.calendar
    ), sums AS (
        SELECT (SELECT count(*) FROM shut) AS shut, (SELECT count(*) FROM entered) AS entered
    ), noted AS (
        UPDATE discovery_buckets AS b SET
            checked_at = greatest(b.checked_at, polled),
            last_success_at = greatest(b.last_success_at, polled), consecutive_failures = 0,
            changed_at = CASE WHEN sums.shut + sums.entered > 0 THEN polled ELSE b.changed_at END,
            open_slots = b.open_slots + sums.entered - sums.shut,
            is_full = (SELECT count(*) FROM appeared) > sums.entered
        FROM sums
        WHERE b.bucket_id = bucket
        RETURNING b.bucket_id
    )
    SELECT 'recorded',
        (SELECT array_agg(d.slot_id ORDER BY d.slot_id) FROM dropped AS d WHERE d.is_new),
        (SELECT array_agg(shut.slot_id ORDER BY shut.slot_id) FROM shut),
        (SELECT count(*) FROM fresh WHERE is_baseline),
        (SELECT count(*) FROM known) - (SELECT count(*) FROM gone)
            - (SELECT count(*) FROM known JOIN answered USING (calendar) WHERE answered.doubted),
        (SELECT count(*) FROM missed),
        (SELECT count(*) FROM answered WHERE doubted),
        (SELECT count(*) FROM fresh WHERE flickers) + (SELECT count(*) FROM back),
        (SELECT count(*) FROM appeared) - (SELECT count(*) FROM fresh),
        (SELECT array_agg(drop_before ORDER BY slot_id) FROM fresh
            WHERE flickers AND drop_before IS NOT NULL),
        (SELECT array_agg(minute_before ORDER BY slot_id) FROM fresh
            WHERE flickers AND drop_before IS NOT NULL)
    INTO outcome, opened, closed, baseline, unchanged, missing, quarantined, spared, left_out,
        resumed, resumed_minutes;

    -- Openings that go on; and who was not told of them because they had closed is told after all.
    -- Apart, because these statements look into every partition, and there are such openings rarely.
    IF resumed IS NOT NULL THEN
        UPDATE drop_events AS d SET closed_at = NULL
        FROM unnest(resumed, resumed_minutes) AS r (id, opened_minute)
        WHERE d.id = r.id AND d.opened_minute = r.opened_minute;
        UPDATE user_notifications AS n SET state = 'pending', already_gone = false, due_at = now()
        FROM unnest(resumed, resumed_minutes) AS r (id, opened_minute)
        WHERE n.drop_id = r.id AND n.drop_minute = r.opened_minute AND n.state = 'gone';
    END IF;
    RETURN NEXT;
END $fn$;
