import time

from django.core.management.base import BaseCommand, CommandError

from config import readmodels
from feeds import indexing


class Command(BaseCommand):
    help = (
        "Build the search index of posts anew, beside the one that serves, and swap them. Searches "
        "and changes of posts go on meanwhile. Killed half way, start it again."
    )

    def handle(self, *args, verbosity, **options):
        started = time.monotonic()
        shown = 0.0

        def progress(count):
            nonlocal shown
            if verbosity and (verbosity > 1 or time.monotonic() - shown > 2):
                shown = time.monotonic()
                self.stderr.write(f"  {count:,} posts")

        try:
            count = indexing.reindex(progress)
        except readmodels.Busy as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count:,} posts indexed in {time.monotonic() - started:.1f} s")
