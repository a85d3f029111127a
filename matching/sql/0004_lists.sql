-- About the `wanted` nearest vectors of a side by its lists (IVFFlat), of which `probes` are read. None
-- where matching/lists.py has made no lists: a scan of the side would take their place.
-- By the inner product, which orders vectors of unit length as the cosine does, so that the planner
-- takes these indexes here, and the graphs in matching_neighbours.
CREATE FUNCTION matching_listed(kind text, query halfvec, wanted integer, probes integer)
RETURNS TABLE (item_id bigint, model text, category text, country text, distance double precision)
LANGUAGE plpgsql STABLE
SET ivfflat.probes = 1
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET max_parallel_workers_per_gather = 0
AS $fn$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'item_embeddings'::regclass AND indisvalid
            AND starts_with(relname, format('idx_items_embedding_ivfflat_%s_', kind))
    ) THEN
        RETURN;
    END IF;
    PERFORM set_config('ivfflat.probes', probes::text, true);
    RETURN QUERY EXECUTE format(
        'SELECT item_id, model, category, country, text_embedding <=> $1 FROM item_embeddings'
        ' WHERE kind = %L ORDER BY text_embedding <#> $1 LIMIT $2', kind
    ) USING query, wanted;
END $fn$;
