#!/bin/sh
# Runs once, in an empty database: the role of the web processes, with their timeouts.
# PgBouncer passes no start-up options on, so that the role has to carry them; the values are those
# of the role "web" in config/settings.py. The role inherits the owner's rights on tables and
# cannot become the owner (a superuser).
set -eu

psql --set ON_ERROR_STOP=1 --set password="$WEB_DB_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE spyglass_web LOGIN PASSWORD :'password';
GRANT spyglass TO spyglass_web WITH INHERIT TRUE, SET FALSE;
ALTER ROLE spyglass_web SET statement_timeout = '10s';
ALTER ROLE spyglass_web SET lock_timeout = '3s';
ALTER ROLE spyglass_web SET idle_in_transaction_session_timeout = '15s';
ALTER ROLE spyglass_web SET client_connection_check_interval = '5s';
ALTER DATABASE spyglass SET timezone = 'UTC';
SQL
