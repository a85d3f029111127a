"""Extensions. pg_stat_statements needs a superuser: without one it is left out, `doctor` says so."""

from django.db import migrations

EXTENSIONS = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS vector;
DO $do$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
EXCEPTION WHEN insufficient_privilege OR undefined_file THEN
    RAISE NOTICE 'pg_stat_statements was not installed: it needs a superuser';
END $do$;
"""


class Migration(migrations.Migration):
    dependencies = ()
    operations = (migrations.RunSQL(EXTENSIONS, migrations.RunSQL.noop),)
