"""What matching does by itself: match, embed, expire, refresh, reconcile, measure."""

from datetime import timedelta

from django.conf import settings
from django.db import connection

from config import daemons, readmodels
from config.jobs import Run, job
from config.sqlfiles import queries
from matching import actions, embedding, lists, metrics, queue, worker

daemons.register(daemons.Daemon("match worker", "match_worker", lambda: settings.MATCHING_WORKERS))


@job(
    name="match_queue",
    every=timedelta(minutes=1),
    timeout=timedelta(minutes=14),
    description="Give back the match jobs of dead workers; where no match worker runs, do them.",
)
def match_queue(run: Run) -> int | None:
    """The rows are the match jobs done here, None where workers do them."""
    if worker.is_alive():
        run.detail["rescued"] = queue.rescue()
        return None

    def go_on(done: int) -> bool:
        run.progress(done)
        return True

    return worker.drain(go_on)


@job(
    name="embed_items",
    every=timedelta(minutes=1),
    timeout=timedelta(minutes=14),
    description="Bring the vectors of new and changed items up to date.",
)
def embed_items(run: Run) -> int:
    """The rows are the vectors written."""
    return embedding.drain(progress=run.progress)


@job(
    name="train_vector_lists",
    cron="20 3 * * *",
    timeout=timedelta(minutes=60),
    description="Make the lists of vectors of large sides, and make them anew as these grow.",
)
def train_vector_lists(run: Run) -> int:
    """The rows are the indexes made; their names stand in the run's detail."""
    run.detail["made"] = lists.train(run.check)
    return len(run.detail["made"])


@job(
    name="expire_items",
    every=timedelta(minutes=5),
    timeout=timedelta(minutes=4),
    description="Expire the items whose time is over, and their suggestions.",
)
def expire_items(run: Run) -> int:
    """The rows are the items expired."""

    def go_on() -> bool:
        run.check()
        return True

    return actions.expire_items(go_on=go_on)


@job(
    name="refresh_matching",
    every=timedelta(minutes=15),
    timeout=timedelta(minutes=14),
    description="Refresh the recent items, the public ones and the rarity of words.",
)
def refresh_matching(run: Run) -> int:
    """The rows are the changes taken in."""
    return readmodels.refresh_app("matching", run)


@job(
    name="reconcile_matching",
    cron="40 4 * * *",
    timeout=timedelta(minutes=60),
    description="Compare matching's read models with the items; mend nothing.",
)
def reconcile_matching(run: Run) -> int:
    """The rows are the differences found; `manage.py reconcile matching --fix` mends them."""
    return readmodels.reconcile_app("matching", run)


@job(
    name="mend_matching",
    timeout=timedelta(minutes=60),
    description="Compare matching's read models with the items, and mend what differs.",
)
def mend_matching(run: Run) -> int:
    """On demand only: staff start it where `reconcile_matching` found differences."""
    return readmodels.reconcile_app("matching", run, fix=True)


@job(
    name=metrics.MEASURES,
    every=timedelta(hours=1),
    timeout=timedelta(minutes=5),
    description="Measure what is too dear for every look at the metrics: the fullest buckets.",
)
def measure_matching(run: Run) -> None:
    """What it finds stands in the run's detail."""
    with connection.cursor() as cursor:
        cursor.execute(queries("matching")["largest_buckets"], {"limit": 10})
        buckets = cursor.fetchall()
    run.detail["largest_bucket"] = buckets[0][2] if buckets else 0
    run.detail["buckets"] = [
        {"geohash6": cell, "category": category, "items": items}
        for cell, category, items in buckets
    ]
