"""Which indexes are of no use, and which are missing."""

import orjson
from django.core.management.base import BaseCommand

from config import indexadvice


class Command(BaseCommand):
    help = (
        "Names indexes that are invalid, superfluous or unused, and those that foreign keys and "
        "sequential scans lack, with the statement to run. Runs none of them."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")

    def handle(self, *args, **options) -> None:
        found = indexadvice.advise()
        since = indexadvice.since()
        if options["json"]:
            rows = [one.__dict__ for one in found]
            self.stdout.write(orjson.dumps({"since": since, "advice": rows}).decode())
            return
        for one in found:
            self.stdout.write(f"{one.kind}: {one.what}")
            for statement in one.run:
                self.stdout.write(f"    {statement}")
        self.stdout.write(
            f"{len(found)} in all; use is counted since {since:%Y-%m-%d %H:%M} UTC, on this server "
            "alone: what a standby uses cannot be seen."
        )
