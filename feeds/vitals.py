"""Feeds on the admin's first page: what is under way to timelines and the index, and what grows."""

from collections.abc import Iterable

from django.urls import reverse

from config.admin.base import span
from config.partitions import estimated_rows
from config.vitals import Question, Vital, register
from feeds import indexing, queries

LATE_SECONDS = 30


@register
def timelines() -> Iterable[Vital]:
    """Posts under way, deliveries that fail, the search index."""
    found = queries.gauges()
    late = found["oldest_seconds"] > LATE_SECONDS
    link = reverse("admin:feeds_feedstate_changelist")
    yield Vital(
        key="feeds.fanouts",
        question=Question.STUCK,
        title="Posts under way to timelines",
        number=found["waiting"],
        value=f"{found['waiting']:,}",
        note=f"the oldest for {span(found['oldest_seconds'])}" if found["waiting"] else "",
        link=link,
        help="Look at the timelines",
        level="bad" if found["failing"] else "warn" if late else "ok",
        permission="feeds.view_feedstate",
    )
    waiting, lag = indexing.lag()
    yield Vital(
        key="feeds.index",
        question=Question.STALE,
        title="Search of posts",
        number=waiting,
        value=f"{waiting:,} waiting" if waiting else "up to date",
        note=f"the oldest for {span(lag)}" if waiting else "",
        link=link,
        help="Look at the index",
        level="warn" if lag > LATE_SECONDS else "ok",
        permission="feeds.view_feedstate",
    )


@register
def size() -> Iterable[Vital]:
    """Posts, and the rows of all timelines."""
    for key, title, table, page in (
        ("feeds.posts", "Posts", "posts", "feeds_post"),
        ("feeds.rows", "Rows of timelines", "user_feeds", "feeds_feedstate"),
    ):
        rows = estimated_rows(table)
        yield Vital(
            key=key,
            question=Question.GROWS,
            title=title,
            number=rows,
            value=f"about {rows:,}",
            link=reverse(f"admin:{page}_changelist"),
            permission=f"{page.replace('_', '.view_')}",
        )
