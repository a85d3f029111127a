"""An index by which a source that goes finds its watches."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # CONCURRENTLY: nobody waits
    dependencies = [("discovery", "0001_initial")]

    operations = [
        # What a build that died left.
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS idx_discovery_watches_source", migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY idx_discovery_watches_source ON discovery_watches (source_id)",
            "DROP INDEX CONCURRENTLY IF EXISTS idx_discovery_watches_source",
        ),
    ]
