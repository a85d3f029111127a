#!/bin/sh
# Runs once, in an empty database: the role of the web processes. PgBouncer passes no start-up
# options on, so the role carries their limits; `migrate` sets them (DB_ROLES in compose.yaml). The
# role inherits the owner's rights on tables and cannot become the owner (a superuser).
set -eu

psql --set ON_ERROR_STOP=1 --set password="$WEB_DB_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE spyglass_web LOGIN PASSWORD :'password';
GRANT spyglass TO spyglass_web WITH INHERIT TRUE, SET FALSE;
ALTER DATABASE spyglass SET timezone = 'UTC';
SQL
