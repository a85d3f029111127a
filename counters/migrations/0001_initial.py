"""The tables of the counters.

The SQL files are what runs on the database; the model operations beside them tell Django's state.
"""

import django.db.models.functions.datetime
from django.db import migrations, models

from config import partitions
from config.sqlfiles import ddl


def make_first_partitions(apps, schema_editor):
    partitions.ensure_ahead("counter_events")


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("config", "0003_generations"),
    ]

    operations = [
        migrations.RunSQL(
            ddl("counters", "0001_counters.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="CounterState",
                    fields=[
                        ("counter_key", models.IntegerField(primary_key=True, serialize=False)),
                        ("name", models.TextField(unique=True)),
                        (
                            "mode",
                            models.TextField(
                                choices=[("inline", "Inline"), ("deferred", "Deferred")],
                                default="inline",
                            ),
                        ),
                        (
                            "switched_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("reconciled_at", models.DateTimeField(null=True)),
                        ("compared", models.BigIntegerField(null=True)),
                        ("wrong", models.BigIntegerField(null=True)),
                        ("divergence", models.BigIntegerField(null=True)),
                    ],
                    options={
                        "verbose_name": "counter",
                        "db_table": "counter_states",
                    },
                ),
                migrations.CreateModel(
                    name="DeadLetter",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("entry", models.TextField(help_text="The id of its entry in the stream.")),
                        ("payload", models.TextField()),
                        ("reason", models.TextField()),
                        ("attempts", models.IntegerField(default=1)),
                        (
                            "died_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "dead letter",
                        "db_table": "counter_dead_letters",
                    },
                ),
                migrations.CreateModel(
                    name="Delta",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("counter_key", models.IntegerField()),
                        ("target_id", models.BigIntegerField()),
                        ("delta", models.BigIntegerField()),
                        (
                            "appended_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "counter_deltas",
                    },
                ),
                migrations.CreateModel(
                    name="SeenEvent",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "day",
                                "event_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("day", models.DateField()),
                        ("event_id", models.UUIDField()),
                    ],
                    options={
                        "db_table": "counter_events",
                    },
                ),
            ],
        ),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
