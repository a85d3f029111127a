"""How the nearest vectors are found: few-bit codes, covering indexes, and a graph for each side."""

from django.db import migrations

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("matching", "0001_initial")]

    operations = [migrations.RunSQL(ddl("matching", "0003_vectors.sql"))]
