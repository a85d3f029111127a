"""Addresses of the counters under /api/v1/."""

from django.urls import path

from counters.api import views

urlpatterns = [path("events", views.EventsView.as_view(), name="counters-events")]
