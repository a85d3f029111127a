"""`migrate`, as it may run while others work: it waits briefly for locks, and tries again."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from psycopg.errors import DeadlockDetected, LockNotAvailable, QueryCanceled

from config import pgtools
from config.management.arguments import number

# A statement that waits for a lock holds up all who come after it. Requests wait 3 s for a lock.
LOCK_SECONDS = 2
PAUSE_SECONDS = (1.0, 5.0)  # between two attempts, at random: others get through
PATIENCE_SECONDS = 600
# CONCURRENTLY waits for older transactions, and nobody waits for it: a build that gives up leaves
# an invalid index, so it may take its time.
CONCURRENT_LOCK_SECONDS = 6 * 3600
STATEMENT_SECONDS = 15 * 60  # of a migration that is one transaction, which holds its locks so long
_ALONE = "spyglass migrate"


class Command(migrate.Command):
    help = (
        "Applies migrations while others work: waits 2 s for a lock, then lets them through and "
        "tries again."
    )

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument(
            "--patience", type=number(0, 86_400), default=PATIENCE_SECONDS, metavar="SECONDS",
            help="how long to try again where a lock is not to be had (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument(
            "--statement-timeout", type=number(0, 86_400), default=STATEMENT_SECONDS,
            metavar="SECONDS",
            help="of a statement in a transaction; 0: none (default: %(default)s)",
        )  # fmt: skip

    def handle(self, *args, patience, **options):
        self._statement_seconds = options["statement_timeout"]
        self._connection = connections[options["database"]]
        deadline = time.monotonic() + patience
        with self._alone(options, deadline):
            while True:
                try:
                    return super().handle(*args, **options)
                except OperationalError as error:
                    self._wait_or_give_up(error, deadline, patience)
                finally:
                    self._reset()

    def migration_progress_callback(self, action, migration=None, fake=False):
        """Django calls it before each migration: here that gets its limits."""
        super().migration_progress_callback(action, migration, fake)
        if action in ("apply_start", "unapply_start"):
            lock = LOCK_SECONDS if migration.atomic else CONCURRENT_LOCK_SECONDS
            statement = self._statement_seconds if migration.atomic else 0
            self._limit(lock, statement)
        elif action in ("apply_success", "unapply_success"):
            self._reset()

    def _limit(self, lock: int, statement: int) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, false),"
                " set_config('statement_timeout', %s, false)",
                [f"{lock}s", f"{statement}s"],
            )

    def _reset(self) -> None:
        """What this session began with."""
        connection = self._connection
        if connection.connection is None or connection.in_atomic_block:
            return
        if connection.is_usable():
            with self._connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
                cursor.execute("RESET statement_timeout")

    def _wait_or_give_up(self, error, deadline: float, patience: int) -> None:
        """Raises what should end the command."""
        if isinstance(error.__cause__, QueryCanceled) and "statement timeout" in str(error):
            raise CommandError(
                f"a statement took longer than {self._statement_seconds} s and was undone: see "
                "docs/upgrade.md, or say --statement-timeout"
            ) from error
        if (
            not isinstance(error.__cause__, LockNotAvailable | DeadlockDetected)
            or self._connection.in_atomic_block
        ):
            raise error
        if time.monotonic() > deadline:
            raise CommandError(
                f"a lock was not to be had for {patience} s, the migration was undone; what came "
                f"before it stays. {self._holders()}Try again when less is going on, or stop what "
                "holds it"
            ) from error
        pause = random.uniform(*PAUSE_SECONDS)  # noqa: S311 - no secret
        if self.verbosity:
            self.stdout.write(f" waits for a lock; again in {pause:.0f} s. {self._holders()}")
        time.sleep(pause)

    def _holders(self) -> str:
        """The oldest transaction of others, which is most often the one that is in the way."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int"
                " FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                " AND backend_type = 'client backend' ORDER BY xact_start LIMIT 1"
            )
            found = cursor.fetchone()
        if found is None:
            return ""
        pid, application, seconds = found
        name = application or "no name"
        return f"The oldest transaction is of process {pid} ({name}), {seconds} s. "

    @contextmanager
    def _alone(self, options: dict, deadline: float) -> Iterator[None]:
        """One at a time for each database; another waits until it is done."""
        if options["database"] != DEFAULT_DB_ALIAS or settings.PGBOUNCER or options["plan"]:
            yield
            return
        with pgtools.connect() as session:
            told = False
            while not session.execute(
                "SELECT pg_try_advisory_lock(hashtext(%s))", [_ALONE]
            ).fetchone()[0]:
                if time.monotonic() > deadline:
                    raise CommandError("another migrate is at work: try again when it is done")
                if not told and options["verbosity"]:
                    self.stdout.write("another migrate is at work: waiting for it")
                told = True
                time.sleep(0.5)
            yield
