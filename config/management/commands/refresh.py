import time

from django.core.management.base import BaseCommand, CommandError

from config import audit, readmodels
from config.management.progress import Progress


class Command(BaseCommand):
    help = (
        "Bring read models up to date: from what changed, or with --full from nothing. Several at "
        "once are safe: they wait for each other."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help="read models or apps; default: all"
        )
        parser.add_argument("--full", action="store_true", help="rebuild from the base tables")

    def handle(self, *args, names, full, verbosity, **options):
        try:
            models = readmodels.select(names)
        except readmodels.UnknownReadModel as error:
            raise CommandError(str(error)) from error
        if full:
            audit.by_command("refresh --full", names=[model.name for model in models])
        for model in models:
            started = time.monotonic()
            try:
                with readmodels.patience(model), Progress(verbosity) as progress:
                    done = readmodels.refresh(model, full=full, progress=progress.say)
            except readmodels.Busy as error:
                raise CommandError(str(error)) from error
            if verbosity:
                state = f"{done.rows:,} rows" if done.changed else "was up to date"
                seconds = time.monotonic() - started
                self.stdout.write(f"{model.name}: {state}, {seconds:.2f} s")
