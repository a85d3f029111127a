"""The catalog's partitioned table: snapshots, a month each."""

from django.conf import settings
from psycopg import sql

from config.partitions import PartitionedTable, register
from config.sqlfiles import queries


def forget_month(cursor, name: str) -> None:
    """Have every line that the month `name` knew computed again, from the history that remains."""
    statement = sql.SQL(queries("catalog")["forget_month"]).format(month=sql.Identifier(name))
    cursor.execute(statement)


register(
    PartitionedTable(
        name="product_price_snapshots",
        column="scraped_at",
        unit="month",
        ahead=3,
        keep=lambda: settings.CATALOG_SNAPSHOTS_RETENTION_MONTHS,
        before_drop=forget_month,
        after_restore=forget_month,
        archive=True,
    )
)
