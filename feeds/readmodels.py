"""The read models of feeds: kept timelines, and the search index."""

import time
from datetime import timedelta

from django.db import connection, transaction

from config.readmodels import Progress, ReadModel, Reconciled, Refreshed, register
from config.sqlfiles import Statements, queries
from feeds import fanout, indexing
from feeds import queries as reads
from feeds.search import backend

_sql = Statements("feeds")

PEOPLE_AT_ONCE = 200
MOST_MISSING = 100_000  # of one part
POSTS_AT_ONCE = 5_000
SAMPLES = 20
FEED_SECONDS = 120  # of one refresh
INDEX_SECONDS = 45  # of one refresh; the next goes on


def _refresh_timelines(full: bool, progress: Progress) -> Refreshed:
    """Delivers, builds and fills what waits; `full` builds every kept timeline anew."""
    rows = 0
    if full:
        with connection.cursor() as cursor:
            cursor.execute(queries("feeds")["rebuild_timelines"])
            rows = cursor.rowcount
    return Refreshed(rows + fanout.drain(budget_seconds=FEED_SECONDS))


def _reconcile_timelines(fix: bool, progress: Progress) -> Reconciled:
    """Looks for posts that are missing in kept timelines, and for authors noted as too old.

    What is there and should not be is no difference: whether a post may be seen is looked at when
    it is read.
    """
    late = [author for (author,) in _sql.rows("wrong_pull_authors", fix=fix)]
    samples = [f"pull_authors: {author} has newer posts" for author in late[:SAMPLES]]
    checked, count, after = 0, len(late), 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                queries("feeds")["part_of_states"], {"after": after, "rows": PEOPLE_AT_ONCE}
            )
            until, people = cursor.fetchone()
            if until is None:
                break
            cursor.execute(
                queries("feeds")["missing_posts"],
                {"after": after, "until": until, "most": MOST_MISSING},
            )
            missing = cursor.fetchall()
            if fix and missing:
                users, posts, times = map(list, zip(*missing, strict=True))
                cursor.execute(
                    queries("feeds")["deliver_missing"],
                    {"users": users, "posts": posts, "times": times},
                )
        after = until
        checked += people
        count += len(missing)
        samples += [f"user_feeds: post {post} is missing for {user}" for user, post, _ in missing]
        del samples[SAMPLES:]
        progress(f"{checked:,} timelines compared")
    return Reconciled(checked, count, samples, reads.gauges()["waiting"], fixed=fix)


def _refresh_index(full: bool, progress: Progress) -> Refreshed:
    """Indexes what has happened; `full` builds the index anew beside this one."""
    rows = 0
    if full:
        rows = indexing.reindex(lambda count: progress(f"{count:,} posts indexed"))
    deadline = time.monotonic() + INDEX_SECONDS
    while (full or time.monotonic() < deadline) and (done := indexing.index_next()):
        rows += done
        progress(f"{rows:,} events indexed")
    return Refreshed(rows, changed=bool(rows))


def _reconcile_index(fix: bool, progress: Progress) -> Reconciled:
    """Compares each post with its document, but those that something has just happened to."""
    checked = count = after = pending = 0
    samples: list[str] = []
    while True:
        rows = _sql.rows("compare_index", after=after, rows=POSTS_AT_ONCE)
        [(until, compared, waiting, wrong)] = rows
        if until is None:
            break
        if fix and wrong:
            with connection.cursor() as cursor:
                cursor.execute(queries("feeds")["touch_posts"], {"ids": wrong})
        after = until
        checked, pending, count = checked + compared, pending + waiting, count + len(wrong)
        samples += [f"post_documents: post {post} differs" for post in wrong[:SAMPLES]]
        progress(f"{checked:,} posts compared")
    if fix:
        backend().tidy()
        while count and indexing.index_next():
            progress("indexing what differed")
    return Reconciled(checked, count, samples[:SAMPLES], pending, fixed=fix)


register(
    ReadModel(
        name="user_feeds",
        app="feeds",
        description="Kept timelines: what was delivered to whom",
        refresh=_refresh_timelines,
        reconcile=_reconcile_timelines,
        backlog=lambda: int(reads.gauges()["waiting"]),
        max_age=timedelta(minutes=10),
    )
)
register(
    ReadModel(
        name=indexing.INDEX,
        app="feeds",
        description="The search index of posts",
        refresh=_refresh_index,
        reconcile=_reconcile_index,
        backlog=lambda: indexing.lag()[0],
        max_age=timedelta(minutes=10),
    )
)
