"""Compare the rows of an update by EXCEPT: a join of them was quadratic after a small first one."""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("matching", "0002_vectors"),
    ]

    operations = [
        pgtrigger.migrations.RemoveTrigger(
            model_name="item",
            name="items_updated",
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="item",
            trigger=pgtrigger.compiler.Trigger(
                name="items_updated",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    -- Never a join of old_rows and new_rows: it keeps the plan of its first use,\n                    -- nested loops, and would be quadratic for the next bulk update.\n                    DELETE FROM item_buckets AS b\n                    USING (\n                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,\n                            latitude\n                        FROM old_rows\n                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL\n                        EXCEPT\n                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,\n                            latitude\n                        FROM new_rows\n                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL\n                    ) AS gone\n                    WHERE b.item_id = gone.id;\n                    INSERT INTO item_buckets\n                        (geohash6, category, item_id, created_at, kind, owner_id, geohash,\n                        location_point)\n                    SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash,\n                        point(longitude, latitude)\n                    FROM (\n                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,\n                            latitude\n                        FROM new_rows\n                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL\n                        EXCEPT\n                        SELECT id, category, created_at, kind, owner_id, geohash, longitude,\n                            latitude\n                        FROM old_rows\n                        WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL\n                    ) AS come\n                    ORDER BY 1, 2, 3;\n                    DELETE FROM item_embeddings AS e USING new_rows AS n\n                    WHERE e.item_id = n.id AND (n.status <> 'open' OR n.is_deleted);\n                    UPDATE item_embeddings AS e SET\n                        kind = n.kind, category = n.category, country = n.country\n                    FROM new_rows AS n\n                    WHERE e.item_id = n.id\n                        AND (e.kind, e.category, e.country) IS DISTINCT FROM\n                            (n.kind, n.category, n.country);\n                    INSERT INTO item_embedding_changes (item_id)\n                    SELECT id\n                    FROM (\n                        SELECT id, kind, title, description, category, country\n                        FROM new_rows WHERE status = 'open' AND NOT is_deleted\n                        EXCEPT\n                        SELECT id, kind, title, description, category, country\n                        FROM old_rows WHERE status = 'open' AND NOT is_deleted\n                    ) AS changed;\n                    INSERT INTO item_term_changes (kind, term, items)\n                    SELECT changed.kind, counted.term, sum(changed.sign * counted.items)\n                    FROM (\n                        (\n                            SELECT id, kind, search, terms, -1 AS sign\n                            FROM old_rows WHERE status = 'open' AND NOT is_deleted\n                            EXCEPT\n                            SELECT id, kind, search, terms, -1\n                            FROM new_rows WHERE status = 'open' AND NOT is_deleted\n                        )\n                        UNION ALL\n                        (\n                            SELECT id, kind, search, terms, 1\n                            FROM new_rows WHERE status = 'open' AND NOT is_deleted\n                            EXCEPT\n                            SELECT id, kind, search, terms, 1\n                            FROM old_rows WHERE status = 'open' AND NOT is_deleted\n                        )\n                    ) AS changed, matching_counts(changed.search, changed.terms) AS counted\n                    GROUP BY 1, 2\n                    HAVING sum(changed.sign * counted.items) <> 0;\n                    RETURN NULL;\n                ",
                    hash="cab79723705cdfc51fa8021f3923b8277eb8477c",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_items_updated_e89df",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="items",
                    when="AFTER",
                ),
            ),
        ),
    ]
