-- Read models of the catalog.

-- One line (a slug at a seller in one currency). fillfactor leaves room for the update that every
-- poll makes, so that it stays in its page and touches no index.
CREATE TABLE catalog_slug_seller_summary (
    slug text COLLATE "C" NOT NULL,
    seller text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    product_code text COLLATE "C" NOT NULL,
    category_tags text[] NOT NULL,
    hero_image_url text NOT NULL,
    description text NOT NULL,
    details_at timestamptz,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    is_available boolean NOT NULL,
    is_preorder boolean NOT NULL,
    last_price numeric(14, 4),
    last_price_at timestamptz,
    price_since timestamptz,
    previous_price numeric(14, 4),
    prior_low numeric(14, 4),
    lowest numeric(14, 4),
    highest numeric(14, 4),
    -- Lowest and highest with outliers included: where they lie within x3, no price can be one.
    seen_low numeric(14, 4),
    seen_high numeric(14, 4),
    observations bigint NOT NULL,
    PRIMARY KEY (slug, seller, currency)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Where a renamed product went: the same code at the same seller under a newer slug.
CREATE INDEX catalog_slug_seller_summary_code
    ON catalog_slug_seller_summary (seller, product_code) WHERE product_code <> '';

-- One day of one line. At most four prices a day, whatever the polling rate.
CREATE TABLE catalog_price_points (
    slug text COLLATE "C" NOT NULL,
    seller text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    day date NOT NULL,
    first_price numeric(14, 4) NOT NULL,
    last_price numeric(14, 4) NOT NULL,
    low numeric(14, 4) NOT NULL,
    high numeric(14, 4) NOT NULL,
    observations integer NOT NULL,
    PRIMARY KEY (slug, seller, currency, day)
) WITH (fillfactor = 90);

-- Observations beyond x3 or /3 of the line's median, and what was decided about them.
CREATE TABLE catalog_outliers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug text COLLATE "C" NOT NULL,
    seller text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    scraped_at timestamptz NOT NULL,
    price numeric(14, 4) NOT NULL,
    median numeric(14, 4) NOT NULL,
    state text NOT NULL CHECK (state IN ('suspect', 'confirmed', 'accepted', 'rejected')),
    reviewed_by text NOT NULL DEFAULT '',
    reviewed_at timestamptz,
    UNIQUE (slug, seller, currency, scraped_at)
);
CREATE INDEX catalog_outliers_state ON catalog_outliers (state, scraped_at DESC);

-- How far each stage has come. The fold and staff raise the first number; the cards, then the
-- categories, follow it.
CREATE TABLE catalog_fold_state (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    folded bigint NOT NULL DEFAULT 0,
    projected bigint NOT NULL DEFAULT 0,
    categorised bigint NOT NULL DEFAULT 0
);
INSERT INTO catalog_fold_state DEFAULT VALUES;

-- One card a product. A seller's listing counts as current while it is no older than seven days
-- before that seller's newest snapshot: a truncated poll takes nothing off the shelf.
CREATE VIEW catalog_slug_projection AS
WITH seller_newest AS (
    SELECT seller, max(last_at) AS newest FROM catalog_slug_seller_summary GROUP BY seller
),
line AS (
    SELECT
        s.*,
        coalesce(p.rank, 2147483647) AS rank,
        s.is_available AND s.last_at >= n.newest - interval '7 days' AS on_sale,
        s.is_preorder AND s.last_at >= n.newest - interval '7 days' AS on_preorder
    FROM catalog_slug_seller_summary AS s
    JOIN seller_newest AS n USING (seller)
    LEFT JOIN catalog_seller_priority AS p USING (seller)
),
projection AS (
    SELECT
        slug,
        (array_agg(name ORDER BY rank, last_at DESC, seller, currency))[1] AS name,
        (array_agg(seller ORDER BY rank, last_at DESC, seller, currency))[1] AS seller,
        coalesce((array_agg(hero_image_url ORDER BY rank, last_at DESC, seller, currency)
            FILTER (WHERE hero_image_url <> ''))[1], '') AS hero_image_url,
        coalesce((array_agg(description ORDER BY rank, last_at DESC, seller, currency)
            FILTER (WHERE description <> ''))[1], '') AS description,
        count(DISTINCT seller)::integer AS sellers,
        bool_or(on_sale) AS is_available,
        bool_or(on_preorder) AS is_preorder,
        max(last_at) AS last_at
    FROM line
    GROUP BY slug
),
tags AS (
    SELECT slug, array_agg(DISTINCT tag ORDER BY tag) AS category_tags
    FROM line, unnest(category_tags) AS tag
    GROUP BY slug
),
best AS (
    SELECT DISTINCT ON (slug, currency)
        slug, currency, seller, last_price, prior_low,
        CASE WHEN last_price < prior_low
            THEN round(100 * (prior_low - last_price) / prior_low, 2) ELSE 0 END AS discount
    FROM line
    WHERE last_price IS NOT NULL AND (on_sale OR on_preorder)
    ORDER BY slug, currency, last_price, rank, last_at DESC, seller
),
offers AS (
    SELECT
        slug,
        jsonb_object_agg(currency, jsonb_build_object(
            'price', last_price, 'seller', seller, 'prior_low', prior_low, 'discount', discount
        )) AS offers,
        max(discount) AS discount
    FROM best
    GROUP BY slug
)
SELECT
    projection.slug,
    projection.name,
    projection.seller,
    projection.hero_image_url,
    projection.description,
    coalesce(tags.category_tags, '{}') AS category_tags,
    projection.sellers,
    coalesce(offers.offers, '{}') AS offers,
    projection.is_available,
    projection.is_preorder,
    coalesce(offers.discount, 0)::numeric(5, 2) AS discount,
    projection.last_at
FROM projection
LEFT JOIN tags USING (slug)
LEFT JOIN offers USING (slug);

CREATE MATERIALIZED VIEW catalog_slug_summary AS SELECT * FROM catalog_slug_projection;

-- REFRESH … CONCURRENTLY needs it; prefix search and keyset paging by slug read it.
CREATE UNIQUE INDEX catalog_slug_summary_slug ON catalog_slug_summary (slug);
-- Filter by category.
CREATE INDEX catalog_slug_summary_tags ON catalog_slug_summary USING gin (category_tags);
-- Newest first, by keyset.
CREATE INDEX catalog_slug_summary_last_at ON catalog_slug_summary (last_at DESC, slug);

CREATE VIEW catalog_category_projection AS
SELECT
    tag COLLATE "C" AS tag,
    count(*)::integer AS products,
    count(*) FILTER (WHERE is_available)::integer AS available
FROM catalog_slug_summary, unnest(category_tags) AS tag
GROUP BY tag;

CREATE MATERIALIZED VIEW catalog_category_counts AS SELECT * FROM catalog_category_projection;

CREATE UNIQUE INDEX catalog_category_counts_tag ON catalog_category_counts (tag);
