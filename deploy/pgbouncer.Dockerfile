FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends pgbouncer \
    && rm -rf /var/lib/apt/lists/*
COPY pgbouncer.ini /etc/pgbouncer/pgbouncer.ini
USER postgres
EXPOSE 6432
# The password reaches the file at start, so that the image holds none.
CMD ["sh", "-c", "umask 077 && printf '\"spyglass_web\" \"%s\"\\n' \"$WEB_DB_PASSWORD\" > /tmp/userlist.txt && exec pgbouncer /etc/pgbouncer/pgbouncer.ini"]
