"""Before and after the chaos, inside the project: `python -m bench.chaos_probes NAME '{…}'`."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django

from bench.harness import answer_probe

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402 -- these need the settings
from django.db import connection  # noqa: E402
from django_q.tasks import async_task  # noqa: E402

from config import readmodels  # noqa: E402
from config.tokens import issue_token  # noqa: E402
from feeds import actions, timeline  # noqa: E402
from feeds.models import Profile  # noqa: E402

POSTS = 10
SETTLE_SECONDS = 90
_SCOPES = {
    "ingest": ["ingest"],
    "ann": ["items", "feeds"],
    "bob": ["items", "feeds", "events"],
}
# What one acknowledged request leaves behind: (statement, text of its n-th row).
_ROWS = {
    "snapshot": (
        """SELECT product_name_original, count(*) FROM product_price_snapshots
        WHERE seller = 'chaos' GROUP BY 1""",
        "Chaos {}",
    ),
    "item": ("SELECT title, count(*) FROM items GROUP BY 1", "chaos item {}"),
    "match": (
        "SELECT query ->> 'title', count(*) FROM match_jobs WHERE state = 'done' GROUP BY 1",
        "chaos match {}",
    ),
    "post": ("SELECT text, count(*) FROM posts GROUP BY 1", "chaos post {}"),
    "comment": ("SELECT text, count(*) FROM comments GROUP BY 1", "chaos comment {}"),
    "poll": (
        "SELECT slot_id, count(*) FROM drop_events WHERE published_at IS NOT NULL GROUP BY 1",
        "chaos-{}",
    ),
}


def prepare() -> dict:
    """People with tokens, some posts, a follower whose timeline is kept; what the clients need."""
    people = {name: get_user_model().objects.create_user(name) for name in _SCOPES}
    tokens = {
        name: issue_token(user=people[name], scopes=scopes, lifetime=None)[1]
        for name, scopes in _SCOPES.items()
    }
    ann, bob = (actions.ensure_profile(people[name]) for name in ("ann", "bob"))
    posts = [actions.create_post(author=ann, text=f"before {at}").pk for at in range(POSTS)]
    actions.follow(user=bob, target_id=ann.pk)
    now = datetime.now(UTC)
    return {
        "tokens": tokens,
        "posts": posts,
        "events_at": (now - timedelta(minutes=5)).isoformat(),
        "starts_at": (now + timedelta(days=2)).isoformat(),
    }


def fill_queue(*, tasks: int) -> dict:
    """Put `tasks` tasks into the queue at once."""
    for at in range(tasks):
        async_task("math.sqrt", at)
    return {}


def verify(*, ledger: str) -> dict:
    """Hold what was acknowledged against what is there: {operation: {lost, double}}, and whether
    read models equal the truth. `ledger`: path of {operation: {acknowledged: keys, sent: keys}}."""
    told = json.loads(Path(ledger).read_text())
    waited = _settle()
    found = {name: _compare(name, told[name]) for name in _ROWS}
    found["events"] = _compare_events(told["events"])
    found["timeline"] = _compare_timeline(told["post"])
    differences = {}
    for model in readmodels.select():
        readmodels.refresh(model)
        done = readmodels.reconcile(model)
        differences[model.name] = {"count": done.count, "samples": done.samples[:3]}
    return {"settled": waited, "operations": found, "differences": differences}


def _settle() -> float:
    """Wait until nothing waits; seconds."""
    from counters import stream

    started = time.monotonic()
    while time.monotonic() - started < SETTLE_SECONDS:
        lag = stream.lag()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(*) FROM feed_fanouts) + (SELECT count(*) FROM match_jobs"
                " WHERE state IN ('queued', 'running')) + (SELECT count(*) FROM drop_events"
                " WHERE published_at IS NULL) + (SELECT count(*) FROM django_q_ormq)"
            )
            if not cursor.fetchone()[0] and lag and not lag["entries"]:
                break
        time.sleep(0.5)
    return time.monotonic() - started


def _compare(name: str, told: dict) -> dict:
    statement, text = _ROWS[name]
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = dict(cursor.fetchall())
    numbers = {int(key.rpartition("-")[2]) for key in told["acknowledged"]}
    if name == "poll":
        numbers.discard(0)  # the baseline
    lost = [number for number in sorted(numbers) if text.format(number) not in rows]
    own = {text.format(key.rpartition("-")[2]) for key in told["sent"]}
    double = {one: count for one, count in rows.items() if one in own and count > 1}
    return {"lost": len(lost), "double": len(double), "examples": [*lost[:3], *[*double][:3]]}


def _compare_events(told: dict) -> dict:
    """Ten views a request: at least those acknowledged, at most those sent, were counted."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(views_count), 0) FROM posts")
        counted = int(cursor.fetchone()[0])
    least, most = 10 * len(told["acknowledged"]), 10 * len(told["sent"])
    return {
        "lost": max(0, least - counted),
        "double": max(0, counted - most),
        "examples": [f"{counted} counted, {least} acknowledged, {most} sent"],
    }


def _compare_timeline(told: dict) -> dict:
    """Every acknowledged post stands in the follower's timeline, once."""
    bob = Profile.objects.get(user__username="bob")
    seen: dict[str, int] = {}
    after = None
    while True:
        page = timeline.read(viewer=bob, limit=100, after=after)
        for post in page.posts:
            seen[post["text"]] = seen.get(post["text"], 0) + 1
        after = page.after
        if after is None:
            break
    texts = {f"chaos post {key.rpartition('-')[2]}" for key in told["acknowledged"]}
    lost = sorted(texts - seen.keys())
    double = [text for text, count in seen.items() if count > 1]
    return {"lost": len(lost), "double": len(double), "examples": [*lost[:3], *double[:3]]}


if __name__ == "__main__":
    answer_probe(prepare, fill_queue, verify)
