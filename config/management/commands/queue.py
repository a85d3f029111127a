"""What the task queue holds."""

from dataclasses import asdict

import orjson
from django.core.management.base import BaseCommand, CommandError

from config import audit, taskqueue
from config.admin.base import span


class Command(BaseCommand):
    help = (
        "Shows what waits in the task queue, what is at work, what failed within a day, and for "
        "how long the oldest has waited; by kind of task."
    )

    def add_arguments(self, parser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        parser.add_argument(
            "--delete", nargs="+", type=int, metavar="ID", help="take these tasks out of the queue"
        )
        parser.add_argument(
            "--delete-unreadable",
            action="store_true",
            help="take out what no worker can read: tasks of another SECRET_KEY, or broken ones",
        )

    def handle(self, *args, delete, delete_unreadable, verbosity, **options) -> None:
        if delete or delete_unreadable:
            unreadable = taskqueue.unreadable() if delete_unreadable else ()
            self._delete([*(delete or ()), *unreadable], verbosity)
            return
        found = taskqueue.overview()
        if options["json"]:
            self.stdout.write(orjson.dumps(asdict(found)).decode())
            return
        oldest = span(found.oldest_seconds)
        self.stdout.write(
            f"{found.waiting:,} waiting (the oldest {oldest}), {found.running:,} at work,"
            f" {found.failed:,} failed within a day"
        )
        width = max((len(line.name) for line in found.lines), default=0)
        for line in found.lines:
            self.stdout.write(
                f"{line.name:<{width}}  {line.waiting:>7,} waiting  {line.running:>4,} at work"
                f"  {line.failed:>5,} failed  oldest {span(line.oldest_seconds):>8}  {line.error}"
            )

    def _delete(self, ids: list[int], verbosity: int) -> None:
        if not ids:
            if verbosity:
                self.stdout.write("Nothing to delete.")
            return
        audit.by_command("queue --delete", entity="task", ids=ids[:100])
        gone = taskqueue.delete(ids)
        if verbosity:
            self.stdout.write(f"{gone:,} taken out of the queue.")
        if gone < len(set(ids)):
            raise CommandError(f"{len(set(ids)) - gone:,} of them were not there.")
