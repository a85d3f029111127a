"""The tables of discovery and the function that records a poll.

The SQL files are what runs on the database; the model operations beside them tell Django's state.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from config import partitions
from config.sqlfiles import ddl


def make_first_partitions(apps, schema_editor):
    for table in ("drop_events", "user_notifications"):
        partitions.ensure_ahead(table)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("config", "0003_generations"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(ddl("discovery", "0001_discovery.sql")),
        migrations.RunSQL(ddl("discovery", "0002_record_poll.sql")),
        migrations.RunSQL(
            ddl("discovery", "0003_watches.sql"),
            state_operations=[
                migrations.CreateModel(
                    name="Bucket",
                    fields=[
                        ("bucket_id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("day", models.DateField(null=True)),
                        ("time_slot", models.TextField()),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("checked_at", models.DateTimeField(null=True)),
                        ("changed_at", models.DateTimeField(null=True)),
                        ("last_success_at", models.DateTimeField(null=True)),
                        ("consecutive_failures", models.IntegerField(default=0)),
                        ("open_slots", models.IntegerField(default=0)),
                        ("is_full", models.BooleanField(default=False)),
                    ],
                    options={
                        "db_table": "discovery_buckets",
                    },
                ),
                migrations.CreateModel(
                    name="FeedSegment",
                    fields=[
                        ("segment", models.TextField(primary_key=True, serialize=False)),
                        ("payload", models.BinaryField()),
                        ("items", models.IntegerField()),
                        (
                            "built_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                    ],
                    options={
                        "db_table": "feed_cache",
                    },
                ),
                migrations.CreateModel(
                    name="Source",
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
                        ("name", models.TextField(unique=True)),
                        ("title", models.TextField(blank=True, default="")),
                        (
                            "provider",
                            models.TextField(
                                choices=[
                                    ("push", "polls are sent to the API"),
                                    ("gbfs", "GBFS (shared bikes, scooters)"),
                                    ("json", "JSON by a mapping"),
                                    ("demo", "made up, for a look around"),
                                ],
                                default="push",
                            ),
                        ),
                        ("config", models.JSONField(blank=True, default=dict)),
                        ("timezone", models.TextField(default="UTC")),
                        ("is_by_calendar", models.BooleanField(null=True)),
                        (
                            "window_days",
                            models.SmallIntegerField(
                                blank=True,
                                help_text="Empty: the setting. 0: no days, one standing bucket.",
                                null=True,
                            ),
                        ),
                        ("poll_seconds", models.IntegerField(default=60)),
                        ("is_paused", models.BooleanField(default=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("last_attempt_at", models.DateTimeField(null=True)),
                        ("last_success_at", models.DateTimeField(null=True)),
                        ("consecutive_failures", models.IntegerField(default=0)),
                        ("last_error", models.TextField(blank=True, default="")),
                        (
                            "next_poll_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("lease_owner", models.TextField(default="")),
                        ("lease_expires_at", models.DateTimeField(null=True)),
                        ("validators", models.JSONField(default=dict)),
                    ],
                    options={
                        "db_table": "discovery_sources",
                    },
                ),
                migrations.CreateModel(
                    name="Venue",
                    fields=[
                        ("venue_id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("key", models.TextField(help_text="As the source names it.")),
                        ("name", models.TextField(blank=True, default="")),
                        ("city", models.TextField(blank=True, default="")),
                        ("latitude", models.FloatField(blank=True, null=True)),
                        ("longitude", models.FloatField(blank=True, null=True)),
                        ("url", models.TextField(blank=True, default="")),
                        ("capacity", models.IntegerField(blank=True, null=True)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("last_seen_at", models.DateTimeField()),
                        (
                            "source",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="venues",
                                to="discovery.source",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "venues",
                        "unique_together": {("source", "key")},
                    },
                ),
                migrations.CreateModel(
                    name="Calendar",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "bucket_id",
                                "calendar",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("calendar", models.TextField()),
                        ("baseline_at", models.DateTimeField()),
                        ("polled_at", models.DateTimeField()),
                        ("empty_polls", models.SmallIntegerField(default=0)),
                        (
                            "bucket",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="calendars",
                                to="discovery.bucket",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "bucket_calendars",
                    },
                ),
                migrations.CreateModel(
                    name="Closure",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "bucket_id",
                                "slot_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("slot_id", models.TextField()),
                        ("closed_at", models.DateTimeField()),
                        ("opened_at", models.DateTimeField()),
                        ("drop_id", models.BigIntegerField(null=True)),
                        ("drop_minute", models.DateTimeField(null=True)),
                        (
                            "bucket",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.bucket",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "slot_closures",
                    },
                ),
                migrations.CreateModel(
                    name="Scan",
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
                        ("polled_at", models.DateTimeField()),
                        (
                            "recorded_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "outcome",
                            models.TextField(
                                choices=[
                                    ("recorded", "Recorded"),
                                    ("replayed", "replayed: it was recorded before"),
                                    ("late", "late: a newer one came before"),
                                    ("failed", "Failed"),
                                    ("unchanged", "unchanged, says the source"),
                                ]
                            ),
                        ),
                        ("buckets", models.IntegerField(default=0)),
                        ("slots", models.IntegerField(default=0)),
                        ("opened", models.IntegerField(default=0)),
                        ("closed", models.IntegerField(default=0)),
                        ("spared", models.IntegerField(default=0)),
                        ("left_out", models.IntegerField(default=0)),
                        ("milliseconds", models.FloatField(null=True)),
                        ("error", models.TextField(default="")),
                        (
                            "source",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="scans",
                                to="discovery.source",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "discovery_scans",
                    },
                ),
                migrations.AddField(
                    model_name="bucket",
                    name="source",
                    field=models.ForeignKey(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="buckets",
                        to="discovery.source",
                    ),
                ),
                migrations.CreateModel(
                    name="VenueStats",
                    fields=[
                        (
                            "venue",
                            models.OneToOneField(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                primary_key=True,
                                related_name="stats",
                                serialize=False,
                                to="discovery.venue",
                            ),
                        ),
                        ("drops", models.BigIntegerField(default=0)),
                        (
                            "closings",
                            models.BigIntegerField(
                                default=0, help_text="Of drops: open_seconds sums over them."
                            ),
                        ),
                        ("open_seconds", models.FloatField(default=0)),
                        (
                            "hours",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.BigIntegerField(),
                                help_text="Drops by hour of the source's day.",
                                size=None,
                            ),
                        ),
                        ("last_opened_at", models.DateTimeField(null=True)),
                        ("last_closed_at", models.DateTimeField(null=True)),
                    ],
                    options={
                        "db_table": "venue_stats",
                    },
                ),
                migrations.CreateModel(
                    name="SlotStats",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "venue_id",
                                "local_time",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("local_time", models.TextField()),
                        ("drops", models.BigIntegerField(default=0)),
                        ("closings", models.BigIntegerField(default=0)),
                        ("open_seconds", models.FloatField(default=0)),
                        (
                            "hours",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.BigIntegerField(), size=None
                            ),
                        ),
                        ("last_opened_at", models.DateTimeField(null=True)),
                        ("last_closed_at", models.DateTimeField(null=True)),
                        (
                            "venue",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="slot_stats",
                                to="discovery.venue",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "slot_stats",
                    },
                ),
                migrations.CreateModel(
                    name="DropEvent",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "event_type",
                            models.TextField(
                                choices=[("opened", "Opened"), ("reopened", "opened again")]
                            ),
                        ),
                        ("bucket_id", models.BigIntegerField()),
                        ("slot_id", models.TextField()),
                        ("opened_at", models.DateTimeField()),
                        ("opened_minute", models.DateTimeField()),
                        ("closed_at", models.DateTimeField(null=True)),
                        ("starts_at", models.DateTimeField(null=True)),
                        ("local_time", models.TextField(default="")),
                        ("party_min", models.SmallIntegerField(null=True)),
                        ("party_max", models.SmallIntegerField(null=True)),
                        ("payload", models.JSONField(null=True)),
                        ("published_at", models.DateTimeField(null=True)),
                        (
                            "source",
                            models.ForeignKey(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.source",
                            ),
                        ),
                        (
                            "venue",
                            models.ForeignKey(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.venue",
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "drop",
                        "db_table": "drop_events",
                    },
                ),
                migrations.CreateModel(
                    name="Availability",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "bucket_id",
                                "slot_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("slot_id", models.TextField()),
                        ("calendar", models.TextField()),
                        ("starts_at", models.DateTimeField(null=True)),
                        ("local_time", models.TextField(default="")),
                        ("party_min", models.SmallIntegerField(null=True)),
                        ("party_max", models.SmallIntegerField(null=True)),
                        ("payload", models.JSONField(null=True)),
                        ("opened_at", models.DateTimeField()),
                        ("drop_id", models.BigIntegerField(null=True)),
                        ("drop_minute", models.DateTimeField(null=True)),
                        ("misses", models.SmallIntegerField(default=0)),
                        ("missing_since", models.DateTimeField(null=True)),
                        (
                            "bucket",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="slots",
                                to="discovery.bucket",
                            ),
                        ),
                        (
                            "venue",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="slots",
                                to="discovery.venue",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "availability_state",
                    },
                ),
                migrations.CreateModel(
                    name="Watch",
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
                        ("name", models.TextField(blank=True, default="")),
                        ("is_active", models.BooleanField(default=True)),
                        ("has_venues", models.BooleanField(default=False)),
                        ("date_from", models.DateField(blank=True, null=True)),
                        ("date_to", models.DateField(blank=True, null=True)),
                        (
                            "weekdays",
                            django.contrib.postgres.fields.ArrayField(
                                base_field=models.SmallIntegerField(),
                                blank=True,
                                default=list,
                                size=None,
                            ),
                        ),
                        ("time_from", models.TextField(blank=True, default="")),
                        ("time_to", models.TextField(blank=True, default="")),
                        ("party_size", models.SmallIntegerField(blank=True, null=True)),
                        ("latitude", models.FloatField(blank=True, null=True)),
                        ("longitude", models.FloatField(blank=True, null=True)),
                        ("radius_m", models.IntegerField(blank=True, null=True)),
                        (
                            "channel",
                            models.TextField(
                                choices=[
                                    ("email", "e-mail"),
                                    ("webhook", "Webhook"),
                                    ("apprise", "Apprise URL"),
                                    ("none", "none: look at the list"),
                                ]
                            ),
                        ),
                        ("target", models.TextField(blank=True, default="")),
                        ("secret", models.TextField(blank=True, default="")),
                        ("timezone", models.TextField(default="UTC")),
                        ("quiet_from", models.TimeField(blank=True, null=True)),
                        ("quiet_to", models.TimeField(blank=True, null=True)),
                        ("cooldown_seconds", models.IntegerField(default=300)),
                        ("max_per_hour", models.SmallIntegerField(default=12)),
                        ("last_told_at", models.DateTimeField(null=True)),
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
                            "source",
                            models.ForeignKey(
                                blank=True,
                                null=True,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.source",
                            ),
                        ),
                        (
                            "user",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                    ],
                    options={
                        "verbose_name_plural": "watches",
                        "db_table": "discovery_watches",
                    },
                ),
                migrations.CreateModel(
                    name="UserNotification",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("drop_id", models.BigIntegerField()),
                        ("drop_minute", models.DateTimeField()),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        (
                            "state",
                            models.TextField(
                                choices=[
                                    ("pending", "Pending"),
                                    ("sending", "Sending"),
                                    ("sent", "Sent"),
                                    ("gone", "gone before it could be told"),
                                    ("dead", "given up"),
                                ],
                                default="pending",
                            ),
                        ),
                        ("attempts", models.SmallIntegerField(default=0)),
                        (
                            "due_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("lease_owner", models.TextField(default="")),
                        ("lease_expires_at", models.DateTimeField(null=True)),
                        ("told_at", models.DateTimeField(null=True)),
                        ("already_gone", models.BooleanField(default=False)),
                        ("error", models.TextField(default="")),
                        ("message_id", models.UUIDField(null=True)),
                        (
                            "user",
                            models.ForeignKey(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                        (
                            "watch",
                            models.ForeignKey(
                                db_constraint=False,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.watch",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "user_notifications",
                    },
                ),
                migrations.CreateModel(
                    name="WatchVenue",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "venue_id",
                                "watch_id",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "venue",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="discovery.venue",
                            ),
                        ),
                        (
                            "watch",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="venues",
                                to="discovery.watch",
                            ),
                        ),
                    ],
                    options={
                        "db_table": "discovery_watch_venues",
                    },
                ),
            ],
        ),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
