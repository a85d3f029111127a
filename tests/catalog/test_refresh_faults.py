"""A refresh that is killed, doubled, or run beside a busy ingest leaves the same read models."""

import random
import signal
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from catalog import readmodels as catalog_models
from catalog.models import SellerSummary
from config import partitions, readmodels
from tests.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

START = datetime(2025, 3, 1, 6, tzinfo=UTC)
PRODUCTS = 400


def insert_day(day: float) -> int:
    """One price of each product at two sellers."""
    moment = START + timedelta(days=day)
    partitions.ensure("product_price_snapshots", moment, moment)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO product_price_snapshots (product_name_normalized, seller, currency,"
            " product_code, scraped_at, price, product_name_original)"
            " SELECT 'p-' || n, seller, 'EUR', n, %s, 10 + (n * 7 + %s) / 10, 'P ' || n"
            " FROM generate_series(1, %s) AS n, unnest(ARRAY['s', 't']) AS seller",
            [moment, int(day), PRODUCTS],
        )
        return cursor.rowcount


def assert_exact() -> None:
    assert catalog_models.backlog() == 0
    for model in readmodels.select(["catalog"]):
        found = readmodels.reconcile(model)
        assert (found.count, found.samples) == (0, [])


def test_killed_at_random_points_the_next_refresh_completes(spawn):
    rows = sum(insert_day(day) for day in range(25))
    dice = random.Random(7)
    kills = 0
    for _ in range(4):
        process = spawn(["refresh", "catalog"])
        try:
            process.wait(timeout=dice.uniform(0.9, 2.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert spawn(["refresh", "catalog"]).wait(timeout=120) == 0
    assert kills
    assert_exact()
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(observations) FROM catalog_slug_seller_summary")
        assert cursor.fetchone()[0] == rows


def test_two_refreshers_at_once_fold_each_change_once(spawn):
    for day in range(10):
        insert_day(day)
    both = [spawn(["refresh", "catalog"]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert_exact()
    assert set(SellerSummary.objects.values_list("observations", flat=True)) == {10}


def test_reconcile_beside_a_busy_ingest_finds_no_false_difference():
    for day in range(5):
        insert_day(day)
    stop = threading.Event()

    def keep_ingesting() -> None:
        for step in range(2_000):
            if stop.wait(0.03):
                break
            insert_day(5 + step / 100)
        connections.close_all()

    writer = threading.Thread(target=keep_ingesting)
    writer.start()
    model = readmodels.all()["catalog_slug_seller_summary"]
    try:
        pending = 0
        for _ in range(5):
            readmodels.refresh(model)
            found = readmodels.reconcile(model)
            pending += found.pending
            assert (found.count, found.samples) == (0, [])
    finally:
        stop.set()
        writer.join()
    assert pending, "the ingest was not busy: nothing was proved"
    for refreshed in readmodels.select(["catalog"]):
        readmodels.refresh(refreshed)
    assert_exact()


@pytest.mark.parametrize("command", ["refresh", "reconcile"])
def test_who_waits_too_long_for_another_is_told_so(command):
    insert_day(0)
    other = connections["default"].copy()
    try:
        with other.cursor() as holding, connection.cursor() as cursor:
            holding.execute("BEGIN")
            holding.execute("SELECT catalog_lock_fold()")
            cursor.execute("SET lock_timeout = '200ms'")
            with pytest.raises(CommandError, match="another refresh or reconcile is at work"):
                call_command(command, "catalog", verbosity=0)
            cursor.execute("RESET lock_timeout")
    finally:
        other.close()
    call_command("refresh", "catalog", verbosity=0)
    assert_exact()


def test_what_a_killed_process_asked_for_ends_soon_after_it(spawn):
    """Else a killed refresh would go on holding the lock of folds for as long as it takes."""
    code = "from django.db import connection as c; c.cursor().execute('SELECT pg_sleep(60)')"
    process = spawn(["shell", "--no-imports", "-c", code])
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    asked += " AND state = 'active'"
    until(lambda: one(asked) == 1, "the statement")
    process.kill()
    until(lambda: one(asked) == 0, "its end", seconds=20)


def one(query: str):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]
