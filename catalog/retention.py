"""What expires in the catalog, besides whole months of snapshots (`partitions.py`)."""

from config.retention import Rule, days_before, register

# Rejects first: they refer to their run.
register(
    Rule(
        name="ingest_rejects",
        table="catalog_ingest_reject",
        condition="run_id IN (SELECT id FROM catalog_ingest_run WHERE started_at < %(before)s)",
        parameters=days_before("CATALOG_INGEST_RUNS_RETENTION_DAYS"),
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
        parameters=days_before("CATALOG_INGEST_RUNS_RETENTION_DAYS"),
    )
)
