from django.core.management.base import BaseCommand

from config import jobs


class Command(BaseCommand):
    help = "Make the queue's schedules equal to the declared jobs, and repair broken ones."

    def handle(self, *args, verbosity, **options):
        changes = jobs.sync_schedules()
        for change in changes:
            self.stdout.write(change)
        if not changes and verbosity:
            count = sum(job.schedule != "on demand" for job in jobs.all().values())
            self.stdout.write(f"{count} schedules in order")
