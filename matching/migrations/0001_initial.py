"""The tables of matching, and the triggers that keep what hangs on items.

The SQL files are what runs on the database; the model operations beside them tell Django's state.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import pgtrigger.compiler
import pgtrigger.migrations
import pgvector.django.halfvec
from django.conf import settings
from django.db import migrations, models

from config import partitions
from config.sqlfiles import ddl


def make_first_partitions(apps, schema_editor):
    for table in ("matches", "audit_logs"):
        partitions.ensure_ahead(table)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("config", "0003_generations"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(ddl("matching", "0001_items.sql")),
        migrations.RunSQL(
            ddl("matching", "0002_matches.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="AuditLog",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("actor_id", models.IntegerField(null=True)),
                        ("action", models.TextField()),
                        ("entity", models.TextField()),
                        ("entity_id", models.BigIntegerField()),
                        ("detail", models.JSONField(default=dict)),
                    ],
                    options={
                        "db_table": "audit_logs",
                    },
                ),
                migrations.CreateModel(
                    name="Item",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        (
                            "kind",
                            models.TextField(
                                choices=[
                                    ("lost", "Lost"),
                                    ("found", "Found"),
                                    ("wanted", "Wanted"),
                                    ("offered", "Offered"),
                                    ("resume", "Resume"),
                                    ("job", "Job"),
                                ]
                            ),
                        ),
                        (
                            "status",
                            models.TextField(
                                choices=[
                                    ("open", "Open"),
                                    ("matched", "Matched"),
                                    ("closed", "Closed"),
                                    ("expired", "Expired"),
                                ],
                                default="open",
                            ),
                        ),
                        ("category", models.TextField(blank=True, default="")),
                        ("title", models.TextField()),
                        ("description", models.TextField(blank=True, default="")),
                        ("attributes", models.JSONField(blank=True, default=dict)),
                        (
                            "country",
                            models.TextField(
                                blank=True, default="", help_text="ISO 3166-1 alpha-2"
                            ),
                        ),
                        ("city", models.TextField(blank=True, default="")),
                        (
                            "latitude",
                            models.FloatField(
                                blank=True, help_text="Degrees, -90 to 90", null=True
                            ),
                        ),
                        (
                            "longitude",
                            models.FloatField(
                                blank=True, help_text="Degrees, -180 to 180", null=True
                            ),
                        ),
                        (
                            "geohash",
                            models.GeneratedField(
                                db_persist=True,
                                expression=models.Func(
                                    "latitude", "longitude", function="matching_geohash"
                                ),
                                output_field=models.TextField(null=True),
                            ),
                        ),
                        (
                            "happened_on",
                            models.DateField(
                                blank=True, help_text="When it was lost, found …", null=True
                            ),
                        ),
                        (
                            "external_id",
                            models.TextField(
                                blank=True, default="", help_text="Its id in an import"
                            ),
                        ),
                        ("is_deleted", models.BooleanField(default=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "updated_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("expires_at", models.DateTimeField(blank=True, null=True)),
                        ("terms", models.TextField(default="", editable=False)),
                        ("features", models.JSONField(default=dict, editable=False)),
                        (
                            "owner",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="items",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                    ],
                    options={
                        "db_table": "items",
                    },
                ),
                migrations.CreateModel(
                    name="ItemBucket",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "geohash6",
                                "category",
                                "item_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("geohash6", models.CharField(max_length=12)),
                        ("category", models.CharField(max_length=100)),
                        ("item_id", models.BigIntegerField()),
                        ("created_at", models.DateTimeField(null=True)),
                        ("kind", models.TextField()),
                        ("owner_id", models.IntegerField()),
                        ("geohash", models.TextField()),
                    ],
                    options={
                        "db_table": "item_buckets",
                    },
                ),
                migrations.CreateModel(
                    name="ItemEmbeddingChange",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("item_id", models.BigIntegerField()),
                        (
                            "queued_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "item_embedding_changes",
                    },
                ),
                migrations.CreateModel(
                    name="ItemTerm",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "kind",
                                "term",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("kind", models.TextField()),
                        ("term", models.TextField()),
                        ("items", models.BigIntegerField()),
                    ],
                    options={
                        "db_table": "item_terms",
                    },
                ),
                migrations.CreateModel(
                    name="ItemTermChange",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("kind", models.TextField()),
                        ("term", models.TextField()),
                        ("items", models.BigIntegerField()),
                    ],
                    options={
                        "db_table": "item_term_changes",
                    },
                ),
                migrations.CreateModel(
                    name="ItemEmbedding",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "item_id",
                                "model",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "item",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="embeddings",
                                to="matching.item",
                            ),
                        ),
                        ("model", models.TextField()),
                        ("kind", models.TextField()),
                        ("category", models.TextField()),
                        ("country", models.TextField()),
                        ("content_hash", models.BinaryField()),
                        ("text_embedding", pgvector.django.halfvec.HalfVectorField(dimensions=384)),
                    ],
                    options={
                        "db_table": "item_embeddings",
                    },
                ),
                migrations.CreateModel(
                    name="ServingModel",
                    fields=[
                        (
                            "id",
                            models.SmallIntegerField(default=1, primary_key=True, serialize=False),
                        ),
                        ("model", models.TextField()),
                        (
                            "since",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "item_embedding_serving",
                    },
                ),
                migrations.CreateModel(
                    name="Match",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "updated_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "pair",
                            models.TextField(
                                choices=[
                                    ("lost_found", "lost ↔ found"),
                                    ("wanted_offered", "wanted ↔ offered"),
                                    ("resume_job", "resume ↔ job"),
                                ]
                            ),
                        ),
                        ("score", models.FloatField(help_text="0 to 1")),
                        ("components", models.JSONField()),
                        ("degraded", models.TextField(default="")),
                        (
                            "state",
                            models.TextField(
                                choices=[
                                    ("suggested", "Suggested"),
                                    ("confirmed", "confirmed by both"),
                                    ("dismissed", "Dismissed"),
                                    ("expired", "Expired"),
                                ],
                                default="suggested",
                            ),
                        ),
                        ("seeker_confirmed_at", models.DateTimeField(null=True)),
                        ("offer_confirmed_at", models.DateTimeField(null=True)),
                        (
                            "offer",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="matching.item",
                            ),
                        ),
                        (
                            "seeker",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="matching.item",
                            ),
                        ),
                    ],
                    options={
                        "verbose_name_plural": "matches",
                        "db_table": "matches",
                    },
                ),
                migrations.CreateModel(
                    name="MatchDismissal",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "seeker_id",
                                "offer_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "dismissed_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "dismissed_by",
                            models.ForeignKey(
                                null=True,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                        (
                            "offer",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="matching.item",
                            ),
                        ),
                        (
                            "seeker",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="matching.item",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "match_dismissals",
                    },
                ),
                migrations.CreateModel(
                    name="MatchJob",
                    fields=[
                        ("task_id", models.UUIDField(primary_key=True, serialize=False)),
                        ("query", models.JSONField(default=dict)),
                        (
                            "priority",
                            models.SmallIntegerField(
                                choices=[
                                    (0, "a person waits"),
                                    (1, "an item changed"),
                                    (2, "scored again in the background"),
                                ]
                            ),
                        ),
                        (
                            "state",
                            models.TextField(
                                choices=[
                                    ("queued", "Queued"),
                                    ("running", "Running"),
                                    ("done", "Done"),
                                    ("failed", "Failed"),
                                    ("cancelled", "Cancelled"),
                                ],
                                default="queued",
                            ),
                        ),
                        ("progress", models.TextField(default="")),
                        ("attempts", models.SmallIntegerField(default=0)),
                        ("lease_owner", models.TextField(default="")),
                        ("host", models.TextField(default="")),
                        ("pid", models.IntegerField(default=0)),
                        ("lease_expires_at", models.DateTimeField(null=True)),
                        (
                            "submitted_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("started_at", models.DateTimeField(null=True)),
                        ("finished_at", models.DateTimeField(null=True)),
                        ("expires_at", models.DateTimeField(null=True)),
                        ("result", models.JSONField(null=True)),
                        ("degraded", models.TextField(default="")),
                        ("error", models.TextField(default="")),
                        (
                            "item",
                            models.ForeignKey(
                                null=True,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="matching.item",
                            ),
                        ),
                        (
                            "owner",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                    ],
                    options={
                        "db_table": "match_jobs",
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name="PairWeights",
            fields=[
                (
                    "pair",
                    models.TextField(
                        choices=[
                            ("lost_found", "lost ↔ found"),
                            ("wanted_offered", "wanted ↔ offered"),
                            ("resume_job", "resume ↔ job"),
                        ],
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("weights", models.JSONField(default=dict)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("updated_by", models.TextField(blank=True, default="")),
            ],
            options={
                "verbose_name_plural": "weights",
                "db_table": "match_weights",
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "subject",
                    models.TextField(
                        choices=[
                            ("confirmed_by_other", "the other side confirmed"),
                            ("confirmed_by_both", "both sides confirmed"),
                        ]
                    ),
                ),
                ("seeker_id", models.BigIntegerField()),
                ("offer_id", models.BigIntegerField()),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("read_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "match_notifications",
            },
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="item",
            trigger=pgtrigger.compiler.Trigger(
                name="items_inserted",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO item_buckets\n                        (geohash6, category, item_id, created_at, kind, owner_id, geohash,\n                        location_point)\n                    SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash,\n                        location_point\n                    FROM new_rows\n                    WHERE status = 'open' AND NOT is_deleted AND geohash IS NOT NULL\n                    ORDER BY 1, 2, 3;\n                    INSERT INTO item_embedding_changes (item_id)\n                    SELECT id FROM new_rows WHERE status = 'open' AND NOT is_deleted;\n                    INSERT INTO item_term_changes (kind, term, items)\n                    SELECT kind, added.term, sum(added.items)\n                    FROM new_rows, matching_counts(search, terms) AS added\n                    WHERE status = 'open' AND NOT is_deleted\n                    GROUP BY 1, 2\n                    HAVING sum(added.items) <> 0;\n                    RETURN NULL;\n                ",
                    hash="3c633118562824c63fa1f7ec5f15fd5c1b81ae94",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_items_inserted_a03d8",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="items",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="item",
            trigger=pgtrigger.compiler.Trigger(
                name="items_updated",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    DELETE FROM item_buckets AS b\n                    USING old_rows AS o JOIN new_rows AS n USING (id)\n                    WHERE b.item_id = n.id\n                        AND (n.kind, n.category, n.geohash, n.owner_id, n.status, n.is_deleted)\n                            IS DISTINCT FROM\n                            (o.kind, o.category, o.geohash, o.owner_id, o.status, o.is_deleted);\n                    INSERT INTO item_buckets\n                        (geohash6, category, item_id, created_at, kind, owner_id, geohash,\n                        location_point)\n                    SELECT left(n.geohash, 6), n.category, n.id, n.created_at, n.kind, n.owner_id,\n                        n.geohash, n.location_point\n                    FROM old_rows AS o JOIN new_rows AS n USING (id)\n                    WHERE n.status = 'open' AND NOT n.is_deleted AND n.geohash IS NOT NULL\n                        AND (n.kind, n.category, n.geohash, n.owner_id, n.status, n.is_deleted)\n                            IS DISTINCT FROM\n                            (o.kind, o.category, o.geohash, o.owner_id, o.status, o.is_deleted)\n                    ORDER BY 1, 2, 3;\n                    DELETE FROM item_embeddings AS e USING new_rows AS n\n                    WHERE e.item_id = n.id AND (n.status <> 'open' OR n.is_deleted);\n                    UPDATE item_embeddings AS e SET\n                        kind = n.kind, category = n.category, country = n.country\n                    FROM new_rows AS n\n                    WHERE e.item_id = n.id\n                        AND (e.kind, e.category, e.country) IS DISTINCT FROM\n                            (n.kind, n.category, n.country);\n                    INSERT INTO item_embedding_changes (item_id)\n                    SELECT n.id FROM old_rows AS o JOIN new_rows AS n USING (id)\n                    WHERE n.status = 'open' AND NOT n.is_deleted\n                        AND (n.kind, n.title, n.description, n.category, n.country, n.status,\n                                n.is_deleted)\n                            IS DISTINCT FROM\n                            (o.kind, o.title, o.description, o.category, o.country, o.status,\n                                o.is_deleted);\n                    INSERT INTO item_term_changes (kind, term, items)\n                    SELECT changed.kind, counted.term, sum(changed.sign * counted.items)\n                    FROM (\n                        SELECT o.kind, o.search, o.terms, -1 AS sign\n                        FROM old_rows AS o JOIN new_rows AS n USING (id)\n                        WHERE o.status = 'open' AND NOT o.is_deleted\n                            AND (n.kind, n.status, n.is_deleted, n.search, n.terms)\n                                IS DISTINCT FROM (o.kind, o.status, o.is_deleted, o.search, o.terms)\n                        UNION ALL\n                        SELECT n.kind, n.search, n.terms, 1\n                        FROM old_rows AS o JOIN new_rows AS n USING (id)\n                        WHERE n.status = 'open' AND NOT n.is_deleted\n                            AND (n.kind, n.status, n.is_deleted, n.search, n.terms)\n                                IS DISTINCT FROM (o.kind, o.status, o.is_deleted, o.search, o.terms)\n                    ) AS changed, matching_counts(changed.search, changed.terms) AS counted\n                    GROUP BY 1, 2\n                    HAVING sum(changed.sign * counted.items) <> 0;\n                    RETURN NULL;\n                ",
                    hash="858e994049c754fad0789b7a6f9171acd4638082",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_items_updated_e89df",
                    referencing="REFERENCING OLD TABLE AS old_rows  NEW TABLE AS new_rows ",
                    table="items",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="item",
            trigger=pgtrigger.compiler.Trigger(
                name="items_deleted",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO item_term_changes (kind, term, items)\n                    SELECT kind, gone.term, -sum(gone.items)\n                    FROM old_rows, matching_counts(search, terms) AS gone\n                    WHERE status = 'open' AND NOT is_deleted\n                    GROUP BY 1, 2\n                    HAVING sum(gone.items) <> 0;\n                    RETURN NULL;\n                ",
                    hash="66eda014dff9306aa48cd7be05e9a504246e87fe",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_items_deleted_6caed",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="items",
                    when="AFTER",
                ),
            ),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(
                models.F("user"),
                models.OrderBy(models.F("created_at"), descending=True),
                name="match_notifications_user",
            ),
        ),
        migrations.AddIndex(
            model_name="notification",
            index=models.Index(models.F("created_at"), name="match_notifications_age"),
        ),
        migrations.AddConstraint(
            model_name="notification",
            constraint=models.UniqueConstraint(
                fields=("user", "seeker_id", "offer_id", "subject"), name="match_notifications_once"
            ),
        ),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
