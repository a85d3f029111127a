"""What expires in the catalog, besides whole months of snapshots (`partitions.py`)."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from config.retention import Rule, register


def _expired_runs() -> dict | None:
    days = settings.CATALOG_INGEST_RUNS_RETENTION_DAYS
    return {"before": timezone.now() - timedelta(days=days)} if days else None


# Rejects first: they refer to their run.
register(
    Rule(
        name="ingest_rejects",
        table="catalog_ingest_reject",
        condition="run_id IN (SELECT id FROM catalog_ingest_run WHERE started_at < %(before)s)",
        parameters=_expired_runs,
    )
)
register(
    Rule(
        name="ingest_runs",
        table="catalog_ingest_run",
        condition="""
            started_at < %(before)s AND NOT EXISTS (
                SELECT FROM catalog_ingest_reject WHERE run_id = catalog_ingest_run.id
            )""",
        parameters=_expired_runs,
    )
)
