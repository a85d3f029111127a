"""Samples of the vital signs, by which the first page shows how they move."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("config", "0003_generations"),
    ]

    operations = [
        migrations.CreateModel(
            name="VitalSample",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "at", "key", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("key", models.TextField()),
                ("value", models.FloatField()),
            ],
            options={
                "db_table": "vital_samples",
            },
        ),
    ]
