from pathlib import Path

import psycopg
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from config import audit, backup, pgtools, restore
from config.management.arguments import number
from config.management.progress import Progress


class Command(BaseCommand):
    help = "Put a backup in the place of the database of DATABASE_URL. See docs/backup.md."

    def add_arguments(self, parser):
        parser.add_argument("path", type=Path, metavar="PATH", help="the folder of one backup")
        parser.add_argument(
            "--check", action="store_true", help="only read its files and compare them"
        )
        parser.add_argument(
            "--force", action="store_true",
            help="although the database holds tables; it stays under another name",
        )  # fmt: skip
        parser.add_argument(
            "--discard", action="store_true", help="with --force: drop what was there before"
        )
        parser.add_argument(
            "--jobs", type=number(1, 64), default=2, help="processes (default: %(default)s)"
        )

    def handle(self, *args, path, check, force, discard, jobs, verbosity, **options):
        if discard and not force:
            raise CommandError("--discard goes with --force")
        try:
            found = backup.load(path)
            with Progress(verbosity) as progress:
                if check:
                    restore.check(found, progress.show)
                    done = None
                else:
                    done = restore.run(
                        found, jobs=jobs, force=force, discard=discard, progress=progress.show
                    )
        except (
            backup.BackupError,
            restore.RestoreError,
            pgtools.ToolError,
            psycopg.Error,
        ) as error:
            raise CommandError(str(error).strip()) from error
        manifest = found.manifest
        if done is None:
            if verbosity:
                self.stdout.write(f"{path} is whole: {len(manifest.files)} files, "
                                  f"{manifest.bytes:,} bytes, of {manifest.made_at}")  # fmt: skip
            return
        call_command("migrate", interactive=False, verbosity=0)
        audit.by_command("restore", entity_id=path.name, made_at=manifest.made_at, kept=done.kept)
        if verbosity:
            self._report(done, manifest)

    def _report(self, done, manifest):
        self.stdout.write(
            f"restored {done.rows:,} rows of {len(manifest.rows)} tables, as of {manifest.made_at}"
        )
        if done.behind:
            self.stdout.write(f"applied {done.behind} migrations that are newer than the backup")
        for what in done.left_out:
            self.stdout.write(f"left out: {what}")
        if done.kept:
            name = connection.ops.quote_name(done.kept)
            self.stdout.write(f"what was there before is the database {done.kept} now; when you do "
                              f"not need it: DROP DATABASE {name}")  # fmt: skip
        self.stdout.write("next: manage.py reconcile; start the worker where none runs")
