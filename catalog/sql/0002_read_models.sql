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

-- Up to when each seller is known. A listing counts as current while it is no older than seven days
-- before that: a truncated poll takes nothing off the shelf.
CREATE TABLE catalog_seller_activity (
    seller text COLLATE "C" PRIMARY KEY,
    newest timestamptz NOT NULL
);

-- One card a product. Only the keys of search are indexed, so that a new price stays in its page.
CREATE TABLE catalog_slug_summary (
    slug text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    seller text COLLATE "C" NOT NULL,
    hero_image_url text NOT NULL,
    description text NOT NULL,
    category_tags text[] NOT NULL,
    sellers integer NOT NULL,
    offers jsonb NOT NULL,
    is_available boolean NOT NULL,
    is_preorder boolean NOT NULL,
    discount numeric(5, 2) NOT NULL,
    last_at timestamptz NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Filter by category.
CREATE INDEX catalog_slug_summary_tags ON catalog_slug_summary USING gin (category_tags);

-- How far each stage has come. Folds and staff raise `folded`; what is projected, then counted by
-- category, follows. `slug_set` grows whenever a card comes or goes, and the search follows it.
CREATE TABLE catalog_fold_state (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    folded bigint NOT NULL DEFAULT 0,
    projected bigint NOT NULL DEFAULT 0,
    categorised bigint NOT NULL DEFAULT 0,
    slug_set bigint NOT NULL DEFAULT 0,
    searched bigint NOT NULL DEFAULT 0,
    all_cards_stale boolean NOT NULL DEFAULT false
);
INSERT INTO catalog_fold_state DEFAULT VALUES;

-- What the cards of these products, or of all for NULL, should say. Sorts and one GROUP BY, no joins
-- but to the few sellers: nothing that a planner without statistics could get wrong.
CREATE FUNCTION catalog_cards_of(only_slugs text[])
RETURNS SETOF catalog_slug_summary LANGUAGE sql STABLE AS $fn$
    WITH line AS (
        SELECT
            s.slug, s.seller, s.currency, s.name, s.hero_image_url, s.description, s.category_tags,
            s.last_at, s.last_price, s.prior_low,
            s.is_available AND s.last_at >= n.newest - interval '7 days' AS on_sale,
            s.is_preorder AND s.last_at >= n.newest - interval '7 days' AS on_preorder,
            -- The preferred seller's line first.
            row_number() OVER (
                PARTITION BY s.slug
                ORDER BY coalesce(p.rank, 2147483647), s.last_at DESC, s.seller, s.currency
            ) AS place
        FROM catalog_slug_seller_summary AS s
        JOIN catalog_seller_activity AS n USING (seller)
        LEFT JOIN catalog_seller_priority AS p USING (seller)
        WHERE only_slugs IS NULL OR s.slug = ANY (only_slugs)
    ),
    priced AS (
        SELECT
            line.*,
            last_price IS NOT NULL AND (on_sale OR on_preorder) AS offered,
            CASE WHEN last_price < prior_low
                THEN round(100 * (prior_low - last_price) / prior_low, 2) ELSE 0 END AS discount
        FROM line
    ),
    ranked AS (
        SELECT
            priced.*,
            offered AND 1 = row_number() OVER (
                PARTITION BY slug, currency ORDER BY offered DESC, last_price, place
            ) AS best
        FROM priced
    ),
    product AS (
        SELECT
            slug,
            (array_agg(name ORDER BY place))[1] AS name,
            (array_agg(seller ORDER BY place))[1] AS seller,
            (array_agg(hero_image_url ORDER BY place) FILTER (WHERE hero_image_url <> ''))[1]
                AS hero_image_url,
            (array_agg(description ORDER BY place) FILTER (WHERE description <> ''))[1]
                AS description,
            string_agg(array_to_string(category_tags, chr(31)), chr(31))
                FILTER (WHERE category_tags <> '{}') AS tags,
            count(DISTINCT seller)::integer AS sellers,
            jsonb_object_agg(currency, jsonb_build_object(
                'price', last_price, 'seller', seller, 'prior_low', prior_low, 'discount', discount
            )) FILTER (WHERE best) AS offers,
            bool_or(on_sale) AS is_available,
            bool_or(on_preorder) AS is_preorder,
            max(discount) FILTER (WHERE best) AS discount,
            max(last_at) AS last_at
        FROM ranked
        GROUP BY slug
    )
    SELECT
        slug, name, seller,
        coalesce(hero_image_url, '') AS hero_image_url,
        coalesce(description, '') AS description,
        ARRAY(
            SELECT DISTINCT tag FROM unnest(string_to_array(tags, chr(31))) AS tag ORDER BY tag
        ) AS category_tags,
        sellers,
        coalesce(offers, '{}') AS offers,
        is_available, is_preorder,
        coalesce(discount, 0)::numeric(5, 2) AS discount,
        last_at
    FROM product
$fn$;

CREATE VIEW catalog_slug_projection AS SELECT * FROM catalog_cards_of(NULL);

CREATE VIEW catalog_category_projection AS
SELECT
    tag COLLATE "C" AS tag,
    count(*)::integer AS products,
    count(*) FILTER (WHERE is_available)::integer AS available
FROM catalog_slug_summary, unnest(category_tags) AS tag
GROUP BY tag;

-- Which categories there are, and how many products each has.
CREATE MATERIALIZED VIEW catalog_category_counts AS SELECT * FROM catalog_category_projection;

CREATE UNIQUE INDEX catalog_category_counts_tag ON catalog_category_counts (tag);
