import csv
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from django.core.management.base import BaseCommand, CommandError

from config import archive, archived, audit, parquet, partitions, runs, stores
from config.management.arguments import number
from config.management.progress import Progress

TIMEOUT = timedelta(days=7)  # by hand it may take as long as it takes
_OPERATORS = ("!=", "<=", ">=", "=", "<", ">")


def moment(text: str) -> datetime:
    """A date or a time in ISO 8601; UTC where it names no zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no date or time: write 2026-01-31") from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def condition(text: str) -> tuple[str, str, str]:
    """column=value, or another comparison."""
    at, operator = min(
        ((text.find(one), one) for one in _OPERATORS if one in text),
        key=lambda found: (found[0], -len(found[1])),
        default=(0, ""),
    )
    if not at:
        raise ArgumentTypeError(f"{text!r} is no condition: write column=value")
    return text[:at].strip(), operator, text[at + len(operator) :].strip()


class Command(BaseCommand):
    help = "Bring partitions past retention into the archive (ARCHIVE_URL), and read it."

    def add_arguments(self, parser):
        actions = parser.add_subparsers(dest="action", metavar="ACTION")
        lister = actions.add_parser("list", help="what the archive holds")
        lister.add_argument("table", nargs="?", default="", metavar="TABLE")
        verifier = actions.add_parser("verify", help="read every file back and compare")
        verifier.add_argument("table", nargs="?", default="", metavar="TABLE")
        restorer = actions.add_parser("restore", help="bring one partition back")
        restorer.add_argument("table", metavar="TABLE")
        restorer.add_argument("partition", metavar="PARTITION")
        restorer.add_argument(
            "--days",
            type=number(1, 3_650),
            default=archive.HOLD_DAYS,
            help="it stays (default: %(default)s)",
        )
        reader = actions.add_parser("query", help="read rows in place")
        reader.add_argument("table", metavar="TABLE")
        reader.add_argument("--since", type=moment, required=True, help="from here, inclusive")
        reader.add_argument("--until", type=moment, required=True, help="to here, exclusive")
        reader.add_argument("--columns", help="their names with commas; default: all")
        reader.add_argument(
            "--where", type=condition, action="append", default=[], metavar="COLUMN=VALUE",
            help="also != < <= > >=; several must all hold",
        )  # fmt: skip
        reader.add_argument("--format", choices=["csv", "json"], default="csv")
        reader.add_argument("--output", metavar="PATH", help="default: standard output")

    def handle(self, *args, action, **options):
        try:
            getattr(self, f"_{action or 'run'}")(**options)
        except partitions.UnknownTable as error:
            raise CommandError(error.args[0]) from error
        except (stores.StoreError, archive.ArchiveError) as error:
            raise CommandError(str(error)) from error

    def _run(self, *, verbosity, **options):
        stores.get().check()
        results = []

        def work(run) -> int:
            with Progress(verbosity, unit="partitions") as progress:

                def show(done: int, due: int, name: str) -> None:
                    run.progress(partition=name)
                    progress.show("archiving", done, due, name)

                results.append(archive.run(progress=show))
            return results[0].rows

        try:
            record = runs.execute("archive", work, timeout=TIMEOUT, trigger="command")
        except runs.JobFailed as error:
            raise CommandError(str(error)) from error
        if not results:
            raise CommandError(runs.describe(record))
        [done] = results
        if done.failures:
            raise CommandError(
                "\n".join([*done.failures, f"{len(done.failures)} stay until they are archived"])
            )
        if verbosity:
            self.stdout.write(f"archived and dropped {done.partitions:,} partitions, "
                              f"{done.rows:,} rows")  # fmt: skip

    def _list(self, *, table, verbosity, **options):
        if table:
            partitions.get(table)
        found = archived.manifests(stores.get(), table)
        here = set(
            archived.ArchivedPartition.objects.filter(dropped_at=None).values_list("key", flat=True)
        )
        for one in found if verbosity else ():
            note = "  also in the database" if one.key in here else ""
            self.stdout.write(
                f"{one.table} {one.partition}  {one.start} … {one.end}  {one.rows:,} rows  "
                f"{one.bytes:,} bytes  {one.verified_at[:16]}{note}"
            )
        if verbosity:
            self.stdout.write(f"{len(found):,} files, {sum(one.rows for one in found):,} rows, "
                              f"{sum(one.bytes for one in found):,} bytes")  # fmt: skip

    def _verify(self, *, table, verbosity, **options):
        if table:
            partitions.get(table)
        store, bad = stores.get(), []
        found = archived.manifests(store, table)
        with Progress(verbosity, unit="files") as progress:
            for done, one in enumerate(found, 1):
                try:
                    archive.verify(store, one)
                except (archive.ArchiveError, stores.StoreError, *parquet.faults()) as error:
                    bad.append(f"{one.key}: {error}")
                progress.show("verifying", done, len(found))
        if bad:
            raise CommandError("\n".join([*bad, f"{len(bad)} of {len(found)} files are damaged"]))
        if verbosity:
            self.stdout.write(f"{len(found):,} files are what their manifests say")

    def _restore(self, *, table, partition, days, verbosity, **options):
        audit.by_command("archive restore", entity=table, entity_id=partition, days=days)
        back = archive.restore(table, partition, days=days)
        if verbosity:
            self.stdout.write(f"{back.name} is back with {back.rows:,} rows; it stays until "
                              f"{back.held_until:%Y-%m-%d %H:%M} UTC")  # fmt: skip
            if back.left_out:
                self.stdout.write(f"{back.left_out:,} rows do not fit any more; the archive alone "
                                  "has them: archive query")  # fmt: skip

    def _query(self, *, table, since, until, columns, where, format, output, **options):
        if since >= until:
            raise CommandError("--since must be before --until")
        chosen, batches = archive.query(
            table,
            since=since,
            until=until,
            columns=[one.strip() for one in columns.split(",")] if columns else None,
            where=where,
        )
        write = _write_csv if format == "csv" else _write_json
        if not output:
            write(self.stdout, chosen, batches)
            return
        with Path(output).open("w", newline="", encoding="utf-8") as file:
            write(file, chosen, batches)


def _write_csv(file, columns, batches) -> None:
    out = csv.writer(file, lineterminator="\n")
    if columns:
        out.writerow(column.name for column in columns)
    for batch in batches:
        out.writerows([_csv_value(value) for value in row] for row in batch)


def _csv_value(value):
    if isinstance(value, list):
        return orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if hasattr(value, "isoformat") else value


def _write_json(file, columns, batches) -> None:
    documents = [column.kind in ("json", "jsonb") for column in columns]
    names = [column.name for column in columns]
    for batch in batches:
        for row in batch:
            values = [
                orjson.Fragment(value) if document and value is not None else value
                for value, document in zip(row, documents, strict=True)
            ]
            line = orjson.dumps(dict(zip(names, values, strict=True)), default=str)
            file.write(line.decode() + "\n")
