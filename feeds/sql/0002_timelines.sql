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

-- Authors some of whose posts are pulled, and when the newest of these was posted.
CREATE TABLE pull_authors (
    author_id integer PRIMARY KEY REFERENCES profiles (user_id) ON DELETE CASCADE,
    newest_at timestamptz NOT NULL
) WITH (fillfactor = 70);
