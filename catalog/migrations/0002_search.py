"""The words of all slugs and their variants: read models of the catalog's search."""

from django.db import migrations

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]

    operations = [migrations.RunSQL(ddl("catalog", "0004_search.sql"))]
