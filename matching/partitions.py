"""Matching's partitioned tables: matches and the audit log, a month each."""

from django.conf import settings

from config.partitions import PartitionedTable, register

register(
    PartitionedTable(
        name="matches",
        column="created_at",
        keep=lambda: settings.MATCHING_MATCHES_RETENTION_MONTHS,
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
