"""Matching on the admin's first page: its queues, the recall of searches, and what grows."""

from collections.abc import Iterable

from django.urls import reverse
from django.utils import timezone

from config.admin.base import COUNT_LIMIT, shortened, span
from config.partitions import estimated_rows
from config.vitals import Question, Vital, register
from matching import embedding, queries
from matching.models import Item

LATE_SECONDS = 60  # a match job that waits for longer is late
EMBEDDINGS_LATE = 10_000  # some twenty seconds of work


@register
def queues() -> Iterable[Vital]:
    """The match queue, what failed in it, and the queue of the embedder."""
    state = queries.queue_state()
    waiting = sum(row["jobs"] for row in state["waiting"])
    failed = sum(row["jobs"] for row in state["failures"])
    oldest = min((row["oldest"] for row in state["waiting"] if row["oldest"]), default=None)
    age = (timezone.now() - oldest).total_seconds() if oldest else 0
    link = reverse("admin:matching_matchjob_changelist")
    yield Vital(
        key="matching.queue",
        question=Question.STUCK,
        title="Match queue",
        number=waiting,
        value=f"{waiting:,} waiting",
        note=f"oldest {span(age)}, {state['running']} running" if waiting else "",
        link=link,
        help="Look at the queue",
        level="bad" if state["stuck"] else "warn" if age > LATE_SECONDS else "ok",
        permission="matching.view_matchjob",
    )
    yield Vital(
        key="matching.failed",
        question=Question.STUCK,
        title="Failed match jobs",
        number=failed,
        value=f"{failed:,}",
        note=shortened(state["failures"][0]["error"], 60) if failed else "",
        link=f"{link}?state=failed",
        help="Retry them",
        level="bad" if failed else "ok",
        permission="matching.view_matchjob",
    )
    depth = embedding.queue_depth()
    yield Vital(
        key="matching.embeddings",
        question=Question.STUCK,
        title="Items to embed",
        number=depth,
        value=f"{depth:,} waiting",
        note="found by words and place until then" if depth else "",
        link=reverse("admin:config_jobrun_changelist") + "?job=embed_items",
        help="Look at embed_items",
        level="warn" if depth > EMBEDDINGS_LATE else "ok",
        permission="config.view_jobrun",
    )


@register
def size() -> Iterable[Vital]:
    """Items that are not deleted."""
    live = Item.objects.filter(is_deleted=False)[:COUNT_LIMIT].count()
    if live == COUNT_LIMIT:
        live = max(live, estimated_rows("items"))
    yield Vital(
        key="matching.items",
        question=Question.GROWS,
        title="Items",
        number=live,
        value=f"{live:,}",
        link=reverse("admin:matching_item_changelist"),
        permission="matching.view_item",
    )
