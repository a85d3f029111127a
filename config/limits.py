"""What each kind of process may ask of PostgreSQL, and how it gets there behind PgBouncer.

A process that connects to PostgreSQL itself sends its limits as start-up options. PgBouncer passes
none on, so there the database role carries them: a role of its own for each kind of process, named
by DB_ROLES, to which every `migrate` and `prepare` gives its limits.
"""

from collections.abc import Mapping

from config.logs import first_line

# kind: (statement_timeout, lock_timeout, idle_in_transaction_session_timeout), milliseconds;
# 0 is none: a migration or a rebuild may take hours, but waits a minute at most for a lock.
TIMEOUTS = {
    "web": (10_000, 3_000, 15_000),
    "worker": (900_000, 30_000, 60_000),
    "command": (0, 60_000, 0),
}


def of(kind: str) -> dict[str, str]:
    """The settings of a session of this kind of process, by name. Raises KeyError."""
    statement, lock, idle = TIMEOUTS[kind]
    settings = {
        "statement_timeout": str(statement),
        "lock_timeout": str(lock),
        "idle_in_transaction_session_timeout": str(idle),
        # What a killed process asked for ends with it, and lets go of its locks.
        "client_connection_check_interval": "5000",
    }
    if kind != "command":
        # One of many at once: a second process would be another's. And it costs more than it gains:
        # an exact search among 100,000 vectors takes 34 ms by itself, 65 to 100 with a helper.
        settings["max_parallel_workers_per_gather"] = "0"
    return settings


def startup_options(kind: str) -> str:
    """The same for libpq's `options`."""
    return " ".join(f"-c {name}={value}" for name, value in of(kind).items())


def give_to_roles(roles: Mapping[str, str]) -> None:
    """Set the limits on each role of `{role: kind}`, in this database, for sessions from now on.

    In one transaction. Raises CommandError where a role or kind does not exist, or where this
    user may not alter the role (it may alter itself; others as a superuser, or with CREATEROLE
    and ADMIN OPTION on them).
    """
    from django.core.management import CommandError
    from django.db import Error, connection, transaction
    from psycopg import sql

    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            [database] = cursor.fetchone()
            for role, kind in roles.items():
                if kind not in TIMEOUTS:
                    raise CommandError(
                        f"DB_ROLES: {role}={kind} names no kind of process; known: "
                        f"{', '.join(TIMEOUTS)}."
                    )
                for name, value in of(kind).items():
                    cursor.execute(
                        sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                            sql.Identifier(role),
                            sql.Identifier(database),
                            sql.Identifier(name),
                            sql.Literal(value),
                        )
                    )
    except Error as error:
        reason = first_line(error)
        raise CommandError(
            f"DB_ROLES: the roles {', '.join(roles)} did not get their limits: {reason}. Correct "
            "DB_ROLES, or migrate as a user who may alter these roles."
        ) from error


def missing(kind: str) -> dict[str, str]:
    """Limits of `kind` that this process's session does not have: {name: what it has instead}.

    Raises DatabaseError.
    """
    from django.db import connection

    wanted = of(kind)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", [list(wanted)]
        )
        return {name: found for name, found in cursor.fetchall() if found != wanted[name]}
