"""A streaming standby of a PostgreSQL of ours, made by pg_basebackup: for tests and benchmarks."""

import secrets
from pathlib import Path

import psycopg

from config.servers import PostgresServer, postgres_binary


class StandbyServer(PostgresServer):
    """`primary` must run when this is started for the first time."""

    label = "The standby"

    def __init__(self, directory: Path, primary: PostgresServer) -> None:
        super().__init__(directory, fast=True)
        self._primary = primary

    def _initialise(self) -> None:
        partial = self.directory / f"partial-{secrets.token_hex(4)}"
        flags = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        where = f"host='{self._primary.socket_folder}' user=spyglass"
        backup = postgres_binary("pg_basebackup")
        self._run(self._command(backup, *flags, "--dbname", where, "--pgdata", str(partial)))
        partial.rename(self.data)

    def pause_replay(self, paused: bool) -> None:
        """Let the standby fall behind, or catch up."""
        name = "pause" if paused else "resume"
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(f"SELECT pg_wal_replay_{name}()")
