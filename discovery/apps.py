from django.apps import AppConfig


class DiscoveryConfig(AppConfig):
    """Openings: slots that are polled, the drops among them, and who is told."""

    name = "discovery"
    default_auto_field = "django.db.models.BigAutoField"
