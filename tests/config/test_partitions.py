from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import DatabaseError, connection, connections
from django.utils import timezone

from config import partitions

pytestmark = pytest.mark.django_db(transaction=True)

TABLE = "spyglass_test_events"


@pytest.fixture
def events():
    """A partitioned table of this test's own, by day."""
    dropped = []
    declared = partitions.register(
        partitions.PartitionedTable(
            name=TABLE,
            column="at",
            unit="day",
            ahead=2,
            keep=lambda: 3,
            before_drop=lambda cursor, name: dropped.append(name),
        )
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {TABLE} (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at))"
            " PARTITION BY RANGE (at)"
        )
    yield dropped
    partitions.drop_leftovers(TABLE)
    partitions._tables.pop(declared.name)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {TABLE}")


def names():
    return [part.name for part in partitions.existing(TABLE)]


def days_ago(days: int) -> date:
    return timezone.now().date() - timedelta(days=days)


def test_ahead_makes_today_and_the_declared_number_after_it(events):
    made = partitions.ensure_ahead(TABLE)
    assert len(made) == 3
    assert names() == made
    assert partitions.ensure_ahead(TABLE) == []
    assert partitions.missing_ahead(TABLE) == 0


def test_ensure_covers_both_ends(events):
    start = datetime(2024, 2, 28, 23, 59, tzinfo=UTC)
    partitions.ensure(TABLE, start, start + timedelta(days=1, minutes=1))
    assert names() == [f"{TABLE}_y2024m02d28", f"{TABLE}_y2024m02d29", f"{TABLE}_y2024m03d01"]
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, %s)", [start])


def test_expired_partitions_are_dropped_and_the_kept_ones_stay(events):
    partitions.ensure(TABLE, days_ago(6), days_ago(0))
    due = partitions.expired(TABLE)
    assert [part.start for part in due] == [days_ago(6), days_ago(5), days_ago(4)]
    for part in due:
        partitions.drop(TABLE, part)
    assert len(names()) == 4
    assert events == [part.name for part in due]


def test_a_drop_that_died_half_way_is_finished_by_the_next_run(events):
    partitions.ensure(TABLE, days_ago(6), days_ago(0))
    victim = partitions.expired(TABLE)[0].name
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {victim} CONCURRENTLY")
    assert partitions.drop_leftovers(TABLE) == [victim]
    assert events == [victim]
    assert partitions.drop_leftovers(TABLE) == []


@pytest.fixture
def owner_and_helper(events):
    """The table belongs to a role that is no superuser, and another one has its rights."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE parts_owner; CREATE ROLE parts_helper")
        cursor.execute("GRANT CREATE ON SCHEMA public TO parts_owner")
        cursor.execute(f"ALTER TABLE {TABLE} OWNER TO parts_owner")
    yield
    with connection.cursor() as cursor:
        cursor.execute("RESET ROLE")
        cursor.execute(f"ALTER TABLE {TABLE} OWNER TO CURRENT_USER")
        cursor.execute("REASSIGN OWNED BY parts_owner, parts_helper TO CURRENT_USER")
        cursor.execute("DROP OWNED BY parts_owner, parts_helper")
        cursor.execute("DROP ROLE parts_owner, parts_helper")


@pytest.mark.parametrize(
    ("grant", "owner"), [("SET TRUE", "parts_owner"), ("SET FALSE", "parts_helper")]
)
def test_a_partition_belongs_to_the_owner_of_the_table(owner_and_helper, grant, owner):
    """Whoever makes it, if it may: the web server does behind PgBouncer, by a role of its own."""
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT parts_owner TO parts_helper WITH {grant}")
        cursor.execute("SET ROLE parts_helper")
        [made] = partitions.ensure(TABLE, days_ago(0), days_ago(0))
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, now())")
        cursor.execute("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = %s", [made])
        assert cursor.fetchone() == (owner,)
        if owner == "parts_owner":
            cursor.execute("RESET ROLE; SET ROLE parts_owner")
            cursor.execute(f"ALTER TABLE {TABLE} ADD COLUMN more text")


def test_an_unknown_table_is_named(events):
    with pytest.raises(partitions.UnknownTable, match="nope"):
        partitions.ensure("nope", days_ago(0), days_ago(0))


def test_month_names_and_bounds():
    declared = partitions.get("product_price_snapshots")
    part = partitions._period(declared, date(2025, 12, 31))
    assert (part.name, part.start, part.end) == (
        "product_price_snapshots_y2025m12",
        date(2025, 12, 1),
        date(2026, 1, 1),
    )


def test_several_may_make_the_same_partitions_at_once(events):
    def make(_) -> int:
        try:
            return len(partitions.ensure(TABLE, days_ago(15), days_ago(0)))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert sum(made) == len(names()) == 16


def test_a_drop_that_died_does_not_stand_in_the_way_of_its_days(events):
    partitions.ensure(TABLE, days_ago(6), days_ago(6))
    [victim] = names()
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {victim} CONCURRENTLY")
    assert partitions.ensure(TABLE, days_ago(6), days_ago(6)) == [victim]
    assert names() == events == [victim]
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {TABLE} VALUES (1, %s)", [days_ago(6)])


def test_a_detach_that_died_is_finished_by_whoever_comes_next(events):
    partitions.ensure(TABLE, days_ago(6), days_ago(5))
    victim, other = names()
    half_detach(victim)
    assert [part.name for part in partitions.expired(TABLE)] == [other]
    assert partitions.ensure(TABLE, days_ago(6), days_ago(6)) == [victim]
    assert names() == [victim, other]
    assert events == [victim]

    half_detach(victim)
    assert partitions.drop_leftovers(TABLE) == [victim]
    assert names() == [other]


def test_who_finds_a_partition_dropped_by_somebody_else_goes_on(events):
    partitions.ensure(TABLE, days_ago(6), days_ago(6))
    [part] = partitions.expired(TABLE)
    partitions.drop(TABLE, part)
    partitions.drop(TABLE, part)
    assert events == [part.name]


def half_detach(name: str) -> None:
    """Begin a detach, and die while it waits for somebody who reads the table."""
    reader = connections["default"].copy()
    try:
        with reader.cursor() as reading, connection.cursor() as cursor:
            reading.execute("BEGIN")
            reading.execute(f"SELECT count(*) FROM {TABLE}")
            cursor.execute("SET statement_timeout = '300ms'")
            with pytest.raises(DatabaseError, match="statement timeout"):
                cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {name} CONCURRENTLY")
            cursor.execute("RESET statement_timeout")
            reading.execute("ROLLBACK")
    finally:
        reader.close()
