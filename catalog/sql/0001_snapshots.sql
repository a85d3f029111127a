-- Snapshots: what each seller showed, when. Append-only, one partition a month (config.partitions).
-- Text keys collate "C": a slug compares byte by byte, and a prefix search can use a plain btree.

CREATE SEQUENCE product_price_snapshots_id_seq CACHE 100;

CREATE TABLE product_price_snapshots (
    id bigint NOT NULL DEFAULT nextval('product_price_snapshots_id_seq'),
    scraped_at timestamptz NOT NULL,
    seller text COLLATE "C" NOT NULL,
    product_code text COLLATE "C" NOT NULL DEFAULT '',
    product_name_normalized text COLLATE "C" NOT NULL,
    product_name_original text NOT NULL,
    price numeric(14, 4) CHECK (price > 0),
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    is_available boolean NOT NULL DEFAULT true,
    is_preorder boolean NOT NULL DEFAULT false,
    category_tags text[] NOT NULL DEFAULT '{}',
    hero_image_url text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    ingest_run_id bigint,
    PRIMARY KEY (id, scraped_at),
    CHECK (price IS NOT NULL OR NOT is_available)
) PARTITION BY RANGE (scraped_at);

ALTER SEQUENCE product_price_snapshots_id_seq OWNED BY product_price_snapshots.id;

-- The history of one product over all sellers, in order, by keyset.
CREATE INDEX idx_product_price_snapshots_slug_scraped_id
    ON product_price_snapshots (product_name_normalized, scraped_at, id);

-- The newest snapshots of all.
CREATE INDEX idx_product_price_snapshots_scraped_at_desc
    ON product_price_snapshots (scraped_at DESC);

-- The history of one product at one seller; and, being unique over the rest of the natural key,
-- what makes recording a snapshot again a no-op.
CREATE UNIQUE INDEX idx_product_price_snapshots_slug_seller_scraped
    ON product_price_snapshots (product_name_normalized, seller, scraped_at, product_code, currency);

-- The trigram index stands on catalog_words (0004): text search reads each word of a name once
-- there, where here it would read each product hundreds of times. Product codes are looked up whole,
-- in catalog_slug_seller_summary_code (0002).

-- The change log: what the read models have not folded. Appended by trigger in the writer's
-- transaction, deleted by the fold. A null snapshot_id asks for a whole line to be computed again.
CREATE TABLE catalog_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    snapshot_id bigint,
    slug text COLLATE "C" NOT NULL,
    seller text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    scraped_at timestamptz,
    price numeric(14, 4),
    is_available boolean,
    is_preorder boolean,
    product_code text COLLATE "C",
    name text,
    has_details boolean
) WITH (
    -- A queue: vacuum by turnover, not by size, or the fold walks over its own dead rows.
    autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1
);

-- Whether a snapshot is folded yet: asked for each row of a line that is computed from history.
CREATE INDEX catalog_changes_snapshot ON catalog_changes (snapshot_id);
