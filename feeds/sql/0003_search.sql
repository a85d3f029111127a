-- What is searched: posts that others may see, with their author and counts as they were when `version`
-- was written. `is_gone`: deleted or private by now; the row stays for a day, so that what comes late
-- finds the newer version.
CREATE TABLE post_documents (
    post_id bigint PRIMARY KEY,
    version bigint NOT NULL,
    is_gone boolean NOT NULL DEFAULT false,
    author_id integer NOT NULL,
    author_handle text NOT NULL DEFAULT '',
    author_name text NOT NULL DEFAULT '',
    kind text NOT NULL,
    text text NOT NULL DEFAULT '',
    words tsvector NOT NULL DEFAULT '',
    vector halfvec(384),
    likes_count bigint NOT NULL DEFAULT 0,
    comments_count bigint NOT NULL DEFAULT 0,
    shares_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    indexed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON post_documents USING gin (words);
CREATE INDEX ON post_documents USING gin (text gin_trgm_ops);
CREATE INDEX ON post_documents USING hnsw (vector halfvec_cosine_ops) WHERE NOT is_gone;
CREATE INDEX ON post_documents (indexed_at) WHERE is_gone;

-- What has happened to posts and is not in the index yet; `author_id`: to all of an author's posts. The
-- id of an event is the version of what is written because of it: events of one post commit in the
-- order of their ids, as its row was locked meanwhile.
CREATE TABLE post_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    post_id bigint,
    author_id integer,
    kind text NOT NULL CHECK (kind IN ('created', 'updated', 'deleted')),
    at timestamptz NOT NULL DEFAULT now(),
    CHECK ((post_id IS NULL) <> (author_id IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
