"""What expires in matching, besides whole months of matches and audit rows (`partitions.py`)."""

from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from config.retention import Rule, register


def _before(name: str) -> Callable[[], dict | None]:
    """The moment so many days ago as the setting says; None where that is 0."""

    def parameters() -> dict | None:
        days = getattr(settings, name)
        return {"before": timezone.now() - timedelta(days=days)} if days else None

    return parameters


# A task answers that it has expired for as long as its row stands.
register(
    Rule(
        name="match_jobs",
        table="match_jobs",
        condition="expires_at < %(before)s",
        parameters=_before("MATCHING_JOBS_RETENTION_DAYS"),
        primary_key=("task_id",),
    )
)
register(
    Rule(
        name="match_notifications",
        table="match_notifications",
        condition="created_at < %(before)s",
        parameters=_before("MATCHING_NOTIFICATIONS_RETENTION_DAYS"),
    )
)
# With its matches, dismissals, jobs and vector.
register(
    Rule(
        name="deleted_items",
        table="items",
        condition="is_deleted AND updated_at < %(before)s",
        parameters=_before("MATCHING_DELETED_ITEMS_RETENTION_DAYS"),
        batch=50,
    )
)
