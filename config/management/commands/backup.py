from datetime import timedelta
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config import backup, pgtools, runs
from config.management.arguments import number
from config.management.progress import Progress

TIMEOUT = timedelta(days=2)  # by hand it may take as long as it takes


class Command(BaseCommand):
    help = "Back the database up into a new folder below PATH, checked by `restore --check`."

    def add_arguments(self, parser):
        parser.add_argument(
            "path", nargs="?", default=settings.BACKUP_DIR, metavar="PATH",
            help="an existing directory (default: BACKUP_DIR)",
        )  # fmt: skip
        parser.add_argument(
            "--jobs", type=number(1, 64), default=2, help="processes (default: %(default)s)"
        )
        parser.add_argument(
            "--keep", type=number(1, 10_000), default=0, metavar="N",
            help="then remove all but this database's newest N below PATH",
        )  # fmt: skip

    def handle(self, *args, path, jobs, keep, verbosity, **options):
        if not path:
            raise CommandError("say where to: backup PATH, or set BACKUP_DIR")
        root, done = Path(path), []
        if not root.is_dir():
            what = "is no directory" if root.exists() else "does not exist"
            raise CommandError(f"{root} {what}: make the directory (is the disk mounted?)")

        def work(run) -> int:
            with Progress(verbosity, run=run) as progress:
                done.append(backup.make(root, jobs=jobs, keep=keep, progress=progress.show))
            return done[0][0].manifest.total_rows

        try:
            record = runs.execute("backup", work, timeout=TIMEOUT, trigger="command")
        except runs.JobFailed as error:
            cause = error.__cause__
            plain = isinstance(cause, (backup.BackupError, pgtools.ToolError, psycopg.Error))
            raise CommandError(str(cause if plain else error)) from error
        if not done:
            raise CommandError(runs.describe(record))
        if verbosity:
            [(made, gone)] = done
            manifest = made.manifest
            self.stdout.write(
                f"{made.folder}: {manifest.total_rows:,} rows of {len(manifest.rows)} "
                f"tables, {manifest.bytes:,} bytes in {len(manifest.files)} files"
            )
            for folder in gone:
                self.stdout.write(f"removed {folder.name}")
