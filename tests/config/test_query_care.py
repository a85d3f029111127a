"""Slow statements and advice on indexes, on tables made for each case."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from config import indexadvice, slowqueries

pytestmark = pytest.mark.django_db(transaction=True)


def run(statement: str, *parameters) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


def told(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def tables():
    """A large table, one that refers to it, a partitioned one."""
    run("CREATE TABLE care_big (id bigint PRIMARY KEY, colour text, size integer)")
    run("INSERT INTO care_big SELECT n, 'c' || n % 50, n FROM generate_series(1, 60000) AS n")
    run("CREATE TABLE care_small (id bigint, big_id bigint REFERENCES care_big (id))")
    run(
        "CREATE TABLE care_parts (at timestamptz, big_id bigint REFERENCES care_big (id))"
        " PARTITION BY RANGE (at)"
    )
    run(
        "CREATE TABLE care_parts_a PARTITION OF care_parts"
        " FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
    )
    run("ANALYZE care_big")
    yield
    run("DROP TABLE care_parts, care_small, care_big")


def advice(kind: str) -> dict[str, list[str]]:
    """What is said of our tables: {text: statements}."""
    found = [one for one in indexadvice.advise() if one.table.startswith("care_")]
    return {one.what: one.run for one in found if one.kind == kind}


def test_an_unused_index(tables):
    run("CREATE INDEX care_unused ON care_big (colour, size)")
    run("CREATE UNIQUE INDEX care_unique ON care_big (size, id)")
    [(what, statements)] = advice("unused").items()
    assert what.startswith("care_unused, ")
    assert statements == ["DROP INDEX CONCURRENTLY care_unused;"]
    run("SET enable_seqscan = off")
    run("SELECT count(*) FROM care_big WHERE colour = 'c1'")
    run("RESET enable_seqscan")
    run("SELECT pg_stat_force_next_flush()")
    assert advice("unused") == {}


def test_indexes_that_do_the_same(tables):
    for name, what in {
        "care_a": "(colour)",
        "care_b": "(colour)",
        "care_c": "(colour, size)",
        "care_d": "(colour) WHERE size > 3",
        "care_e": "(lower(colour))",
        "care_f": "(colour DESC)",
        "care_g": "(size) INCLUDE (colour)",
    }.items():
        run(f"CREATE INDEX {name} ON care_big {what}")
    names = {text.partition(":")[0] for text in [*advice("duplicate"), *advice("redundant")]}
    assert names == {"care_a", "care_b"}  # care_c serves what both do


def test_what_a_failed_build_left(tables):
    run("UPDATE care_big SET size = 1 WHERE id < 3")
    with pytest.raises(Exception, match=r"duplicate key|could not create unique"):
        run("CREATE UNIQUE INDEX CONCURRENTLY care_broken ON care_big (size)")
    assert list(advice("invalid").values()) == [["DROP INDEX CONCURRENTLY care_broken;"]]


def test_foreign_keys_without_an_index(tables):
    found = advice("foreign key")
    assert ["CREATE INDEX CONCURRENTLY care_small_big_id_idx ON care_small (big_id);"] in (
        found.values()
    )
    [parts] = [run_ for what, run_ in found.items() if "care_parts" in what]
    assert parts[0] == "CREATE INDEX care_parts_big_id_idx ON ONLY care_parts (big_id);"
    assert len(parts) == 3
    run("CREATE INDEX care_fk ON care_small (big_id, id)")
    assert not [what for what in advice("foreign key") if "care_small" in what]


def test_a_table_that_is_read_whole(tables, monkeypatch):
    monkeypatch.setattr(indexadvice, "LEAST_SCANS", 3)
    slowqueries.reset()
    for size in range(6):
        run("SELECT count(*) FROM care_big WHERE colour = %s AND size > %s", "c1", size)
    run("SELECT pg_stat_force_next_flush()")
    [(what, statements)] = advice("sequential scan").items()
    assert what.startswith("care_big was read whole ")
    assert statements == [
        "CREATE INDEX CONCURRENTLY care_big_colour_size_idx ON care_big (colour, size);"
    ]


def test_our_own_tables_need_nothing_said_of_keys():
    kinds = {"foreign key", "invalid", "duplicate"}
    found = [one for one in indexadvice.advise() if one.kind in kinds]
    assert found == [], found


def test_the_dearest_statements(tables):
    slowqueries.reset()
    for _ in range(3):
        run("SELECT count(*) FROM care_big WHERE colour LIKE %s", "c%")
    run("SELECT 1 AS care_cheap")
    text = told("slow_queries", "--by", "total", "--limit", "50", "--explain")
    assert "SELECT count(*) FROM care_big WHERE colour LIKE $1" in text
    assert "Seq Scan on care_big" in text
    rows = json.loads(told("slow_queries", "--by", "calls", "--json", "--limit", "100"))
    calls = {row["text"]: row["calls"] for row in rows}
    assert calls["SELECT count(*) FROM care_big WHERE colour LIKE $1"] == 3
    assert [row["calls"] for row in rows] == sorted((row["calls"] for row in rows), reverse=True)
    told("slow_queries", "--reset")
    assert "care_cheap" not in told("slow_queries", "--limit", "100")


def test_nothing_is_executed_to_explain(tables):
    assert "Delete on care_big" in slowqueries.explain("DELETE FROM care_big WHERE id = $1")
    assert slowqueries.explain("CREATE TABLE x ()") == "has no plan"
    assert slowqueries.explain("SELECT $1 FROM nowhere").startswith("cannot be planned")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM care_big")
        assert cursor.fetchone() == (60_000,)


def test_without_the_extension_it_says_what_to_do():
    run("DROP EXTENSION pg_stat_statements")
    try:
        with pytest.raises(CommandError, match="CREATE EXTENSION pg_stat_statements"):
            told("slow_queries")
        told("index_advice")  # does without
    finally:
        run("CREATE EXTENSION pg_stat_statements")


def test_advice_for_people_and_programs(tables):
    text = told("index_advice")
    assert "CREATE INDEX CONCURRENTLY care_small_big_id_idx" in text
    assert "a standby uses cannot be seen" in text
    found = json.loads(told("index_advice", "--json"))
    assert {"kind", "table", "what", "run"} == set(found["advice"][0])
