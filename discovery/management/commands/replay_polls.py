"""manage.py replay_polls PATH: recorded polls, as if they were polled now."""

from functools import partial

from django.core.management.base import BaseCommand, CommandError

from config import jobs
from config.files import SourceError
from config.management.progress import Progress
from config.runs import JobFailed
from discovery.actions import SourcePaused
from discovery.polls import zone_of
from discovery.replay import Totals, replay


class Command(BaseCommand):
    """Thin: parses, calls `discovery.replay.replay`, reports."""

    help = (
        "Replay a recording of polls (CSV, plain or gzip): calendars (source_id, location_id,"
        " polled_at, free_slots separated by |) or counts (polled_at, place_id, free). Doing it"
        " again, also after an interruption, adds only what is missing. Drops older than an hour"
        " tell nobody."
    )

    def add_arguments(self, parser):
        parser.add_argument("path", metavar="PATH")
        parser.add_argument(
            "--source",
            default="",
            metavar="NAME",
            help="the source of a recording of counts; before the names of the others",
        )
        parser.add_argument(
            "--timezone",
            default="UTC",
            metavar="ZONE",
            help="of times without an offset, and of new sources (default: %(default)s)",
        )
        parser.add_argument("--venues", default="", metavar="PATH", help="CSV: names and places")
        parser.add_argument(
            "--speed",
            type=_speed,
            default=0.0,
            metavar="X",
            help="1: as it happened; 60: a minute a second; default: as fast as can be",
        )
        parser.add_argument(
            "--until-now", action="store_true", help="shifted by whole days, so that it ends today"
        )
        parser.add_argument("--limit", type=int, metavar="N", help="only the first N polls")

    def handle(self, *args, **options):
        try:
            zone = zone_of(options["timezone"])
        except ValueError as error:
            raise CommandError(f"--timezone: {error}") from error
        if options["limit"] is not None and options["limit"] < 1:
            raise CommandError("--limit: 1 or more")
        try:
            with Progress(options["verbosity"], unit="polls") as progress:
                totals = replay(
                    path=options["path"],
                    zone=zone,
                    source=options["source"],
                    venues=options["venues"],
                    speed=options["speed"],
                    until_now=options["until_now"],
                    limit=options["limit"],
                    progress=partial(_show, progress),
                )
        except (SourceError, SourcePaused) as error:
            raise CommandError(str(error)) from error
        try:
            jobs.run_job("refresh_discovery", trigger="command")
        except JobFailed as error:
            raise CommandError(f"the polls are in, but the feed is not: {error}") from error
        if options["verbosity"]:
            self.stdout.write(_text(totals))


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed <= 1_000_000:
        raise ValueError(text)
    return speed


def _show(progress: Progress, totals: Totals) -> None:
    note = f"{totals.at:%Y-%m-%d %H:%M}, {totals.opened:,} opened"
    progress.show("replaying", totals.polls, totals.polls_in_all, note)


def _text(totals: Totals) -> str:
    lines = [
        f"{totals.polls:,} polls",
        f"  opened     {totals.opened:>12,}",
        f"  closed     {totals.closed:>12,}",
        f"  spared     {totals.spared:>12,}  (came back so soon that it is no drop)",
    ]
    lines += [f"  {name:<11}{count:>12,}" for name, count in sorted(totals.outcomes.items())]
    if totals.rejected:
        lines.append(f"  rejected   {totals.rejected:>12,}  rows that could not be read:")
        lines += [f"    {reason}" for reason in totals.reasons]
    return "\n".join(lines)
