"""Matching inside a process of the project: `python -m bench.matching_probes NAME '{…}'`."""

import random
import time

import django

from bench.harness import answer_probe, percentile

django.setup()

from django.conf import settings  # noqa: E402 -- these need the settings
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection  # noqa: E402

from bench import load, wsgi  # noqa: E402
from config.tokens import issue_token  # noqa: E402
from matching import engine, queue, worker  # noqa: E402
from matching.models import Item, MatchJob  # noqa: E402
from matching.routes import Filters  # noqa: E402

# One statement that compares with every item: meaning, title, words and distance, the best 20.
_EXACT = """
SELECT i.id,
    0.4 * (1 - (e.text_embedding <=> %(vector)s::halfvec(384)))
    + 0.2 * similarity(lower(i.title), lower(%(title)s))
    + 0.2 * ts_rank(i.search, %(words)s::tsquery)
    + 0.2 * exp(-(i.location_point <-> point(%(longitude)s, %(latitude)s))) AS score
FROM items AS i JOIN item_embeddings AS e ON e.item_id = i.id
WHERE i.kind = 'found' AND i.status = 'open' AND NOT i.is_deleted
ORDER BY score DESC
LIMIT 20
"""


def jobs(*, samples: int, exact: int) -> dict:
    """Match jobs of lost items from claim to stored result, and `exact` runs of the one statement.

    Seconds. What each job found by which route is in the database.
    """
    seekers = list(Item.objects.filter(kind="lost").order_by("pk")[: samples + 10])
    times = []
    for item in seekers:
        queue.submit_match(owner=item.owner, item=item, priority=MatchJob.Priority.PERSON)
        started = time.perf_counter()
        job = queue.claim()
        outcome = worker.perform(job)
        times.append(time.perf_counter() - started)
        assert outcome == "done", f"{job}: {outcome}"
    whole = [_exact(item) for item in seekers[:exact]]
    warm = times[10:]
    return {
        "p50": percentile(warm, 0.5),
        "p95": percentile(warm, 0.95),
        "worst": max(warm),
        "exact": percentile(whole, 0.5),
    }


def _exact(item: Item) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT text_embedding::text FROM item_embeddings WHERE item_id = %s", [item.pk]
        )
        vector = cursor.fetchone()[0]
        words = " | ".join(f"'f:{word}'" for word in item.title.split())
        started = time.perf_counter()
        cursor.execute(
            _EXACT,
            {
                "vector": vector,
                "title": item.title,
                "words": words,
                "latitude": item.latitude,
                "longitude": item.longitude,
            },
        )
        assert len(cursor.fetchall()) == 20
        return time.perf_counter() - started


def post(*, samples: int) -> dict:
    """`POST /api/v1/match` of a description, through the whole WSGI application. Seconds."""
    settings.MATCHING_JOBS_PER_OWNER = settings.MATCHING_QUEUE_LIMIT = 1_000_000
    owner = get_user_model().objects.get(username="seeker")
    _, secret = issue_token(user=owner, name="bench", scopes=["items"], lifetime=None)
    texts = _texts(samples + 20)
    times = []
    for text in texts:
        query = {"kind": "lost", "title": text, "latitude": 40.0, "longitude": 20.0}
        started = time.perf_counter()
        status = wsgi.post("/api/v1/match", {"query": query}, secret)
        times.append(time.perf_counter() - started)
        assert status == 202, status
    MatchJob.objects.filter(owner=owner).delete()
    return {"p50": percentile(times[20:], 0.5), "p95": percentile(times[20:], 0.95)}


def searchers(*, threads: int, seconds: float) -> dict:
    """`threads` at once in `engine.search`: words, half of them around a place."""
    texts = _texts(400)
    places = list(Item.objects.filter(kind="lost").values_list("latitude", "longitude"))

    def look(chance: random.Random) -> None:
        filters = Filters()
        if chance.random() < 0.5:
            latitude, longitude = chance.choice(places)
            filters = Filters(latitude=latitude, longitude=longitude, radius_m=20_000)
        engine.search(chance.choice(texts), kinds=["found"], filters=filters)

    return load.searchers(look, threads=threads, seconds=seconds)


def _texts(count: int) -> list[str]:
    """What people type: two words of some title."""
    titles = Item.objects.filter(kind="found").order_by("pk").values_list("title", flat=True)
    return [" ".join(title.split()[1:3]) for title in titles[:count]]


if __name__ == "__main__":
    answer_probe(jobs, post, searchers)
