"""Counters for staff: how each is kept and how far it is off; dead letters with a retry."""

from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from unfold.decorators import action, display

from config.admin.base import (
    COUNT_LIMIT,
    PageAdmin,
    ReadOnlyAdmin,
    ago,
    badge,
    number,
    posted,
    pre,
    span,
)
from counters import actions, queries, stream, worker
from counters.declared import UnknownCounter
from counters.models import CounterState, DeadLetter

LAG_SECONDS = 30  # above it a fold is late


@admin.register(CounterState)
class CounterAdmin(PageAdmin):
    """Every declared counter, with a switch of its mode."""

    page_template = "counters/counters.html"
    page_title = "Counters"

    def get_urls(self):
        switch = self.admin_site.admin_view(self.switch_view)
        own = path("<str:name>/<str:mode>/switch/", switch, name="counters_counterstate_switch")
        return [own, *super().get_urls()]

    def page(self, request):
        found = stream.lag()
        return {
            "counters": [_shown(one) for one in queries.overview()],
            "may_switch": request.user.has_perm("counters.change_counterstate"),
            "may_run": request.user.has_perm("config.change_readmodelstate"),
            "worker_alive": worker.is_alive(),
            "stream": found
            and {"entries": number(found["entries"]), "lag": span(found["seconds"])},
            "dead": queries.dead_letters(),
        }

    @posted("counters.change_counterstate")
    def switch_view(self, request: HttpRequest, name: str, mode: str) -> HttpResponse:
        """Keep a counter inline or deferred from now on."""
        try:
            changed = actions.set_mode(name=name, mode=mode)
        except (UnknownCounter, actions.NotSwitched) as error:
            raise Http404(str(error)) from error
        if changed:
            state = CounterState.objects.get(name=name)
            self.log_change(request, state, f"kept {mode}")
        text = f"{name} is kept {mode}."
        if actions.configured_mode(name) != mode:
            text += f" Set COUNTERS_MODES={name}={mode} too: the next start goes by the settings."
        messages.success(request, text)
        return redirect("admin:counters_counterstate_changelist")


def _shown(one: queries.Overview) -> dict:
    late = one.oldest_seconds is not None and one.oldest_seconds > LAG_SECONDS
    lag = "–" if one.oldest_seconds is None else span(one.oldest_seconds)
    if one.wrong:
        drift = badge(f"{one.wrong:,} wrong, by {one.divergence:,}", "bad")
    elif one.reconciled_at:
        drift = badge("exact", "ok", f"{one.compared:,} counts compared")
    else:
        drift = badge("not compared yet") if one.mode else badge("no rows to compare with")
    return {
        "name": one.name,
        "title": one.title,
        "mode": one.mode,
        "other": {"inline": "deferred", "deferred": "inline"}.get(one.mode, ""),
        "kept": badge(one.mode, "info") if one.mode else badge("stream"),
        "switched": ago(one.switched_at),
        "waiting": number(one.waiting),
        "lag": badge(lag, "warn", "The fold is late.") if late else lag,
        "drift": drift,
        "compared": ago(one.reconciled_at),
    }


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """What came by the stream and could not be counted."""

    actions = ("retry",)
    list_display = ("entry", "shown_reason", "attempts", "died")
    search_fields = ("entry",)
    search_help_text = "The beginning of an entry's id"
    ordering = ("-pk",)
    fields = ("entry", "reason", "attempts", "died", "shown_payload")
    readonly_fields = ("died", "shown_payload")

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()[:100]
        return (queryset.filter(entry__startswith=term) if term else queryset), False

    def has_retry_permission(self, request) -> bool:
        """Whether the user may count letters again."""
        return request.user.has_perm("counters.change_deadletter")

    @action(description="Retry: count them now", permissions=["retry"])
    def retry(self, request, queryset):
        ids = list(queryset.values_list("pk", flat=True)[:COUNT_LIMIT])
        gone, kept = stream.retry_dead(ids=ids)
        if gone:
            messages.success(request, f"Dead letters that are counted now: {gone:,}.")
        if kept:
            messages.warning(request, f"Dead as before, see the reason: {kept:,}.")

    @display(description="reason")
    def shown_reason(self, letter):
        return letter.reason[:120]

    @display(description="died", ordering="-pk")
    def died(self, letter):
        return ago(letter.died_at)

    @display(description="payload")
    def shown_payload(self, letter):
        return pre(letter.payload[:20_000])
