"""An index by which a user who goes finds the dismissals."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False  # CONCURRENTLY: nobody waits
    dependencies = [("matching", "0005_match_job_request")]

    operations = [
        # What a build that died left.
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS idx_match_dismissals_user", migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY idx_match_dismissals_user ON match_dismissals (dismissed_by_id)",
            "DROP INDEX CONCURRENTLY IF EXISTS idx_match_dismissals_user",
        ),
    ]
