"""Addresses of matching under /api/v1/."""

from django.urls import path

from config.caching import hot
from matching.api import views

urlpatterns = [
    path("items", views.ItemsView.as_view(), name="matching-items"),
    path("items/search", views.SearchView.as_view(), name="matching-search"),
    path(
        "items/recent",
        hot("items_recent", views.RECENT_TTL, views.RECENT)(views.RecentView.as_view()),
        name="matching-recent",
    ),
    path("items/<int:item_id>", views.ItemView.as_view(), name="matching-item"),
    path(
        "items/<int:item_id>/matches", views.ItemMatchesView.as_view(), name="matching-item-matches"
    ),
    path("matches/<int:match_id>/confirm", views.ConfirmView.as_view(), name="matching-confirm"),
    path("matches/<int:match_id>/dismiss", views.DismissView.as_view(), name="matching-dismiss"),
    path("match", views.MatchView.as_view(), name="matching-match"),
    path("jobs/match/status/<uuid:task_id>", views.MatchJobView.as_view(), name="matching-job"),
    path("me/badges", views.BadgesView.as_view(), name="matching-badges"),
    path("me/notifications", views.NotificationsView.as_view(), name="matching-notifications"),
    path(
        "me/notifications/read",
        views.ReadNotificationsView.as_view(),
        name="matching-notifications-read",
    ),
]
