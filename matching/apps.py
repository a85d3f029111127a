from django.apps import AppConfig


class MatchingConfig(AppConfig):
    """Items that people post, and their counterparts: found by place, words and meaning."""

    name = "matching"
    default_auto_field = "django.db.models.BigAutoField"
