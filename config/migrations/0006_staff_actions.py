"""The log of what staff did."""

import django.db.models.functions.datetime
from django.db import migrations, models

from config import audit, partitions
from config.sqlfiles import ddl


def make_first_partitions(apps, schema_editor):
    partitions.ensure_ahead(audit.TABLE)


class Migration(migrations.Migration):
    dependencies = [
        ("config", "0005_archived_partitions"),
    ]

    operations = [
        migrations.RunSQL(
            ddl("config", "0002_staff_actions.sql"),
            "DROP TABLE staff_actions; DROP FUNCTION staff_actions_refuse()",
            state_operations=[
                migrations.CreateModel(
                    name="StaffAction",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "created_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now()
                            ),
                        ),
                        ("actor_id", models.IntegerField(null=True)),
                        (
                            "actor",
                            models.TextField(
                                blank=True, help_text="The login name, as it was then."
                            ),
                        ),
                        ("via", models.TextField(help_text="admin, login, or command.")),
                        ("address", models.TextField(blank=True)),
                        ("action", models.TextField()),
                        ("entity", models.TextField(blank=True, help_text="app.model")),
                        ("entity_id", models.TextField(blank=True)),
                        (
                            "changes",
                            models.JSONField(default=dict, help_text="{field: [before, after]}"),
                        ),
                        ("detail", models.JSONField(default=dict)),
                    ],
                    options={
                        "db_table": "staff_actions",
                    },
                ),
            ],
        ),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
