from django.apps import AppConfig


class CatalogConfig(AppConfig):
    """Prices of many sellers: snapshots in, cards, histories and honest discounts out."""

    name = "catalog"
    default_auto_field = "django.db.models.BigAutoField"
