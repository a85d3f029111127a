"""Watches, and word of drops for them: what waits, what went out, the dead letters."""

from collections.abc import Iterable

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display

from config.admin.base import COUNT_LIMIT, ago, badge, number, posted, render, shortened, span
from discovery import queries
from discovery.admin.base import (
    RecentFilter,
    SourceFilter,
    StyledAdmin,
    id_of,
    named,
    reason,
    venue_link,
)
from discovery.admin.masking import shown_error, shown_target
from discovery.models import DropEvent, UserNotification, Venue, Watch, WatchVenue

_DELIVERY_LEVELS = {
    UserNotification.State.PENDING: "info",
    UserNotification.State.SENDING: "info",
    UserNotification.State.SENT: "ok",
    UserNotification.State.GONE: "quiet",
    UserNotification.State.DEAD: "bad",
}
_WEEKDAYS = ("", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class WatchForm(forms.ModelForm):
    """The one thing that staff decide about a watch."""

    class Meta:
        model = Watch
        fields = ("is_active",)


@admin.register(Watch)
class WatchAdmin(StyledAdmin):
    """What people wait for; staff may switch a watch off. Its secrets are not shown."""

    actions = ("switch_on", "switch_off")
    form = WatchForm
    list_display = ("shown_name", "person", "waits_for", "goes_to", "active", "told", "made")
    list_filter = ("is_active", "channel", SourceFilter)
    search_fields = ("user__username",)
    search_help_text = "The beginning of a person's name, or a watch's number"
    ordering = ("-pk",)
    list_select_related = ("user", "source")
    fields = (
        "is_active", "shown_name", "person", "waits_for", "goes_to", "quiet", "limits", "told",
        "made",
    )  # fmt: skip

    def get_queryset(self, request):
        rows = super().get_queryset(request).defer("secret")
        return rows.select_related("user", "source")

    def get_readonly_fields(self, request, obj=None):
        return self.fields[1:]

    def has_change_permission(self, request, obj=None):
        return request.user.has_perm("discovery.change_watch")

    def has_steer_permission(self, request) -> bool:
        """Whether the user may switch watches on and off."""
        return self.has_change_permission(request)

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()[:150]
        if not term:
            return queryset, False
        found = Q(user__username__startswith=term)
        if (key := id_of(term)) is not None:
            found |= Q(pk=key)
        return queryset.filter(found), False

    def save_model(self, request, obj, form, change):
        """Only the switch is written."""
        _switch([obj.pk], active=obj.is_active)

    def attach(self, rows):
        counts = _venue_counts(watch.pk for watch in rows if watch.has_venues)
        for watch in rows:
            watch.venue_count = counts.get(watch.pk, 0)

    @action(description="Switch on", permissions=["steer"])
    def switch_on(self, request, queryset):
        self._switch_all(request, queryset, active=True)

    @action(description="Switch off: its person is told nothing", permissions=["steer"])
    def switch_off(self, request, queryset):
        self._switch_all(request, queryset, active=False)

    def _switch_all(self, request, queryset, *, active: bool) -> None:
        watches = list(queryset.exclude(is_active=active)[:COUNT_LIMIT])
        word = "on" if active else "off"
        _switch([watch.pk for watch in watches], active=active)
        for watch in watches:
            self.log_change(request, watch, f"switched {word}")
        messages.success(request, f"Watches switched {word}: {len(watches):,}.")

    @display(description="watch", ordering="-pk")
    def shown_name(self, watch):
        return shortened(str(watch))

    @display(description="person")
    def person(self, watch):
        return watch.user.get_username()

    @display(description="waits for")
    def waits_for(self, watch):
        if not hasattr(watch, "venue_count"):
            watch.venue_count = _venue_counts([watch.pk]).get(watch.pk, 0)
        return wanted(watch)

    @display(description="told by")
    def goes_to(self, watch):
        return " ".join(filter(None, (watch.get_channel_display(), shown_target(watch))))

    @display(description="active", ordering="is_active")
    def active(self, watch):
        return badge("active", "ok") if watch.is_active else badge("off")

    @display(description="quiet hours")
    def quiet(self, watch):
        if watch.quiet_from is None:
            return "none"
        return f"{watch.quiet_from:%H:%M} to {watch.quiet_to:%H:%M}, {watch.timezone}"

    @display(description="limits")
    def limits(self, watch):
        pause = span(float(watch.cooldown_seconds))
        return f"{watch.max_per_hour} messages an hour, {pause} from one to the next"

    @display(description="last told", ordering="last_told_at")
    def told(self, watch):
        return ago(watch.last_told_at) if watch.last_told_at else "never"

    @display(description="made", ordering="-pk")
    def made(self, watch):
        return ago(watch.created_at)


def _switch(ids: list[int], *, active: bool) -> None:
    Watch.objects.filter(pk__in=ids).update(is_active=active, updated_at=timezone.now())


def _venue_counts(ids: Iterable[int]) -> dict[int, int]:
    rows = WatchVenue.objects.filter(watch_id__in=list(ids)).order_by()
    return dict(rows.values_list("watch_id").annotate(Count("venue_id")))


def wanted(watch: Watch) -> str:
    """What a watch waits for, in words. `watch.venue_count` is known."""
    parts = []
    if watch.has_venues:
        parts.append(f"{watch.venue_count:,} venue{'' if watch.venue_count == 1 else 's'}")
    if watch.source is not None:
        parts.append(f"source {watch.source.name}")
    if watch.date_from or watch.date_to:
        parts.append(f"{watch.date_from or '…'} to {watch.date_to or '…'}")
    if watch.weekdays:
        parts.append(", ".join(_WEEKDAYS[day] for day in sorted(watch.weekdays)))
    if watch.time_from or watch.time_to:
        parts.append(f"{watch.time_from or '00:00'} to {watch.time_to or '24:00'}")
    if watch.party_size:
        parts.append(f"{watch.party_size} people")
    if watch.radius_m:
        place = f"{watch.latitude:.3f}, {watch.longitude:.3f}"
        parts.append(f"within {watch.radius_m / 1000:,.3g} km of {place}")
    return " · ".join(parts) or "anything"


class RecentDeliveriesFilter(RecentFilter):
    column = "drop_minute"

    def sees_all(self, request):
        indexed = (
            UserNotification.State.PENDING,
            UserNotification.State.SENDING,
            UserNotification.State.DEAD,
        )
        return super().sees_all(request) or request.GET.get("state__exact") in indexed


@admin.register(UserNotification)
class DeliveryAdmin(StyledAdmin):
    """Word of drops for watches: what waits, what went out, and the dead letters with a retry."""

    actions = ("retry_all",)
    list_display = (
        "what", "shown_state", "person", "for_watch", "goes_to", "attempts", "when", "why",
    )  # fmt: skip
    list_filter = (RecentDeliveriesFilter, "state")
    search_fields = ("user__username",)
    search_help_text = "A person's whole name, or a watch's number"
    ordering = ("-pk",)
    list_before_template = "discovery/deliveries.html"

    def has_steer_permission(self, request) -> bool:
        """Whether the user may retry."""
        return request.user.has_perm("discovery.change_usernotification")

    def get_urls(self):
        retry = self.admin_site.admin_view(self.retry_view)
        own = path("<int:delivery_id>/retry/", retry, name="discovery_usernotification_retry")
        return [own, *super().get_urls()]

    def get_search_results(self, request, queryset, search_term):
        """By two index paths: a person's notifications, or a watch's."""
        term = search_term.strip()[:150]
        if not term:
            return queryset, False
        users = get_user_model().objects.filter(username=term).values_list("pk", flat=True)
        if ids := list(users):
            return queryset.filter(user_id__in=ids), False
        key = id_of(term)
        return (queryset.none() if key is None else queryset.filter(watch_id=key)), False

    def changelist_view(self, request, extra_context=None):
        found = queries.delivery_gauges()
        panel = {
            "waiting": number(found["waiting"]),
            "overdue": span(found["overdue_seconds"]) if found["overdue_seconds"] > 60 else "",
            "dead": found["dead"],
            "dead_shown": request.GET.get("state__exact") == UserNotification.State.DEAD,
        }
        return super().changelist_view(request, panel | (extra_context or {}))

    def attach(self, rows):
        watches = named(Watch, (one.watch_id for one in rows))
        users = named(get_user_model(), (one.user_id for one in rows))
        minutes = {one.drop_minute for one in rows}
        drops = DropEvent.objects.filter(
            opened_minute__in=minutes, pk__in={d.drop_id for d in rows}
        )
        drops = {drop.pk: drop for drop in drops.defer("payload")}
        venues = named(Venue, (drop.venue_id for drop in drops.values()))
        for one in rows:
            one.known_watch = watches.get(one.watch_id)
            one.known_user = users.get(one.user_id)
            one.known_drop = drops.get(one.drop_id)
            one.known_venue = venues.get(one.known_drop.venue_id) if one.known_drop else None

    @action(description="Retry: tell what was given up once more", permissions=["steer"])
    def retry_all(self, request, queryset):
        keys = list(
            queryset.filter(state=UserNotification.State.DEAD).values_list("pk", flat=True)[
                :COUNT_LIMIT
            ]
        )
        retried = _retry(keys)
        messages.success(request, f"Dead letters that are due again: {retried:,}.")

    @posted("discovery.change_usernotification")
    def retry_view(self, request: HttpRequest, delivery_id: int) -> HttpResponse:
        """Tell one more time what was given up."""
        if not UserNotification.objects.filter(pk=delivery_id).exists():
            raise Http404(f"no notification {delivery_id}")
        if _retry([delivery_id]):
            messages.success(request, "It is due again.")
        else:
            messages.warning(request, "It cannot be retried: it was not given up.")
        return redirect("admin:discovery_usernotification_change", delivery_id)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The notification's page. Five queries."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        key = id_of(object_id)
        one = None if key is None else UserNotification.objects.filter(pk=key).first()
        if one is None:
            raise Http404(f"no notification {object_id[:50]}")
        self.attach([one])
        drop, watch = one.known_drop, one.known_watch
        return render(
            request,
            self,
            "discovery/delivery.html",
            title=f"Notification {one.pk}",
            one=one,
            state=self.shown_state(one),
            person=self.person(one),
            watch=watch,
            goes_to=self.goes_to(one),
            drop=drop,
            venue=venue_link(one.known_venue, drop.venue_id) if drop else "",
            opened=ago(drop.opened_at) if drop else "",
            closed=ago(drop.closed_at) if drop and drop.closed_at else "",
            made=ago(one.created_at),
            due=ago(one.due_at),
            told=ago(one.told_at) if one.told_at else "",
            error=shown_error(one.error, watch),
            may_retry=one.state == UserNotification.State.DEAD
            and self.has_steer_permission(request),
        )

    @display(description="drop", ordering="-pk")
    def what(self, one):
        if one.known_drop is None:
            return f"drop {one.drop_id}, gone"
        where = str(one.known_venue) if one.known_venue else "a venue that is gone"
        return shortened(f"{one.known_drop.slot_id} at {where}", 70)

    @display(description="state")
    def shown_state(self, one):
        text = "sent, gone" if one.already_gone and one.state == "sent" else one.state
        return badge(text, _DELIVERY_LEVELS[one.state], one.get_state_display())

    @display(description="person")
    def person(self, one):
        return one.known_user.get_username() if one.known_user else f"user {one.user_id}, gone"

    @display(description="watch")
    def for_watch(self, one):
        if one.known_watch is None:
            return f"watch {one.watch_id}, gone"
        url = reverse("admin:discovery_watch_change", args=[one.watch_id])
        name = shortened(str(one.known_watch), 40)
        return format_html('<a class="sg-link" href="{}">{}</a>', url, name)

    @display(description="told by")
    def goes_to(self, one):
        watch = one.known_watch
        if watch is None:
            return "–"
        return " ".join(filter(None, (watch.get_channel_display(), shown_target(watch))))

    @display(description="told or due")
    def when(self, one):
        return ago(one.told_at or one.due_at)

    @display(description="reason")
    def why(self, one):
        return reason(shown_error(one.error, one.known_watch))


def _retry(ids: list[int]) -> int:
    from discovery import notifier

    return notifier.retry_notifications(ids=ids)
