"""The archive with what the domains really keep: filled months and days go, come back as they
were, are read in place, and the read models are right all the while."""

import base64
import csv
import os
import random
import signal
import socket
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import StringIO
from urllib.parse import parse_qsl

import orjson
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.utils import timezone
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from catalog import readmodels as catalog_models
from catalog.actions import record_snapshots
from catalog.models import PricePoint, SellerSummary, SlugSummary
from config import archive, archived, partitions, readmodels, stores
from config.models import ArchivedPartition
from discovery import actions as discovery
from discovery import polls
from discovery.models import DropEvent
from matching import actions as matching
from matching import worker
from matching.models import AuditLog, Item, Match
from tests.config.test_archive import STEPS, archive_killed
from tests.processes import exit_code

pytestmark = pytest.mark.django_db(transaction=True)

KEPT = {
    "CATALOG_SNAPSHOTS_RETENTION_MONTHS": 2,
    "MATCHING_MATCHES_RETENTION_MONTHS": 2,
    "MATCHING_AUDIT_RETENTION_MONTHS": 2,
    "DROP_EVENTS_RETENTION_DAYS": 14,
}
NOW = timezone.now().replace(microsecond=0)
OLD_MONTH = (NOW - timedelta(days=130)).date().replace(day=1)
OLD_DAY = (NOW - timedelta(days=40)).date()


@pytest.fixture(autouse=True)
def due(fresh_process, settings, request):
    """What is older than two months, or two weeks, is past retention; at first nothing is."""
    for name, value in KEPT.items():
        setattr(settings, name, value)
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_EMPTY_CONFIRMATIONS = 0
    request.getfixturevalue("only_new_partitions")
    partitions.ensure_ahead()
    for model in readmodels.select(["catalog"]):  # emptying tables leaves materialized views
        readmodels.refresh(model, full=True)


def moment(day: date, hours: float = 0) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(hours=hours)


def snapshot(name: str, at: datetime, price: str | None, seller: str = "kritikos", **fields):
    given = {
        "product_name": name, "seller": seller, "price": price, "currency": "EUR",
        "scraped_at": at.isoformat(), "is_available": price is not None,
    }  # fmt: skip
    return given | fields


def record(*rows: dict) -> None:
    outcomes = record_snapshots(rows=rows, source="test")
    assert {outcome.outcome for outcome in outcomes} == {"accepted"}, outcomes


def old_snapshots() -> list[dict]:
    """An old month with the lowest price of a product ever, and one that is out of line; and a
    product that is of that month alone."""
    prices = ["9.90", "9.95", "9.99", "99.00", "4.50", None, "9.99"]
    days = [moment(OLD_MONTH, 24 * at + 6) for at in range(len(prices))]
    return [
        *(
            snapshot("Καφές “Bravo” 200 g", at, price, seller, description="ground\t\\N\n“fine”",
                     category_tags=["food", 'a,"b'], product_code="K-1")
            for at, price in zip(days, prices, strict=True)
            for seller in ("kritikos", "sklavenitis")
        ),
        snapshot("Gone for good", days[0], "3.00", currency="SEK"),
    ]  # fmt: skip


def fill_snapshots() -> None:
    """That month, and some days of this one."""
    record(*old_snapshots())
    record(
        *(
            snapshot("Καφές “Bravo” 200 g", NOW - timedelta(days=at), f"8.{at:02}",
                     product_code="K-1")
            for at in range(1, 9)
        )
    )  # fmt: skip


def fill_matches() -> None:
    """Pairs that matching found for people, who said something of some; months ago, all of it."""
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    for number, title in enumerate(["Red leather phone case", "Blue umbrella", "Silver ring"]):
        place = {"latitude": 55.95 + number, "longitude": -3.19}
        matching.create_item(owner=ann, kind="lost", title=title, **place)
        matching.create_item(owner=bob, kind="found", title=f"{title} “é\\”", **place)
    worker.drain(lambda done: True)
    found = list(Match.objects.order_by("id"))
    assert len(found) >= 3
    matching.confirm_match(match_id=found[0].pk, user=ann)
    matching.dismiss_match(match_id=found[1].pk, user=bob)
    for table, rows in (("matches", Match.objects), ("audit_logs", AuditLog.objects)):
        partitions.ensure(table, OLD_MONTH, OLD_MONTH)
        rows.update(created_at=moment(OLD_MONTH, 10) + F("id") * timedelta(microseconds=1_000_001))


def fill_drops(day: date = OLD_DAY) -> None:
    """Slots that opened on an old day, some to close again."""

    def show(at: datetime, *slots: str) -> None:
        discovery.record_source_poll(
            polls.Poll(
                source="tables",
                polled_at=at,
                slots=[
                    polls.Slot(slot, "v", at + timedelta(days=1), payload={"é": [1, None]})
                    for slot in slots
                ],
            )
        )

    begun = moment(day, 12)
    show(begun, "first")
    show(begun + timedelta(minutes=1), "first", "a", "b “\\N")
    show(begun + timedelta(minutes=7), "first", "b “\\N", *map(str, range(20)))
    if day == OLD_DAY:
        show(NOW - timedelta(minutes=3), "first", "new")


FILL = {
    "product_price_snapshots": fill_snapshots,
    "matches": fill_matches,
    "audit_logs": fill_matches,
    "drop_events": fill_drops,
}
OLD = {
    "product_price_snapshots": OLD_MONTH,
    "matches": OLD_MONTH,
    "audit_logs": OLD_MONTH,
    "drop_events": OLD_DAY,
}


def fill(table: str) -> tuple[partitions.Partition, list[str]]:
    """Make an old partition with real rows; it, and all rows that it holds."""
    FILL[table]()
    [part] = partitions.expired(table)
    assert part.start == OLD[table]
    return part, content(part.name)


def content(table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1")
        return [row for (row,) in cursor.fetchall()]


def structure(name: str) -> list[tuple]:
    """What a partition is, apart from its name: columns, constraints, triggers, indexes."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT 'column', attname, format_type(atttypid, atttypmod), attnotnull, attgenerated,
                pg_get_expr(adbin, adrelid), attcollation
            FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = %(name)s::regclass AND attnum > 0
            UNION ALL
            SELECT 'constraint', contype::text, pg_get_constraintdef(oid), conislocal,
                NULL, conparentid::text, 0
            FROM pg_constraint WHERE conrelid = %(name)s::regclass
            UNION ALL
            SELECT 'trigger', tgtype::text, tgfoid::regproc::text, tgenabled <> 'D', NULL, NULL, 0
            FROM pg_trigger WHERE tgrelid = %(name)s::regclass
            UNION ALL
            SELECT 'index', inhparent::regclass::text,
                regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', ''), indisunique,
                NULL, NULL, 0
            FROM pg_index LEFT JOIN pg_inherits ON inhrelid = indexrelid
            WHERE indrelid = %(name)s::regclass
            """,
            {"name": name},
        )
        return sorted(cursor.fetchall(), key=repr)


def assert_exact() -> None:
    """After a refresh every read model equals the truth and nothing waits; that of public items
    may lack some of them."""
    for model in readmodels.select():
        readmodels.refresh(model)
        assert model.name == "items_public" or model.backlog() == 0, model.name
    for model in readmodels.select():
        found = readmodels.reconcile(model)
        assert (model.name, found.count, found.pending, found.samples) == (model.name, 0, 0, [])


def read_model_rows() -> list[list[str]]:
    """What people see of the catalog, whatever order it was written in."""
    tables = ("catalog_slug_seller_summary", "catalog_price_points", "catalog_slug_summary",
              "catalog_outliers")  # fmt: skip
    with connection.cursor() as cursor:
        found = []
        for table in tables:
            cursor.execute(f"SELECT (to_jsonb(t) - 'id')::text FROM {table} AS t ORDER BY 1")
            found.append(cursor.fetchall())
    return found


def let_go() -> None:
    """The time for which restored partitions stay is over."""
    ArchivedPartition.objects.update(held_until=timezone.now())


def archive_rows(table: str) -> int:
    """Archive what is due, which must work; the rows of `table` that went."""
    before = {one.name for one in partitions.expired(table)}
    done = archive.run()
    assert (done.failures, done.complete) == ([], True)
    assert partitions.expired(table) == []
    return sum(one.rows for one in archived.manifests(stores.get(), table)
               if one.partition in before)  # fmt: skip


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("product_price_snapshots", "bucket"),
        ("matches", "bucket"),
        ("audit_logs", "folder"),
        ("drop_events", "folder"),
    ],
)
def test_a_domains_rows_go_and_come_back_equal(request, table, place):
    request.getfixturevalue(place)
    store = stores.get()
    part, before = fill(table)
    assert len(before) >= 3
    others = content(table)
    like = structure(partitions.existing(table)[-1].name)
    assert_exact()
    shown = read_model_rows()

    assert archive_rows(table) == len(before)
    assert sorted(content(table) + before) == others
    assert part.name not in {one.name for one in partitions.existing(table)}
    [manifest] = archived.manifests(store, table)
    assert (manifest.table, manifest.partition, manifest.rows) == (table, part.name, len(before))
    assert (manifest.start, manifest.end) == (str(part.start), str(part.end))
    assert (store.size(manifest.key), store.digest(manifest.key)[1]) == (
        manifest.bytes, manifest.sha256,
    )  # fmt: skip
    assert_exact()
    assert (read_model_rows() == shown) == (table != "product_price_snapshots")

    out = StringIO()
    call_command("archive", "restore", table, part.name, stdout=out)
    assert f"{part.name} is back with {len(before)} rows" in out.getvalue()
    assert content(part.name) == before
    assert content(table) == others
    assert structure(part.name) == like
    assert_exact()
    assert read_model_rows() == shown
    assert archive_rows(table) == 0
    assert content(table) == others

    let_go()
    assert archive_rows(table) == len(before)
    assert sorted(content(table) + before) == others
    assert archived.manifests(store, table) == [manifest]
    assert_exact()


def test_history_goes_with_its_months_and_comes_back_with_them(folder):
    part, _ = fill("product_price_snapshots")
    assert_exact()
    line = SellerSummary.objects.filter(seller="kritikos", currency="EUR")
    assert line.get().lowest == Decimal("4.5")
    archive_rows("product_price_snapshots")
    # Until the next refresh people see the lines as they were: only what asks for them anew waits.
    assert catalog_models.backlog() == 3
    assert_exact()
    assert line.get().first_at > moment(part.end)
    assert (line.get().lowest, line.get().observations) == (Decimal("8.01"), 8)
    assert not SlugSummary.objects.filter(name="Gone for good").exists()
    assert not PricePoint.objects.filter(day__lt=part.end).exists()

    archive.restore("product_price_snapshots", part.name)
    with connection.cursor() as cursor:
        # No snapshot of it counts again: each line is computed from all that there is.
        cursor.execute("SELECT count(*), count(snapshot_id) FROM catalog_changes")
        assert cursor.fetchone() == (3, 0)
    assert_exact()
    assert (line.get().lowest, line.get().observations) == (Decimal("4.5"), 8 + 7)
    assert SlugSummary.objects.filter(name="Gone for good").exists()


def record_drop_again(drop: DropEvent) -> None:
    """As a poll of that moment writes it where it is not there."""
    partitions.ensure("drop_events", drop.opened_minute, drop.opened_minute)
    drop.pk = None
    drop.save(force_insert=True)


@pytest.mark.parametrize("table", ["product_price_snapshots", "drop_events"])
def test_what_is_recorded_again_after_its_partition_went_comes_back_once(folder, table):
    part, before = fill(table)
    drop = DropEvent.objects.order_by("id").first()
    archive_rows(table)
    record_drop_again(drop) if drop else record(*old_snapshots())
    with pytest.raises(archive.ArchiveError, match="attached already"):
        archive.restore(table, part.name)
    archive.run()
    assert len(archived.manifests(stores.get(), table)) == 2
    archive.restore(table, part.name)
    assert content(part.name) == before
    assert structure(part.name) == structure(partitions.existing(table)[-1].name)
    assert_exact()
    let_go()
    archive.run()
    assert [one.rows for one in archived.manifests(stores.get(), table)] == [len(before)]


def restored(table: str, name: str) -> str:
    out = StringIO()
    call_command("archive", "restore", table, name, stdout=out)
    return out.getvalue()


def test_matches_come_back_but_for_those_of_items_that_are_gone(folder):
    store = stores.get()
    part, before = fill("matches")
    archive_rows("matches")
    [whole] = archived.manifests(store, "matches")
    item = Item.objects.filter(kind="lost").order_by("id").last()
    gone = [row for row in before if f",lost_found,{item.pk}," in row]
    assert gone
    item.delete()
    assert f"{len(gone)} rows do not fit any more" in restored("matches", part.name)
    assert sorted(content(part.name) + gone) == before
    assert structure(part.name) == structure(partitions.existing("matches")[-1].name)
    assert_exact()

    # What came back is known as part of its file: nothing is archived twice, and nothing lost.
    let_go()
    archive_rows("matches")
    assert content("matches") == []
    assert archived.manifests(store, "matches") == [whole]
    assert len(restored("matches", part.name).splitlines()) == 2
    assert sorted(content(part.name) + gone) == before

    # It changes while it is here: both files count then.
    Match.objects.filter(state="suggested").update(state="expired")
    let_go()
    archive_rows("matches")
    assert content("matches") == []
    assert [one.rows for one in archived.manifests(store, "matches")] == sorted(
        [len(before), len(before) - len(gone)]
    )


def test_a_pair_that_was_found_anew_or_is_over_does_not_come_back(folder):
    part, before = fill("matches")
    waiting, dismissed, over = Match.objects.order_by("id")
    archive_rows("matches")
    owner = User.objects.get(username="ann")
    matching.edit_item(item_id=waiting.seeker_id, owner=owner, description="With a red strap")
    matching.edit_item(item_id=over.seeker_id, owner=owner, status="closed")
    worker.drain(lambda done: True)
    [anew] = Match.objects.all()
    assert (anew.seeker_id, anew.offer_id) == (waiting.seeker_id, waiting.offer_id)

    assert "2 rows do not fit any more" in restored("matches", part.name)
    assert set(Match.objects.values_list("pk", flat=True)) == {anew.pk, dismissed.pk}
    assert_exact()
    let_go()
    archive_rows("matches")
    assert [one.rows for one in archived.manifests(stores.get(), "matches")] == [len(before)]


QUESTIONS = {
    "product_price_snapshots": ("price<9.95", lambda row: float(row["price"] or "inf") < 9.95, 5),
    "matches": ("state=dismissed", lambda row: row["state"] == "dismissed", 1),
    "audit_logs": ("action=create", lambda row: row["action"] == "create", 6),
    "drop_events": ("slot_id=b “\\N", lambda row: row["slot_id"] == "b “\\N", 1),
}


def ask(table: str, *arguments: str) -> str:
    out = StringIO()
    call_command(
        "archive", "query", table, "--since", str(OLD[table]),
        "--until", str(OLD[table] + timedelta(days=31)), *arguments, stdout=out,
    )  # fmt: skip
    return out.getvalue()


def as_psql_says(table: str) -> dict[int, dict]:
    """Rows by id, each value as PostgreSQL writes it in JSON."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL timezone = 'UTC'")
        cursor.execute(f"SELECT id, to_jsonb(t)::text FROM {table} AS t")
        return {key: orjson.loads(row) for key, row in cursor.fetchall()}


def plain(value):
    """A moment as such, whichever way it was written; anything else as it is."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def test_the_rows_of_every_domain_are_read_in_place(bucket):
    for make in dict.fromkeys(FILL.values()):
        make()
    truths = {table: as_psql_says(partitions.expired(table)[0].name) for table in FILL}
    assert archive.run().partitions == len(FILL)
    for table, truth in truths.items():
        rows = [orjson.loads(line) for line in ask(table, "--format", "json").splitlines()]
        assert len(rows) == len(truth)
        for row in rows:
            assert list(row) == archive_columns(table)
            row["price"] = float(row["price"]) if row.get("price") else None
            for name, value in truth[row["id"]].items():
                assert plain(row[name]) == plain(value), name

        table_rows = list(csv.DictReader(StringIO(ask(table), newline="")))
        assert [row["id"] for row in table_rows] == [str(row["id"]) for row in rows]
        condition, holds, count = QUESTIONS[table]
        wanted = {str(key) for key, row in truth.items() if holds(row)}
        assert len(wanted) == count
        only = ["--where", condition, "--columns", "id"]
        assert set(ask(table, *only).splitlines()[1:]) == wanted
        lines = ask(table, *only, "--format", "json").splitlines()
        assert {str(orjson.loads(line)["id"]) for line in lines} == wanted


def archive_columns(table: str) -> list[str]:
    with connection.cursor() as cursor:
        return [column.name for column in archived.columns_of(cursor, table)]


def is_verified(name: str) -> bool:
    """Whether the archive gives back the rows of a partition."""
    store = stores.get()
    found = [one for one in archived.manifests(store) if one.partition == name]
    for one in found:
        archive.verify(store, one)
    return bool(found)


def is_here(name: str) -> bool:
    """Whether the table of a partition still stands, attached or not."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
        return cursor.fetchone()[0]


def test_a_kill_at_any_step_drops_nothing_that_is_not_verified(bucket, fork):
    store = stores.get()
    kills = [("before", STEPS[0]), *(("after", step) for step in STEPS)]
    for number, (when, step) in enumerate(kills, 1):
        fill_drops(OLD_DAY + timedelta(days=number))
        [part] = partitions.expired("drop_events")
        before = content(part.name)
        assert before
        pid = fork(lambda when=when, step=step: archive_killed(when, step))
        assert exit_code(pid) == -signal.SIGKILL
        assert is_here(part.name) == (step != STEPS[-1]), (when, step)
        assert content(part.name) == before if is_here(part.name) else is_verified(part.name)

        assert archive.run().failures == []
        assert not is_here(part.name)
        assert is_verified(part.name)
        assert len(archived.manifests(store, "drop_events")) == number
        assert store._fs.find(store._path("_tmp")) == []


class FrailServer(ThreadedMotoServer):
    """moto's server, which asks `breaks(number)` at each part of an upload whether to read half of
    it and hang up."""

    breaks = staticmethod(lambda number: False)

    def _server_entry(self) -> None:
        moto = DomainDispatcherApplication(create_backend_app)

        def app(environ, start_response):
            asked = dict(parse_qsl(environ["QUERY_STRING"]))
            is_part = environ["REQUEST_METHOD"] == "PUT" and "partNumber" in asked
            if is_part and self.breaks(int(asked["partNumber"])):
                environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) // 2)
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                start_response("500 Gone", [])
                return []
            return moto(environ, start_response)

        self._server = make_server(
            self._ip_address, self._port, app, threaded=True, request_handler=MotoRequestHandler
        )
        self._server_ready_event.set()
        self._server.serve_forever()


@pytest.fixture
def frail(bucket, settings):
    """The same bucket behind a server that breaks where it is told to."""
    server = FrailServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    settings.ARCHIVE_S3_ENDPOINT = "http://{}:{}".format(*server.get_host_and_port())
    yield server
    server.stop()


LARGE_ROWS = 280


def fill_large() -> partitions.Partition:
    """A month whose file takes two parts to upload: nothing compresses its descriptions."""
    table = "product_price_snapshots"
    partitions.ensure(table, OLD_MONTH, OLD_MONTH)
    dice = random.Random(7)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} (scraped_at, seller, product_name_normalized,"
                    " product_name_original, price, currency, description) FROM STDIN") as out,
    ):  # fmt: skip
        for number in range(LARGE_ROWS):
            text = base64.b64encode(dice.randbytes(48_000)).decode()
            at = moment(OLD_MONTH, number)
            out.write_row((at, "kritikos", "large", "Large", Decimal("1.5"), "EUR", text))
    [part] = partitions.expired(table)
    return part


@pytest.mark.parametrize("how", ["killed", "broken"])
def test_an_upload_that_ends_half_way_drops_nothing(frail, fork, how):
    part = fill_large()
    parts, pids = [], []

    def breaks(number: int) -> bool:
        parts.append(number)
        if number == 2 and how == "killed":
            os.kill(pids[0], signal.SIGKILL)
        return number == 2

    frail.breaks = breaks
    if how == "killed":
        pids.append(fork(archive.run))
        assert exit_code(pids[0]) == -signal.SIGKILL
    else:
        [failure] = archive.run().failures
        assert failure.startswith(part.name)
        assert "a-secret-for-tests" not in failure
    assert {1, 2} <= set(parts)
    assert [one.name for one in partitions.expired("product_price_snapshots")] == [part.name]
    assert len(content(part.name)) == LARGE_ROWS
    assert archived.manifests(stores.get()) == []
    assert stores.get()._fs.find(stores.get()._path("")) == []

    frail.breaks = FrailServer.breaks
    assert archive.run().rows == LARGE_ROWS
    assert is_verified(part.name)
    assert not is_here(part.name)
