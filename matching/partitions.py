"""Matching's partitioned tables: matches and the audit log, a month each."""

from django.conf import settings
from psycopg import sql

from config.partitions import PartitionedTable, register
from config.sqlfiles import queries


def leave_out_pairs(cursor, name: str) -> int:
    """Delete from the month `name` the pairs that were found anew since, so that each stands in one
    row, and the suggestions that are over: dismissed, or of an item that nobody looks for now."""
    cursor.execute("LOCK TABLE matches IN SHARE ROW EXCLUSIVE MODE")  # items are locked already
    statement = sql.SQL(queries("matching")["leave_out_pairs"]).format(month=sql.Identifier(name))
    cursor.execute(statement)
    return cursor.rowcount


register(
    PartitionedTable(
        name="matches",
        column="created_at",
        keep=lambda: settings.MATCHING_MATCHES_RETENTION_MONTHS,
        leave_out=leave_out_pairs,
        archive=True,
    )
)
register(
    PartitionedTable(
        name="audit_logs",
        column="created_at",
        keep=lambda: settings.MATCHING_AUDIT_RETENTION_MONTHS,
        archive=True,
    )
)
