"""What expires in feeds. Timelines are capped, and dropped when idle: see `fanout.py`."""

from datetime import timedelta

from django.utils import timezone

from config.retention import Rule, register

GONE_KEPT = timedelta(days=1)  # longer than any indexer is behind

register(
    Rule(
        name="post_documents",
        table="post_documents",
        condition="is_gone AND indexed_at < %(before)s",
        parameters=lambda: {"before": timezone.now() - GONE_KEPT},
        primary_key=("post_id",),
    )
)
