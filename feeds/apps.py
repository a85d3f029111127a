from django.apps import AppConfig


class FeedsConfig(AppConfig):
    """People, what they post, and the timelines of those who follow them."""

    name = "feeds"
    default_auto_field = "django.db.models.BigAutoField"
