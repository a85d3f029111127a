"""Let the geohash find its helper whatever the search path is: pg_restore fills tables without one."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("matching", "0006_dismissals_by_user"),
    ]

    operations = [
        migrations.RunSQL(
            "ALTER FUNCTION matching_geohash(double precision, double precision)"
            " SET search_path FROM CURRENT",
            "ALTER FUNCTION matching_geohash(double precision, double precision) RESET search_path",
        ),
    ]
