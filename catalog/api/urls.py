"""Addresses of the catalog under /api/v1/."""

from django.urls import path

from catalog.api import views
from config.caching import hot

urlpatterns = [
    path(
        "catalog",
        hot("catalog", views.CATALOG_TTL, views.CARDS)(views.CatalogView.as_view()),
        name="catalog",
    ),
    path(
        "products/<path:name>",
        hot("product", views.PRODUCT_TTL, views.LINES)(views.ProductView.as_view()),
        name="catalog-product",
    ),
    path(
        "search/suggest",
        hot("suggest", views.SUGGEST_TTL, views.CARDS)(views.SuggestView.as_view()),
        name="catalog-suggest",
    ),
    path(
        "meta/categories",
        hot("categories", views.CATEGORIES_TTL, views.CATEGORIES)(views.CategoriesView.as_view()),
        name="catalog-categories",
    ),
    path("snapshots", views.SnapshotsView.as_view(), name="catalog-snapshots"),
    path(
        "snapshots/recent",
        hot("recent", views.RECENT_TTL, views.LINES)(views.RecentSnapshotsView.as_view()),
        name="catalog-recent-snapshots",
    ),
]
