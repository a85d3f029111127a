-- Search: the words of all slugs, and what a mistyped word may have meant.
--
-- A query is folded like a slug and split into words. Words that some product has (or starts with)
-- stand as they are; the others are replaced by words one edit away, which is one look-up in
-- catalog_word_variants: a word and all its forms with one letter left out, met by the same forms
-- of what was typed (Garbe 2012, "symmetric delete"). What is further away goes by trigrams.
-- Over 200,000 names: trigrams on the names themselves take 77 to 90 ms at p95 for a typo.

CREATE MATERIALIZED VIEW catalog_words AS
SELECT word COLLATE "C" AS word, count(*)::integer AS products
FROM (
    SELECT DISTINCT slug, word
    FROM catalog_slug_summary, unnest(string_to_array(slug, '-')) AS word
) AS words
GROUP BY word;

-- Is there a word that starts so?
CREATE UNIQUE INDEX catalog_words_word ON catalog_words (word);
-- Two edits in one word.
CREATE INDEX catalog_words_trgm ON catalog_words USING gin (word gin_trgm_ops);

-- What each word looks like with one letter left out, and whole. Only words of 4 to 24 letters: in
-- shorter ones an edit makes another word. A table, as only new words bring work.
CREATE TABLE catalog_word_variants (
    variant text COLLATE "C" NOT NULL,
    word text COLLATE "C" NOT NULL,
    PRIMARY KEY (variant, word)
);

-- Which products have all these words, or words that start so.
CREATE INDEX catalog_slug_summary_words ON catalog_slug_summary
    USING gin (array_to_tsvector(string_to_array(slug, '-')));

-- Takes the words of the slugs anew. Called by catalog_project_cards where the set of slugs changed.
CREATE FUNCTION catalog_project_search(force boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    IF force THEN
        DELETE FROM catalog_word_variants;
    END IF;
    REFRESH MATERIALIZED VIEW CONCURRENTLY catalog_words;
    DELETE FROM catalog_word_variants AS v
    WHERE NOT EXISTS (SELECT FROM catalog_words AS w WHERE w.word = v.word);
    INSERT INTO catalog_word_variants (variant, word)
    SELECT v.variant, w.word
    FROM catalog_words AS w
    CROSS JOIN LATERAL (
        SELECT w.word AS variant
        UNION
        SELECT left(w.word, i - 1) || substr(w.word, i + 1)
        FROM generate_series(1, length(w.word)) AS i
    ) AS v
    WHERE length(w.word) BETWEEN 4 AND 24 AND NOT EXISTS (
        SELECT FROM catalog_word_variants AS known
        WHERE known.variant = w.word AND known.word = w.word
    )
    ON CONFLICT DO NOTHING;
END $fn$;
