"""Sources: how each is, its window as a heat map, its scans; pause, resume, and what staff set."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from config.admin.base import ago, badge, number, posted, pre, render
from discovery import actions, charts, queries
from discovery.admin.base import (
    SOURCE_MEANINGS,
    StyledAdmin,
    reason,
    source_link,
    source_state,
)
from discovery.admin.masking import masked, without_credentials
from discovery.models import Source
from discovery.polls import InvalidPoll, clean_name, zone_of

SCANS_SHOWN = 30

_OUTCOME_LEVELS = {
    "recorded": "ok",
    "unchanged": "quiet",
    "replayed": "quiet",
    "late": "warn",
    "failed": "bad",
}


class SourceForm(forms.ModelForm):
    """What staff may say of a source; each mistake is told at its field."""

    class Meta:
        model = Source
        fields = (
            "name", "title", "provider", "config", "timezone", "window_days", "poll_seconds",
        )  # fmt: skip
        widgets = {
            "name": UnfoldAdminTextInputWidget(),
            "title": UnfoldAdminTextInputWidget(),
            "timezone": UnfoldAdminTextInputWidget(attrs={"placeholder": "Europe/Berlin"}),
            "config": UnfoldAdminTextareaWidget(attrs={"rows": 10, "spellcheck": "false"}),
        }
        help_texts = {
            "name": "a-z, 0-9, _ and -, a letter or digit first. It cannot be changed later.",
            "config": "What the provider needs to know, as a JSON object.",
            "timezone": "By its IANA name; days and hours are reckoned in it.",
            "poll_seconds": "From one poll to the next, 1 to 86,400; a provider may ask for more.",
        }

    def __init__(self, *args, **options: Any) -> None:
        super().__init__(*args, **options)
        # What was changed is told by the row, not by what a browser says the form began with.
        if "config" in self.fields:
            self.fields["config"].show_hidden_initial = False

    def clean_name(self) -> str:
        """As a poll may name it."""
        try:
            return clean_name(self.cleaned_data["name"])
        except InvalidPoll as error:
            raise forms.ValidationError(error.errors["source"]) from error

    def clean_timezone(self) -> str:
        """A zone that Python and PostgreSQL know."""
        name = self.cleaned_data["timezone"].strip()
        try:
            zone_of(name)
        except ValueError as error:
            raise forms.ValidationError("Is no time zone (Europe/Berlin).") from error
        if not queries.knows_timezone(name):
            raise forms.ValidationError("The database does not know this time zone.")
        return name

    def clean_window_days(self) -> int | None:
        """Within what the table takes."""
        days = self.cleaned_data["window_days"]
        if days is not None and not 0 <= days <= 366:
            raise forms.ValidationError("Must be from 0 to 366.")
        return days

    def clean_poll_seconds(self) -> int:
        """Within what the table takes."""
        seconds = self.cleaned_data["poll_seconds"]
        if not 1 <= seconds <= 86_400:
            raise forms.ValidationError("Must be from 1 to 86,400.")
        return seconds

    def clean_config(self) -> dict[str, Any]:
        """A JSON object; nothing is an empty one."""
        config = self.cleaned_data["config"]
        if config is None:
            return {}
        if not isinstance(config, dict):
            raise forms.ValidationError("Must be a JSON object ({…}).")
        return config

    def clean(self) -> dict[str, Any]:
        """The config, by its provider's own rules."""
        from discovery import providers  # with an HTTP client, which no other screen needs

        given = super().clean()
        if {"provider", "config", "window_days"} <= given.keys():
            asked = {name: given[name] for name in ("provider", "config", "window_days")}
            for key, reason in providers.check(**asked).items():
                if key == "window_days":
                    self.add_error(key, reason)
                else:
                    self.add_error("config", reason if key == "config" else f"{key}: {reason}")
        return given


@admin.register(Source)
class SourceAdmin(StyledAdmin):
    """What is polled: how each source is, its window, and what staff may say of it."""

    actions = ("pause_all", "resume_all")
    form = SourceForm
    list_display = (
        "shown_name", "provider", "state", "answered", "failures", "open_slots", "next_poll", "why",
    )  # fmt: skip
    list_display_links = None
    list_filter = ("provider", "is_paused")
    search_fields = ("name",)
    search_help_text = "A part of the name or the title"
    ordering = ("name",)
    change_form_before_template = "discovery/source_head.html"
    _STATE = (
        "shown_state", "answered", "attempted", "failures", "next_poll", "shown_error", "made",
    )  # fmt: skip

    def has_add_permission(self, request, obj=None):
        return request.user.has_perm("discovery.add_source")

    def has_change_permission(self, request, obj=None):
        return request.user.has_perm("discovery.change_source")

    def has_steer_permission(self, request) -> bool:
        """Whether the user may pause and resume."""
        return self.has_change_permission(request)

    def get_urls(self):
        view = self.admin_site.admin_view
        return [
            path("<int:source_id>/window/", view(self.window_view), name="discovery_source_window"),
            path("<int:source_id>/pause/", view(self.pause_view), name="discovery_source_pause"),
            path("<int:source_id>/resume/", view(self.resume_view), name="discovery_source_resume"),
            *super().get_urls(),
        ]

    def get_queryset(self, request):
        return super().get_queryset(request).defer("validators")

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()[:100]
        if not term:
            return queryset, False
        return queryset.filter(Q(name__icontains=term) | Q(title__icontains=term)), False

    def get_fieldsets(self, request, obj=None):
        own = ["name", "title", "provider", "config", "timezone", "window_days", "poll_seconds"]
        if obj is None:
            return [(None, {"fields": own})]
        if not self.has_change_permission(request):
            own[own.index("config")] = "shown_config"
        return [(None, {"fields": own}), ("How it is", {"fields": self._STATE})]

    def get_readonly_fields(self, request, obj=None):
        return () if obj is None else ("name", "shown_config", *self._STATE)

    def save_model(self, request, obj, form, change):
        """Only what was changed is written: polls write to the same row meanwhile."""
        if not change:
            obj.save()
            return
        fields = list(form.changed_data)
        if not fields:
            return
        obj.next_poll_at = timezone.now()
        with transaction.atomic():
            obj.save(update_fields=[*fields, "next_poll_at"])
            if {"provider", "config", "timezone", "window_days"} & set(fields):
                actions.begin_anew(source_id=obj.pk)

    def attach(self, rows):
        found = {each["id"]: each for each in queries.source_overview(ids=[one.pk for one in rows])}
        for source in rows:
            source.overview = found[source.pk]

    @action(description="Pause: neither poll nor take what is pushed", permissions=["steer"])
    def pause_all(self, request, queryset):
        self._steer_all(request, queryset, paused=True)

    @action(description="Resume", permissions=["steer"])
    def resume_all(self, request, queryset):
        self._steer_all(request, queryset, paused=False)

    def _steer_all(self, request, queryset, *, paused: bool) -> None:
        sources = list(queryset.exclude(is_paused=paused)[: queries.SOURCES])
        for source in sources:
            self._steer(request, source, paused=paused)
        word = "paused" if paused else "resumed"
        messages.success(request, f"Sources {word}: {len(sources):,}.")

    def _steer(self, request, source: Source, *, paused: bool) -> None:
        actions.pause_source(source_id=source.pk, paused=paused)
        self.log_change(request, source, "paused" if paused else "resumed")

    @posted("discovery.change_source")
    def pause_view(self, request: HttpRequest, source_id: int) -> HttpResponse:
        """Pause one source."""
        return self._steered(request, source_id, paused=True)

    @posted("discovery.change_source")
    def resume_view(self, request: HttpRequest, source_id: int) -> HttpResponse:
        """Resume one source."""
        return self._steered(request, source_id, paused=False)

    def _steered(self, request, source_id: int, *, paused: bool) -> HttpResponse:
        source = _source_of(source_id)
        self._steer(request, source, paused=paused)
        text = "paused; its slots stay as they are" if paused else "resumed; it is due now"
        messages.success(request, f"{source.name} is {text}.")
        return redirect("admin:discovery_source_window", source_id)

    def window_view(self, request: HttpRequest, source_id: int) -> HttpResponse:
        """The window as a heat map, and the newest scans. Four queries, whatever is in them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        source = _source_of(source_id)
        [overview] = queries.source_overview(ids=[source.pk])
        buckets = queries.bucket_health(source=source.name)
        return render(
            request,
            self,
            "discovery/window.html",
            title=source.title or source.name,
            source=source,
            state=source_state(overview["state"]),
            meaning=SOURCE_MEANINGS[overview["state"]],
            open_slots=number(overview["open_slots"]),
            answered=ago(source.last_success_at) if source.last_success_at else "never",
            failures=number(source.consecutive_failures),
            next_poll=_next_poll(source),
            error=without_credentials(source.last_error),
            map=charts.heat_map(buckets, now=timezone.now()),
            levels=range(charts.LEVELS + 1),
            scans=[
                _shown_scan(scan)
                for scan in queries.newest_scans(source_id=source.pk, limit=SCANS_SHOWN)
            ],
            may_change=self.has_change_permission(request),
        )

    @display(description="source", ordering="name")
    def shown_name(self, source):
        title = format_html(' <span class="sg-soft sg-small">{}</span>', source.title)
        return format_html(
            "{}{}", source_link(source.pk, source.name), title if source.title else ""
        )

    @display(description="state")
    def state(self, source):
        return source_state(source.overview["state"])

    @display(description="state")
    def shown_state(self, source):
        [overview] = queries.source_overview(ids=[source.pk])
        return source_state(overview["state"])

    @display(description="last success", ordering="last_success_at")
    def answered(self, source):
        return ago(source.last_success_at) if source.last_success_at else "never"

    @display(description="last attempt")
    def attempted(self, source):
        return ago(source.last_attempt_at) if source.last_attempt_at else "never"

    @display(description="failures in a row", ordering="consecutive_failures")
    def failures(self, source):
        count = source.consecutive_failures
        return format_html('<span class="sg-bad">{}</span>', number(count)) if count else "0"

    @display(description="open slots")
    def open_slots(self, source):
        return number(source.overview["open_slots"])

    @display(description="next poll", ordering="next_poll_at")
    def next_poll(self, source):
        return _next_poll(source)

    @display(description="last error")
    def why(self, source):
        return reason(without_credentials(source.last_error))

    @display(description="last error")
    def shown_error(self, source):
        return pre(without_credentials(source.last_error))

    @display(description="config")
    def shown_config(self, source):
        return pre(json.dumps(masked(source.config), indent=2, ensure_ascii=False))

    @display(description="made")
    def made(self, source):
        return ago(source.created_at)


def _source_of(source_id: int) -> Source:
    source = Source.objects.filter(pk=source_id).first()
    if source is None:
        raise Http404(f"no source {source_id}")
    return source


def _next_poll(source: Source) -> str:
    if source.is_paused:
        return "paused"
    if source.provider == Source.Provider.PUSH:
        return "is pushed"
    return ago(source.next_poll_at)


def _shown_scan(scan) -> dict[str, Any]:
    return {
        "polled": ago(scan.polled_at),
        "outcome": badge(scan.outcome, _OUTCOME_LEVELS[scan.outcome], scan.get_outcome_display()),
        "milliseconds": "–" if scan.milliseconds is None else f"{scan.milliseconds:,.0f}",
        "error": without_credentials(scan.error),
        **{
            name: number(getattr(scan, name))
            for name in ("slots", "opened", "closed", "spared", "left_out")
        },
    }
