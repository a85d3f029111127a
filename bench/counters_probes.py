"""Counters inside a process of the project: `python -m bench.counters_probes NAME '{…}'`."""

import random
import time
from datetime import UTC, datetime
from uuid import UUID

import django

from bench.harness import answer_probe

django.setup()

from config import valkey  # noqa: E402 -- these need the settings
from counters import actions, declared, queries, stream  # noqa: E402
from counters.actions import Event  # noqa: E402
from counters.declared import Counter  # noqa: E402
from counters.models import SeenEvent  # noqa: E402
from feeds.models import Post  # noqa: E402

OFFERED_AT_ONCE = 5_000
REPEATED = 0.02  # of the entries come a second time


def fold() -> dict:
    """How long it takes to fold all that waits."""
    started = time.perf_counter()
    folded = actions.fold(budget_seconds=600)
    return {
        "seconds": time.perf_counter() - started,
        "folded": folded,
        "left": queries.waiting(),
    }


def offer(*, events: int, first: int, posts: int) -> dict:
    """Put events of views into the stream, skewed over the posts, some of them twice."""
    chance = random.Random(7)
    stream.make_group(stream.waiting_client())
    day = datetime.now(UTC).date().isoformat()
    again = 0
    for start in range(0, events, OFFERED_AT_ONCE):
        part = [
            Event(
                str(UUID(int=chance.getrandbits(128), version=4)),
                day,
                "post_view",
                first + int(posts * chance.random() ** 3),
            )
            for _ in range(min(OFFERED_AT_ONCE, events - start))
        ]
        stream.offer(part)
        if chance.random() < REPEATED:
            stream.offer(part[: stream.EVENTS_PER_ENTRY])
            again += stream.EVENTS_PER_ENTRY
    return {"events": events, "again": again, "entries": valkey.client().xlen(stream.key())}


def left() -> dict:
    """How many entries are not counted yet."""
    return {"entries": valkey.client().xlen(stream.key())}


def counted(*, events: int) -> dict:
    """What the counts say, against the events that were offered."""
    actions.fold(budget_seconds=60)
    total = sum(Post.objects.values_list("views_count", flat=True))
    return {
        "lost": max(0, events - total),
        "twice": max(0, total - events),
        "remembered": SeenEvent.objects.count(),
    }


def divergence() -> dict:
    """By how much all counts are wrong together, after the last fold, and how many are negative."""
    actions.fold(budget_seconds=60)
    kept = [one for one in declared.all().values() if isinstance(one, Counter)]
    off = sum(actions.compare(counter=counter).divergence for counter in kept)
    negative = Post.objects.filter(likes_count__lt=0).count()
    return {"divergence": off, "negative": negative}


if __name__ == "__main__":
    answer_probe(fold, offer, left, counted, divergence)
