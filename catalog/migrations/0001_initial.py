"""The catalog's tables, read models, fold and triggers.

The SQL files are what runs on the database; the model operations beside them tell Django's state.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

from config import partitions
from config.sqlfiles import ddl

SELLERS_FIRST = ("tlamagames", "tlamagase")


def prefer_first_sellers(apps, schema_editor):
    apps.get_model("catalog", "SellerPriority").objects.bulk_create(
        apps.get_model("catalog", "SellerPriority")(seller=seller, rank=rank)
        for rank, seller in enumerate(SELLERS_FIRST, start=1)
    )


def make_first_partitions(apps, schema_editor):
    partitions.ensure_ahead("product_price_snapshots")


class Migration(migrations.Migration):
    initial = True

    dependencies = [("config", "0003_generations")]

    operations = [
        migrations.RunSQL(
            ddl("catalog", "0001_snapshots.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="Snapshot",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("scraped_at", models.DateTimeField()),
                        ("seller", models.TextField()),
                        ("product_code", models.TextField(blank=True)),
                        ("product_name_normalized", models.TextField(verbose_name="slug")),
                        ("product_name_original", models.TextField(verbose_name="name")),
                        ("price", models.DecimalField(decimal_places=4, max_digits=14, null=True)),
                        ("currency", models.TextField()),
                        ("is_available", models.BooleanField()),
                        ("is_preorder", models.BooleanField()),
                        (
                            "category_tags",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.TextField(), size=None
                            ),
                        ),
                        ("hero_image_url", models.TextField(blank=True)),
                        ("description", models.TextField(blank=True)),
                        ("ingest_run_id", models.BigIntegerField(null=True)),
                    ],
                    options={
                        "verbose_name": "price snapshot",
                        "db_table": "product_price_snapshots",
                    },
                ),
                migrations.CreateModel(
                    name="Change",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("snapshot_id", models.BigIntegerField(null=True)),
                        ("slug", models.TextField()),
                        ("seller", models.TextField()),
                        ("currency", models.TextField()),
                        ("scraped_at", models.DateTimeField(null=True)),
                    ],
                    options={
                        "db_table": "catalog_changes",
                    },
                ),
            ],
        ),
        migrations.CreateModel(
            name="SellerPriority",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("seller", models.TextField(unique=True)),
                ("rank", models.PositiveIntegerField(db_index=True, default=100)),
            ],
            options={
                "verbose_name_plural": "seller priority",
                "db_table": "catalog_seller_priority",
                "ordering": ("rank", "seller"),
            },
        ),
        migrations.CreateModel(
            name="IngestRun",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("source", models.TextField()),
                ("source_hash", models.TextField(blank=True)),
                (
                    "state",
                    models.TextField(
                        choices=[
                            ("running", "Running"),
                            ("finished", "Finished"),
                            ("failed", "Failed"),
                            ("interrupted", "interrupted (its process died)"),
                        ],
                        default="running",
                    ),
                ),
                (
                    "started_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("rows_read", models.BigIntegerField(default=0)),
                ("accepted", models.BigIntegerField(default=0)),
                ("duplicate", models.BigIntegerField(default=0)),
                ("conflicts", models.BigIntegerField(default=0)),
                ("rejected", models.BigIntegerField(default=0)),
                ("reasons", models.JSONField(blank=True, default=dict, help_text="{reason: rows}")),
                ("rejects_path", models.TextField(blank=True)),
                ("error", models.TextField(blank=True)),
                ("host", models.TextField(blank=True)),
                ("pid", models.IntegerField(null=True)),
                (
                    "owner",
                    models.TextField(blank=True, help_text="Which process: see config.leases."),
                ),
                ("user_label", models.TextField(blank=True)),
            ],
            options={
                "db_table": "catalog_ingest_run",
                "indexes": [
                    models.Index(
                        models.OrderBy(models.F("started_at"), descending=True),
                        name="ingest_run_started",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="IngestReject",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("line", models.BigIntegerField()),
                ("reason", models.TextField()),
                ("field", models.TextField(blank=True)),
                ("detail", models.TextField(blank=True)),
                (
                    "raw",
                    models.TextField(blank=True, help_text="At most 1,000 characters of the row."),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rejects",
                        to="catalog.ingestrun",
                    ),
                ),
            ],
            options={
                "db_table": "catalog_ingest_reject",
            },
        ),
        migrations.RunSQL(
            ddl("catalog", "0002_read_models.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="SellerSummary",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "slug",
                                "seller",
                                "currency",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("slug", models.TextField()),
                        ("seller", models.TextField()),
                        ("currency", models.TextField()),
                        ("name", models.TextField()),
                        ("product_code", models.TextField()),
                        (
                            "category_tags",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.TextField(), size=None
                            ),
                        ),
                        ("hero_image_url", models.TextField()),
                        ("description", models.TextField()),
                        ("details_at", models.DateTimeField(null=True)),
                        ("first_at", models.DateTimeField()),
                        ("last_at", models.DateTimeField()),
                        ("is_available", models.BooleanField()),
                        ("is_preorder", models.BooleanField()),
                        (
                            "last_price",
                            models.DecimalField(decimal_places=4, max_digits=14, null=True),
                        ),
                        ("last_price_at", models.DateTimeField(null=True)),
                        ("price_since", models.DateTimeField(null=True)),
                        (
                            "previous_price",
                            models.DecimalField(decimal_places=4, max_digits=14, null=True),
                        ),
                        (
                            "prior_low",
                            models.DecimalField(decimal_places=4, max_digits=14, null=True),
                        ),
                        ("lowest", models.DecimalField(decimal_places=4, max_digits=14, null=True)),
                        (
                            "highest",
                            models.DecimalField(decimal_places=4, max_digits=14, null=True),
                        ),
                        ("observations", models.BigIntegerField()),
                    ],
                    options={
                        "db_table": "catalog_slug_seller_summary",
                    },
                ),
                migrations.CreateModel(
                    name="PricePoint",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "slug",
                                "seller",
                                "currency",
                                "day",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("slug", models.TextField()),
                        ("seller", models.TextField()),
                        ("currency", models.TextField()),
                        ("day", models.DateField(help_text="UTC")),
                        ("first_price", models.DecimalField(decimal_places=4, max_digits=14)),
                        ("last_price", models.DecimalField(decimal_places=4, max_digits=14)),
                        ("low", models.DecimalField(decimal_places=4, max_digits=14)),
                        ("high", models.DecimalField(decimal_places=4, max_digits=14)),
                        ("observations", models.IntegerField()),
                    ],
                    options={
                        "db_table": "catalog_price_points",
                    },
                ),
                migrations.CreateModel(
                    name="Outlier",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("slug", models.TextField()),
                        ("seller", models.TextField()),
                        ("currency", models.TextField()),
                        ("scraped_at", models.DateTimeField()),
                        ("price", models.DecimalField(decimal_places=4, max_digits=14)),
                        ("median", models.DecimalField(decimal_places=4, max_digits=14)),
                        (
                            "state",
                            models.TextField(
                                choices=[
                                    ("suspect", "Suspect"),
                                    ("confirmed", "confirmed by a second observation"),
                                    ("accepted", "accepted by staff"),
                                    ("rejected", "rejected by staff"),
                                ]
                            ),
                        ),
                        ("reviewed_by", models.TextField(blank=True)),
                        ("reviewed_at", models.DateTimeField(blank=True, null=True)),
                    ],
                    options={
                        "db_table": "catalog_outliers",
                    },
                ),
                migrations.CreateModel(
                    name="SellerActivity",
                    fields=[
                        ("seller", models.TextField(primary_key=True, serialize=False)),
                        ("newest", models.DateTimeField()),
                    ],
                    options={
                        "verbose_name_plural": "seller activity",
                        "db_table": "catalog_seller_activity",
                    },
                ),
                migrations.CreateModel(
                    name="SlugSummary",
                    fields=[
                        ("slug", models.TextField(primary_key=True, serialize=False)),
                        ("name", models.TextField()),
                        ("seller", models.TextField(verbose_name="leading seller")),
                        ("hero_image_url", models.TextField()),
                        ("description", models.TextField()),
                        (
                            "category_tags",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.TextField(), size=None
                            ),
                        ),
                        ("sellers", models.IntegerField()),
                        (
                            "offers",
                            models.JSONField(
                                help_text="{currency: {price, seller, prior_low, discount}}"
                            ),
                        ),
                        ("is_available", models.BooleanField()),
                        ("is_preorder", models.BooleanField()),
                        (
                            "discount",
                            models.DecimalField(
                                decimal_places=2, help_text="percent", max_digits=5
                            ),
                        ),
                        ("last_at", models.DateTimeField()),
                    ],
                    options={
                        "verbose_name": "product",
                        "db_table": "catalog_slug_summary",
                        "ordering": ("slug",),
                    },
                ),
                migrations.CreateModel(
                    name="CategoryCount",
                    fields=[
                        ("tag", models.TextField(primary_key=True, serialize=False)),
                        ("products", models.IntegerField()),
                        ("available", models.IntegerField()),
                    ],
                    options={
                        "verbose_name_plural": "category counts",
                        "db_table": "catalog_category_counts",
                        "managed": False,
                    },
                ),
            ],
        ),
        migrations.RunSQL(ddl("catalog", "0003_fold.sql")),
        pgtrigger.migrations.AddTrigger(
            model_name="snapshot",
            trigger=pgtrigger.compiler.Trigger(
                name="catalog_log_inserts",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO catalog_changes (\n                        snapshot_id, slug, seller, currency, scraped_at, price, is_available,\n                        is_preorder, product_code, name, has_details)\n                    SELECT id, product_name_normalized, seller, currency, scraped_at, price,\n                        is_available, is_preorder, product_code, product_name_original,\n                        category_tags <> '{}' OR hero_image_url <> '' OR description <> ''\n                    FROM new_rows;\n                    RETURN NULL;\n                ",
                    hash="6e9abb12f82f4d5de46548f1408e1dc7dabf5e77",
                    level="STATEMENT",
                    operation="INSERT",
                    pgid="pgtrigger_catalog_log_inserts_a6cd4",
                    referencing="REFERENCING NEW TABLE AS new_rows ",
                    table="product_price_snapshots",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="snapshot",
            trigger=pgtrigger.compiler.Trigger(
                name="catalog_log_deletes",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="\n                    INSERT INTO catalog_changes (slug, seller, currency)\n                    SELECT DISTINCT product_name_normalized, seller, currency FROM old_rows;\n                    RETURN NULL;\n                ",
                    hash="32b5a416cdab552698777845750115870bcbe191",
                    level="STATEMENT",
                    operation="DELETE",
                    pgid="pgtrigger_catalog_log_deletes_b40b8",
                    referencing="REFERENCING OLD TABLE AS old_rows ",
                    table="product_price_snapshots",
                    when="AFTER",
                ),
            ),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name="snapshot",
            trigger=pgtrigger.compiler.Trigger(
                name="catalog_append_only",
                sql=pgtrigger.compiler.UpsertTriggerSql(
                    func="RAISE EXCEPTION 'product_price_snapshots is append-only: insert or delete';",
                    hash="0ea1a52150d3a2164ceaa2c3a6e77b976987689d",
                    level="STATEMENT",
                    operation="UPDATE",
                    pgid="pgtrigger_catalog_append_only_7060b",
                    table="product_price_snapshots",
                    when="BEFORE",
                ),
            ),
        ),
        migrations.RunPython(prefer_first_sellers, migrations.RunPython.noop),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
