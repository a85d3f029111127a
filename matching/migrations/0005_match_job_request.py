"""The request that asked for a match job. The default is the database's: no row is rewritten, and
processes of the version before go on inserting."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("matching", "0004_lists"),
    ]

    operations = [
        migrations.AddField(
            model_name="matchjob",
            name="request_id",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="The request that asked last, in the log.",
            ),
        ),
    ]
