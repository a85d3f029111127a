"""The SQL function by which read models announce a change."""

from django.db import migrations

from config.sqlfiles import ddl


class Migration(migrations.Migration):
    dependencies = [("config", "0002_initial")]

    operations = [migrations.RunSQL(ddl("config", "0001_generations.sql"))]
