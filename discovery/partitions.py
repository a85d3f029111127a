"""Discovery's partitioned tables: drops, and word of them, a day each."""

from django.conf import settings

from config.partitions import PartitionedTable, register

register(
    PartitionedTable(
        name="drop_events",
        column="opened_minute",
        unit="day",
        keep=lambda: settings.DROP_EVENTS_RETENTION_DAYS,
        archive=True,
    )
)
register(
    PartitionedTable(
        name="user_notifications",
        column="drop_minute",
        unit="day",
        keep=lambda: settings.NOTIFICATIONS_RETENTION_DAYS,
    )
)
