"""Without an index that only cost each refresh: no list of recent items asks for a category alone."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # CONCURRENTLY: nobody waits
    dependencies = [("matching", "0007_geohash_finds_its_helper")]

    operations = [
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS idx_mv_recent_items_category",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_mv_recent_items_category"
            " ON mv_recent_items (category, status, created_at DESC, id DESC)",
        ),
    ]
