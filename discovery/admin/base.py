"""What the screens of discovery share: links, badges, lists whose rows name other tables."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from config.admin.base import ReadOnlyAdmin, badge, shortened
from discovery import queries
from discovery.models import Source, Venue

_SOURCE_LEVELS = {
    "fresh": "ok",
    "failing": "warn",
    "frozen": "bad",
    "paused": "quiet",
    "new": "info",
}
SOURCE_MEANINGS = {
    "fresh": "Its last poll brought an answer.",
    "failing": "Its last polls brought no answer; what was open counts as open still.",
    "frozen": "No answer for long: what is open is unknown.",
    "paused": "Staff paused it: nothing is polled, what is pushed is refused.",
    "new": "It has not answered yet.",
}


def source_state(state: str) -> str:
    """A badge for a source's state, as `queries.source_overview` has it."""
    return badge(state, _SOURCE_LEVELS[state], SOURCE_MEANINGS[state])


def reason(text: str) -> str:
    """Why something failed, as it fits a list: it may break anywhere."""
    return format_html('<span class="dc-title">{}</span>', shortened(text) or "–")


def source_link(source_id: int, name: str) -> str:
    """A link to a source's window."""
    url = reverse("admin:discovery_source_window", args=[source_id])
    return format_html('<a class="sg-link" href="{}">{}</a>', url, name)


def venue_link(venue: Venue | None, venue_id: int) -> str:
    """A link to a venue's page; its number where the venue is gone."""
    if venue is None:
        return f"venue {venue_id}, gone"
    url = reverse("admin:discovery_venue_change", args=[venue_id])
    return format_html('<a class="sg-link" href="{}">{}</a>', url, shortened(str(venue), 50))


def id_of(text: str) -> int | None:
    """A primary key as an address or a search has it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def named(model, ids: Iterable[int | None]) -> dict[int, Any]:
    """Rows by primary key, those that are gone left out. One query."""
    return model.objects.in_bulk({one for one in ids if one is not None})


class StyledAdmin(ReadOnlyAdmin):
    """Lists with what discovery draws in them."""

    class Media:
        css = {"all": ["discovery/discovery.css"]}

    def changelist_view(self, request, extra_context=None):
        """The list; what its rows name is fetched for all of them at once."""
        response = super().changelist_view(request, extra_context)
        listed = getattr(response, "context_data", {}).get("cl")
        if listed is not None:
            listed.result_list = list(listed.result_list)
            self.attach(listed.result_list)
        return response

    def attach(self, rows: list) -> None:
        """Hang on the rows of a page what their columns show."""


class RecentFilter(admin.SimpleListFilter):
    """The last 24 hours unless asked otherwise: a partition or two, not all of them.

    Whoever searches, or asks for a state that has its index, sees all times.
    """

    title = "time"
    parameter_name = "within"
    column = ""
    _HOURS = {"hour": 1, "day": 24, "week": 7 * 24}

    def lookups(self, request, model_admin):
        return [("hour", "last hour"), ("week", "last 7 days"), ("all", "all that is kept")]

    def choices(self, changelist):
        for choice in super().choices(changelist):
            if choice["query_string"] == changelist.get_query_string(remove=["within"]):
                choice |= {"display": "last 24 hours"}
            yield choice

    def queryset(self, request, queryset):
        value = self.value() or ("all" if self.sees_all(request) else "day")
        hours = self._HOURS.get(value)
        if hours is None:
            return queryset
        since = timezone.now() - timedelta(hours=hours)
        return queryset.filter(**{f"{self.column}__gte": since})

    def sees_all(self, request: HttpRequest) -> bool:
        """Whether what is asked for has an index of its own."""
        return bool(request.GET.get("q"))


class SourceFilter(admin.SimpleListFilter):
    """By source; the first 200 by name."""

    title = "source"
    parameter_name = "source"

    def lookups(self, request, model_admin):
        rows = Source.objects.order_by("name").values_list("pk", "name")[: queries.SOURCES]
        return [(str(pk), name) for pk, name in rows]

    def queryset(self, request, queryset):
        value = self.value()
        if not value:
            return queryset
        found = id_of(value)
        return queryset.none() if found is None else queryset.filter(source_id=found)
