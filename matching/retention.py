"""What expires in matching, besides whole months of matches and audit rows (`partitions.py`)."""

from config.retention import Rule, days_before, register

# A task answers that it has expired for as long as its row stands.
register(
    Rule(
        name="match_jobs",
        table="match_jobs",
        condition="expires_at < %(before)s",
        parameters=days_before("MATCHING_JOBS_RETENTION_DAYS"),
        primary_key=("task_id",),
    )
)
register(
    Rule(
        name="match_notifications",
        table="match_notifications",
        condition="created_at < %(before)s",
        parameters=days_before("MATCHING_NOTIFICATIONS_RETENTION_DAYS"),
    )
)
# With its matches, dismissals, jobs and vector.
register(
    Rule(
        name="deleted_items",
        table="items",
        condition="is_deleted AND updated_at < %(before)s",
        parameters=days_before("MATCHING_DELETED_ITEMS_RETENTION_DAYS"),
        batch=50,
    )
)
