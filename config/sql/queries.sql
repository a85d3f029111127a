-- name: add_to_tally
-- Adds to a counter, making it where it is new.
INSERT INTO config_tally (name, labels, value)
VALUES (%(name)s, %(labels)s, %(value)s)
ON CONFLICT (name, labels) DO UPDATE SET value = config_tally.value + excluded.value

-- name: add_to_tallies
-- Adds to several counters, each named once, in the order given.
INSERT INTO config_tally (name, labels, value)
SELECT grown.name, grown.labels::jsonb, grown.value
FROM unnest(%(names)s::text[], %(labels)s::text[], %(values)s::float8[])
    WITH ORDINALITY AS grown (name, labels, value, position)
ORDER BY grown.position
ON CONFLICT (name, labels) DO UPDATE SET value = config_tally.value + excluded.value

-- name: existing_partitions
-- The partitions of a table, oldest first; none whose drop has begun.
SELECT child.relname
FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = to_regclass(%(table)s) AND NOT pg_inherits.inhdetachpending
ORDER BY child.relname

-- name: estranged_partitions
-- Partitions that belong to another role than their table, and both roles.
SELECT child.relname, pg_get_userbyid(child.relowner), pg_get_userbyid(parent.relowner)
FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
WHERE parent.oid = to_regclass(%(table)s) AND child.relowner <> parent.relowner
ORDER BY child.relname

-- name: record_refresh
-- Records a refresh. The generation was raised by what changed the read model.
INSERT INTO config_readmodelstate (
    name, generation, refreshed_at, full_refreshed_at, duration_ms, rows, error)
VALUES (
    %(name)s, 0, now(), CASE WHEN %(full)s THEN now() END, %(duration_ms)s, %(rows)s, '')
ON CONFLICT (name) DO UPDATE SET
    refreshed_at = now(),
    full_refreshed_at = coalesce(excluded.full_refreshed_at, config_readmodelstate.full_refreshed_at),
    duration_ms = excluded.duration_ms,
    rows = excluded.rows,
    error = ''
RETURNING generation

-- name: half_detached_partitions
-- Partitions whose concurrent detach was interrupted.
SELECT child.relname
FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = to_regclass(%(table)s) AND pg_inherits.inhdetachpending

-- name: detached_partitions
-- Tables named like a partition of this table that are attached to nothing.
SELECT relname
FROM pg_class
WHERE relkind = 'r'
    AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass(%(table)s))
    AND starts_with(relname, %(table)s || '_y')
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid)
ORDER BY relname

-- name: take_lease
-- Takes a lease that is free, expired, or still held by `dead_owner`; a returned row means taken.
INSERT INTO config_lease AS lease (name, owner, host, pid, acquired_at, expires_at)
VALUES (
    %(name)s, %(owner)s, %(host)s, %(pid)s, clock_timestamp(), clock_timestamp() + %(length)s)
ON CONFLICT (name) DO UPDATE SET
    owner = excluded.owner,
    host = excluded.host,
    pid = excluded.pid,
    acquired_at = excluded.acquired_at,
    expires_at = excluded.expires_at
WHERE lease.expires_at <= clock_timestamp() OR lease.owner = %(dead_owner)s::text
RETURNING owner

-- name: extend_lease
-- Pushes the end of a lease out, for as long as nobody else has taken it.
UPDATE config_lease SET expires_at = clock_timestamp() + %(length)s
WHERE name = %(name)s AND owner = %(owner)s

-- name: connection_usage
-- Client connections of the whole server, how many it takes, and how long (seconds) the longest
-- idle transaction has been idle.
SELECT
    count(*), current_setting('max_connections')::int,
    coalesce(
        extract(epoch FROM max(clock_timestamp() - state_change)
            FILTER (WHERE starts_with(state, 'idle in transaction'))), 0
    )::float8
FROM pg_stat_activity
WHERE backend_type = 'client backend'

-- name: job_health
-- Whether the last run of each job failed, since when (seconds) one succeeded, and whether its
-- schedule is missing, off, or late.
SELECT
    asked.job,
    coalesce(last.state IN ('failed', 'abandoned'), FALSE),
    extract(epoch FROM now() - good.finished_at)::float8,
    plan.id IS NULL OR plan.repeats = 0 OR plan.next_run IS NULL
        OR plan.next_run < now() - %(late)s
FROM unnest(%(jobs)s::text[]) AS asked (job)
LEFT JOIN LATERAL (
    SELECT state FROM config_jobrun
    WHERE job = asked.job AND state NOT IN ('running', 'skipped')
    ORDER BY started_at DESC
    LIMIT 1
) AS last ON TRUE
LEFT JOIN LATERAL (
    SELECT finished_at FROM config_jobrun
    WHERE job = asked.job AND state = 'succeeded'
    ORDER BY started_at DESC
    LIMIT 1
) AS good ON TRUE
LEFT JOIN django_q_schedule AS plan ON plan.name = %(prefix)s || asked.job

-- name: job_queue
-- Tasks of the queue that wait (counted up to 100,000), and for how long (seconds) the oldest has.
SELECT count(*), coalesce(extract(epoch FROM now() - min(lock)), 0)::float8
FROM (SELECT lock FROM django_q_ormq WHERE lock <= now() LIMIT 100000) AS waiting

-- name: claim_idempotency_key
-- Takes a key that is new, expired, or left by a dead request of the same content.
INSERT INTO config_idempotencyrecord AS held (
    owner, endpoint, key, request_hash, claim, claimed_at, headers, expires_at)
VALUES (
    %(owner)s, %(endpoint)s, %(key)s, %(request_hash)s, %(claim)s, clock_timestamp(), '{}',
    clock_timestamp() + %(lifetime)s)
ON CONFLICT (owner, endpoint, key) DO UPDATE SET
    request_hash = excluded.request_hash,
    claim = excluded.claim,
    claimed_at = excluded.claimed_at,
    status = NULL,
    headers = '{}',
    body = NULL,
    expires_at = excluded.expires_at
WHERE held.expires_at <= clock_timestamp()
    OR (held.status IS NULL
        AND (held.claimed_at <= clock_timestamp() - %(claim_lifetime)s
            OR held.claim = %(dead_claim)s::text)
        AND held.request_hash = excluded.request_hash)
RETURNING id

-- name: missing_partitions
-- Which of these are no partitions of the table (yet, or any more), in the order given. Not by
-- to_regclass: a session may answer that from its cache after another one made the table.
SELECT name
FROM unnest(%(names)s::text[]) WITH ORDINALITY AS wanted (name, position)
WHERE NOT EXISTS (
    SELECT FROM pg_inherits
    JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = %(table)s::regclass AND child.relname = wanted.name AND NOT inhdetachpending
)
ORDER BY position

-- name: vital_trends
-- The last sample of each vital sign in each slot of the last day; slot 0 is the youngest.
SELECT key, slot, (array_agg(value ORDER BY at DESC))[1]
FROM (
    SELECT key, at, value,
        floor(extract(epoch FROM now() - at) / %(slot_seconds)s::integer)::integer AS slot
    FROM vital_samples
    WHERE at > now() - make_interval(secs => (%(slots)s::integer + 1) * %(slot_seconds)s::integer)
) AS sampled
GROUP BY key, slot

-- name: table_sizes
-- The largest tables with their indexes, partitions counted to their table.
SELECT coalesce(parent.relname, c.relname)::text, sum(pg_total_relation_size(c.oid))::bigint AS bytes
FROM pg_class AS c
LEFT JOIN pg_inherits ON inhrelid = c.oid
LEFT JOIN pg_class AS parent ON parent.oid = inhparent
WHERE c.relkind IN ('r', 'm') AND c.relnamespace = current_schema()::regnamespace
GROUP BY 1
ORDER BY bytes DESC
LIMIT %(limit)s

-- name: database_size
-- Bytes of this database on disk.
SELECT pg_database_size(current_database())

-- name: table_columns
-- The columns of a table in its order: name, type, and whether it is generated.
SELECT attname::text, format_type(atttypid, atttypmod), attgenerated <> ''
FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum

-- name: fingerprint
-- How many rows a table has, and the sum of a hash of each, whatever their order.
SELECT
    count(*),
    coalesce(sum(('x' || left(encode(sha256(convert_to(ROW({columns})::text, 'UTF8')), 'hex'), 16))
        ::bit(64)::bigint::numeric), 0)
FROM {table}


-- name: unique_keys
-- The unique indexes of a table: whether it is the primary key, and the columns in their order.
SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.place)
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisunique
    AND i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indnullsnotdistinct
GROUP BY i.indexrelid, i.indisprimary
ORDER BY i.indisprimary DESC, i.indexrelid

-- name: cascading_keys
-- The foreign keys of a table whose rows go with those they refer to: which table, the columns on
-- this side, and on that.
SELECT c.confrelid::regclass::text,
    array_agg(mine.attname::text ORDER BY k.place), array_agg(theirs.attname::text ORDER BY k.place)
FROM pg_constraint AS c
CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (mine, theirs, place)
JOIN pg_attribute AS mine ON mine.attrelid = c.conrelid AND mine.attnum = k.mine
JOIN pg_attribute AS theirs ON theirs.attrelid = c.confrelid AND theirs.attnum = k.theirs
WHERE c.conrelid = to_regclass(%(table)s) AND c.contype = 'f' AND c.confdeltype = 'c'
GROUP BY c.oid, c.confrelid
ORDER BY c.confrelid, c.oid

-- name: wal_position
-- How far the log of this primary has come, in bytes.
SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint

-- name: replayed_position
-- How much of its primary's log this standby has replayed, in bytes; null where it is none.
SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END


-- name: has_statement_statistics
-- Whether pg_stat_statements is installed in this database.
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')

-- name: statement_statistics
-- What statements of this database have cost since the last reset. Times in milliseconds, blocks of
-- 8 kB that were not in memory.
SELECT queryid, calls, total_exec_time, mean_exec_time, rows, shared_blks_read + temp_blks_read,
    query
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND calls > 0

-- name: statistics_since
-- Since when this database's statistics are kept.
SELECT coalesce(stats_reset, pg_postmaster_start_time())
FROM pg_stat_database WHERE datname = current_database()

-- name: all_indexes
-- Every index of our tables, partitions' only below their parent's: what it is made of, how large, how
-- often used. Of a partitioned one, of all its parts together.
WITH RECURSIVE family AS (
    SELECT i.indexrelid AS root, i.indexrelid AS part
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND NOT c.relispartition
    UNION ALL
    SELECT family.root, child.inhrelid
    FROM family JOIN pg_inherits AS child ON child.inhparent = family.part
)
SELECT c.relname AS index, t.relname AS table, t.relkind = 'p' AS is_partitioned,
    i.indisunique AS is_unique, i.indisvalid AS is_valid,
    EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid) AS is_constraint,
    am.amname AS method, i.indnkeyatts AS keys,
    ARRAY(
        SELECT pg_get_indexdef(i.indexrelid, n, true) || ' ' || i.indclass[n - 1]
            || ' ' || i.indcollation[n - 1] || ' ' || i.indoption[n - 1]
        FROM generate_series(1, i.indnkeyatts) AS n
    ) AS parts,
    ARRAY(
        SELECT pg_get_indexdef(i.indexrelid, n, true)
        FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS n
    ) AS included,
    coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
    used.scans, used.bytes
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_am AS am ON am.oid = c.relam
JOIN LATERAL (
    SELECT coalesce(sum(pg_stat_get_numscans(part)), 0)::bigint AS scans,
        coalesce(sum(pg_relation_size(part)), 0)::bigint AS bytes
    FROM family WHERE root = i.indexrelid
) AS used ON TRUE
WHERE c.relnamespace = current_schema()::regnamespace AND NOT c.relispartition
ORDER BY t.relname, c.relname

-- name: foreign_keys_without_index
-- Foreign keys whose columns no index begins with: a delete over there reads this whole table.
SELECT con.conname AS name, t.relname AS table, t.relkind = 'p' AS is_partitioned,
    ARRAY(
        SELECT attname FROM unnest(con.conkey) WITH ORDINALITY AS k (number, position)
        JOIN pg_attribute ON attrelid = con.conrelid AND attnum = k.number
        ORDER BY k.position
    )::text[] AS columns,
    f.relname AS refers_to, greatest(t.reltuples, 0)::bigint AS rows
FROM pg_constraint AS con
JOIN pg_class AS t ON t.oid = con.conrelid
JOIN pg_class AS f ON f.oid = con.confrelid
WHERE con.contype = 'f' AND con.conparentid = 0
    AND t.relnamespace = current_schema()::regnamespace
    AND NOT EXISTS (
        SELECT FROM pg_index AS i
        WHERE i.indrelid = con.conrelid AND i.indpred IS NULL AND i.indisvalid
            AND (i.indkey::smallint[])[0:cardinality(con.conkey) - 1] @> con.conkey
    )
ORDER BY t.relname, con.conname

-- name: tables_read_whole
-- Large tables that were read from one end to the other, often.
SELECT relname AS table, seq_scan AS scans, seq_tup_read / seq_scan AS rows_each
FROM pg_stat_user_tables
WHERE seq_scan >= %(scans)s AND n_live_tup >= %(rows)s AND seq_tup_read / seq_scan >= %(rows)s
    AND schemaname = current_schema()
ORDER BY seq_tup_read DESC

-- name: reset_statement_statistics
-- Begins to count the statements of this database anew.
SELECT pg_stat_statements_reset(
    0, (SELECT oid FROM pg_database WHERE datname = current_database()), 0)

-- name: backup_tables
-- (schema, name) of every table with rows of its own, without those of extensions.
SELECT n.nspname, c.relname
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (
        SELECT FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'
    )
ORDER BY n.nspname, c.relname

-- name: backup_database
-- What a database must be made with to take this one's rows.
SELECT
    datname, pg_encoding_to_char(encoding), datlocprovider::text, datcollate, datctype,
    coalesce(datlocale, '')
FROM pg_database
WHERE datname = current_database()

-- name: backup_settings
-- (role or '', name=value) of what is set for sessions of this database.
SELECT coalesce(r.rolname, ''), config
FROM pg_db_role_setting AS s
JOIN pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
LEFT JOIN pg_roles AS r ON r.oid = s.setrole
CROSS JOIN unnest(s.setconfig) AS config
ORDER BY 1, 2

-- name: backup_roles
-- Owners of, and those who were given rights on, what is in this database, except everybody.
SELECT DISTINCT rolname
FROM pg_roles
JOIN (
    SELECT relowner AS role FROM pg_class
    WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND relkind IN ('r', 'p', 'm', 'v', 'S')
    UNION
    SELECT given.grantee FROM pg_class
    CROSS JOIN LATERAL aclexplode(relacl) AS given
    WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    UNION
    SELECT given.grantee FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) AS given
    WHERE nspname NOT IN ('pg_catalog', 'information_schema')
    UNION
    SELECT given.grantee FROM pg_proc CROSS JOIN LATERAL aclexplode(proacl) AS given
    WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    UNION
    SELECT given.grantee FROM pg_default_acl CROSS JOIN LATERAL aclexplode(defaclacl) AS given
) AS named ON named.role = pg_roles.oid
ORDER BY rolname

-- name: estimated_rows
-- The planner's idea of how many rows a table, with its partitions, or a view has.
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class AS c
WHERE c.oid = to_regclass(%(table)s) AND c.relkind <> 'p'
    OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass(%(table)s))
