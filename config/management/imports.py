"""What the commands that import files of rows share (`config.importing`)."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from config import jobs
from config.files import RejectsError, SourceError, default_rejects_paths
from config.importing import Counts, Report
from config.logs import first_line
from config.management.progress import Progress
from config.outages import AWAY
from config.runs import JobFailed


class ImportCommand(BaseCommand):
    """Imports one file after another, says what became of each, and has readers see it.

    A file that cannot be read does not stop the others.
    """

    reasons: Mapping[str, str]  # why a row is refused, for people
    conflict = ""  # what a conflict is, for people
    skipped = ""  # why a row is left out without being refused
    map_help = "read FIELD from COLUMN; FIELD=:VALUE gives every row that value"
    job = ""  # brings what readers see up to date
    readers_see = "read models"

    def importer(self, options: Mapping[str, Any]) -> Callable[..., Report]:
        """What imports a file, given `path`, `file_format`, `rejects_path`, `dry_run` and
        `progress`. Raises SourceError, CommandError."""
        raise NotImplementedError

    def outcomes(self, report: Report) -> list[str]:
        """What became of the rows that were not refused, a line each."""
        counts = report.counts
        conflict = f"  ({self.conflict})" if counts.conflicts else ""
        return [
            f"  accepted   {counts.accepted:>12,}",
            f"  duplicate  {counts.duplicate:>12,}",
            f"  conflicts  {counts.conflicts:>12,}{conflict}",
        ]

    def add_arguments(self, parser):
        parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or - for stdin")
        parser.add_argument(
            "--map", action="append", default=[], metavar="FIELD=COLUMN", help=self.map_help
        )
        parser.add_argument(
            "--format", choices=["csv", "ndjson"], default="", help="default: by the file's name"
        )
        parser.add_argument(
            "--rejects", default="", metavar="PATH", help="default: NAME.rejects.csv here"
        )
        parser.add_argument("--dry-run", action="store_true", help="check every row, write none")
        parser.add_argument(
            "--no-refresh", action="store_true", help=f"leave the {self.readers_see} be"
        )
        parser.add_argument("--strict", action="store_true", help="exit with 1 on rejected rows")

    def handle(self, *args, paths, **options):
        if options["rejects"] and len(paths) > 1:
            raise CommandError("--rejects names one file: import one PATH at a time with it")
        try:
            importer = self.importer(options)
        except SourceError as error:
            raise CommandError(str(error)) from error
        failed, refused = 0, 0
        rejects = [options["rejects"]] if options["rejects"] else default_rejects_paths(paths)
        for path, rejects_path in zip(paths, rejects, strict=True):
            try:
                report = self._import(importer, path, rejects_path, options)
            except (SourceError, RejectsError) as error:
                failed += 1
                self.stderr.write(self.style.ERROR(str(error)))
                continue
            except AWAY as error:
                failed += 1
                connection.close()
                self.stderr.write(
                    self.style.ERROR(
                        f"{path}: the database went away or refused ({first_line(error)}); what it "
                        "has committed stays: import the file again"
                    )
                )
                continue
            refused += report.counts.rejected + report.counts.conflicts
            if options["verbosity"]:
                self.stdout.write(self._text(report, dry_run=options["dry_run"]))
        if not options["dry_run"] and not options["no_refresh"] and failed < len(paths):
            self._refresh(options["verbosity"])
        if failed:
            raise CommandError(f"{failed} of {len(paths)} files could not be imported")
        if options["strict"] and refused:
            raise CommandError(f"{refused:,} rows were refused")

    def _import(self, importer, path, rejects_path, options) -> Report:
        started = time.monotonic()
        with Progress(options["verbosity"], unit="B") as progress:

            def show(position: int, size: int | None, counts: Counts) -> None:
                rate = counts.rows_read / (time.monotonic() - started)
                progress.show(
                    path, position, size, f"{counts.rows_read:,} rows, {rate:,.0f} rows/s"
                )

            return importer(
                path=path,
                file_format=options["format"],
                rejects_path=rejects_path,
                dry_run=options["dry_run"],
                progress=show,
            )

    def _refresh(self, verbosity: int) -> None:
        try:
            record = jobs.run_job(self.job, trigger="command")
        except JobFailed as error:
            raise CommandError(
                f"the rows are in, but the {self.readers_see} are not: {error}"
            ) from error
        if verbosity:
            self.stdout.write(f"{self.readers_see}: {record.get_state_display()}")

    def _text(self, report: Report, *, dry_run: bool) -> str:
        counts = report.counts
        rate = f"{report.rows_per_second:,.0f} rows/s"
        lines = [f"{report.source}: {counts.rows_read:,} rows in {report.seconds:.1f} s ({rate})"]
        if dry_run:
            lines.append(f"  valid      {counts.accepted:>12,}  (dry run: nothing was written)")
        else:
            lines += self.outcomes(report)
        if counts.skipped:
            lines.append(f"  skipped    {counts.skipped:>12,}  ({self.skipped})")
        lines.append(f"  rejected   {counts.rejected:>12,}")
        lines += [
            f"    {rows:>10,}  {reason}: {self.reasons[reason.split()[0]]}"
            for reason, rows in counts.reasons.most_common()
        ]
        if report.rejects_path:
            lines.append(f"  refused rows: {report.rejects_path}")
        return "\n".join(lines)
