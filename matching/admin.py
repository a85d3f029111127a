"""Staff screens of matching: items with their cells, matches with their score, queue, weights."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models.functions import Lower
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from config.admin.base import (
    COUNT_LIMIT,
    PageAdmin,
    ReadOnlyAdmin,
    ago,
    badge,
    number,
    posted,
    render,
    shortened,
    span,
)
from config.logs import first_line
from matching import actions, charts, queries, queue, scoring, tuning, worker
from matching.geo import distance_m
from matching.kinds import COUNTERPARTS, Pair
from matching.models import AuditLog, Item, ItemEmbedding, Match, MatchJob, PairWeights

MATCHES_SHOWN = 25  # on an item's page
JOBS_SHOWN = 8
HISTORY_SHOWN = 20
RESULT_SHOWN = 20_000  # characters of a job's result
SEARCH_WORDS = 6

_ITEM_LEVELS = {
    Item.Status.OPEN: "ok",
    Item.Status.MATCHED: "info",
    Item.Status.CLOSED: "quiet",
    Item.Status.EXPIRED: "quiet",
}
_MATCH_LEVELS = {
    Match.State.SUGGESTED: "info",
    Match.State.CONFIRMED: "ok",
    Match.State.DISMISSED: "bad",
    Match.State.EXPIRED: "quiet",
}
_PRIORITIES = {
    MatchJob.Priority.PERSON: "person",
    MatchJob.Priority.CHANGE: "change",
    MatchJob.Priority.BACKGROUND: "background",
}
_JOB_LEVELS = {
    MatchJob.State.QUEUED: "quiet",
    MatchJob.State.RUNNING: "info",
    MatchJob.State.DONE: "ok",
    MatchJob.State.FAILED: "bad",
    MatchJob.State.CANCELLED: "warn",
}


def item_state(item: Item) -> str:
    """A badge for an item's status, or that it is deleted."""
    if item.is_deleted:
        return badge("deleted", "bad")
    return badge(item.status, _ITEM_LEVELS[item.status])


def item_link(item: Item) -> str:
    """A link to an item's page."""
    url = reverse("admin:matching_item_change", args=[item.pk])
    return format_html('<a class="sg-link" href="{}">{}</a>', url, shortened(item.title))


def meter(score: float) -> str:
    """A score as a number and a bar."""
    return format_html(
        '<span class="mt-meter">{}<span aria-hidden="true"><span style="width:{}%"></span></span>'
        "</span>",
        f"{score:.2f}",
        f"{max(0.0, min(1.0, score)) * 100:.0f}",
    )


def match_state(match: Match) -> str:
    """A badge for a match's state; one side's word shows."""
    one_side = match.seeker_confirmed_at or match.offer_confirmed_at
    if match.state == Match.State.SUGGESTED and one_side:
        return badge("confirmed by one", "info")
    return badge(match.state, _MATCH_LEVELS[match.state])


def job_state(job: MatchJob) -> str:
    """A badge for a job's state; a running one whose lease ran out is stuck."""
    if is_stuck(job):
        return badge("stuck", "bad", "Its lease ran out: the next look of a worker rescues it.")
    return badge(job.state, _JOB_LEVELS[job.state])


def is_stuck(job: MatchJob) -> bool:
    """Whether the job runs under a lease that has run out."""
    return job.state == MatchJob.State.RUNNING and (
        job.lease_expires_at is None or job.lease_expires_at <= timezone.now()
    )


class _Styled(ReadOnlyAdmin):
    """Lists with what matching draws in them."""

    class Media:
        css = {"all": ["matching/matching.css"]}


class DeletedFilter(admin.SimpleListFilter):
    """Deleted items are kept for a while and not shown unless asked for."""

    title = "deleted"
    parameter_name = "deleted"

    def lookups(self, request, model_admin):
        return [("yes", "only deleted"), ("all", "also deleted")]

    def queryset(self, request, queryset):
        if self.value() == "all":
            return queryset
        return queryset.filter(is_deleted=self.value() == "yes")


@admin.register(Item)
class ItemAdmin(_Styled):
    """Items: a list, and a page with the cells around one, its matches, jobs and history."""

    list_display = ("shown_title", "shown_kind", "category", "place", "shown_state", "by", "when")
    list_filter = ("kind", "status", DeletedFilter)
    search_fields = ("title",)
    search_help_text = "Parts of words of the title, or an item's number"
    ordering = ("-pk",)
    list_select_related = ("owner",)

    def get_queryset(self, request):
        return super().get_queryset(request).defer("description", "terms", "features", "attributes")

    def get_urls(self):
        view = self.admin_site.admin_view
        return [
            path("<int:item_id>/match/", view(self.match_view), name="matching_item_match"),
            path("<int:item_id>/remove/", view(self.remove_view), name="matching_item_remove"),
            *super().get_urls(),
        ]

    def get_search_results(self, request, queryset, search_term):
        """By the trigram index on lower(title), word by word; a number is an id."""
        term = search_term.strip()[:200]
        if term.isascii() and term.isdigit() and len(term) <= 18:
            return queryset.filter(pk=int(term)), False
        queryset = queryset.alias(folded=Lower("title"))
        for word in term.lower().split()[:SEARCH_WORDS]:
            queryset = queryset.filter(folded__contains=word)
        return queryset, False

    @display(description="item", ordering="-pk")
    def shown_title(self, item):
        return shortened(item.title)

    @display(description="side", ordering="kind")
    def shown_kind(self, item):
        return badge(item.kind)

    @display(description="place")
    def place(self, item):
        parts = [part for part in (item.city, item.country) if part]
        cell = format_html(' <code class="sg-small">{}</code>', (item.geohash or "")[:6])
        return format_html("{}{}", ", ".join(parts) or "–", cell if item.geohash else "")

    @display(description="state")
    def shown_state(self, item):
        return item_state(item)

    @display(description="owner")
    def by(self, item):
        return item.owner.get_username()

    @display(description="posted", ordering="-pk")
    def when(self, item):
        return ago(item.created_at)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The item's page. Eight queries, however many matches it has."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        item = _item_of(object_id)
        matches = queries.item_matches(item_id=item.pk, kind=item.kind, limit=MATCHES_SHOWN)
        vector = ItemEmbedding.objects.filter(item=item).values_list("model", flat=True).first()
        return render(
            request,
            self,
            "matching/item.html",
            title=shortened(item.title),
            item=item,
            kind=badge(item.kind),
            state=item_state(item),
            posted=ago(item.created_at),
            changed=ago(item.updated_at),
            expires=ago(item.expires_at) if item.expires_at else "",
            vector=vector or "none yet",
            attributes=sorted(item.attributes.items()),
            cells=charts.cell_view(item),
            counterpart=COUNTERPARTS[item.kind],
            matches=[_shown_match(match) for match in matches.rows],
            more_matches=matches.after is not None,
            jobs=[_shown_job(job) for job in _jobs_of(item)],
            history=_history(item),
            may_match=item.is_live and request.user.has_perm("matching.change_item"),
            may_remove=not item.is_deleted and request.user.has_perm("matching.delete_item"),
        )

    @posted("matching.change_item")
    def match_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        """Look for the item's counterparts once more."""
        item = _item_of(item_id)
        if not item.is_live:
            raise Http404("this item is not open")
        try:
            job = queue.submit_match(
                owner=item.owner, item=item, priority=MatchJob.Priority.BACKGROUND
            )
        except queue.Refused as error:
            messages.error(request, f"{error} Try again in {error.retry_after} s.")
        else:
            self.log_change(request, item, f"match job {job.task_id}")
            messages.success(request, "Its counterparts are looked for; the job is below.")
        return redirect("admin:matching_item_change", item.pk)

    @posted("matching.delete_item")
    def remove_view(self, request: HttpRequest, item_id: int) -> HttpResponse:
        """Take an item down, as its owner could."""
        item = _item_of(item_id)
        try:
            actions.delete_item(item_id=item.pk, owner=item.owner, by=request.user)
        except actions.ItemNotFound as error:
            raise Http404("this item is deleted already") from error
        self.log_change(request, item, "removed")
        messages.success(request, "The item is removed; its suggestions expired.")
        return redirect("admin:matching_item_change", item.pk)


def _item_of(object_id: int | str) -> Item:
    text = str(object_id)
    item = None
    if text.isascii() and text.isdigit() and len(text) <= 18:
        item = Item.objects.select_related("owner").filter(pk=int(text)).first()
    if item is None:
        raise Http404(f"no item {text[:50]}")
    return item


def _jobs_of(item: Item):
    return MatchJob.objects.filter(item=item).order_by("-submitted_at")[:JOBS_SHOWN]


def _shown_match(match: dict[str, Any]) -> dict[str, Any]:
    url = reverse("admin:matching_item_change", args=[match["item"]["id"]])
    return {
        "pk": match["id"],
        "item": format_html(
            '<a class="sg-link" href="{}">{}</a>', url, shortened(match["item"]["title"])
        ),
        "score": meter(match["score"]),
        "state": badge(match["state"], _MATCH_LEVELS[match["state"]]),
        "found": ago(match["found_at"]),
    }


def _shown_job(job: MatchJob) -> dict[str, Any]:
    return {
        "pk": job.pk,
        "submitted": ago(job.submitted_at),
        "state": job_state(job),
        "priority": job.get_priority_display(),
    }


def _history(item: Item) -> list[dict[str, Any]]:
    entries = AuditLog.objects.filter(entity="item", entity_id=item.pk)
    entries = list(entries.order_by("-created_at", "-pk")[:HISTORY_SHOWN])
    names = _names(entry.actor_id for entry in entries)
    return [
        {
            "action": entry.action,
            "actor": names.get(entry.actor_id, "–"),
            "when": ago(entry.created_at),
            "detail": _detail(entry.detail),
        }
        for entry in entries
    ]


def _names(ids) -> dict[int, str]:
    users = get_user_model().objects.filter(pk__in={one for one in ids if one is not None})
    return {user.pk: user.get_username() for user in users}


def _detail(detail: dict[str, Any]) -> str:
    parts = (
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in detail.items()
    )
    return shortened("; ".join(parts), 200)


@admin.register(Match)
class MatchAdmin(_Styled):
    """Matches: a list, and a page that shows how a score came about."""

    list_display = ("shown_pair", "seeks", "offers", "shown_score", "shown_state", "found")
    list_filter = ("pair", "state")
    search_fields = ("seeker_id",)
    search_help_text = "The number of an item"
    ordering = ("-pk",)
    list_select_related = ("seeker", "offer")

    def get_queryset(self, request):
        return super().get_queryset(request).defer("components")

    def get_search_results(self, request, queryset, search_term):
        term = search_term.strip()
        if not term:
            return queryset, False
        if not (term.isascii() and term.isdigit() and len(term) <= 18):
            return queryset.none(), False
        return queryset.filter(seeker_id=int(term)) | queryset.filter(offer_id=int(term)), False

    @display(description="pair", ordering="-pk")
    def shown_pair(self, match):
        return match.get_pair_display()

    @display(description="seeks")
    def seeks(self, match):
        return shortened(match.seeker.title, 60)

    @display(description="offers")
    def offers(self, match):
        return shortened(match.offer.title, 60)

    @display(description="score")
    def shown_score(self, match):
        return meter(match.score)

    @display(description="state")
    def shown_state(self, match):
        return match_state(match)

    @display(description="found", ordering="-pk")
    def found(self, match):
        return ago(match.created_at)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The match's page. One query for it and its items."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        match = None
        if object_id.isascii() and object_id.isdigit() and len(object_id) <= 18:
            rows = Match.objects.select_related("seeker__owner", "offer__owner")
            match = rows.filter(pk=int(object_id)).first()
        if match is None:
            raise Http404(f"no match {object_id[:50]}")
        return render(
            request,
            self,
            "matching/match.html",
            title=f"{match.get_pair_display()} {match.pk}",
            match=match,
            state=match_state(match),
            waterfall=charts.waterfall(match.score, match.components),
            sides=[
                _side(match.seeker, match.seeker_confirmed_at),
                _side(match.offer, match.offer_confirmed_at),
            ],
            metres=_apart(match.seeker, match.offer),
            found=ago(match.created_at),
            scored=ago(match.updated_at),
        )


def _side(item: Item, confirmed_at) -> dict[str, Any]:
    return {
        "item": item,
        "kind": badge(item.kind),
        "state": item_state(item),
        "confirmed": ago(confirmed_at) if confirmed_at else "no",
        "attributes": sorted(item.attributes.items()),
    }


def _apart(one: Item, other: Item) -> str:
    if one.geohash is None or other.geohash is None:
        return ""
    metres = distance_m(one.latitude, one.longitude, other.latitude, other.longitude)
    return f"{metres:,.0f} m" if metres < 2_000 else f"{metres / 1000:,.1f} km"


class JobStateFilter(admin.SimpleListFilter):
    """By state; stuck ones run under a lease that has run out."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request, model_admin):
        return [("stuck", "stuck"), *MatchJob.State.choices]

    def queryset(self, request, queryset):
        value = self.value()
        if value == "stuck":
            running = queryset.filter(state=MatchJob.State.RUNNING)
            return running.filter(lease_expires_at__lte=timezone.now())
        return queryset.filter(state=value) if value in MatchJob.State.values else queryset


@admin.register(MatchJob)
class MatchJobAdmin(_Styled):
    """The queue: what waits, runs, is stuck and failed, and why; retry and cancel."""

    actions = ("retry_all", "cancel_all")
    list_display = (
        "subject", "shown_state", "shown_priority", "by", "tries", "submitted", "took", "why",
    )  # fmt: skip
    list_filter = (JobStateFilter, "priority")
    ordering = ("-submitted_at",)
    list_select_related = ("item", "owner")
    list_before_template = "matching/queue.html"

    def get_queryset(self, request):
        return super().get_queryset(request).defer("result")

    def get_urls(self):
        view = self.admin_site.admin_view
        return [
            path("<uuid:task_id>/retry/", view(self.retry_view), name="matching_matchjob_retry"),
            path("<uuid:task_id>/cancel/", view(self.cancel_view), name="matching_matchjob_cancel"),
            *super().get_urls(),
        ]

    def has_steer_permission(self, request) -> bool:
        """Whether the user may retry and cancel."""
        return request.user.has_perm("matching.change_matchjob")

    def changelist_view(self, request, extra_context=None):
        return super().changelist_view(request, _queue_state() | (extra_context or {}))

    @action(description="Retry: queue failed and cancelled ones again", permissions=["steer"])
    def retry_all(self, request, queryset):
        self._each(request, queryset, queue.retry, "queued again")

    @action(description="Cancel: take waiting and running ones out", permissions=["steer"])
    def cancel_all(self, request, queryset):
        self._each(request, queryset, queue.cancel, "cancelled")

    def _each(self, request, queryset, act, done: str) -> None:
        keys = list(queryset.values_list("pk", flat=True)[:COUNT_LIMIT])
        changed = sum(act(key) for key in keys)
        messages.success(request, f"{changed:,} of {len(keys):,} jobs are {done}.")

    @posted("matching.change_matchjob")
    def retry_view(self, request: HttpRequest, task_id) -> HttpResponse:
        """Queue one job again."""
        reason = "It cannot be retried: it has not failed, or another job of its item waits."
        return self._one(request, task_id, queue.retry, "The job is queued again.", reason)

    @posted("matching.change_matchjob")
    def cancel_view(self, request: HttpRequest, task_id) -> HttpResponse:
        """Cancel one job."""
        reason = "It had ended before it could be cancelled."
        return self._one(request, task_id, queue.cancel, "The job is cancelled.", reason)

    def _one(self, request, task_id, act, done: str, refused: str) -> HttpResponse:
        if not MatchJob.objects.filter(pk=task_id).exists():
            raise Http404(f"no job {task_id}")
        if act(task_id):
            messages.success(request, done)
        else:
            messages.warning(request, refused)
        return redirect("admin:matching_matchjob_change", task_id)

    @display(description="job")
    def subject(self, job):
        return _subject(job)

    @display(description="state")
    def shown_state(self, job):
        return job_state(job)

    @display(description="priority", ordering="priority")
    def shown_priority(self, job):
        return _PRIORITIES[job.priority]

    @display(description="owner")
    def by(self, job):
        return job.owner.get_username()

    @display(description="attempts", ordering="attempts")
    def tries(self, job):
        return job.attempts

    @display(description="submitted", ordering="-submitted_at")
    def submitted(self, job):
        return ago(job.submitted_at)

    @display(description="took")
    def took(self, job):
        return _took(job)

    @display(description="reason")
    def why(self, job):
        return shortened(first_line(job.error)) or job.degraded or "–"

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The job's page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        job = self.get_object(request, object_id)
        if job is None:
            raise Http404(f"no job {object_id[:50]}")
        result = job.result or {}
        return render(
            request,
            self,
            "matching/job.html",
            title=str(job.pk),
            job=job,
            subject=item_link(job.item) if job.item else "Ad-hoc query",
            state=job_state(job),
            attempts=queue.MAX_ATTEMPTS,
            submitted=ago(job.submitted_at),
            started=ago(job.started_at),
            finished=ago(job.finished_at),
            took=_took(job),
            expires=ago(job.expires_at),
            process=f"{job.pid} on {job.host}" if job.pid else "",
            routes=sorted(result.get("routes", {}).items()),
            query=_pretty(job.query),
            result=_pretty(result),
            retryable=job.state in (MatchJob.State.FAILED, MatchJob.State.CANCELLED),
            cancellable=job.state in (MatchJob.State.QUEUED, MatchJob.State.RUNNING),
            may_change=self.has_steer_permission(request),
        )


def _subject(job: MatchJob) -> str:
    if job.item is not None:
        return shortened(job.item.title, 60)
    return f"“{shortened(str(job.query.get('title', '')), 50)}” (query)"


def _took(job: MatchJob) -> str:
    if job.started_at is None:
        return "–"
    return span(((job.finished_at or timezone.now()) - job.started_at).total_seconds())


def _pretty(value: dict[str, Any]) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False) if value else ""
    return shortened(text, RESULT_SHOWN)


def _queue_state() -> dict[str, Any]:
    state = queries.queue_state()
    names = dict(MatchJob.Priority.choices)
    return {
        "worker_alive": worker.is_alive(),
        "waiting_now": sum(row["jobs"] for row in state["waiting"]),
        "waiting": [
            {
                "name": names[row["priority"]],
                "jobs": number(row["jobs"]),
                "oldest": ago(row["oldest"]) if row["oldest"] else "",
            }
            for row in state["waiting"]
        ],
        "running": number(state["running"]),
        "stuck": state["stuck"],
        "failures": [row | {"last": ago(row["last_at"])} for row in state["failures"]],
    }


class WeightsForm(forms.Form):
    """A number for each component of a pair; empty is the default."""

    def __init__(self, *args, pair: str, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, default in scoring.DEFAULT_WEIGHTS[Pair(pair)].items():
            self.fields[name] = forms.FloatField(
                required=False,
                min_value=0,
                max_value=100,
                label=name,
                help_text=f"Default {default:g}",
                widget=UnfoldAdminTextInputWidget(
                    attrs={"inputmode": "decimal", "placeholder": f"{default:g}"}
                ),
            )

    def clean(self) -> dict[str, float]:
        """The weights that are set."""
        given = {name: value for name, value in super().clean().items() if value is not None}
        if len(given) == len(self.fields) and not any(given.values()):
            raise forms.ValidationError("At least one weight must be above 0.")
        return given


@admin.register(PairWeights)
class PairWeightsAdmin(PageAdmin):
    """How much each component counts, per pair."""

    page_template = "matching/weights.html"
    page_title = "Weights"

    def has_change_permission(self, request, obj=None):
        return request.user.has_perm("matching.change_pairweights")

    def page(self, request):
        rows = {row.pair: row for row in PairWeights.objects.all()}
        return {
            "pairs": [_shown_weights(pair, rows.get(pair)) for pair in Pair],
            "may_change": self.has_change_permission(request),
        }

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The form of one pair. A pair without a row of its own stands at its defaults."""
        if object_id not in Pair.values:
            raise Http404(f"no pair {object_id[:50]}")
        if not self.has_change_permission(request):
            raise PermissionDenied
        row = PairWeights.objects.filter(pk=object_id).first()
        form = WeightsForm(
            request.POST if request.method == "POST" else None,
            pair=object_id,
            initial=row.weights if row else {},
        )
        if request.method == "POST" and form.is_valid():
            tuning.apply_weights(pair=Pair(object_id), weights=form.cleaned_data, by=request.user)
            messages.success(request, "Saved: within half a minute every worker scores so.")
            return redirect("admin:matching_pairweights_changelist")
        return render(
            request,
            self,
            "matching/weights_form.html",
            title=f"Weights of {Pair(object_id).label}",
            form=form,
        )


def _shown_weights(pair: Pair, row: PairWeights | None) -> dict[str, Any]:
    own = row.weights if row else {}
    return {
        "pair": pair.value,
        "label": pair.label,
        "weights": [
            {
                "name": name,
                "value": f"{own.get(name, default):g}",
                "default": f"{default:g}",
                "own": name in own and own[name] != default,
            }
            for name, default in scoring.DEFAULT_WEIGHTS[pair].items()
        ],
        "changed": ago(row.updated_at) if row else "",
        "by": row.updated_by if row else "",
    }


@admin.register(AuditLog)
class AuditLogAdmin(ReadOnlyAdmin):
    """Who did what. Nobody edits it."""

    list_display = ("when", "actor", "action", "about", "what")
    list_display_links = None
    list_filter = ("entity",)
    ordering = ("-pk",)

    def changelist_view(self, request, extra_context=None):
        response = super().changelist_view(request, extra_context)
        listed = getattr(response, "context_data", {}).get("cl")
        if listed is not None:
            names = _names(entry.actor_id for entry in listed.result_list)
            for entry in listed.result_list:
                entry.actor_name = names.get(entry.actor_id, "–")
        return response

    @display(description="when", ordering="-pk")
    def when(self, entry):
        return ago(entry.created_at)

    @display(description="by")
    def actor(self, entry):
        return entry.actor_name

    @display(description="what of")
    def about(self, entry):
        if entry.entity not in ("item", "match"):
            return f"{entry.entity} {entry.entity_id}"
        url = reverse(f"admin:matching_{entry.entity}_change", args=[entry.entity_id])
        return format_html(
            '<a class="sg-link" href="{}">{} {}</a>', url, entry.entity, entry.entity_id
        )

    @display(description="detail")
    def what(self, entry):
        return _detail(entry.detail) or "–"
