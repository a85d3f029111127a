"""The pool of connections after a restart of PostgreSQL.

All idle connections are dead then. psycopg's pool finds that one by one, and pauses for a second
from the second one on, so that the first requests would wait, or be refused.
"""

from psycopg import Connection
from psycopg_pool import ConnectionPool

_check_one = ConnectionPool.check_connection


def replace_all_dead_at_once() -> None:
    """Have every pool that is made from now on look at all idle connections once one is dead."""
    ConnectionPool.check_connection = staticmethod(_check_all)


def _check_all(connection: Connection) -> None:
    """psycopg's check of one connection that the pool is about to give out; raises Error."""
    pool = getattr(connection, "_pool", None)  # not while it lies in the pool
    try:
        _check_one(connection)
    except Exception:
        if pool is not None:
            pool.check()
        raise
