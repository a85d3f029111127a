"""Snapshots in, by file and by request, on a real PostgreSQL; killed, doubled and damaged."""

import csv
import gzip
import os
import random
import signal
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction

from catalog import actions
from catalog.actions import SNAPSHOTS_AT_ONCE, ingest_file, record_snapshots
from catalog.models import IngestReject, IngestRun, Snapshot
from catalog.readers import SourceError, parse_map
from catalog.rows import REASONS
from config import files, partitions, tally
from tests.processes import until

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "catalog"
HEADER = "product_name,product_code,seller,price,currency,scraped_at"
DAY = "2025-10-01T06:00:00Z"


def row(**changes) -> dict:
    return {
        "product_name": "Ρύζι Basmati",
        "product_code": "1",
        "seller": "acme",
        "price": "1.50",
        "currency": "EUR",
        "scraped_at": DAY,
    } | changes


def stored() -> list[tuple]:
    """What is in the table: natural key and price, in order."""
    return list(
        Snapshot.objects.order_by(
            "product_name_normalized", "seller", "scraped_at", "product_code", "currency"
        ).values_list(
            "product_name_original", "seller", "scraped_at", "product_code", "currency", "price"
        )
    )


def tallied() -> dict[str, int]:
    return {
        each.labels["outcome"]: each.value
        for each in tally.all()
        if each.name == "ingest_rows_total"
    }


def write(folder: Path, lines: list[str], name: str = "data.csv") -> str:
    path = folder / name
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return str(path)


def ingest(path: str, folder: Path, **options):
    return ingest_file(path=path, rejects_path=str(folder / "out.rejects.csv"), **options)


def many_lines(count: int, seed: int = 1) -> list[str]:
    """Lines of `count` products and some days, with duplicates, conflicts and bad rows."""
    chance = random.Random(seed)
    start = datetime(2025, 9, 28, 6, tzinfo=UTC)
    lines = []
    for number in range(count):
        day = start + timedelta(days=number * 6 // count)
        name = chance.choice(["Ρύζι", "Milk \\ half\tfat", "Käse &amp; Brot"])
        line = f"{name} {chance.randrange(count // 3)},{chance.randrange(3)},acme,"
        price = "free" if chance.random() < 0.01 else f"{chance.randrange(100, 103) / 100}"
        lines.append(f"{line}{price},EUR,{day.isoformat()}")
    return lines


def expected(lines: list[str]) -> list[tuple]:
    """What `stored` must be after `lines`: of each key the first row with a price."""
    first = {}
    for line in lines:
        name, code, seller, price, currency, day = line.split(",")
        if price != "free":
            key = name.replace("&amp;", "&"), seller, datetime.fromisoformat(day), code, currency
            first.setdefault(key, Decimal(price))
    return sorted((*key, price) for key, price in first.items())


@pytest.mark.django_db
class TestRecordSnapshots:
    def test_each_row_gets_its_outcome_in_order(self):
        record_snapshots(rows=[row()], source="test")
        rows = [
            row(),
            row(price="1.5000"),
            row(price="1.75"),
            row(price=None),
            row(product_name="Milk"),
            row(product_name="MILK!"),
            row(product_name="Milk", price=2),
            row(currency="USD"),
            row(prise=1),
            "text",
            row(product_name="Tea", price=None, availability="unavailable"),
            row(product_name="Tea", price=3),
        ]
        outcomes = record_snapshots(rows=rows, source="test")
        assert [(each.outcome, each.reason) for each in outcomes] == [
            ("duplicate", ""),
            ("duplicate", ""),
            ("conflict", "conflict"),
            ("rejected", "price_missing"),
            ("accepted", ""),
            ("duplicate", ""),
            ("conflict", "conflict"),
            ("accepted", ""),
            ("rejected", "unknown_field"),
            ("rejected", "wrong_type"),
            ("accepted", ""),
            ("conflict", "conflict"),
        ]
        assert outcomes[2].detail == "1.5 stands, this row says 1.75"
        assert outcomes[11].detail == "no price stands, this row says 3"

    def test_every_column(self):
        record_snapshots(
            rows=[
                row(
                    product_name=' Tab\there \\N "q" &amp; {x} ',
                    category_tags=["Board Games", "null", 'a "b"'],
                    hero_image_url="https://example.com/a.png",
                    description="line one\r\nline two\\.\n\\.\n",
                    availability="preorder",
                    scraped_at="2025-10-01T08:00:00.25+02:00",
                )
            ],
            source="test",
        )
        snapshot = Snapshot.objects.get()
        assert snapshot.product_name_original == 'Tab\there \\N "q" & {x}'
        assert snapshot.product_name_normalized == "tab-here-n-q-x"
        assert snapshot.category_tags == ["board-games", "null", "a-b"]
        assert snapshot.hero_image_url == "https://example.com/a.png"
        assert snapshot.description == "line one\r\nline two\\.\n\\."
        assert (snapshot.is_available, snapshot.is_preorder) == (False, True)
        assert snapshot.scraped_at == datetime(2025, 10, 1, 6, 0, 0, 250_000, tzinfo=UTC)
        assert snapshot.ingest_run_id == IngestRun.objects.get().pk

    def test_the_run_the_rejects_and_the_counters(self):
        before = tallied()
        record_snapshots(
            rows=[row(), row(), row(price=9), row(product_name="a\0b"), row(seller="\ud800")],
            source="api",
            user_label="scraper",
        )
        run = IngestRun.objects.get()
        assert (run.source, run.state, run.user_label) == ("api", "finished", "scraper")
        assert (run.rows_read, run.accepted, run.duplicate, run.conflicts, run.rejected) == (
            5, 1, 1, 1, 2,
        )  # fmt: skip
        assert run.reasons == {"nul_byte": 1, "encoding": 1}
        assert run.finished_at
        rejects = IngestReject.objects.order_by("line").values_list("line", "reason", "field")
        assert list(rejects) == [
            (3, "conflict", "price"),
            (4, "nul_byte", "product_name"),
            (5, "encoding", "seller"),
        ]
        after = tallied()
        assert {key: after[key] - before.get(key, 0) for key in after} == {
            "accepted": 1, "duplicate": 1, "conflict": 1, "rejected": 2,
        }  # fmt: skip

    def test_twice_in_one_transaction_of_the_caller(self):
        with transaction.atomic():
            first = record_snapshots(rows=[row()], source="test")
            second = record_snapshots(rows=[row(), row(product_code="2")], source="test")
        assert [each.outcome for each in first + second] == ["accepted", "duplicate", "accepted"]

    def test_nothing_stays_of_a_transaction_that_fails(self):
        with transaction.atomic():
            record_snapshots(rows=[row()], source="test")
            transaction.set_rollback(True)
        assert not Snapshot.objects.exists()
        assert not IngestRun.objects.exists()

    def test_bounds(self):
        assert record_snapshots(rows=[], source="test") == []
        with pytest.raises(ValueError, match="at most 5,000"):
            record_snapshots(rows=[row()] * (SNAPSHOTS_AT_ONCE + 1), source="test")
        outcomes = record_snapshots(rows=[row()] * SNAPSHOTS_AT_ONCE, source="test")
        assert [each.outcome for each in outcomes].count("duplicate") == SNAPSHOTS_AT_ONCE - 1

    def test_the_longest_row_fits_the_indexes(self):
        wide = "\U0001d400"  # four bytes
        outcomes = record_snapshots(
            rows=[
                row(
                    product_name="".join(chr(0x20000 + n) for n in range(2_000)),
                    product_code=wide * 200,
                    seller=wide * 100,
                    description=wide * 10_000,
                    category_tags=[chr(0x20000 + n) * 100 for n in range(50)],
                )
            ],
            source="test",
        )
        assert [each.outcome for each in outcomes] == ["accepted"]

    def test_months_far_apart_get_their_partitions_and_none_between(self):
        def months():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT right(relname, 8) FROM pg_class"
                    " WHERE relname ~ 'snapshots_y200[0-9]m[0-9]{2}$' AND relkind = 'r'"
                )
                return {name for (name,) in cursor.fetchall()}

        before = months()  # of other tests, whose partitions stay
        record_snapshots(
            rows=[row(scraped_at="2003-03-31T23:59:59Z"), row(scraped_at="2005-01-01")],
            source="test",
        )
        assert months() == before | {"y2003m03", "y2005m01"}


@pytest.mark.django_db
class TestIngestFile:
    def test_a_file_and_the_same_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(actions, "CHUNK_ROWS", 500)
        lines = many_lines(6_000)
        path = write(tmp_path, lines)
        first = ingest(path, tmp_path).counts
        assert stored() == expected(lines)
        assert first.accepted == len(stored())
        assert first.rows_read == 6_000
        assert first.reasons == {"price_unparsable": sum(",free," in line for line in lines)}
        assert first.conflicts
        assert first.duplicate
        assert first.rows_read == (
            first.accepted + first.duplicate + first.conflicts + first.rejected
        )
        again = ingest(path, tmp_path).counts
        assert again.accepted == 0
        assert again.rejected == first.rejected
        assert again.conflicts == first.conflicts
        assert stored() == expected(lines)
        runs = IngestRun.objects.order_by("pk")
        assert [run.state for run in runs] == ["finished", "finished"]
        assert runs[0].source_hash == runs[1].source_hash != ""
        assert runs[0].accepted == first.accepted

    def test_new_rows_go_straight_in_until_one_stands(self, tmp_path, monkeypatch):
        """Both ways leave the same rows, columns and change log; a failed COPY leaves nothing."""
        monkeypatch.setattr(actions, "CHUNK_ROWS", 100)
        monkeypatch.setattr(files, "BLOCK_BYTES", 256)
        straight, record = [], actions._record_straight

        def watched(chunk, run_id):
            straight.append(record(chunk, run_id))
            return straight[-1]

        monkeypatch.setattr(actions, "_record_straight", watched)
        days = [f"2025-09-{day:02}T06:00:00Z" for day in range(1, 7)]
        lines = [f"Tea {n} \\ x,c{n},acme,1.{n % 9},EUR,{day}" for day in days for n in range(100)]
        ingest(write(tmp_path, lines[250:270]), tmp_path)
        counts = ingest(write(tmp_path, lines), tmp_path).counts
        assert (counts.accepted, counts.duplicate) == (580, 20)
        # The first file; of the second new, new, one stands. Staged, that was new, so straight on.
        assert [bool(each) for each in straight] == [True, True, True, False, True, True]
        assert stored() == expected(lines)
        assert set(Snapshot.objects.values_list("ingest_run_id", flat=True)) == set(
            IngestRun.objects.values_list("pk", flat=True)
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT snapshot_id) FROM catalog_changes")
            assert cursor.fetchone() == (600, 600)

    def test_the_rejects_file(self, tmp_path):
        lines = ["Rice,1,acme,1.00,EUR," + DAY] * 2
        lines += ["Rice,1,acme,2.00,EUR," + DAY, 'Bad,"1', "\x00,1,acme,1,EUR," + DAY]
        report = ingest(write(tmp_path, lines), tmp_path)
        with Path(report.rejects_path).open(encoding="utf-8", newline="") as file:
            rejects = list(csv.DictReader(file))
        assert [(each["line"], each["reason"], each["field"]) for each in rejects] == [
            ("4", "conflict", "price"),
            ("5", "csv_unclosed_quote", ""),
            ("6", "nul_byte", "product_name"),
        ]
        assert rejects[0]["detail"] == "1 stands, this row says 2"
        assert rejects[1]["raw"] == 'Bad,"1'
        assert IngestRun.objects.get().rejects_path == report.rejects_path

    def test_no_rejects_no_file(self, tmp_path):
        report = ingest(write(tmp_path, ["Rice,1,acme,1,EUR," + DAY]), tmp_path)
        assert report.rejects_path == ""
        assert not (tmp_path / "out.rejects.csv").exists()

    def test_the_admin_gets_the_first_thousand_of_each_kind(self, tmp_path, monkeypatch):
        monkeypatch.setattr(actions, "CHUNK_ROWS", 400)
        lines = ["Rice,1,acme,0,EUR," + DAY] * 1_500
        lines += [f"Rice,1,acme,{price},EUR,{DAY}" for price in range(1, 1_301)]
        report = ingest(write(tmp_path, lines), tmp_path)
        assert (report.counts.rejected, report.counts.conflicts) == (1_500, 1_299)
        kinds = IngestReject.objects.values_list("reason", flat=True)
        assert (len(kinds), list(kinds).count("conflict")) == (2_000, 1_000)
        assert len(Path(report.rejects_path).read_text().splitlines()) == 2_800

    def test_a_dry_run_writes_nothing(self, tmp_path):
        lines = ["Rice,1,acme,1,EUR," + DAY, "Rice,1,acme,0,EUR," + DAY]
        report = ingest(write(tmp_path, lines), tmp_path, dry_run=True)
        assert (report.counts.accepted, report.counts.rejected, report.run_id) == (1, 1, None)
        assert not Snapshot.objects.exists()
        assert not IngestRun.objects.exists()

    def test_a_damaged_file_keeps_what_came_before(self, tmp_path):
        lines = many_lines(30_000)
        whole = gzip.compress("\n".join([HEADER, *lines]).encode())
        path = tmp_path / "data.csv.gz"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match="damaged gzip after line"):
            ingest(str(path), tmp_path)
        run = IngestRun.objects.get()
        assert run.state == "failed"
        assert "damaged gzip" in run.error
        assert run.accepted == Snapshot.objects.count() > 0
        path.write_bytes(whole)
        ingest(str(path), tmp_path)
        assert stored() == expected(lines)

    def test_a_run_whose_process_died_is_marked(self, tmp_path):
        gone = subprocess.Popen(["true"])
        gone.wait()
        mine = actions._start_run("mine", "")
        dead = IngestRun.objects.create(source="dead", pid=gone.pid, owner=mine.owner)
        ingest(write(tmp_path, ["Rice,1,acme,1,EUR," + DAY]), tmp_path)
        dead.refresh_from_db()
        mine.refresh_from_db()
        assert (dead.state, mine.state) == ("interrupted", "running")

    def test_a_folder_that_takes_no_rejects(self, tmp_path):
        path = write(tmp_path, ["Rice,1,acme,1,EUR," + DAY])
        with pytest.raises(SourceError, match="say --rejects PATH"):
            ingest_file(path=path, rejects_path=str(tmp_path / "none" / "out.csv"))
        assert not IngestRun.objects.exists()

    def test_a_broken_chunk_stops_the_reader_and_fails_the_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(actions, "CHUNK_ROWS", 10)

        def fail(*_args):
            raise RuntimeError("disk full")

        monkeypatch.setattr(actions, "_record", fail)
        with pytest.raises(RuntimeError, match="disk full"):
            ingest(write(tmp_path, many_lines(300)), tmp_path)
        assert IngestRun.objects.get().error == "RuntimeError: disk full"
        assert not [each for each in threading.enumerate() if each.name == "file-reader"]


@pytest.mark.django_db
class TestCommand:
    def run(self, *args, **options):
        out, err = StringIO(), StringIO()
        call_command("ingest_snapshots", *args, stdout=out, stderr=err, **options)
        return out.getvalue(), err.getvalue()

    def test_the_report(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = write(tmp_path, many_lines(1_000))
        out, err = self.run(path, "--no-refresh")
        assert "1,000 rows in" in out
        assert "accepted" in out
        assert f"price_unparsable: {REASONS['price_unparsable']}" in out
        assert "refused rows: data.rejects.csv" in out
        assert err == ""
        with pytest.raises(CommandError, match="rows were refused"):
            self.run(path, "--no-refresh", "--strict")
        assert self.run(path, "--no-refresh", verbosity=0) == ("", "")

    def test_several_files_one_of_them_missing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "other").mkdir()
        one = write(tmp_path, ["Rice,1,acme,0,EUR," + DAY, "Rice,1,acme,1,EUR," + DAY])
        two = write(tmp_path / "other", ["Rice,2,acme,0,EUR," + DAY, "Rice,2,acme,1,EUR," + DAY])
        with pytest.raises(CommandError, match="1 of 3 files"):
            self.run(one, "none.csv", two, "--no-refresh")
        assert Snapshot.objects.count() == 2
        assert {each.name for each in tmp_path.glob("*.rejects.csv")} == {
            "data.rejects.csv",
            "data-2.rejects.csv",
        }
        with pytest.raises(CommandError, match="one PATH at a time"):
            self.run(one, two, "--rejects", "x.csv")

    def test_the_refresh_follows(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        out, _ = self.run(write(tmp_path, ["Rice,1,acme,1,EUR," + DAY]))
        assert "read models: succeeded" in out.lower()

    def test_a_wrong_map_is_one_sentence(self):
        with pytest.raises(CommandError, match="no field 'prise'"):
            self.run("data.csv", "--map", "prise=cost")


def slice_of(path: Path, lines: int, folder: Path) -> str:
    if not path.exists():
        pytest.skip(f"the data set {path.name} is not beside the project")
    target = folder / path.name
    with gzip.open(path, "rt", encoding="utf-8") as source, gzip.open(target, "wt") as out:
        for _, line in zip(range(lines), source, strict=False):
            out.write(line)
    return str(target)


@pytest.mark.django_db
def test_greek_supermarkets(tmp_path):
    path = slice_of(DATA / "greek_supermarkets_dev.csv.gz", 20_001, tmp_path)
    counts = ingest(path, tmp_path).counts
    assert counts.rows_read == 20_000
    assert counts.rejected == 0
    assert counts.accepted == Snapshot.objects.count()
    assert counts.duplicate
    assert not Snapshot.objects.filter(product_name_original__contains="&amp;").exists()


@pytest.mark.django_db
def test_gpu_offers_by_map(tmp_path):
    path = slice_of(DATA / "gpu_cloud_dev_offers.csv.gz", 5_001, tmp_path)
    field_map = parse_map(
        [
            "product_name=product",
            "price=min_price_usd_per_gpu_hour",
            "scraped_at=polled_at",
            "currency=:USD",
        ]
    )
    counts = ingest(path, tmp_path, field_map=field_map).counts
    assert (counts.rows_read, counts.accepted) == (5_000, 5_000)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_killed_anywhere_the_next_run_completes_it(tmp_path, spawn):
    lines = many_lines(90_000)
    path = write(tmp_path, lines)
    chance = random.Random(int(os.environ.get("KILL_SEED", "3")))
    command = ["ingest_snapshots", path, "--no-refresh", "--rejects", str(tmp_path / "r.csv")]
    for killed in range(1, 4):
        process = spawn(command)
        until(lambda n=killed: IngestRun.objects.count() == n, "the ingest", process=process)
        time.sleep(chance.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert IngestRun.objects.exclude(state="finished").exists()
    process = spawn(command)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert stored() == expected(lines)
    runs = list(IngestRun.objects.order_by("pk"))
    assert "running" not in {run.state for run in runs}
    assert runs[-1].rows_read == 90_000
    assert sum(run.accepted for run in runs) == Snapshot.objects.count()
    assert tallied()["accepted"] == Snapshot.objects.count()
    assert "conflicts" in output


@pytest.mark.django_db(transaction=True)
def test_two_ingests_of_one_file_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(actions, "CHUNK_ROWS", 700)
    lines = many_lines(10_000)
    paths = [
        write(tmp_path, lines, "one.csv"),
        write(tmp_path, lines[:3] + lines[:2:-1], "two.csv"),
        write(tmp_path, lines, "three.csv"),
    ]
    reports, errors = [], []

    def work(path):
        try:
            reports.append(ingest_file(path=path, rejects_path=f"{path}.rejects.csv"))
        except Exception as error:  # noqa: BLE001 -- the test's thread says what it was
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=[path]) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [each[:-1] for each in stored()] == [each[:-1] for each in expected(lines)]
    assert sum(report.counts.accepted for report in reports) == len(stored())
    for report in reports:
        counts = report.counts
        assert (
            counts.rows_read
            == 10_000
            == (counts.accepted + counts.duplicate + counts.conflicts + counts.rejected)
        )


@pytest.mark.django_db(transaction=True)
def test_piped_into_the_command(tmp_path, spawn):
    process = spawn(
        ["ingest_snapshots", "-", "--format", "csv", "--no-refresh", "--rejects",
         str(tmp_path / "r.csv")],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    output, errors = process.communicate("\n".join([HEADER, *many_lines(200)]), timeout=60)
    assert process.returncode == 0, errors
    assert "standard input: 200 rows" in output
    assert "rows/s" not in errors  # no progress bar without a terminal
    assert Snapshot.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_month_dropped_on_the_way_is_made_again(tmp_path, monkeypatch):
    """Retention drops a month after it was seen to exist and before rows go in."""
    table, dropped = "product_price_snapshots", []
    ensure = actions._ensure_partitions

    def ensured_then_dropped(chunk) -> None:
        ensure(chunk)
        if not dropped:
            [part] = [p for p in partitions.existing(table) if p.start.year == 2001]
            partitions.drop(table, part)
            dropped.append(part)

    monkeypatch.setattr(actions, "_ensure_partitions", ensured_then_dropped)
    [outcome] = record_snapshots(rows=[row(scraped_at="2001-02-03")], source="test")
    assert outcome.outcome == "accepted"
    dropped.clear()
    report = ingest(write(tmp_path, [HEADER, "Tea,1,acme,1,EUR,2001-02-04"]), tmp_path)
    assert report.counts.accepted == Snapshot.objects.count() == 1
    assert dropped


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["data.csv", "folder"])
def test_rejects_go_neither_into_the_file_itself_nor_into_a_folder(tmp_path, name):
    (tmp_path / "folder").mkdir()
    path = write(tmp_path, [HEADER, "bad"])
    before = Path(path).read_bytes()
    with pytest.raises(SourceError, match="say --rejects PATH"):
        ingest_file(path=path, rejects_path=str(tmp_path / name))
    assert Path(path).read_bytes() == before


@pytest.mark.django_db
def test_a_full_disk_under_the_rejects_is_said_in_one_sentence(tmp_path):
    path = write(tmp_path, [HEADER, "Tea,1,acme,1,EUR,2025-10-01", "bad"])
    errors = StringIO()
    with pytest.raises(CommandError, match="1 of 1 files"):
        call_command("ingest_snapshots", path, rejects="/dev/full", verbosity=0, stderr=errors)
    assert "/dev/full: the refused rows cannot be written (No space left" in errors.getvalue()
    assert IngestRun.objects.get().state == IngestRun.State.FAILED
    assert Snapshot.objects.count() == 1
