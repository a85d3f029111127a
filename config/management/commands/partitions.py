from django.core.management.base import BaseCommand

from config import partitions


class Command(BaseCommand):
    help = "Make the partitions that the coming periods need, and show what there is."

    def add_arguments(self, parser):
        parser.add_argument("--list", action="store_true", help="only show them")

    def handle(self, *args, verbosity, **options):
        made = [] if options["list"] else partitions.ensure_ahead()
        for table in partitions.all().values() if verbosity else ():
            parts = partitions.existing(table.name)
            due = partitions.expired(table.name)
            keep = table.keep()
            kept = f"{keep} {table.unit}s kept" if keep else "all kept"
            span = f"{parts[0].start} to {parts[-1].end}" if parts else "none"
            self.stdout.write(f"{table.name}: {len(parts)} partitions, {span}, {kept}")
            for part in parts if verbosity > 1 or options["list"] else ():
                expired = ", expired" if part in due else ""
                self.stdout.write(f"  {part.name}  {part.start} … {part.end}{expired}")
        for name in made if verbosity else ():
            self.stdout.write(f"made {name}")
