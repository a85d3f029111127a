"""Venues with their history and usual hours, and the list of drops."""

from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404
from django.shortcuts import redirect
from django.utils import timezone
from unfold.decorators import display

from config.admin.base import ago, badge, number, render, shortened, span
from discovery import charts, queries
from discovery.admin.base import (
    RecentFilter,
    SourceFilter,
    StyledAdmin,
    id_of,
    named,
    source_link,
    venue_link,
)
from discovery.models import Availability, DropEvent, SlotStats, Source, Venue
from discovery.polls import zone_of

DROPS_DRAWN = 500
DROPS_LISTED = 50  # of those, in the table
SLOTS_SHOWN = 100  # open slots, and times of day, of a venue
VENUES_FOUND = 200  # by the beginning of a key


@admin.register(Venue)
class VenueAdmin(StyledAdmin):
    """Where slots are: a list, and a page with a venue's history and its usual hours."""

    list_display = ("shown_name", "of_source", "city", "drops", "mean_open", "usual", "seen")
    list_filter = (SourceFilter,)
    search_fields = ("key",)
    search_help_text = "The beginning of its key, or a part of its name"
    ordering = ("-pk",)
    list_select_related = ("source", "stats")

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()[:200]
        if not term:
            return queryset, False
        return queryset.filter(Q(key__startswith=term) | Q(name__icontains=term)), False

    @display(description="venue", ordering="-pk")
    def shown_name(self, venue):
        return shortened(str(venue))

    @display(description="source")
    def of_source(self, venue):
        return venue.source.name

    @display(description="drops", ordering="-stats__drops")
    def drops(self, venue):
        return number(_stats(venue).drops) if _stats(venue) else "0"

    @display(description="open for, on average")
    def mean_open(self, venue):
        return _mean(_stats(venue))

    @display(description="usual hour")
    def usual(self, venue):
        return _usual(_stats(venue))

    @display(description="last seen", ordering="-last_seen_at")
    def seen(self, venue):
        return ago(venue.last_seen_at)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The venue's page. Five queries, whatever the length of its history."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        key = id_of(object_id)
        rows = Venue.objects.select_related("source", "stats")
        venue = None if key is None else rows.filter(pk=key).first()
        if venue is None:
            raise Http404(f"no venue {object_id[:50]}")
        zone = _zone(venue.source.timezone)
        now = timezone.now()
        drops = queries.venue_drops(venue_id=venue.pk, limit=DROPS_DRAWN)
        slots = Availability.objects.filter(venue=venue).order_by("starts_at", "slot_id")
        times = SlotStats.objects.filter(venue=venue).order_by("-drops", "local_time")
        stats = _stats(venue)
        return render(
            request,
            self,
            "discovery/venue.html",
            title=shortened(str(venue)),
            venue=venue,
            source=source_link(venue.source_id, venue.source.name),
            zone=zone.key,
            seen=ago(venue.last_seen_at),
            drops=number(stats.drops) if stats else "0",
            mean=_mean(stats),
            usual=_usual(stats),
            last_drop=ago(stats.last_opened_at) if stats else "never",
            last_closing=ago(stats.last_closed_at) if stats else "never",
            history=charts.history(drops, now=now, zone=zone),
            is_capped=len(drops) == DROPS_DRAWN,
            newest=[_shown_drop(drop, zone) for drop in drops[:DROPS_LISTED]],
            hours=charts.hours(stats.hours if stats else [0] * 24),
            times=[_shown_time(row) for row in times[:SLOTS_SHOWN]],
            slots=[_shown_slot(slot, zone) for slot in slots[:SLOTS_SHOWN]],
            slots_capped=SLOTS_SHOWN,
        )


def _stats(venue: Venue):
    return getattr(venue, "stats", None)


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except ValueError:
        return zone_of("UTC")


def _mean(stats) -> str:
    return span(stats.open_seconds / stats.closings) if stats and stats.closings > 0 else "–"


def _usual(stats) -> str:
    most = max(stats.hours, default=0) if stats else 0
    return f"{stats.hours.index(most):02}:00" if most else "–"


def _local(moment, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}" if moment else "–"


def _shown_drop(drop: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    closed = drop["closed_at"]
    return {
        "slot": shortened(drop["slot_id"], 60),
        "kind": drop["event_type"],
        "starts": _local(drop["starts_at"], zone),
        "opened": _local(drop["opened_at"], zone),
        "state": drop_state(is_closed=closed is not None, is_open=drop["is_open"]),
        "length": span((closed - drop["opened_at"]).total_seconds()) if closed else "–",
    }


def _shown_time(row: SlotStats) -> dict[str, Any]:
    return {
        "time": row.local_time or "no time",
        "drops": number(row.drops),
        "mean": _mean(row),
        "usual": _usual(row),
        "opened": ago(row.last_opened_at),
        "closed": ago(row.last_closed_at),
    }


def _shown_slot(slot: Availability, zone: ZoneInfo) -> dict[str, Any]:
    people = [str(each) for each in (slot.party_min, slot.party_max) if each is not None]
    return {
        "slot": shortened(slot.slot_id, 60),
        "starts": _local(slot.starts_at, zone),
        "people": "–".join(people),
        "opened": ago(slot.opened_at),
        "kind": "drop" if slot.drop_id else "baseline",
        "missing": ago(slot.missing_since) if slot.missing_since else "",
    }


def drop_state(*, is_closed: bool, is_open: bool) -> str:
    """A badge for a drop: open, closed, or over with its day."""
    if is_closed:
        return badge("closed")
    if is_open:
        return badge("open", "ok")
    return badge("over", "quiet", "Its day ended before it was seen to close.")


class RecentDropsFilter(RecentFilter):
    column = "opened_minute"


class ClosedFilter(admin.SimpleListFilter):
    """By whether it was seen to close."""

    title = "state"
    parameter_name = "closed"

    def lookups(self, request, model_admin):
        return [("no", "not closed"), ("yes", "closed")]

    def queryset(self, request, queryset):
        if self.value() not in ("yes", "no"):
            return queryset
        return queryset.filter(closed_at__isnull=self.value() == "no")


@admin.register(DropEvent)
class DropAdmin(StyledAdmin):
    """Drops, the newest first. What is old is read by its day's partition."""

    list_display = (
        "slot", "kind", "of_source", "at_venue", "starts", "opened", "shown_state", "length",
        "published",
    )  # fmt: skip
    list_display_links = None
    list_filter = (RecentDropsFilter, "event_type", SourceFilter, ClosedFilter)
    search_fields = ("slot_id",)
    search_help_text = "A slot's whole id, or the beginning of a venue's key"
    ordering = ("-pk",)

    def get_queryset(self, request):
        return super().get_queryset(request).defer("payload")

    def get_search_results(self, request, queryset, search_term):
        """By two index paths, never by both at once: the slot's id, or else venues by their key."""
        term = search_term.strip()[:200]
        if not term:
            return queryset, False
        of_slot = queryset.filter(slot_id=term)
        if of_slot.exists():
            return of_slot, False
        venues = Venue.objects.filter(key__startswith=term).values_list("pk", flat=True)
        return queryset.filter(venue_id__in=list(venues[:VENUES_FOUND])), False

    def attach(self, rows):
        venues = named(Venue, (drop.venue_id for drop in rows))
        sources = named(Source, (drop.source_id for drop in rows))
        still_open = queries.open_drop_ids(rows) if rows else set()
        for drop in rows:
            drop.known_venue = venues.get(drop.venue_id)
            drop.known_source = sources.get(drop.source_id)
            drop.is_open = drop.pk in still_open

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """A drop is part of its venue's history: that is its page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        key = id_of(object_id)
        drop = None if key is None else DropEvent.objects.filter(pk=key).first()
        if drop is None or not Venue.objects.filter(pk=drop.venue_id).exists():
            raise Http404(f"no drop {object_id[:50]}, or its venue is gone")
        return redirect("admin:discovery_venue_change", drop.venue_id)

    @display(description="slot", ordering="-pk")
    def slot(self, drop):
        return shortened(drop.slot_id, 60)

    @display(description="event")
    def kind(self, drop):
        return drop.event_type

    @display(description="source")
    def of_source(self, drop):
        if drop.known_source is None:
            return f"source {drop.source_id}, gone"
        return source_link(drop.source_id, drop.known_source.name)

    @display(description="venue")
    def at_venue(self, drop):
        return venue_link(drop.known_venue, drop.venue_id)

    @display(description="starts")
    def starts(self, drop):
        zone = _zone(drop.known_source.timezone if drop.known_source else "UTC")
        return _local(drop.starts_at, zone)

    @display(description="opened")
    def opened(self, drop):
        return ago(drop.opened_at)

    @display(description="state")
    def shown_state(self, drop):
        return drop_state(is_closed=drop.closed_at is not None, is_open=drop.is_open)

    @display(description="open for")
    def length(self, drop):
        return span((drop.closed_at - drop.opened_at).total_seconds()) if drop.closed_at else "–"

    @display(description="published")
    def published(self, drop):
        if drop.published_at is None:
            return badge("not yet", "warn", "Pollers cannot see it yet.")
        return ago(drop.published_at)
