-- Statements of the counters that name no target. The others are composed: see statements.py.

-- name: try_fold
-- Whether this transaction is the one that folds: one at a time, the others need not wait.
SELECT pg_try_advisory_xact_lock(hashtext('spyglass fold_counters'));

-- name: lock_counter
-- One at a time mends a counter, to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('spyglass mend_counter'), %(key)s);

-- name: take_deltas
-- Removes the oldest deltas after an id and sums them up: (key, how many, targets, numbers, the last id),
-- nothing for sums of 0. By a range of ids: joined to the rows of the batch, it takes three times as long.
WITH last AS MATERIALIZED (
    SELECT coalesce(
        (SELECT id FROM counter_deltas WHERE id > %(after)s AND counter_key = ANY (%(keys)s)
            ORDER BY id OFFSET %(rows)s - 1 LIMIT 1),
        (SELECT max(id) FROM counter_deltas)
    ) AS id
), gone AS (
    DELETE FROM counter_deltas WHERE id > %(after)s AND id <= (SELECT id FROM last)
        AND counter_key = ANY (%(keys)s)
    RETURNING counter_key, target_id, delta
), summed AS (
    SELECT counter_key, target_id, count(*) AS deltas, sum(delta)::bigint AS n
    FROM gone GROUP BY counter_key, target_id
)
SELECT counter_key, sum(deltas)::bigint,
    coalesce(array_agg(target_id ORDER BY target_id) FILTER (WHERE n <> 0), '{}'),
    coalesce(array_agg(n ORDER BY target_id) FILTER (WHERE n <> 0), '{}'),
    (SELECT id FROM last)
FROM summed GROUP BY counter_key ORDER BY counter_key;

-- name: new_events
-- Remembers events and returns those not seen before, as texts (day, id). Inserted in the order of their
-- keys, so that two workers with the same events wait for, but never block, each other.
INSERT INTO counter_events (day, event_id)
SELECT day, event_id FROM unnest(%(days)s::date[], %(ids)s::uuid[]) AS given (day, event_id)
ORDER BY day, event_id
ON CONFLICT DO NOTHING
RETURNING day::text, event_id::text;

-- name: backlog
-- What waits by counter: (key, how many of the first so many, seconds that the oldest has waited).
SELECT counter_key, count(*), extract(epoch FROM now() - min(appended_at))::float8
FROM (SELECT counter_key, appended_at FROM counter_deltas ORDER BY id LIMIT %(most)s) AS one
GROUP BY counter_key;

-- name: bury
-- Puts what could not be applied into the list of dead letters.
INSERT INTO counter_dead_letters (entry, payload, reason, attempts)
SELECT * FROM unnest(
    %(entries)s::text[], %(payloads)s::text[], %(reasons)s::text[], %(attempts)s::integer[]);
