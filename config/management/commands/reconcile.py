import sys
import time

from django.core.management.base import BaseCommand, CommandError

from config import audit, readmodels
from config.management.progress import Progress


class Command(BaseCommand):
    help = (
        "Compare read models with the base tables they come from. Writers need not stop. Exit "
        "code 1 where they differ; with --fix they are mended."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help="read models or apps; default: all"
        )
        parser.add_argument("--fix", action="store_true", help="mend what differs")

    def handle(self, *args, names, fix, verbosity, **options):
        try:
            models = readmodels.select(names)
        except readmodels.UnknownReadModel as error:
            raise CommandError(str(error)) from error
        if fix:
            audit.by_command("reconcile --fix", names=[model.name for model in models])
        left = 0
        for model in models:
            started = time.monotonic()
            try:
                with readmodels.patience(model), Progress(verbosity) as progress:
                    found = readmodels.reconcile(model, fix=fix, progress=progress.say)
            except readmodels.Busy as error:
                raise CommandError(str(error)) from error
            left += 0 if found.fixed else found.count
            if verbosity:
                self._report(model.name, found, time.monotonic() - started)
        if left:
            sys.exit(1)

    def _report(self, name, found, seconds):
        verdict = f"{found.count:,} differences" if found.count else "equal"
        if found.count and found.fixed:
            verdict += ", mended"
        waiting = f", {found.pending:,} changes wait for a refresh" if found.pending else ""
        self.stdout.write(f"{name}: {found.checked:,} checked, {verdict}{waiting}, {seconds:.2f} s")
        for sample in found.samples:
            self.stdout.write(f"  {sample}")
        if found.count > len(found.samples):
            self.stdout.write(f"  … and {found.count - len(found.samples):,} more")
