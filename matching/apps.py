from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class MatchingConfig(AppConfig):
    """Items that people post, and their counterparts: found by place, words and meaning."""

    name = "matching"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Refuse a setting that would silently show nothing."""
        from matching.kinds import Kind

        if unknown := sorted(set(settings.MATCHING_PUBLIC_KINDS) - set(Kind.values)):
            raise ImproperlyConfigured(
                f"MATCHING_PUBLIC_KINDS: {', '.join(unknown)}; known: {', '.join(Kind.values)}"
            )
