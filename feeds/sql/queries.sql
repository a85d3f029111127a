-- Statements of feeds. A timeline is ordered by (created_at, id), newest first; a page is what lies
-- before its cursor (at, id). The viewer sees the posts of those they follow and their own, but nothing
-- of those who are muted, or blocked in one direction or the other.

-- name: kept_page
-- A page of a kept timeline; see 0002_timelines.sql. First row: the floor, or nulls.
SELECT floor_at, floor_id, id, created_at
FROM feeds_kept_page(%(me)s::integer, %(at)s::timestamptz, %(id)s::bigint, %(limit)s::bigint);

-- name: computed_page
-- A page of a timeline that is computed: the newest of each author, merged.
WITH hidden AS MATERIALIZED (
    SELECT target_id AS id FROM mutes WHERE user_id = %(me)s::integer
    UNION SELECT target_id FROM blocks WHERE user_id = %(me)s::integer
    UNION SELECT user_id FROM blocks WHERE target_id = %(me)s::integer
), authors AS MATERIALIZED (
    SELECT followee_id AS id FROM follows WHERE follower_id = %(me)s::integer
    UNION ALL SELECT %(me)s::integer
)
SELECT p.id, p.created_at
FROM authors AS a
CROSS JOIN LATERAL (
    SELECT id, created_at FROM posts
    WHERE author_id = a.id AND NOT is_deleted
        AND (created_at, id) < (%(at)s::timestamptz, %(id)s::bigint)
        AND (visibility <> 'private' OR author_id = %(me)s::integer)
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s::bigint
) AS p
WHERE a.id NOT IN (SELECT id FROM hidden)
ORDER BY p.created_at DESC, p.id DESC LIMIT %(limit)s::bigint;

-- name: window_of_candidates
-- What a timeline may hold, whatever of it may be seen now: the newest ids, for the cache.
WITH authors AS MATERIALIZED (
    SELECT followee_id AS id FROM follows WHERE follower_id = %(me)s::integer
    UNION ALL SELECT %(me)s::integer
)
SELECT p.id, p.created_at
FROM authors AS a
CROSS JOIN LATERAL (
    SELECT id, created_at FROM posts WHERE author_id = a.id AND NOT is_deleted
    ORDER BY created_at DESC, id DESC LIMIT %(limit)s::bigint
) AS p
ORDER BY p.created_at DESC, p.id DESC LIMIT %(limit)s::bigint;

-- name: page_of_candidates
-- A page out of cached candidates and what was posted since; all is looked at as it is now.
WITH hidden AS MATERIALIZED (
    SELECT target_id AS id FROM mutes WHERE user_id = %(me)s::integer
    UNION SELECT target_id FROM blocks WHERE user_id = %(me)s::integer
    UNION SELECT user_id FROM blocks WHERE target_id = %(me)s::integer
), candidates AS (
    SELECT unnest(%(ids)s::bigint[]) AS id
    UNION
    SELECT id FROM posts WHERE created_at > %(since)s::timestamptz
)
SELECT p.id, p.created_at
FROM candidates AS c JOIN posts AS p USING (id)
WHERE NOT p.is_deleted
    AND (p.created_at, p.id) < (%(at)s::timestamptz, %(id)s::bigint)
    AND p.author_id NOT IN (SELECT id FROM hidden)
    AND (
        p.author_id = %(me)s::integer
        OR p.visibility <> 'private' AND EXISTS (
            SELECT FROM follows AS f
            WHERE f.follower_id = %(me)s::integer AND f.followee_id = p.author_id)
    )
ORDER BY p.created_at DESC, p.id DESC LIMIT %(limit)s::bigint;

-- name: shown_posts
-- Posts as a viewer sees them, in the order of ids: author, exact counts, what the viewer did.
WITH waiting AS MATERIALIZED (
    SELECT target_id,
        sum(delta) FILTER (WHERE counter_key = %(likes)s::integer) AS likes,
        sum(delta) FILTER (WHERE counter_key = %(comments)s::integer) AS comments,
        sum(delta) FILTER (WHERE counter_key = %(shares)s::integer) AS shares,
        sum(delta) FILTER (WHERE counter_key = %(views)s::integer) AS views
    FROM counter_deltas
    WHERE counter_key IN (
            %(likes)s::integer, %(comments)s::integer, %(shares)s::integer, %(views)s::integer)
        AND target_id = ANY (%(ids)s::bigint[])
    GROUP BY target_id
)
SELECT p.id, p.kind, p.text, p.media, p.visibility, p.created_at, p.edited_at,
    a.user_id, a.handle, a.display_name,
    p.likes_count + coalesce(w.likes, 0)::bigint, p.comments_count + coalesce(w.comments, 0)::bigint,
    p.shares_count + coalesce(w.shares, 0)::bigint, p.views_count + coalesce(w.views, 0)::bigint,
    EXISTS (SELECT FROM likes WHERE post_id = p.id AND user_id = %(me)s::integer),
    EXISTS (SELECT FROM shares WHERE post_id = p.id AND user_id = %(me)s::integer)
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS wanted (id, position)
JOIN posts AS p ON p.id = wanted.id
JOIN profiles AS a ON a.user_id = p.author_id
LEFT JOIN waiting AS w ON w.target_id = p.id
ORDER BY wanted.position;

-- name: may_see
-- Which of these posts the viewer may see; viewer 0: somebody without an account.
SELECT p.id
FROM posts AS p JOIN profiles AS a ON a.user_id = p.author_id
WHERE p.id = ANY (%(ids)s::bigint[]) AND NOT p.is_deleted
    AND (
        p.author_id = %(me)s::integer
        OR (
            p.visibility = 'public' AND NOT a.is_private
            OR p.visibility <> 'private' AND EXISTS (
                SELECT FROM follows AS f
                WHERE f.follower_id = %(me)s::integer AND f.followee_id = p.author_id)
        ) AND NOT EXISTS (
            SELECT FROM blocks AS b
            WHERE b.user_id = p.author_id AND b.target_id = %(me)s::integer
                OR b.user_id = %(me)s::integer AND b.target_id = p.author_id)
    );

-- name: posts_of
-- A page of somebody's posts, as far as the viewer may see them (`all`: the author, `followed`).
SELECT id, created_at FROM posts
WHERE author_id = %(author)s::integer AND NOT is_deleted
    AND (created_at, id) < (%(at)s::timestamptz, %(id)s::bigint)
    AND (%(sees)s = 'all' OR visibility = 'public' OR %(sees)s = 'followed' AND visibility = 'followers')
ORDER BY created_at DESC, id DESC LIMIT %(limit)s::bigint;

-- name: comments_of
-- A page of a post's comments, newest first, without those of people who are blocked.
SELECT c.id, c.text, c.created_at, c.edited_at, a.user_id, a.handle, a.display_name
FROM comments AS c JOIN profiles AS a ON a.user_id = c.author_id
WHERE c.post_id = %(post)s AND NOT c.is_deleted AND c.id < %(before)s
    AND NOT EXISTS (
        SELECT FROM blocks AS b
        WHERE b.user_id = c.author_id AND b.target_id = %(me)s
            OR b.user_id = %(me)s AND b.target_id = c.author_id)
ORDER BY c.id DESC LIMIT %(limit)s;

-- name: shown_person
-- A person with exact counts, and how the viewer stands to them.
SELECT p.user_id, p.handle, p.display_name, p.bio, p.is_private, p.created_at,
    p.followers_count + coalesce((SELECT sum(delta) FROM counter_deltas
        WHERE counter_key = %(followers)s AND target_id = p.user_id), 0)::bigint AS followers_count,
    p.following_count + coalesce((SELECT sum(delta) FROM counter_deltas
        WHERE counter_key = %(following)s AND target_id = p.user_id), 0)::bigint AS following_count,
    p.posts_count + coalesce((SELECT sum(delta) FROM counter_deltas
        WHERE counter_key = %(posts)s AND target_id = p.user_id), 0)::bigint AS posts_count,
    EXISTS (SELECT FROM follows WHERE follower_id = %(me)s AND followee_id = p.user_id) AS followed,
    EXISTS (SELECT FROM follows WHERE follower_id = p.user_id AND followee_id = %(me)s) AS follows_you,
    EXISTS (SELECT FROM mutes WHERE user_id = %(me)s AND target_id = p.user_id) AS muted,
    EXISTS (SELECT FROM blocks WHERE user_id = %(me)s AND target_id = p.user_id) AS blocked,
    EXISTS (SELECT FROM blocks WHERE user_id = p.user_id AND target_id = %(me)s) AS blocks_you
FROM profiles AS p WHERE p.user_id = %(person)s;

-- name: followers_of
-- A page of those who follow somebody.
SELECT p.user_id, p.handle, p.display_name FROM follows AS f
JOIN profiles AS p ON p.user_id = f.follower_id
WHERE f.followee_id = %(person)s AND f.follower_id > %(after)s
    AND NOT EXISTS (
        SELECT FROM blocks AS b
        WHERE b.user_id = f.follower_id AND b.target_id = %(me)s
            OR b.user_id = %(me)s AND b.target_id = f.follower_id)
ORDER BY f.follower_id LIMIT %(limit)s;

-- name: followed_by
-- A page of those whom somebody follows.
SELECT p.user_id, p.handle, p.display_name FROM follows AS f
JOIN profiles AS p ON p.user_id = f.followee_id
WHERE f.follower_id = %(person)s AND f.followee_id > %(after)s
    AND NOT EXISTS (
        SELECT FROM blocks AS b
        WHERE b.user_id = f.followee_id AND b.target_id = %(me)s
            OR b.user_id = %(me)s AND b.target_id = f.followee_id)
ORDER BY f.followee_id LIMIT %(limit)s;

-- name: claim_fanout
-- The next delivery that is due, for as long as the lease; the attempt counts from here on.
UPDATE feed_fanouts SET due_at = now() + %(lease)s, attempts = attempts + 1
WHERE post_id = (
    SELECT post_id FROM feed_fanouts WHERE due_at <= now()
    ORDER BY due_at, post_id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING post_id, author_id, created_at, queued_at, tier, after_id, delivered, attempts;

-- name: deliver
-- Delivers a post to the next followers who have a timeline: (how many looked at, the last, new rows).
-- Tier 0: who had read lately when it was queued; 1: the others, among them who has read since then.
WITH chunk AS MATERIALIZED (
    SELECT f.follower_id
    FROM follows AS f JOIN feed_states AS s ON s.user_id = f.follower_id
    WHERE f.followee_id = %(author)s AND f.follower_id > %(after)s
        AND CASE %(tier)s WHEN 0 THEN s.last_read_at >= %(lately)s
            ELSE s.last_read_at < %(lately)s OR s.last_read_at >= %(queued_at)s END
    ORDER BY f.follower_id LIMIT %(rows)s
), put AS (
    INSERT INTO user_feeds (user_id, post_id, inserted_at)
    SELECT follower_id, %(post)s, %(created_at)s FROM chunk
    ON CONFLICT DO NOTHING
    RETURNING user_id
)
SELECT (SELECT count(*) FROM chunk), (SELECT max(follower_id) FROM chunk),
    (SELECT count(*) FROM put);

-- name: fanout_moved
-- Remembers how far a delivery is, and keeps its lease.
UPDATE feed_fanouts
SET tier = %(tier)s, after_id = %(after)s, delivered = delivered + %(delivered)s,
    due_at = now() + %(lease)s
WHERE post_id = %(post)s;

-- name: fanout_done
-- The last delivery is made.
DELETE FROM feed_fanouts WHERE post_id = %(post)s RETURNING delivered;

-- name: fanout_released
-- A delivery that was interrupted is due at once, for whoever comes next.
UPDATE feed_fanouts SET due_at = now(), attempts = 0 WHERE post_id = %(post)s;

-- name: fanout_failed
-- A delivery is tried again after a pause.
UPDATE feed_fanouts SET due_at = now() + %(pause)s, error = %(error)s WHERE post_id = %(post)s;

-- name: trim
-- Cuts timelines to the cap and raises their floors; only of people whom nobody else works on.
WITH locked AS MATERIALIZED (
    SELECT user_id FROM feed_states
    WHERE user_id = ANY (%(users)s) AND built_at IS NOT NULL
    ORDER BY user_id FOR UPDATE SKIP LOCKED
), floors AS MATERIALIZED (
    SELECT l.user_id, f.inserted_at, f.post_id
    FROM locked AS l
    CROSS JOIN LATERAL (
        SELECT inserted_at, post_id FROM user_feeds WHERE user_id = l.user_id
        ORDER BY inserted_at DESC, post_id DESC OFFSET %(cap)s - 1 LIMIT 1
    ) AS f
), raised AS (
    UPDATE feed_states AS s SET floor_at = f.inserted_at, floor_id = f.post_id
    FROM floors AS f
    WHERE s.user_id = f.user_id AND (s.floor_at, s.floor_id) < (f.inserted_at, f.post_id)
)
DELETE FROM user_feeds AS u USING floors AS f
WHERE u.user_id = f.user_id AND (u.inserted_at, u.post_id) < (f.inserted_at, f.post_id);

-- name: trim_candidates
-- Of those who were just delivered to, one in so many: in the long run each at each so manyth delivery.
SELECT f.follower_id FROM follows AS f
WHERE f.followee_id = %(author)s AND f.follower_id > %(after)s AND f.follower_id <= %(until)s
    AND mod(hashint8extended(f.follower_id, %(post)s) & 1048575, %(every)s) = 0;

-- name: open_timeline
-- Somebody reads: their timeline is kept from now on. What is delivered from here on includes them.
INSERT INTO feed_states (user_id) VALUES (%(me)s) ON CONFLICT DO NOTHING;

-- name: visit
-- Somebody reads again, ten minutes or more after they did last.
UPDATE feed_states SET last_read_at = now(), visits = visits + 1
WHERE user_id = %(me)s AND last_read_at < now() - interval '10 minutes';

-- name: note_pulled
-- An author has a post that is looked up; the newest counts.
INSERT INTO pull_authors (author_id, newest_at) VALUES (%(author)s, %(at)s)
ON CONFLICT (author_id) DO UPDATE
    SET newest_at = greatest(pull_authors.newest_at, excluded.newest_at);

-- name: wrong_pull_authors
-- Authors whose newest post that is looked up is newer than is noted; noted now, where asked: (author).
WITH wrong AS (
    SELECT a.author_id, p.created_at FROM pull_authors AS a
    CROSS JOIN LATERAL (
        SELECT created_at FROM posts
        WHERE author_id = a.author_id AND delivery = 'pull' AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) AS p
    WHERE p.created_at > a.newest_at
), mended AS (
    UPDATE pull_authors AS a SET newest_at = w.created_at FROM wrong AS w
    WHERE a.author_id = w.author_id AND %(fix)s
)
SELECT author_id FROM wrong ORDER BY author_id;

-- name: queue_fill
-- A worker is to put what somebody had posted into a follower's timeline.
INSERT INTO feed_fills (follower_id, followee_id) VALUES (%(me)s, %(author)s)
ON CONFLICT DO NOTHING;

-- name: unbuilt_timelines
-- Timelines that are to be built; the transaction keeps the right to do so.
SELECT user_id FROM feed_states WHERE built_at IS NULL
ORDER BY user_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- name: build_timeline
-- Fills a timeline with the newest posts of those whom its owner follows, up to the cap.
WITH followed AS MATERIALIZED (
    SELECT followee_id AS id FROM follows WHERE follower_id = %(me)s
), newest AS MATERIALIZED (
    SELECT p.id, p.created_at
    FROM followed AS a
    CROSS JOIN LATERAL (
        SELECT id, created_at FROM posts
        WHERE author_id = a.id AND delivery = 'push' AND NOT is_deleted
        ORDER BY created_at DESC, id DESC LIMIT %(cap)s
    ) AS p
    ORDER BY p.created_at DESC, p.id DESC LIMIT %(cap)s
), put AS (
    INSERT INTO user_feeds (user_id, post_id, inserted_at)
    SELECT %(me)s, id, created_at FROM newest
    ON CONFLICT DO NOTHING
), filled AS (
    UPDATE follows AS f SET is_filled = TRUE FROM followed AS a
    WHERE f.follower_id = %(me)s AND f.followee_id = a.id AND NOT f.is_filled
), oldest AS (
    SELECT created_at, id FROM newest ORDER BY created_at, id
    LIMIT CASE WHEN (SELECT count(*) FROM newest) < %(cap)s THEN 0 ELSE 1 END
)
UPDATE feed_states SET built_at = now(),
    floor_at = coalesce((SELECT created_at FROM oldest), '0001-01-02 00:00+00'),
    floor_id = coalesce((SELECT id FROM oldest), 0)
WHERE user_id = %(me)s;

-- name: claim_fills
-- Takes follows that are to be filled: (follower, followee, whether the follower has a timeline). They
-- come back where the transaction fails; without a timeline there is nothing to fill.
WITH claimed AS (
    DELETE FROM feed_fills WHERE (follower_id, followee_id) IN (
        SELECT follower_id, followee_id FROM feed_fills LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING follower_id, followee_id
)
SELECT c.follower_id, c.followee_id, s.user_id IS NOT NULL
FROM claimed AS c
LEFT JOIN feed_states AS s ON s.user_id = c.follower_id AND s.built_at IS NOT NULL
ORDER BY c.follower_id, c.followee_id;

-- name: fill_follow
-- Puts what a followee had posted into a timeline, up to the cap, above which the floor rises then.
WITH state AS MATERIALIZED (
    SELECT floor_at, floor_id FROM feed_states WHERE user_id = %(me)s FOR UPDATE
), newest AS MATERIALIZED (
    SELECT id, created_at FROM posts
    WHERE author_id = %(author)s AND delivery = 'push' AND NOT is_deleted
        AND (created_at, id) >= ((SELECT floor_at FROM state), (SELECT floor_id FROM state))
    ORDER BY created_at DESC, id DESC LIMIT %(cap)s
), put AS (
    INSERT INTO user_feeds (user_id, post_id, inserted_at)
    SELECT %(me)s, id, created_at FROM newest
    ON CONFLICT DO NOTHING
), oldest AS (
    SELECT created_at, id FROM newest ORDER BY created_at, id
    LIMIT CASE WHEN (SELECT count(*) FROM newest) < %(cap)s THEN 0 ELSE 1 END
), raised AS (
    UPDATE feed_states AS s SET floor_at = o.created_at, floor_id = o.id
    FROM oldest AS o
    WHERE s.user_id = %(me)s AND (s.floor_at, s.floor_id) < (o.created_at, o.id)
)
UPDATE follows SET is_filled = TRUE WHERE follower_id = %(me)s AND followee_id = %(author)s;

-- name: forget_author
-- Takes somebody's posts out of a timeline: to clean up, they are not shown any more anyway.
DELETE FROM user_feeds AS u USING posts AS p
WHERE u.user_id = %(me)s AND p.id = u.post_id AND p.author_id = %(author)s;

-- name: drop_idle
-- Drops the timelines of people who have not read for long: (how many). They are built when they return.
WITH idle AS MATERIALIZED (
    SELECT user_id FROM feed_states WHERE last_read_at < %(before)s
    ORDER BY last_read_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), emptied AS (
    DELETE FROM user_feeds AS u USING idle AS i WHERE u.user_id = i.user_id
)
DELETE FROM feed_states AS s USING idle AS i WHERE s.user_id = i.user_id;

-- name: decide_delivery
-- Which considered authors are pulled from now on: by followers, or because their posts would be written
-- more often a day than their followers read. Who was pulled stays so until half of it.
WITH considered AS (
    SELECT p.user_id, p.followers_count, p.is_pulled,
        (SELECT count(*) FROM posts AS o
            WHERE o.author_id = p.user_id AND NOT o.is_deleted
                AND o.created_at >= now() - interval '7 days') / 7.0 AS posts_a_day
    FROM profiles AS p WHERE p.followers_count >= %(considered)s OR p.is_pulled
), rated AS (
    SELECT c.*, coalesce(r.active, 0) AS active, coalesce(r.reads_a_day, 0) AS reads_a_day
    FROM considered AS c
    LEFT JOIN LATERAL (
        SELECT count(*) AS active,
            sum(s.visits / greatest(1, extract(epoch FROM now() - s.created_at) / 86400))
                AS reads_a_day
        FROM follows AS f JOIN feed_states AS s ON s.user_id = f.follower_id
        WHERE f.followee_id = c.user_id AND c.followers_count < %(most)s
    ) AS r ON TRUE
), decided AS (
    SELECT user_id, is_pulled,
        followers_count >= %(most)s * CASE WHEN is_pulled THEN 0.8 ELSE 1 END
        OR posts_a_day * active
            > greatest(reads_a_day, 1) * CASE WHEN is_pulled THEN 0.5 ELSE 1 END AS pull
    FROM rated
)
UPDATE profiles AS p SET is_pulled = d.pull
FROM decided AS d WHERE p.user_id = d.user_id AND d.is_pulled <> d.pull;

-- name: missing_posts
-- What is missing in kept timelines of a part of the people: (user, post, created_at), up to so many.
SELECT s.user_id, p.id, p.created_at
FROM feed_states AS s
JOIN follows AS f ON f.follower_id = s.user_id AND f.is_filled
JOIN posts AS p ON p.author_id = f.followee_id AND NOT p.is_deleted AND p.delivery = 'push'
    AND p.visibility <> 'private' AND (p.created_at, p.id) >= (s.floor_at, s.floor_id)
WHERE s.user_id > %(after)s AND s.user_id <= %(until)s AND s.built_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM feed_fanouts AS o WHERE o.post_id = p.id)
    AND NOT EXISTS (
        SELECT FROM user_feeds AS u
        WHERE u.user_id = s.user_id AND u.inserted_at = p.created_at AND u.post_id = p.id)
LIMIT %(most)s;

-- name: part_of_states
-- The last person of the next part: (their id, how many).
SELECT max(user_id), count(*) FROM (
    SELECT user_id FROM feed_states WHERE user_id > %(after)s ORDER BY user_id LIMIT %(rows)s) AS part;

-- name: feed_gauges
-- What is under way: (fan-outs, seconds since the oldest was queued, failing, unbuilt timelines).
SELECT (SELECT count(*) FROM (SELECT FROM feed_fanouts LIMIT 100000) AS one),
    coalesce((SELECT extract(epoch FROM now() - min(queued_at)) FROM feed_fanouts), 0)::float8,
    (SELECT count(*) FROM feed_fanouts WHERE error <> ''),
    (SELECT count(*) FROM (SELECT FROM feed_states WHERE built_at IS NULL LIMIT 100000) AS one);

-- name: claim_post_events
-- Takes the oldest events: (event, author, post). They come back where the transaction fails.
DELETE FROM post_events WHERE id IN (
    SELECT id FROM post_events ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, author_id, post_id;

-- name: events_of_authors
-- What happened to authors has happened to each of their posts.
INSERT INTO post_events (post_id, kind)
SELECT id, 'updated' FROM posts WHERE author_id = ANY (%(authors)s) AND NOT is_deleted;

-- name: posts_to_index
-- Posts that everybody may find, as documents.
SELECT p.id, p.author_id, a.handle, a.display_name, p.kind, p.text,
    p.likes_count, p.comments_count, p.shares_count, p.created_at
FROM posts AS p JOIN profiles AS a ON a.user_id = p.author_id
WHERE p.id = ANY (%(ids)s) AND NOT p.is_deleted AND p.visibility = 'public' AND NOT a.is_private;

-- name: next_posts
-- The next posts, by id.
SELECT id FROM posts WHERE id > %(after)s AND NOT is_deleted ORDER BY id LIMIT %(limit)s;

-- name: index_backlog
-- What waits to be indexed: (how many events, up to so many; seconds since the oldest).
SELECT count(*), coalesce(extract(epoch FROM now() - min(at)), 0)::float8
FROM (SELECT at FROM post_events ORDER BY id LIMIT %(most)s) AS one;

-- name: write_documents
-- Writes documents that are newer than what stands there; a gone one keeps its place and version.
INSERT INTO post_documents AS d (
    post_id, version, is_gone, author_id, author_handle, author_name, kind, text, words, vector,
    likes_count, comments_count, shares_count, created_at)
SELECT id, version, is_gone, author_id, handle, name, kind, body,
    to_tsvector('simple', unaccent(handle || ' ' || name || ' ' || body)), vector::halfvec(384),
    likes, comments, shares, coalesce(created_at, now())
FROM unnest(
    %(ids)s::bigint[], %(versions)s::bigint[], %(gone)s::boolean[], %(authors)s::integer[],
    %(handles)s::text[], %(names)s::text[], %(kinds)s::text[], %(texts)s::text[],
    %(likes)s::bigint[], %(comments)s::bigint[], %(shares)s::bigint[], %(times)s::timestamptz[],
    %(vectors)s::text[]
) AS one (id, version, is_gone, author_id, handle, name, kind, body, likes, comments, shares,
    created_at, vector)
ORDER BY id
ON CONFLICT (post_id) DO UPDATE SET
    version = excluded.version, is_gone = excluded.is_gone, author_id = excluded.author_id,
    author_handle = excluded.author_handle, author_name = excluded.author_name,
    kind = excluded.kind, text = excluded.text, words = excluded.words, vector = excluded.vector,
    likes_count = excluded.likes_count, comments_count = excluded.comments_count,
    shares_count = excluded.shares_count, created_at = excluded.created_at, indexed_at = now()
WHERE d.version < excluded.version;

-- name: add_documents
-- Writes documents where none stands yet: what stands there came by an event, and is newer.
INSERT INTO post_documents (
    post_id, version, is_gone, author_id, author_handle, author_name, kind, text, words, vector,
    likes_count, comments_count, shares_count, created_at)
SELECT id, version, is_gone, author_id, handle, name, kind, body,
    to_tsvector('simple', unaccent(handle || ' ' || name || ' ' || body)), vector::halfvec(384),
    likes, comments, shares, coalesce(created_at, now())
FROM unnest(
    %(ids)s::bigint[], %(versions)s::bigint[], %(gone)s::boolean[], %(authors)s::integer[],
    %(handles)s::text[], %(names)s::text[], %(kinds)s::text[], %(texts)s::text[],
    %(likes)s::bigint[], %(comments)s::bigint[], %(shares)s::bigint[], %(times)s::timestamptz[],
    %(vectors)s::text[]
) AS one (id, version, is_gone, author_id, handle, name, kind, body, likes, comments, shares,
    created_at, vector)
ORDER BY id
ON CONFLICT (post_id) DO NOTHING;

-- name: search_posts
-- The best hits of three routes: (post, score, rank of words, likeness of spelling, cosine).
WITH asked AS MATERIALIZED (
    SELECT websearch_to_tsquery('simple', unaccent(%(text)s::text)) AS words
), by_words AS MATERIALIZED (
    SELECT m.post_id
    FROM (
        SELECT d.post_id, d.words FROM post_documents AS d
        WHERE d.words @@ (SELECT words FROM asked) AND NOT d.is_gone
            AND (%(kind)s::text IS NULL OR d.kind = %(kind)s::text)
            AND (%(author)s::integer IS NULL OR d.author_id = %(author)s::integer)
        LIMIT %(looked_at)s::bigint
    ) AS m
    ORDER BY ts_rank(m.words, (SELECT words FROM asked), 1) DESC LIMIT %(candidates)s::bigint
), by_spelling AS MATERIALIZED (
    SELECT d.post_id FROM post_documents AS d
    WHERE %(text)s::text <%% d.text AND NOT d.is_gone
        AND (%(kind)s::text IS NULL OR d.kind = %(kind)s::text)
        AND (%(author)s::integer IS NULL OR d.author_id = %(author)s::integer)
    LIMIT %(candidates)s::bigint
), by_meaning AS MATERIALIZED (
    SELECT n.post_id FROM (
        SELECT d.post_id, d.kind, d.author_id FROM post_documents AS d
        WHERE NOT d.is_gone AND %(vector)s::text IS NOT NULL
        ORDER BY d.vector <=> %(vector)s::text::halfvec(384) LIMIT 40
    ) AS n
    WHERE (%(kind)s::text IS NULL OR n.kind = %(kind)s::text)
        AND (%(author)s::integer IS NULL OR n.author_id = %(author)s::integer)
), candidates AS (
    SELECT post_id FROM by_words UNION SELECT post_id FROM by_spelling
    UNION SELECT post_id FROM by_meaning
), rated AS (
    SELECT d.post_id, d.created_at, d.likes_count + d.comments_count + d.shares_count AS reactions,
        ts_rank(d.words, (SELECT words FROM asked), 1) AS rank,
        word_similarity(%(text)s::text, d.text) AS spelling,
        coalesce(1 - (d.vector <=> %(vector)s::text::halfvec(384)), 0) AS cosine
    FROM candidates JOIN post_documents AS d USING (post_id)
), weighed AS (
    SELECT *, 0.5 * rank / greatest(max(rank) OVER (), 1e-9) + 0.2 * spelling
            + 0.3 * greatest(cosine, 0) AS relevance
    FROM rated WHERE rank > 0 OR spelling >= 0.5 OR cosine >= 0.35
)
SELECT post_id,
    (relevance
        * (1 + 0.5 * exp(-ln(2) * greatest(extract(epoch FROM now() - created_at), 0) / 604800))
        * (1 + 0.1 * log(2, reactions + 1)))::float8 AS score,
    rank::float8, spelling::float8, cosine::float8
FROM weighed ORDER BY score DESC, post_id DESC LIMIT %(limit)s::bigint;

-- name: rebuild_timelines
-- Has every kept timeline built anew; until then they are computed.
UPDATE feed_states SET built_at = NULL, floor_at = '9999-12-31 00:00+00', floor_id = 0;

-- name: deliver_missing
-- Delivers what reconciliation found missing.
INSERT INTO user_feeds (user_id, post_id, inserted_at)
SELECT * FROM unnest(%(users)s::integer[], %(posts)s::bigint[], %(times)s::timestamptz[])
ON CONFLICT DO NOTHING;

-- name: compare_index
-- A part of the posts against their documents: (the last, compared, waiting, ids that differ).
WITH part AS MATERIALIZED (
    SELECT id FROM (
        SELECT id FROM posts WHERE id > %(after)s
        UNION SELECT post_id FROM post_documents WHERE post_id > %(after)s
    ) AS one ORDER BY id LIMIT %(rows)s
), waiting AS MATERIALIZED (
    SELECT post_id AS id FROM post_events WHERE post_id IN (SELECT id FROM part)
    UNION SELECT p.id FROM post_events AS e JOIN posts AS p ON p.author_id = e.author_id
        WHERE p.id IN (SELECT id FROM part)
), compared AS (
    SELECT part.id,
        p.id IS NOT NULL AND NOT p.is_deleted AND p.visibility = 'public' AND NOT a.is_private
            AS is_shown,
        d.post_id IS NOT NULL AND NOT d.is_gone AS is_found,
        (d.author_id, d.author_handle, d.author_name, d.kind, d.text)
            IS NOT DISTINCT FROM (p.author_id, a.handle, a.display_name, p.kind, p.text) AS is_same
    FROM part
    LEFT JOIN posts AS p ON p.id = part.id
    LEFT JOIN profiles AS a ON a.user_id = p.author_id
    LEFT JOIN post_documents AS d ON d.post_id = part.id
    WHERE part.id NOT IN (SELECT id FROM waiting)
)
SELECT (SELECT max(id) FROM part), (SELECT count(*) FROM compared), (SELECT count(*) FROM waiting),
    coalesce((SELECT array_agg(id ORDER BY id) FROM compared
        WHERE is_shown <> is_found OR is_shown AND NOT is_same), '{}');

-- name: touch_posts
-- Has these posts indexed anew.
INSERT INTO post_events (post_id, kind) SELECT unnest(%(ids)s::bigint[]), 'updated';

-- name: import_people
-- Users and profiles for names that have none: how many.
WITH made AS (
    INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff,
        is_active, date_joined)
    SELECT name, %(password)s, '', '', '', FALSE, FALSE, TRUE, now()
    FROM unnest(%(names)s::text[]) AS one (name)
    ON CONFLICT (username) DO NOTHING
    RETURNING id, username
), known AS (
    SELECT id, username FROM made
    UNION ALL SELECT id, username FROM auth_user WHERE username = ANY (%(names)s::text[])
), profiled AS (
    INSERT INTO profiles (user_id, handle)
    SELECT k.id, n.handle
    FROM known AS k
    JOIN unnest(%(names)s::text[], %(handles)s::text[]) AS n (name, handle) ON n.name = k.username
    ON CONFLICT DO NOTHING
    RETURNING user_id
)
SELECT count(*) FROM profiled;

-- name: people_by_name
-- (name, user id) of those who have a profile.
SELECT u.username, u.id FROM auth_user AS u JOIN profiles AS p ON p.user_id = u.id
WHERE u.username = ANY (%(names)s);

-- name: import_follows
-- Follows that are not there yet; those of people who have a timeline are to be filled: (how many).
WITH made AS (
    INSERT INTO follows (follower_id, followee_id)
    SELECT * FROM unnest(%(followers)s::integer[], %(followees)s::integer[])
    ON CONFLICT DO NOTHING
    RETURNING follower_id, followee_id
), queued AS (
    INSERT INTO feed_fills (follower_id, followee_id)
    SELECT m.follower_id, m.followee_id
    FROM made AS m JOIN feed_states AS s ON s.user_id = m.follower_id
    ON CONFLICT DO NOTHING
)
SELECT follower_id FROM made;

-- name: monthly_posts
-- One imported post a month of each author, made where there is none: (author, month, post).
WITH wanted AS MATERIALIZED (
    SELECT author_id, month FROM unnest(%(authors)s::integer[], %(months)s::date[])
        AS one (author_id, month)
), made AS (
    INSERT INTO posts (author_id, text, created_at, delivery)
    SELECT w.author_id, 'Questions and answers of ' || to_char(w.month, 'FMMonth YYYY'),
        w.month::timestamp AT TIME ZONE 'UTC', 'pull'
    FROM wanted AS w
    WHERE NOT EXISTS (
        SELECT FROM posts AS p WHERE p.author_id = w.author_id AND NOT p.is_deleted
            AND p.created_at = w.month::timestamp AT TIME ZONE 'UTC')
    RETURNING author_id, created_at, id
), pulled AS (
    INSERT INTO pull_authors (author_id, newest_at)
    SELECT author_id, max(created_at) FROM made GROUP BY author_id
    ON CONFLICT (author_id) DO UPDATE
        SET newest_at = greatest(pull_authors.newest_at, excluded.newest_at)
)
SELECT author_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM'), id FROM made
UNION ALL
SELECT p.author_id, to_char(w.month, 'YYYY-MM'), min(p.id)
FROM wanted AS w
JOIN posts AS p ON p.author_id = w.author_id AND NOT p.is_deleted
    AND p.created_at = w.month::timestamp AT TIME ZONE 'UTC'
GROUP BY p.author_id, w.month;

-- name: import_likes
-- Likes that are not there yet.
INSERT INTO likes (post_id, user_id, created_at)
SELECT * FROM unnest(%(posts)s::bigint[], %(users)s::integer[], %(times)s::timestamptz[])
ON CONFLICT DO NOTHING;

-- name: import_comments
-- Comments that are not there yet, known by post, author and time.
INSERT INTO comments (post_id, author_id, text, created_at)
SELECT o.post_id, o.user_id, 'A comment', o.at
FROM unnest(%(posts)s::bigint[], %(users)s::integer[], %(times)s::timestamptz[])
    AS o (post_id, user_id, at)
WHERE NOT EXISTS (
    SELECT FROM comments AS c
    WHERE c.post_id = o.post_id AND c.author_id = o.user_id AND c.created_at = o.at);
