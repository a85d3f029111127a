import sys
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from config import jobs
from feeds import importing


class Command(BaseCommand):
    help = (
        "Import who follows whom from a CSV file (also gzip), one line an edge; or with "
        "--interactions, likes and comments from a file with unix_ts, kind, actor, target. Coming "
        "again, it adds only what is missing."
    )

    def add_arguments(self, parser):
        parser.add_argument("path", type=Path, metavar="PATH")
        parser.add_argument(
            "--interactions", action="store_true", help="the file holds what people did"
        )
        parser.add_argument(
            "--columns",
            default="user_a,user_b",
            metavar="FOLLOWER,FOLLOWEE",
            help="the columns of an edge; default: %(default)s",
        )
        parser.add_argument(
            "--one-way", action="store_true", help="only the first follows the second"
        )
        parser.add_argument(
            "--prefix", default="gh-", help="what user names begin with; default: %(default)s"
        )

    def handle(self, *args, path, interactions, columns, one_way, prefix, verbosity, **options):
        names = tuple(name.strip() for name in columns.split(","))
        if len(names) != 2 or not all(names):
            raise CommandError("--columns takes two names, FOLLOWER,FOLLOWEE.")
        show = verbosity and (verbosity > 1 or sys.stderr.isatty())

        def progress(report):
            if show:
                self.stderr.write(f"  {report.read:,} lines read, {report.added:,} rows added")

        try:
            if interactions:
                report = importing.import_interactions(path, prefix=prefix, progress=progress)
            else:
                report = importing.import_follows(
                    path, prefix=prefix, columns=names, mutual=not one_way, progress=progress
                )
        except (importing.Refused, OSError) as error:
            raise CommandError(str(error)) from error
        for text in report.errors:
            self.stderr.write(text)
        if report.rejected > len(report.errors):
            self.stderr.write(f"… and {report.rejected - len(report.errors):,} more")
        jobs.run_job("fold_counters", trigger="command")
        self.stdout.write(
            f"{report.read:,} lines: {report.people:,} people and {report.added:,} rows added, "
            f"{report.rejected:,} lines rejected"
        )
        if report.rejected:
            sys.exit(1)
