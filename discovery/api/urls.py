"""Addresses of discovery under /api/v1/."""

from django.urls import path

from config.caching import hot
from discovery.api import views, watch_views

urlpatterns = [
    path("discovery/polls", views.PollsView.as_view(), name="discovery-polls"),
    path("discovery/buckets", views.BucketsView.as_view(), name="discovery-buckets"),
    path("discovery/sources", views.SourcesView.as_view(), name="discovery-sources"),
    path(
        "chat/watches/just-opened",
        hot("discovery_feed", views.FEED_TTL, views.FEED)(views.JustOpenedView.as_view()),
        name="discovery-just-opened",
    ),
    path(
        "chat/watches/still-open",
        hot("discovery_feed", views.FEED_TTL, views.FEED)(views.StillOpenView.as_view()),
        name="discovery-still-open",
    ),
    path(
        "chat/watches/board",
        hot("discovery_feed", views.FEED_TTL, views.FEED)(views.BoardView.as_view()),
        name="discovery-board",
    ),
    path(
        "chat/watches/new-drops",
        hot("discovery_new_drops", views.DROPS_TTL, views.DROPS)(views.NewDropsView.as_view()),
        name="discovery-new-drops",
    ),
    path("chat/watches/stream", views.StreamView.as_view(), name="discovery-stream"),
    path("watches/prune-now", views.PruneNowView.as_view(), name="discovery-prune-now"),
    path("watches", watch_views.WatchesView.as_view(), name="discovery-watches"),
    path("watches/<int:watch_id>", watch_views.WatchView.as_view(), name="discovery-watch"),
    path(
        "watches/<int:watch_id>/notifications",
        watch_views.WatchNotificationsView.as_view(),
        name="discovery-watch-notifications",
    ),
    path(
        "watches/<int:watch_id>/test",
        watch_views.WatchTestView.as_view(),
        name="discovery-watch-test",
    ),
]
