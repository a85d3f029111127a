"""What the catalog does by itself: refresh every quarter of an hour, reconcile every night."""

from datetime import timedelta

from catalog import uploads
from config import jobs, readmodels
from config.jobs import Run, job


@job(
    name="refresh_catalog",
    every=timedelta(minutes=15),
    timeout=timedelta(minutes=14),
    description="Fold new snapshots into lines, cards and categories.",
)
def refresh_catalog(run: Run) -> int:
    """The rows are the snapshots folded."""
    folded = 0
    for model in readmodels.select(["catalog"]):
        run.check()
        done = readmodels.refresh(model, progress=lambda text: run.progress(at=text))
        run.detail[model.name] = done.rows
        if model.name == "catalog_slug_seller_summary":
            folded = done.rows
    return folded


@job(
    name="reconcile_catalog",
    cron="10 4 * * *",
    timeout=timedelta(minutes=60),
    description="Compare lines, cards and categories with the snapshots; mend nothing.",
)
def reconcile_catalog(run: Run) -> int:
    """The rows are the differences found; `manage.py reconcile catalog --fix` mends them."""
    return readmodels.reconcile_app("catalog", run)


@job(
    name="mend_catalog",
    timeout=timedelta(minutes=60),
    description="Compare lines, cards and categories with the snapshots, and mend what differs.",
)
def mend_catalog(run: Run) -> int:
    """On demand only: staff start it where `reconcile_catalog` found differences."""
    return readmodels.reconcile_app("catalog", run, fix=True)


@job(
    name="ingest_uploads",
    every=timedelta(minutes=15),
    timeout=timedelta(minutes=60),
    description="Ingest the files that staff sent in by the admin, then refresh.",
)
def ingest_uploads(run: Run) -> int:
    """The rows are the snapshots accepted. Queued at each upload; the schedule is for retries."""
    accepted = uploads.ingest_waiting(run)
    if accepted:
        jobs.enqueue("refresh_catalog", trigger="ingest_uploads")
    return accepted
