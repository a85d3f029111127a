from django.apps import AppConfig
from django.db.models.signals import post_migrate


class CountersConfig(AppConfig):
    """Counts that are exact: declared by the domains, kept by triggers and streams."""

    name = "counters"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Declare the counters of every app, whose triggers the migrations must know."""
        from counters import actions, declared

        declared.all()
        post_migrate.connect(
            lambda **_: actions.sync_counters(), sender=self, weak=False, dispatch_uid="counters"
        )
