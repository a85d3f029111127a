"""What a restore left out of a partition, so that the rest is known as part of its file."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("config", "0006_staff_actions"),
    ]

    operations = [
        migrations.AddField(
            model_name="archivedpartition",
            name="left_out",
            field=models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="Rows that did not fit any more when it was restored.",
            ),
        ),
        migrations.AddField(
            model_name="archivedpartition",
            name="left_out_checksum",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
    ]
