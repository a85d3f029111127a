"""How fast a file goes in, against COPY alone, and how much memory that takes."""

import csv
import gzip
import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

from bench import dataset
from bench.harness import SHARED_DATA, Bench, Figure, figure, median, say, seconds

ROUNDS = 3
GREEK = SHARED_DATA / "catalog" / "greek_supermarkets_dev.csv.gz"
GREEK_ROWS = 1_284_327
LINES_A_DAY = 20_000

_COLUMNS = ("product_name", "product_code", "seller", "price", "currency", "scraped_at")

# The same columns, indexes and months; no constraint but NOT NULL, no trigger.
_BARE = """
CREATE TABLE bench_bare (LIKE product_price_snapshots INCLUDING DEFAULTS INCLUDING INDEXES)
    PARTITION BY RANGE (scraped_at);
DO $do$
DECLARE
    month record;
BEGIN
    FOR month IN
        SELECT child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bounds
        FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'product_price_snapshots'::regclass
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF bench_bare %s',
            replace(month.name, 'product_price_snapshots', 'bench_bare'), month.bounds);
    END LOOP;
END $do$;
"""

_COPY = """
COPY bench_bare (product_name_original, product_name_normalized, product_code, seller, price,
    currency, scraped_at) FROM STDIN
"""


def rate(bench: Bench, database: str, rows: int) -> Figure:
    """Rows a second by file (reading, checking, change log and all), against COPY alone."""
    path = bench.folder / "ingest.csv"
    copy = bench.folder / "ingest.copy"
    _write_csv(path, rows)
    _write_copy(copy, rows)
    by_file, bare = [], []
    _prepare(bench, database, rows)
    with bench.connect(database) as db:
        db.execute(_BARE)
        for _ in range(bench.rounds(ROUNDS)):
            db.execute("TRUNCATE bench_bare, product_price_snapshots, catalog_changes")
            db.execute("CHECKPOINT")
            bench.manage(database, "ingest_snapshots", path, "--no-refresh")
            by_file.append(_last_run_seconds(db, rows))
            db.execute("CHECKPOINT")
            bare.append(seconds(lambda: _copy_in(db, copy)))
            say(f"ingest: {rows / by_file[-1]:,.0f} rows/s, COPY: {rows / bare[-1]:,.0f} rows/s")
    bench.drop_database(database)
    return figure(
        "ingest_rate",
        median(bare) / median(by_file),
        "x",
        ">= 0.5",
        rows=rows,
        ingest_rows_per_second=round(rows / median(by_file)),
        copy_rows_per_second=round(rows / median(bare)),
    )


def memory(bench: Bench, database: str, rows: int) -> list[Figure]:
    """The peak memory of `manage.py ingest_snapshots`, for a file and for a quarter of it."""
    whole, quarter = bench.folder / "whole.csv.gz", bench.folder / "quarter.csv.gz"
    real = GREEK.exists() and rows >= GREEK_ROWS
    if real:
        whole, rows = GREEK, GREEK_ROWS
    else:
        with gzip.open(whole, "wt", compresslevel=1, encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *_rows(rows)])
    with gzip.open(whole, "rb") as source, gzip.open(quarter, "wb", compresslevel=1) as target:
        target.writelines(islice(source, 1 + rows // 4))
    peaks = {}
    _prepare(bench, database, rows)
    for path in (quarter, whole):
        used = bench.manage(database, "ingest_snapshots", path, "--no-refresh")
        peaks[path] = used.peak_mb
        say(f"ingest of {path.name}: {used.seconds:.0f} s, {used.peak_mb:.0f} MB")
    bench.drop_database(database)
    detail = {
        "file": "greek_supermarkets_dev.csv.gz" if real else "generated",
        "rows": rows,
        "quarter_mb": round(peaks[quarter], 1),
        "whole_mb": round(peaks[whole], 1),
    }
    return [
        figure("ingest_memory", peaks[whole], "MB", "< 300", **detail),
        figure("ingest_memory_growth", peaks[whole] / peaks[quarter], "x", "<= 1.1", **detail),
    ]


def _prepare(bench: Bench, database: str, rows: int) -> None:
    """Migrated, with every month made: neither side is to pay for that."""
    bench.create_database(database)
    bench.manage(database, "migrate", "--verbosity=0")
    days = timedelta(days=rows // LINES_A_DAY + 2)
    dataset.ensure_partitions(bench, database, dataset.LAST_DAY - days, dataset.LAST_DAY)


def _last_run_seconds(db, rows: int) -> float:
    accepted, took = db.execute(
        "SELECT accepted, extract(epoch FROM finished_at - started_at)::float"
        " FROM catalog_ingest_run ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert accepted == rows, f"{accepted:,} of {rows:,} rows went in"
    return took


def _copy_in(db, path: Path) -> None:
    with path.open("rb") as source, db.cursor() as cursor, cursor.copy(_COPY) as copy:
        while data := source.read(1_000_000):
            copy.write(data)


def _write_csv(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *_rows(rows)])


def _write_copy(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for name, code, seller, price, currency, moment in _rows(rows):
            slug = name.casefold().replace(" ", "-")
            file.write(f"{name}\t{slug}\t{code}\t{seller}\t{price}\t{currency}\t{moment}\n")


def _rows(rows: int) -> Iterator[tuple]:
    """Daily polls of 20,000 lines, in the order in which sellers list them."""
    chance = random.Random(1)
    lines = [
        (f"Expedition {number} Ausgabe {number % 7}", f"c{number}", seller, 100 + number % 9000)
        for seller in dataset.SELLERS
        for number in range(-(-LINES_A_DAY // len(dataset.SELLERS)))
    ][:LINES_A_DAY]
    chance.shuffle(lines)
    for number in range(rows):
        ago, line = divmod(number, LINES_A_DAY)
        name, code, seller, cents = lines[line]
        day = dataset.LAST_DAY - timedelta(days=rows // LINES_A_DAY - ago)
        price = (cents + (ago // 7 * 13 + line) % 40) / 100
        yield name, code, seller, f"{price:.2f}", "EUR", f"{day}T06:00:00Z"
