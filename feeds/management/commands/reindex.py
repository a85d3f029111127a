import time

from django.core.management.base import BaseCommand, CommandError

from config import readmodels
from config.management.progress import Progress
from feeds import indexing


class Command(BaseCommand):
    help = (
        "Build the search index of posts anew, beside the one that serves, and swap them. Searches "
        "and changes of posts go on meanwhile. Killed half way, start it again."
    )

    def handle(self, *args, verbosity, **options):
        started = time.monotonic()
        try:
            with Progress(verbosity, unit="posts") as progress:
                count = indexing.reindex(lambda count: progress.show("indexing", count, None))
        except readmodels.Busy as error:
            raise CommandError(str(error)) from error
        if verbosity:
            self.stdout.write(f"{count:,} posts indexed in {time.monotonic() - started:.1f} s")
