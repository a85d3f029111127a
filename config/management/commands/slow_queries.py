"""Which statements cost the most."""

import orjson
from django.core.management.base import BaseCommand, CommandError

from config import slowqueries

WIDTH = 100  # of a statement in the table


class Command(BaseCommand):
    help = (
        "Shows the statements of this database that cost most since they were counted last, by "
        "pg_stat_statements."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--by", choices=list(slowqueries.ORDERS), default="total")
        parser.add_argument("--limit", type=int, default=15, help="default: %(default)s")
        parser.add_argument(
            "--explain", action="store_true", help="show how each is planned; executes nothing"
        )
        parser.add_argument("--json", action="store_true", help="everything, as JSON")
        parser.add_argument("--reset", action="store_true", help="begin to count anew")

    def handle(self, *args, by, limit, explain, reset, **options) -> None:
        if limit < 1:
            raise CommandError("--limit must be 1 or more.")
        try:
            if reset:
                slowqueries.reset()
                self.stdout.write("Counted anew from now on.")
                return
            found = slowqueries.dearest(by=by, limit=limit)
        except slowqueries.NoStatistics as error:
            raise CommandError(str(error)) from error
        plans = {one.id: slowqueries.explain(one.text) for one in found} if explain else {}
        if options["json"]:
            rows = [one.__dict__ | {"plan": plans.get(one.id)} for one in found]
            self.stdout.write(orjson.dumps(rows).decode())
            return
        self.stdout.write(
            f"{'calls':>10} {'total s':>10} {'mean ms':>10} {'rows':>12} {'read MB':>9}"
        )
        for one in found:
            read = one.blocks_read * 8 / 1024
            text = " ".join(one.text.split())
            self.stdout.write(
                f"{one.calls:>10,} {one.total_ms / 1000:>10,.2f} {one.mean_ms:>10,.2f}"
                f" {one.rows:>12,} {read:>9,.1f}  {text[:WIDTH]}"
            )
            for line in plans.get(one.id, "").splitlines():
                self.stdout.write(f"{'':>14}{line}")
