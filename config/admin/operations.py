"""Operations: jobs and their runs, leases, signs of life, read models, counters."""

import json

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from django.utils import timezone
from django_q.models import Schedule
from unfold.decorators import display

from config import jobs, leases, readmodels
from config.admin.base import (
    PageAdmin,
    ReadOnlyAdmin,
    ago,
    badge,
    number,
    posted,
    pre,
    shortened,
    span,
    start_job,
)
from config.models import Heartbeat, JobRun, Lease, ReadModelState, Tally
from config.readmodels import ModelStatus
from config.runs import SILENT, last_line, worker_is_alive

_LEVELS = {
    JobRun.State.RUNNING: "info",
    JobRun.State.SUCCEEDED: "ok",
    JobRun.State.FAILED: "bad",
    JobRun.State.ABANDONED: "bad",
    JobRun.State.SKIPPED: "quiet",
}


def run_badge(run: JobRun) -> str:
    """The state of a run; a running one that does not beat any more says so."""
    if run.state == JobRun.State.RUNNING:
        silent = timezone.now() - run.heartbeat_at
        if leases.is_dead(run.owner, run.pid):
            return badge("dead", "bad", "Its process is gone; the next run takes over.")
        if silent > SILENT:
            age = span(silent.total_seconds())
            return badge(f"silent for {age}", "warn", "It has stopped beating.")
    return badge(run.state, _LEVELS[run.state], run.get_state_display())


def run_seconds(run: JobRun) -> float:
    """How long a run took, or has been running."""
    return ((run.finished_at or timezone.now()) - run.started_at).total_seconds()


class JobFilter(admin.SimpleListFilter):
    """Declared jobs: the choices cost no query."""

    title = "job"
    parameter_name = "job"

    def lookups(self, request, model_admin):
        return [(name, name) for name in jobs.all()]

    def queryset(self, request, queryset):
        return queryset.filter(job=self.value()) if self.value() else queryset


@admin.register(JobRun)
class JobRunAdmin(ReadOnlyAdmin):
    """What ran, how it ended; above it every declared job with a button to run it."""

    list_display = ("job", "shown_state", "shown_start", "took", "shown_rows", "trigger", "reason")
    list_filter = (JobFilter, "state", "trigger")
    list_before_template = "config/jobs.html"
    ordering = ("-started_at",)
    fields = (
        ("job", "shown_state"),
        ("started_at", "finished_at"),
        ("took", "shown_rows"),
        ("trigger", "process"),
        "shown_detail",
        "shown_error",
    )
    readonly_fields = (
        "shown_state",
        "took",
        "shown_rows",
        "process",
        "shown_detail",
        "shown_error",
    )

    def get_urls(self):
        run = self.admin_site.admin_view(self.run_view)
        return [path("run/<str:name>/", run, name="config_jobrun_run"), *super().get_urls()]

    def changelist_view(self, request, extra_context=None):
        panel = {
            "declared": declared_jobs(),
            "may_run": request.user.has_perm("config.add_jobrun"),
            "worker_alive": worker_is_alive(),
        }
        return super().changelist_view(request, panel | (extra_context or {}))

    @posted("config.add_jobrun")
    def run_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Queue one job."""
        try:
            start_job(request, name)
        except jobs.UnknownJob as error:
            raise Http404(str(error)) from error
        return redirect("admin:config_jobrun_changelist")

    @display(description="state", ordering="state")
    def shown_state(self, run):
        return run_badge(run)

    @display(description="started", ordering="-started_at")
    def shown_start(self, run):
        return ago(run.started_at)

    @display(description="took")
    def took(self, run):
        return span(run_seconds(run))

    @display(description="rows")
    def shown_rows(self, run):
        return number(run.rows)

    @display(description="why")
    def reason(self, run):
        return shortened(last_line(run.error), 200) or run.detail.get("held_by", "")

    @display(description="process")
    def process(self, run):
        return f"{run.pid} on {run.host}, last sign of life {span(_age(run.heartbeat_at))} ago"

    @display(description="detail")
    def shown_detail(self, run):
        return pre(json.dumps(run.detail, indent=2, ensure_ascii=False) if run.detail else "")

    @display(description="error")
    def shown_error(self, run):
        return pre(run.error)


def declared_jobs() -> list[dict]:
    """Every declared job with its schedule, its next time and its last run. Two queries."""
    declared = jobs.all()
    due = {row.name: row.next_run for row in Schedule.objects.filter(name__startswith=jobs.PREFIX)}
    done = JobRun.objects.exclude(state=JobRun.State.SKIPPED).order_by("-started_at")
    newest = [done.filter(job=name)[:1] for name in declared]
    last = {run.job: run for run in newest[0].union(*newest[1:], all=True)} if newest else {}
    return [
        _declared(job, last.get(job.name), due.get(jobs.PREFIX + job.name))
        for job in declared.values()
    ]


def _declared(job: jobs.Job, run: JobRun | None, due) -> dict:
    shown = {"job": job, "due": ago(due) if due else "–", "run": run}
    if run:
        shown |= {
            "state": run_badge(run),
            "when": ago(run.started_at),
            "took": span(run_seconds(run)),
            "error": shortened(last_line(run.error), 200),
        }
    return shown


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    """Who is at which job."""

    list_display = ("name", "holder", "taken", "shown_state")
    list_display_links = None
    ordering = ("name",)

    @display(description="held by")
    def holder(self, lease):
        return f"process {lease.pid} on {lease.host}"

    @display(description="since", ordering="acquired_at")
    def taken(self, lease):
        return ago(lease.acquired_at)

    @display(description="state", ordering="expires_at")
    def shown_state(self, lease):
        if lease.expires_at <= timezone.now():
            return badge("expired", "quiet", "The next run takes it.")
        if leases.is_dead(lease.owner, lease.pid):
            return badge("dead holder", "bad", "The next run on that host takes it at once.")
        return badge("held", "ok")


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """The last sign of life of each part of the system."""

    list_display = ("name", "beat", "shown_state", "shown_detail")
    list_display_links = None
    ordering = ("name",)

    @display(description="last sign of life", ordering="beat_at")
    def beat(self, heartbeat):
        return ago(heartbeat.beat_at)

    @display(description="state")
    def shown_state(self, heartbeat):
        stale = _age(heartbeat.beat_at) > settings.WORKER_HEARTBEAT_STALE_SECONDS
        return badge("silent", "bad") if stale else badge("alive", "ok")

    @display(description="detail")
    def shown_detail(self, heartbeat):
        return ", ".join(f"{key} {value}" for key, value in heartbeat.detail.items()) or "–"


@admin.register(Tally)
class TallyAdmin(ReadOnlyAdmin):
    """The counters behind /metrics that PostgreSQL keeps."""

    list_display = ("name", "shown_labels", "shown_value")
    list_display_links = None
    search_fields = ("name",)
    ordering = ("name", "labels")

    @display(description="labels")
    def shown_labels(self, tally):
        return ", ".join(f"{key} = {value}" for key, value in tally.labels.items())

    @display(description="value", ordering="value")
    def shown_value(self, tally):
        return f"{tally.value:,.10g}"


@admin.register(ReadModelState)
class ReadModelAdmin(PageAdmin):
    """Freshness, backlog and cost of each read model, with buttons to refresh and reconcile."""

    page_template = "config/read_models.html"
    page_title = "Read models"

    def get_urls(self):
        start = self.admin_site.admin_view(self.start_view)
        own = path("<str:name>/<str:what>/start/", start, name="config_readmodelstate_start")
        return [own, *super().get_urls()]

    def page(self, request):
        return {
            "models": [_shown(state) for state in readmodels.states()],
            "may_start": request.user.has_perm("config.change_readmodelstate"),
            "worker_alive": worker_is_alive(),
        }

    @posted("config.change_readmodelstate")
    def start_view(self, request: HttpRequest, name: str, what: str) -> HttpResponse:
        """Refresh, reconcile or mend, by the job that does it."""
        model = readmodels.all().get(name)
        if model is None or what not in {"refresh", "reconcile", "mend"}:
            raise Http404(f"no read model {name!r}, or nothing called {what!r} to do with it")
        start_job(request, model.job(what))
        return redirect("admin:config_readmodelstate_changelist")


def _shown(state: ModelStatus) -> dict:
    if state.error:
        level = badge("failed", "bad")
    elif state.stale:
        level = badge("stale", "warn", f"older than {span(state.max_age.total_seconds())}")
    else:
        level = badge("fresh", "ok")
    return {
        "state": state,
        "level": level,
        "age": ago(state.refreshed_at) if state.refreshed_at else "never",
        "limit": span(state.max_age.total_seconds()),
        "backlog": number(state.backlog),
        "duration": span(state.duration_ms / 1000) if state.duration_ms is not None else "–",
        "rows": number(state.rows),
        "reconciled": ago(state.reconciled_at) if state.reconciled_at else "never",
    }


def _age(moment) -> float:
    return (timezone.now() - moment).total_seconds()
