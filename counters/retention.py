"""What expires in the counters, besides whole days of event ids (`partitions.py`)."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from config.retention import Rule, register


def _before() -> dict | None:
    days = settings.COUNTERS_DEAD_LETTERS_DAYS
    return {"before": timezone.now() - timedelta(days=days)} if days else None


register(
    Rule(
        name="counter_dead_letters",
        table="counter_dead_letters",
        condition="died_at < %(before)s",
        parameters=_before,
    )
)
