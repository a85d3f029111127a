from argparse import ArgumentTypeError
from datetime import timedelta

from django.core.management.base import BaseCommand, CommandError

from config import retention
from config.management.progress import Progress


def seconds(text: str) -> timedelta:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 86_400:
        raise ArgumentTypeError(f"{text} is not between 0 and 86,400 seconds")
    return timedelta(seconds=value)


class Command(BaseCommand):
    help = (
        "Remove what has expired: whole partitions at once, other rows in small batches. Stops "
        "at its time budget; the next run goes on."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help="rules or tables; default: all"
        )
        parser.add_argument("--dry-run", action="store_true", help="count, remove nothing")
        parser.add_argument(
            "--budget",
            type=seconds,
            default=retention.DEFAULT_BUDGET,
            metavar="SECONDS",
            help=f"stop after this long (default: {retention.DEFAULT_BUDGET.total_seconds():.0f})",
        )

    def handle(self, *args, names, dry_run, budget, verbosity, **options):
        try:
            with Progress(verbosity) as progress:
                report = retention.prune(
                    names or None,
                    budget=budget,
                    dry_run=dry_run,
                    progress=lambda name, rows: progress.show(name, rows, None),
                )
        except retention.UnknownRule as error:
            raise CommandError(str(error)) from error
        for pruned in report if verbosity else ():
            unit = "partitions" if pruned.partitions else "rows"
            verb = "would go" if dry_run else "removed"
            rest = "" if pruned.complete else ", more wait for the next run"
            self.stdout.write(f"{pruned.name}: {pruned.rows:,} {unit} {verb}{rest}")
