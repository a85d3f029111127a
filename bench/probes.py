"""Measurements inside a process of the project: `python -m bench.probes NAME '{"parameters"}'`.

Prints one JSON object. `bench.harness.Bench.probe` calls it.
"""

import json
import os
import random
import time
from collections.abc import Callable

import django
import psycopg

from bench.harness import answer_probe, median, percentile

django.setup()

from django.db import connection  # noqa: E402 -- these need the settings
from django.test.utils import CaptureQueriesContext  # noqa: E402

from bench import wsgi  # noqa: E402
from catalog import queries  # noqa: E402


def product(*, samples: int) -> dict:
    """`products/{slug}` through the whole WSGI application, each slug for the first time, against
    the same statements by psycopg alone. Seconds."""
    slugs = _slugs(samples)
    statements = [_statements(slug) for slug in slugs]
    ours, bare = [], []
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        for turn, (slug, asked) in enumerate(zip(slugs, statements, strict=True)):
            both = [
                (ours, lambda slug=slug: _read(f"/api/v1/products/{slug}")),
                (bare, lambda asked=asked: [db.execute(text).fetchall() for text in asked]),
            ]
            for times, work in both if turn % 2 else reversed(both):  # who goes first warms pages
                times.append(_timed(work))
    warm = samples // 10
    return {
        "ours": [percentile(ours[warm:], 0.95), median(ours[warm:])],
        "bare": [percentile(bare[warm:], 0.95), median(bare[warm:])],
        "plan": _plan(slugs[0]),
    }


def suggest(*, samples: int) -> dict:
    """`catalog.queries.suggest` for beginnings of names and for words with a typo. Seconds."""
    chance = random.Random(3)
    names = [name for (name,) in _query("SELECT slug FROM catalog_slug_summary ORDER BY md5(slug)")]
    chosen = names[: samples + 50]
    found = {}
    for kind, typed in (("prefix", _beginning), ("typo", _mistyped)):
        texts = [typed(name, chance) for name in chosen]
        times, hits = [], 0
        for name, text in zip(chosen, texts, strict=True):
            started = time.perf_counter()
            answer = queries.suggest(q=text, limit=10)
            times.append(time.perf_counter() - started)
            hits += any(each["slug"] == name for each in answer) if kind == "typo" else bool(answer)
        found[kind] = {
            "p95": percentile(times[50:], 0.95),
            "median": median(times[50:]),
            "worst": max(times[50:]),
            "found": hits / len(chosen),
            "examples": texts[:3],
        }
    return found | {"names": len(names)}


def _beginning(name: str, chance: random.Random) -> str:
    return name.replace("-", " ")[: chance.randint(2, 12)].strip()


def _mistyped(name: str, chance: random.Random) -> str:
    """The name's first words with one slip in the longest: dropped, doubled, swapped, replaced."""
    words = name.split("-")[:4]
    longest = max(range(len(words)), key=lambda at: len(words[at]))
    word = words[longest]
    at = chance.randrange(1, max(2, len(word) - 1))
    words[longest] = chance.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
            word[:at] + chance.choice("aeionrst") + word[at + 1 :],
        )
    )
    return " ".join(words)


def _slugs(number: int) -> list[str]:
    rows = _query(f"SELECT slug FROM catalog_slug_summary ORDER BY md5(slug) LIMIT {number:d}")
    return [slug for (slug,) in rows]


def _query(statement: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def _statements(slug: str, **asked: object) -> list[str]:
    """The statements of the query layer for one product, as text with their values."""
    with CaptureQueriesContext(connection) as captured:
        queries.product(slug=slug, **asked)
    return [each["sql"] for each in captured]


def _plan(slug: str) -> dict:
    """Which nodes read the long tables, for the default answer and for one of every snapshot."""
    nodes = {}
    with connection.cursor() as cursor:
        for resolution in ("auto", "raw"):
            for statement in _statements(slug, resolution=resolution):
                cursor.execute("EXPLAIN (FORMAT JSON) " + statement)
                plan = cursor.fetchone()[0]
                plan = json.loads(plan) if isinstance(plan, str) else plan
                _count_scans(plan[0]["Plan"], nodes)
    return nodes


def _count_scans(node: dict, nodes: dict) -> None:
    table = node.get("Relation Name", "")
    if table.startswith(("product_price_snapshots", "catalog_price_points")):
        kind = node["Node Type"]
        if kind == "Seq Scan" and node["Total Cost"] == 0:
            kind = "Seq Scan of an empty month"
        nodes[kind] = nodes.get(kind, 0) + 1
    for child in node.get("Plans", ()):
        _count_scans(child, nodes)


def _read(path: str) -> None:
    status = wsgi.get(path)
    assert status == 200, f"{path}: {status}"


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    answer_probe(product, suggest)
