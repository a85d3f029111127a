import signal
import sys

from django.core.management.base import BaseCommand, CommandError

from config import jobs, runs


class Command(BaseCommand):
    help = "Run one job now, in this process; the same code path as the worker's. For cron too."

    def add_arguments(self, parser):
        parser.add_argument("name", nargs="?", help="the job; --list shows them")
        parser.add_argument("--list", action="store_true", help="show the jobs and their schedules")

    def handle(self, *args, name, verbosity, **options):
        if options["list"]:
            self._list()
            return
        if not name:
            raise CommandError("which job? `run_job --list` shows them")
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            # A polite kill gets into the run log and frees the lease at once.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            record = jobs.run_job(name, trigger="command")
        except jobs.UnknownJob as error:
            raise CommandError(str(error)) from error
        except jobs.JobFailed as error:
            if verbosity > 1:
                self.stderr.write(error.record.error)
            raise CommandError(str(error)) from error
        if verbosity:
            self.stdout.write(runs.describe(record))

    def _list(self):
        known = jobs.all().values()
        widest = max(len(job.name) for job in known)
        schedule = max(len(job.schedule) for job in known)
        for job in known:
            self.stdout.write(
                f"{job.name:<{widest}}  {job.schedule:<{schedule}}  {job.description}"
            )
