"""Cards are written by a plan for the products at hand, however often a session has folded."""

from django.db import migrations

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("catalog", "0002_search")]

    operations = [
        migrations.RunSQL(
            ddl("catalog", "0005_custom_plans.sql"),
            "ALTER FUNCTION catalog_write_cards(text[]) RESET plan_cache_mode",
        )
    ]
