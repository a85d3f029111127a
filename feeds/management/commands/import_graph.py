"""manage.py import_graph PATH…: who follows whom, or what people did, from CSV or NDJSON files."""

from functools import partial

from django.core.management.base import CommandError

from config.files import parse_map
from config.management.imports import ImportCommand
from feeds.importing import ACTS, EDGES, REASONS, Follows, Interactions, import_file


class Command(ImportCommand):
    """Thin: parses for `feeds.importing.import_file`."""

    help = (
        "Import who follows whom from CSV or NDJSON files, plain or gzip, one line an edge (fields:"
        f" {', '.join(EDGES)}); or with --interactions, likes and comments (fields:"
        f" {', '.join(ACTS)}). Bad lines are written to a rejects file with their line numbers, the"
        " rest goes in. Doing it again, also after an interruption, adds only what is missing."
    )
    reasons = REASONS
    skipped = "somebody and themselves"
    job = "fold_counters"
    readers_see = "counters"

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument(
            "--interactions", action="store_true", help="the files hold what people did"
        )
        parser.add_argument(
            "--columns",
            metavar="FOLLOWER,FOLLOWEE",
            help=f"short for --map {EDGES[0]}=FOLLOWER --map {EDGES[1]}=FOLLOWEE",
        )
        parser.add_argument(
            "--one-way", action="store_true", help="only the first follows the second"
        )
        parser.add_argument(
            "--prefix", default="gh-", help="what user names begin with; default: %(default)s"
        )

    def importer(self, options):
        if options["interactions"]:
            lines = Interactions(options["prefix"])
        else:
            lines = Follows(options["prefix"], mutual=not options["one_way"])
        pairs = options["map"] + _pairs(options["columns"])
        return partial(import_file, lines=lines, field_map=parse_map(pairs, lines.fields))

    def outcomes(self, report):
        return [
            f"  accepted   {report.counts.accepted:>12,}  (they are in, be it from before)",
            f"  people     {report.people:>12,}  (new)",
            f"  added      {report.added:>12,}  (follows, likes, comments that are new)",
        ]


def _pairs(columns: str | None) -> list[str]:
    """`--columns` as `--map` has it."""
    if columns is None:
        return []
    names = [name.strip() for name in columns.split(",")]
    if len(names) != 2 or not all(names):
        raise CommandError("--columns takes two names, FOLLOWER,FOLLOWEE.")
    return [f"{field}={name}" for field, name in zip(EDGES, names, strict=True)]
