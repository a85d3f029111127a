from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """What the five domains share. Knows none of them: it finds what they declare."""

    name = "config"
    verbose_name = "Operations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from config import audit, telemetry

        telemetry.start()
        audit.connect()
