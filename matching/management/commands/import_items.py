"""manage.py import_items PATH…: items from CSV or NDJSON files."""

import sys
from contextlib import contextmanager

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from config import jobs
from config.files import RejectsError, SourceError, default_rejects_paths
from config.runs import JobFailed
from matching.importing import FIELDS, REASONS, Mapped, Report, import_file
from matching.kinds import Kind


class Command(BaseCommand):
    """Thin: parses, calls `matching.importing.import_file` for each path, reports."""

    help = (
        "Import items from CSV or NDJSON files, plain or gzip; they are found at once. Bad rows are"
        " written to a rejects file with their line numbers, the rest goes in. Doing it again, also"
        f" after an interruption, adds only what is missing. Fields: {', '.join(FIELDS)}; required:"
        " kind, title. Map external_id where the file has a key: without one a row is known by"
        " what it says."
    )

    def add_arguments(self, parser):
        parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or - for stdin")
        parser.add_argument("--owner", required=True, metavar="USER", help="whose items they are")
        parser.add_argument(
            "--kind", choices=Kind.values, default="", help="default: from the field kind"
        )
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help="read FIELD from COLUMN; FIELD=:VALUE gives every row that value;"
            " title=A+B joins columns; attributes.NAME=COLUMN makes an attribute",
        )
        parser.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help="take only the rows that have this value",
        )
        parser.add_argument(
            "--prefix",
            default="",
            metavar="TEXT",
            help="put before every external_id: keeps apart sources that both count from 1",
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
            raise CommandError("--rejects names one file: import one PATH at a time with it")
        try:
            mapped = Mapped(
                options["map"],
                kind=options["kind"],
                where=options["where"],
                prefix=options["prefix"],
            )
        except SourceError as error:
            raise CommandError(str(error)) from error
        owner = get_user_model().objects.filter(username=options["owner"]).first()
        if owner is None:
            raise CommandError(f"no user {options['owner']!r}: manage.py createsuperuser makes one")
        failed, refused = 0, 0
        rejects = [options["rejects"]] if options["rejects"] else default_rejects_paths(paths)
        for path, rejects_path in zip(paths, rejects, strict=True):
            try:
                report = self._import(path, rejects_path, owner, mapped, options)
            except (SourceError, RejectsError) as error:
                failed += 1
                self.stderr.write(self.style.ERROR(str(error)))
                continue
            refused += report.counts.rejected + report.counts.conflicts
            if options["verbosity"]:
                self.stdout.write(_text(report, dry_run=options["dry_run"]))
        if not options["dry_run"] and not options["no_refresh"] and failed < len(paths):
            self._refresh(options["verbosity"])
        if failed:
            raise CommandError(f"{failed} of {len(paths)} files could not be imported")
        if options["strict"] and refused:
            raise CommandError(f"{refused:,} rows were refused")

    def _import(self, path, rejects_path, owner, mapped, options) -> Report:
        with _progress(path, options["verbosity"]) as progress:
            return import_file(
                path=path,
                owner_id=owner.pk,
                mapped=mapped,
                file_format=options["format"],
                rejects_path=rejects_path,
                dry_run=options["dry_run"],
                progress=progress,
            )

    def _refresh(self, verbosity: int) -> None:
        try:
            record = jobs.run_job("refresh_matching", trigger="command")
        except JobFailed as error:
            raise CommandError(f"the items are in, but the read models are not: {error}") from error
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


def _text(report: Report, *, dry_run: bool) -> str:
    counts = report.counts
    lines = [
        (
            f"{report.source}: {counts.rows_read:,} rows in {report.seconds:.1f} s"
            f" ({report.rows_per_second:,.0f} rows/s)"
        )
    ]
    if dry_run:
        lines.append(f"  valid      {counts.accepted:>12,}  (dry run: nothing was written)")
    else:
        lines += [
            f"  accepted   {counts.accepted:>12,}",
            f"  duplicate  {counts.duplicate:>12,}",
            f"  conflicts  {counts.conflicts:>12,}"
            + ("  (another item stands under the same external_id)" if counts.conflicts else ""),
        ]
    if counts.skipped:
        lines.append(f"  skipped    {counts.skipped:>12,}  (not what --where asks for)")
    lines.append(f"  rejected   {counts.rejected:>12,}")
    lines += [
        f"    {rows:>10,}  {reason}: {REASONS[reason.split()[0]]}"
        for reason, rows in counts.reasons.most_common()
    ]
    if report.rejects_path:
        lines.append(f"  refused rows: {report.rejects_path}")
    return "\n".join(lines)
