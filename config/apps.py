from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate

from config import limits


class ConfigConfig(AppConfig):
    """What the five domains share. Knows none of them: it finds what they declare."""

    name = "config"
    verbose_name = "Operations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from config import audit, pooling, telemetry

        pooling.replace_all_dead_at_once()
        telemetry.start()
        audit.connect()
        post_migrate.connect(_give_limits, sender=self)


def _give_limits(**_signal: object) -> None:
    """Each `migrate` leaves the roles of DB_ROLES with the limits of this version."""
    if settings.DB_ROLES:
        limits.give_to_roles(settings.DB_ROLES)
