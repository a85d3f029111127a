"""What every installation does: sign of life, samples, partitions, backup, archive, retention."""

from datetime import timedelta
from pathlib import Path

from django.conf import settings

from config import archive, backup, partitions, retention, runs, vitals
from config.jobs import CANARY, Run, job

PRUNE_BUDGET = timedelta(minutes=10)
ARCHIVE_BUDGET = timedelta(minutes=8)


@job(
    name=CANARY,
    every=timedelta(minutes=1),
    timeout=timedelta(seconds=30),
    description="Show that the queue does work, and close the log rows of runs that died.",
)
def canary(run: Run) -> None:
    """Run by hand it says nothing about the queue, and so stamps nothing."""
    if run.queued:
        runs.beat(CANARY, host=run.record.host, pid=run.record.pid)
    if abandoned := runs.abandon_dead():
        run.detail["abandoned"] = abandoned


@job(
    name="sample_vitals",
    every=vitals.SAMPLED_EVERY,
    timeout=timedelta(minutes=2),
    description="Note the numbers of the first page, which shows how they move.",
)
def sample_vitals(run: Run) -> None:
    """How many, in the run's detail: every five minutes is too often for a line in the log."""
    run.detail["samples"] = vitals.sample()


@job(
    name="partitions_ahead",
    every=timedelta(days=1),
    timeout=timedelta(minutes=5),
    description="Make the partitions that the coming months need.",
)
def partitions_ahead(run: Run) -> int:
    """Apart from `prune`, so that a drop that fails never stops creation."""
    made = partitions.ensure_ahead()
    run.detail["made"] = made
    return len(made)


@job(
    name="backup",
    cron="15 1 * * *" if settings.BACKUP_DIR else "",
    timeout=timedelta(hours=2),
    description="Back the database up into BACKUP_DIR.",
)
def back_up(run: Run) -> int:
    """On demand only where BACKUP_DIR names no directory, so that no run succeeds for nothing."""
    if not settings.BACKUP_DIR:
        raise backup.BackupError("BACKUP_DIR is not set")
    root = Path(settings.BACKUP_DIR)
    made, gone = backup.make(
        root,
        jobs=2,
        keep=settings.BACKUP_KEEP,
        progress=lambda step, done, due: run.progress(step=step, done=done, due=due),
    )
    run.detail["folder"] = made.folder.name
    run.detail["removed"] = len(gone)
    return made.manifest.total_rows


@job(
    name="archive",
    cron="45 2 * * *",
    timeout=timedelta(minutes=14),
    description="Bring partitions past retention into the archive, and drop them.",
)
def archive_expired(run: Run) -> int | None:
    """Before `prune`, which drops nothing that must be in the archive and is not.

    Begins no partition after its budget. Fails, after all were tried, where one did not go.
    """
    if not settings.ARCHIVE_URL:
        return None
    done = archive.run(
        budget=ARCHIVE_BUDGET, progress=lambda done, due, name: run.progress(partition=name)
    )
    run.detail.update(partitions=done.partitions, complete=done.complete)
    if done.failures:
        raise archive.ArchiveError("; ".join(done.failures[:5]))
    return done.rows


@job(
    name="prune",
    cron="15 3 * * *",
    timeout=PRUNE_BUDGET + timedelta(minutes=4),
    description="Remove what has expired, in small batches.",
)
def prune(run: Run) -> int:
    """Stops at its time budget; what is left goes the next night."""
    report = retention.prune(
        budget=PRUNE_BUDGET, progress=lambda name, rows: run.progress(**{name: rows})
    )
    run.detail["incomplete"] = [done.name for done in report if not done.complete]
    return sum(done.rows for done in report)


retention.register(
    retention.Rule(
        name="job_runs",
        table="config_jobrun",
        condition="started_at < %(before)s AND state <> 'running'",
        parameters=retention.days_before("JOB_RUNS_RETENTION_DAYS"),
    )
)
# The queue keeps its newest successes by itself (save_limit), but every failure.
retention.register(
    retention.Rule(
        name="queue_failures",
        table="django_q_task",
        condition="stopped < %(before)s AND NOT success",
        parameters=retention.days_before("JOB_RUNS_RETENTION_DAYS"),
    )
)
retention.register(
    retention.Rule(
        name="idempotency_records",
        table="config_idempotencyrecord",
        condition="expires_at < now()",
        parameters=dict,
    )
)
retention.register(
    retention.Rule(
        name="vital_samples",
        table="vital_samples",
        condition="at < now() - interval '8 days'",
        parameters=dict,
        primary_key=("at", "key"),
    )
)


# Refused from the moment they expire; kept a while, so that staff see what expired.
retention.register(
    retention.Rule(
        name="expired_tokens",
        table="config_apitoken",
        condition="expiry < %(before)s",
        parameters=retention.days_before("EXPIRED_TOKENS_RETENTION_DAYS"),
        primary_key=("digest",),
    )
)
