"""manage.py ingest_snapshots PATH…: price observations from CSV or NDJSON files."""

import sys
from contextlib import contextmanager
from getpass import getuser

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from catalog.actions import Report, ingest_file
from catalog.readers import SourceError, parse_map
from catalog.rows import FIELDS, REASONS, REQUIRED_FIELDS
from config import jobs
from config.files import RejectsError, default_rejects_paths
from config.runs import JobFailed


class Command(BaseCommand):
    """Thin: parses, calls `catalog.actions.ingest_file` for each path, reports."""

    help = (
        "Ingest price observations from CSV or NDJSON files, plain or gzip. Bad rows are written"
        " to a rejects file with their line numbers, the rest goes in. Doing it again, also after"
        f" an interruption, adds only what is missing. Fields: {', '.join(FIELDS)};"
        f" required: {', '.join(REQUIRED_FIELDS)}."
    )

    def add_arguments(self, parser):
        parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or - for stdin")
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help="read FIELD from COLUMN; FIELD=:VALUE gives every row that value",
        )
        parser.add_argument(
            "--format", choices=["csv", "ndjson"], default="", help="default: by the file's name"
        )
        parser.add_argument(
            "--rejects", default="", metavar="PATH", help="default: NAME.rejects.csv here"
        )
        parser.add_argument("--dry-run", action="store_true", help="check every row, write none")
        parser.add_argument("--no-refresh", action="store_true", help="leave the read models be")
        parser.add_argument("--strict", action="store_true", help="exit with 1 on rejected rows")

    def handle(self, *args, **options):
        paths = options["paths"]
        if options["rejects"] and len(paths) > 1:
            raise CommandError("--rejects names one file: ingest one PATH at a time with it")
        try:
            field_map = parse_map(options["map"])
        except SourceError as error:
            raise CommandError(str(error)) from error
        failed, refused = 0, 0
        rejects_paths = [options["rejects"]] if options["rejects"] else default_rejects_paths(paths)
        for path, rejects_path in zip(paths, rejects_paths, strict=True):
            try:
                report = self._ingest(path, rejects_path, field_map, options)
            except (SourceError, RejectsError) as error:
                failed += 1
                self.stderr.write(self.style.ERROR(str(error)))
                continue
            refused += report.counts.rejected + report.counts.conflicts
            if options["verbosity"]:
                self.stdout.write(_text(report))
        if not options["dry_run"] and not options["no_refresh"] and failed < len(paths):
            self._refresh(options["verbosity"])
        if failed:
            raise CommandError(f"{failed} of {len(paths)} files could not be ingested")
        if options["strict"] and refused:
            raise CommandError(f"{refused:,} rows were refused")

    def _ingest(self, path, rejects_path, field_map, options) -> Report:
        with _progress(path, options["verbosity"]) as progress:
            return ingest_file(
                path=path,
                file_format=options["format"],
                field_map=field_map,
                rejects_path=rejects_path,
                dry_run=options["dry_run"],
                user_label=_user(),
                progress=progress,
            )

    def _refresh(self, verbosity: int) -> None:
        try:
            record = jobs.run_job("refresh_catalog", trigger="command")
        except JobFailed as error:
            raise CommandError(f"the rows are in, but the read models are not: {error}") from error
        if verbosity:
            self.stdout.write(f"read models: {record.get_state_display()}")


@contextmanager
def _progress(path: str, verbosity: int):
    """A bar over the file's bytes on a terminal, else nothing."""
    if not verbosity or not sys.stderr.isatty():
        yield None
        return
    with tqdm(desc=path, unit="B", unit_scale=True, dynamic_ncols=True) as bar:

        def show(position, size, counts):
            bar.total = size
            seconds = bar.format_dict["elapsed"]
            rate = counts.rows_read / seconds if seconds else 0
            text = f"{counts.rows_read:,} rows, {rate:,.0f} rows/s"
            bar.set_postfix_str(text, refresh=False)
            bar.update(position - bar.n)

        yield show


def _text(report: Report) -> str:
    counts = report.counts
    lines = [
        (
            f"{report.source}: {counts.rows_read:,} rows in {report.seconds:.1f} s"
            f" ({report.rows_per_second:,.0f} rows/s)"
        )
    ]
    if report.run_id is None:
        lines.append(f"  valid      {counts.accepted:>12,}  (dry run: nothing was written)")
    else:
        lines += [
            f"  accepted   {counts.accepted:>12,}",
            f"  duplicate  {counts.duplicate:>12,}",
            f"  conflicts  {counts.conflicts:>12,}"
            + ("  (another price stands under the same key)" if counts.conflicts else ""),
        ]
    lines.append(f"  rejected   {counts.rejected:>12,}")
    lines += [
        f"    {rows:>10,}  {reason}: {REASONS[reason]}"
        for reason, rows in counts.reasons.most_common()
    ]
    if report.rejects_path:
        lines.append(f"  refused rows: {report.rejects_path}")
    return "\n".join(lines)


def _user() -> str:
    try:
        return getuser()
    except (OSError, KeyError):  # no such user in this container
        return ""
