"""The day until which a prior low was in force, and a fold that reads history only past it."""

from django.db import migrations, models

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("catalog", "0002_search")]

    operations = [
        migrations.RunSQL(
            ddl("catalog", "0005_prior_low.sql"),
            state_operations=[
                migrations.AddField(
                    "SellerSummary",
                    "prior_low_until",
                    models.DateField(null=True, help_text="The last day it was in force, UTC"),
                )
            ],
        )
    ]
