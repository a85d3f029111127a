"""Lists of vectors beside the graphs, for large sides."""

from django.db import migrations

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("matching", "0003_updates_without_joins")]

    operations = [migrations.RunSQL(ddl("matching", "0004_lists.sql"))]
