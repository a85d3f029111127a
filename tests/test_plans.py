"""The plans of what requests wait for: by their index, and no partitioned table from end to end.

Tables are filled, each function is called, and auto_explain says how its statements were planned,
those inside of functions too, with the plans that a connection keeps (`force_generic_plan`).
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.utils import timezone

import catalog.queries
import counters.queries
import discovery.queries
import feeds.queries
import matching.queries
from config import partitions
from feeds import timeline
from feeds.models import Profile
from matching import queue, routes, vectors
from matching.models import ServingModel

pytestmark = pytest.mark.django_db

ROWS = 20_000
MODEL = "seeded-1"

_FILL = f"""
INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name, email, is_staff,
    is_active, date_joined)
SELECT n, '!', false, 'person-' || n, '', '', '', false, true, now()
FROM generate_series(1, 2000) AS n;
INSERT INTO profiles (user_id, handle) SELECT id, username FROM auth_user;
INSERT INTO posts (id, author_id, text, created_at)
SELECT n, 1 + n % 2000, 'post ' || n, now() - n * interval '1 minute'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO comments (post_id, author_id, text)
SELECT 1 + n % 500, 1 + n % 2000, 'comment ' || n FROM generate_series(1, {ROWS}) AS n;
INSERT INTO follows (follower_id, followee_id, is_filled)
SELECT 1 + n % 2000, 1 + (n * 7) % 1999, true FROM generate_series(1, {ROWS}) AS n
WHERE n % 2000 <> (n * 7) % 1999
ON CONFLICT DO NOTHING;
INSERT INTO feed_states (user_id, floor_at, built_at)
SELECT id, '0001-01-02', now() FROM auth_user;
INSERT INTO user_feeds (user_id, post_id, inserted_at)
SELECT 1 + n % 2000, n, now() - n * interval '1 minute' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO items (id, owner_id, kind, category, title, terms, latitude, longitude, created_at)
SELECT n, 1 + n % 2000, CASE WHEN n % 2 = 0 THEN 'lost' ELSE 'found' END, 'category ' || n % 40,
    'thing ' || n, 'thing number' || n, 40 + (n % 1000) / 100.0, (n % 3000) / 100.0,
    now() - n * interval '1 minute'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO item_buckets (geohash6, category, item_id, created_at, kind, owner_id, geohash,
    location_point)
SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash, location_point
FROM items;
INSERT INTO item_embeddings (item_id, model, kind, category, country, content_hash, text_embedding)
SELECT id, '{MODEL}', kind, category, '', '',
    (SELECT array_agg(sin(id * k)) FROM generate_series(1, 384) AS k)::halfvec(384)
FROM items WHERE id <= 4000;
INSERT INTO matches (pair, seeker_id, offer_id, score, components, created_at)
SELECT 'lost_found', 2 * (n % 5000), 2 * (n % 5000) + 1, random(), '[]', now()
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO match_jobs (task_id, owner_id, query, priority, state, error, finished_at, submitted_at)
SELECT gen_random_uuid(), 1 + n % 2000, '{{"title": "x"}}', n % 3,
    CASE WHEN n % 50 = 0 THEN 'queued' ELSE 'failed' END, 'no', now(),
    now() - n * interval '1 second'
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO discovery_sources (id, name) VALUES (1, 'town');
INSERT INTO venues (venue_id, source_id, key, last_seen_at)
SELECT n, 1, 'venue-' || n, now() FROM generate_series(1, 500) AS n;
INSERT INTO drop_events (event_type, source_id, bucket_id, slot_id, venue_id, opened_at,
    opened_minute, published_at)
SELECT 'opened', 1, n % 28, 'slot ' || n, 1 + n % 500, at, date_trunc('minute', at),
    at + n * interval '1 microsecond'
FROM generate_series(1, {ROWS}) AS n,
    LATERAL (SELECT now() - n * interval '5 seconds' AS at) AS made;
INSERT INTO product_price_snapshots (product_name_normalized, product_name_original, seller, price,
    currency, scraped_at)
SELECT 'product-' || n % 400, 'Product ' || n % 400, 'seller-' || n % 5, 10 + n % 7, 'EUR',
    now() - n * interval '2 minutes'
FROM generate_series(1, {ROWS}) AS n;
"""


class Plans:
    """What auto_explain told: every plan of every statement, with its text."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def hear(self, notice) -> None:
        text = notice.message_primary or ""
        if "plan:" in text:
            self.found.append(json.loads(text.partition("plan:")[2]))

    def nodes(self) -> Iterator[dict[str, Any]]:
        for one in self.found:
            yield from _below(one["Plan"])

    def indexes(self) -> set[str]:
        """The names of the indexes used, those of partitions under their parent's."""
        return {_root(node["Index Name"]) for node in self.nodes() if "Index Name" in node}

    def read_whole(self) -> set[str]:
        """Tables with rows to speak of that were read from one end to the other."""
        names = {n["Relation Name"] for n in self.nodes() if n["Node Type"] == "Seq Scan"}
        large = _rows(
            "SELECT relname FROM pg_class WHERE relname = ANY (%s) AND reltuples > 1000",
            list(names),
        )
        return {_root(name) for (name,) in large}

    def __str__(self) -> str:
        return "\n\n".join(json.dumps(one, indent=1)[:6000] for one in self.found)


def _below(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", ()):
        yield from _below(one)


def _rows(statement: str, *parameters: Any) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()


def _root(index: str) -> str:
    [[name]] = _rows(
        "SELECT coalesce((SELECT r.relname FROM pg_partition_root(c.oid) AS root"
        " JOIN pg_class AS r ON r.oid = root), c.relname) FROM pg_class AS c WHERE c.relname = %s",
        index,
    )
    return name


@pytest.fixture
def plans(db) -> Callable[[Callable[[], object]], Plans]:
    """`plans(call)` calls twice, on filled tables, and says how the second time was planned."""
    today = timezone.now()
    partitions.ensure("drop_events", today - timedelta(days=3), today)
    partitions.ensure("product_price_snapshots", today - timedelta(days=40), today)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for statement in filter(str.strip, _FILL.split(";")):
            cursor.execute(statement)
        ServingModel.objects.create(model=MODEL)
        cursor.execute("ANALYZE")
        # As after a vacuum, which no transaction may hold: without it no index is read alone.
        cursor.execute("UPDATE pg_class SET relallvisible = relpages WHERE relkind = 'r'")
        cursor.execute("LOAD 'auto_explain'")

    def look(call: Callable[[], object]) -> Plans:
        heard = Plans()
        call()
        with connection.cursor() as cursor:
            for setting in _TELLING:
                cursor.execute(f"SET LOCAL {setting}")
        connection.connection.add_notice_handler(heard.hear)
        call()
        _rows("SELECT 1")  # the portal of a prepared statement ends with the next one
        connection.connection.remove_notice_handler(heard.hear)
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL auto_explain.log_min_duration = -1")
        return heard

    return look


_TELLING = (
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_nested_statements = on",
    "auto_explain.log_format = json",
    "auto_explain.log_level = notice",
    "plan_cache_mode = force_generic_plan",
)


def _scope() -> routes.Scope:
    return routes.Scope(kinds=("found",), owner_id=3)


VECTOR = np.sin(np.arange(1, 385) * 17).astype(np.float32)
HOT: dict[str, tuple[Callable[[], object], set[str]]] = {
    "snapshots/recent": (
        lambda: catalog.queries.recent_snapshots(limit=20),
        {"idx_product_price_snapshots_scraped_at_desc"},
    ),
    "items: a page of one's own": (
        lambda: matching.queries.own_items(owner_id=5, limit=20),
        {"idx_items_owner_status_created"},
    ),
    "items/{id}/matches": (
        lambda: matching.queries.item_matches(item_id=100, kind="lost", limit=20),
        {"matches_seeker"},
    ),
    "the next match job": (queue.claim, {"match_jobs_queue"}),
    "items around a place": (
        lambda: routes.place(45.0, 10.0, scope=_scope(), limit=50),
        {"idx_item_buckets_kind"},
    ),
    "items by words": (
        lambda: routes.titles("thing 100", scope=_scope(), limit=20),
        {"idx_items_title_trgm"},
    ),
    "vectors under a filter": (
        lambda: vectors.nearest_exactly(VECTOR, kinds=["found"], category="category 7", limit=10),
        {"idx_item_embeddings_exact"},
    ),
    "just-opened": (
        lambda: discovery.queries.just_opened(limit=100),
        {"ix_drop_events_event_type_opened_at"},
    ),
    "new-drops": (
        lambda: discovery.queries.new_drops(
            since=datetime.now(UTC) - timedelta(minutes=2), limit=100
        ),
        {"drop_events_published"},
    ),
    "a kept timeline": (
        lambda: timeline.read(viewer=Profile.objects.get(pk=7), limit=20),
        {"user_feeds_pkey"},
    ),
    "somebody's posts": (
        lambda: feeds.queries.posts_of(person_id=9, viewer_id=7, limit=20),
        {"posts_author"},
    ),
    "comments of a post": (
        lambda: feeds.queries.comments(post_id=7, viewer_id=7, limit=20),
        {"comments_post"},
    ),
    "exact counts": (
        lambda: counters.queries.exact("posts.likes_count", list(range(1, 20))),
        {"posts_pkey"},
    ),
}


def faults(plans, name: str) -> str:
    """What is wrong with how a hot statement is planned, or ""."""
    call, expected = HOT[name]
    found = plans(call)
    if not found.found:
        return "nothing was explained"
    if missing := expected - found.indexes():
        return f"without {missing}, by {sorted(found.indexes())}\n{found}"
    if whole := found.read_whole():
        return f"reads {whole} whole\n{found}"
    return ""


def test_hot_statements_go_by_their_index(plans):
    found = {name: wrong for name in HOT if (wrong := faults(plans, name))}
    assert found == {}, "\n\n".join(f"{name}: {wrong}" for name, wrong in found.items())
    with connection.cursor() as cursor:  # it would be noticed
        cursor.execute("DROP INDEX drop_events_published")
    assert faults(plans, "new-drops")
