"""What every staff screen is built on: read-only lists, bounded counts, one look for states."""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from config import jobs
from config.runs import worker_is_alive

COUNT_LIMIT = 10_000
LEVELS = {
    "ok": "bg-green-100 text-green-700 dark:bg-green-500/20 dark:text-green-400",
    "info": "bg-blue-100 text-blue-700 dark:bg-blue-500/20 dark:text-blue-400",
    "warn": "bg-orange-100 text-orange-700 dark:bg-orange-500/20 dark:text-orange-400",
    "bad": "bg-red-100 text-red-700 dark:bg-red-500/20 dark:text-red-400",
    "quiet": "bg-base-500/8 text-base-700 dark:bg-base-500/20 dark:text-base-200",
}


class BoundedPaginator(Paginator):
    """Counts up to 10,000 rows and shows no page beyond: nobody turns that many.

    A filter narrows further; an exact count of a large table would cost more than the page.
    """

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[:COUNT_LIMIT].count()


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the system writes and staff look at."""

    actions = None
    list_fullwidth = True
    list_per_page = 50
    paginator = BoundedPaginator
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


class PageAdmin(ReadOnlyAdmin):
    """A screen that is a page of our own where others have a list; its rows have no pages."""

    page_template = ""
    page_title = ""

    def page(self, request: HttpRequest) -> dict[str, Any]:
        """What the template shows."""
        raise NotImplementedError

    def changelist_view(self, request, extra_context=None):
        if not self.has_view_permission(request):
            raise PermissionDenied
        return render(
            request, self, self.page_template, title=self.page_title, **self.page(request)
        )

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """There is nothing to edit: a row's page is the list."""
        return redirect(admin_urlname(self.opts, "changelist"))


def posted(permission: str) -> Callable:
    """For a view method of a ModelAdmin: POST only, for users with `permission` (app.codename).

    The CSRF token is checked by the middleware.
    """

    def decorate(view: Callable) -> Callable:
        @wraps(view)
        def checked(self, request: HttpRequest, *args, **kwargs) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(self, request, *args, **kwargs)

        return checked

    return decorate


def render(
    request: HttpRequest, admin: ModelAdmin, template: str, *, title: str, **context
) -> TemplateResponse:
    """A page of our own inside the admin's frame."""
    request.current_app = admin.admin_site.name
    frame = admin.admin_site.each_context(request)
    own = {"title": title, "opts": admin.opts, "model_admin": admin, **context}
    return TemplateResponse(request, template, frame | own)


def start_job(request: HttpRequest, name: str) -> None:
    """Queue a job and tell the user what happens next. Raises UnknownJob."""
    if not jobs.enqueue(name, trigger="admin"):
        messages.info(request, f"{name} waits in the queue already.")
        return
    if worker_is_alive():
        messages.success(request, f"{name} is queued; a worker takes it within seconds.")
    else:
        messages.warning(request, f"{name} is queued, but no worker is running: start one.")


def badge(text: str, level: str = "quiet", title: str = "") -> str:
    """A state as a coloured label; the text says it all, the colour only helps."""
    return format_html(
        '<span class="sg-badge inline-block font-semibold h-6 leading-6 px-2 rounded-default'
        ' text-[11px] uppercase whitespace-nowrap {}" title="{}">{}</span>',
        LEVELS[level],
        title,
        text,
    )


def ago(moment: datetime | None) -> str:
    """How long ago; the exact time (UTC) on hovering."""
    if moment is None:
        return "–"
    seconds = (timezone.now() - moment).total_seconds()
    words = f"in {span(-seconds)}" if seconds < -1 else f"{span(seconds)} ago"
    exact = date_format(timezone.localtime(moment), "Y-m-d H:i:s e")
    return format_html(
        '<time class="whitespace-nowrap" datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        exact,
        words,
    )


def span(seconds: float | None) -> str:
    """A duration for people: 340 ms, 45 s, 12 min, 5 h, 3 days."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    for limit, unit, name in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return (
                f"{seconds / unit:.3g} {name}" if seconds < 10 else f"{seconds / unit:.0f} {name}"
            )
    return f"{seconds / 86_400:.0f} days"


def number(value: float | None) -> str:
    """A whole number with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def shortened(text: str, length: int = 80) -> str:
    """`text` as it fits a list."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def pre(text: str) -> str:
    """Text as it stands: tracebacks, JSON."""
    return format_html('<pre class="sg-pre">{}</pre>', text) if text else "–"
