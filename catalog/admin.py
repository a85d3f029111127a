"""Staff screens of the catalog: products with their chart, outliers, order of sellers, ingests."""

from pathlib import Path

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import mark_safe
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminTextareaWidget

from catalog import actions, charts, curation, queries, uploads
from catalog.models import (
    CategoryCount,
    IngestReject,
    IngestRun,
    Outlier,
    SellerActivity,
    SellerPriority,
    SellerSummary,
    SlugSummary,
)
from catalog.rows import REASONS
from catalog.slugs import fold
from config.admin.base import (
    COUNT_LIMIT,
    ReadOnlyAdmin,
    ago,
    badge,
    number,
    posted,
    pre,
    render,
    span,
    start_job,
)
from config.runs import worker_is_alive

REFRESH = "refresh_catalog"
CATEGORIES_LISTED = 200
UNRANKED_LISTED = 50


def money(amount, currency: str) -> str:
    """An amount as people write it, at least two decimals: 12.90 EUR."""
    text = f"{amount:,.4f}".rstrip("0")
    decimals = len(text.partition(".")[2])
    return f"{text}{'0' * max(0, 2 - decimals)} {currency}"


def availability(row) -> str:
    """A badge for whatever has `is_available` and `is_preorder`."""
    if row.is_available:
        return badge("available", "ok")
    return badge("preorder", "info") if row.is_preorder else badge("sold out", "quiet")


def discount_badge(percent) -> str:
    """How far below the 30-day prior low; nothing where it is not."""
    return badge(f"−{percent:.0f} %", "ok", "below the 30-day prior low") if percent else ""


def product_link(slug: str, text: str = "") -> str:
    """A link to a product's page."""
    url = reverse("admin:catalog_slugsummary_change", args=[admin.utils.quote(slug)])
    return format_html('<a class="sg-link" href="{}">{}</a>', url, text or slug)


class AvailabilityFilter(admin.SimpleListFilter):
    """What a card says about availability."""

    title = "availability"
    parameter_name = "availability"

    def lookups(self, request, model_admin):
        return [("available", "available"), ("preorder", "preorder"), ("none", "sold out")]

    def queryset(self, request, queryset):
        conditions = {
            "available": Q(is_available=True),
            "preorder": Q(is_preorder=True),
            "none": Q(is_available=False, is_preorder=False),
        }
        return queryset.filter(conditions.get(self.value(), Q()))


class ReducedFilter(admin.SimpleListFilter):
    """Cards whose best price is below its prior low by at least so much."""

    title = "discount"
    parameter_name = "reduced"

    def lookups(self, request, model_admin):
        return [(str(least), f"{least} % and more") for least in (1, 10, 25, 50)]

    def queryset(self, request, queryset):
        value = self.value()
        return queryset.filter(discount__gte=int(value)) if (value or "").isdigit() else queryset


class CategoryFilter(DropdownFilter):
    """The largest categories; the search finds the others' products."""

    title = "category"
    parameter_name = "category"

    def lookups(self, request, model_admin):
        largest = CategoryCount.objects.order_by("-products", "tag")[:CATEGORIES_LISTED]
        return [(row.tag, f"{row.tag} ({row.products:,})") for row in largest]

    def queryset(self, request, queryset):
        value = self.value()
        return queryset.filter(category_tags__contains=[value]) if value else queryset


@admin.register(SlugSummary)
class ProductAdmin(ReadOnlyAdmin):
    """Products: a light list, and a page with every seller's price over time."""

    list_display = ("shown_name", "prices", "reduced", "sellers", "state", "seen")
    list_filter = (AvailabilityFilter, ReducedFilter, CategoryFilter)
    list_filter_submit = True
    search_fields = ("slug",)
    search_help_text = "Words of the name, in any spelling of accents and case"
    ordering = ("slug",)

    def get_queryset(self, request):
        return super().get_queryset(request).defer("description", "hero_image_url", "category_tags")

    def get_search_results(self, request, queryset, search_term):
        """Every word as it stands; where nothing has them all, names that look alike (pg_trgm)."""
        words = fold(search_term[:200]).split()
        if not words:
            return queryset, False
        exact = queryset
        for word in words:
            exact = exact.filter(slug__contains=word)
        if exact.exists():
            return exact, False
        return queryset.filter(slug__trigram_word_similar="-".join(words)), False

    @display(description="product", ordering="slug")
    def shown_name(self, card):
        return card.name

    @display(description="best price now")
    def prices(self, card):
        offers = sorted(card.offers.items())
        if not offers:
            return format_html('<span class="sg-soft">{}</span>', "none now")
        parts = ((money(offer["price"], code), offer["seller"]) for code, offer in offers)
        line = '<span class="sg-price">{}</span> <span class="sg-soft sg-small">{}</span>'
        return format_html_join(mark_safe("<br>"), line, parts)

    @display(description="discount", ordering="discount")
    def reduced(self, card):
        return discount_badge(card.discount) or "–"

    @display(description="availability")
    def state(self, card):
        return availability(card)

    @display(description="last seen", ordering="last_at")
    def seen(self, card):
        return ago(card.last_at)

    def change_view(self, request, object_id, form_url="", extra_context=None):
        """The product page. Six queries, whatever the length of the history."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        slug = admin.utils.unquote(object_id)
        card = SlugSummary.objects.filter(slug=slug).first()
        lines = charts.product_lines(slug)
        if card is None and not lines:
            raise Http404(f"no product {slug!r}")
        outliers = charts.product_outliers(slug)
        chart = charts.price_chart(slug=slug, lines=lines, outliers=outliers)
        return render(
            request,
            self,
            "catalog/product.html",
            title=card.name if card else lines[0].name,
            subtitle=slug,
            card=card,
            slug=slug,
            chart=chart,
            lines=[_shown_line(line) for line in lines],
            outliers=[_shown_outlier(outlier) for outlier in outliers],
            may_review=request.user.has_perm("catalog.change_outlier"),
        )


def _shown_line(line: SellerSummary) -> dict:
    def price(amount):
        return "–" if amount is None else money(amount, line.currency)

    current = charts.is_current(line)
    reduced = queries.discount(line.last_price, line.prior_low) if current else 0
    return {
        "seller": line.seller,
        "code": line.product_code,
        "price": price(line.last_price),
        "since": ago(line.price_since),
        "prior_low": price(line.prior_low),
        "discount": discount_badge(reduced) or "–",
        "lowest": price(line.lowest),
        "highest": price(line.highest),
        "availability": availability(line),
        "seen": ago(line.last_at),
        "observations": number(line.observations),
    }


_OUTLIER_LEVELS = {
    Outlier.State.SUSPECT: "warn",
    Outlier.State.CONFIRMED: "info",
    Outlier.State.ACCEPTED: "ok",
    Outlier.State.REJECTED: "bad",
}


def _times(outlier: Outlier) -> str:
    """How far it is off the median, as people say it."""
    if not outlier.price or not outlier.median:
        return "–"
    ratio = outlier.price / outlier.median
    return f"× {ratio:.1f}" if ratio >= 1 else f"÷ {1 / ratio:.1f}"


def _shown_outlier(outlier: Outlier) -> dict:
    return {
        "row": outlier,
        "price": money(outlier.price, outlier.currency),
        "median": money(outlier.median, outlier.currency),
        "times": _times(outlier),
        "state": badge(outlier.state, _OUTLIER_LEVELS[outlier.state], outlier.get_state_display()),
        "when": ago(outlier.scraped_at),
        "reviewed": ago(outlier.reviewed_at) if outlier.reviewed_at else "",
        "acceptable": outlier.state != Outlier.State.ACCEPTED,
        "rejectable": outlier.state != Outlier.State.REJECTED,
    }


@admin.register(Outlier)
class OutlierAdmin(ReadOnlyAdmin):
    """Prices that nobody would believe, until somebody does."""

    actions = ("accept", "reject")
    list_display = (
        "product",
        "seller",
        "seen",
        "shown_price",
        "shown_median",
        "times",
        "shown_state",
        "judge",
    )
    list_display_links = None
    list_filter = ("state", "currency")
    search_fields = ("slug",)
    search_help_text = "Words of the product's name"
    ordering = ("-scraped_at",)

    def has_review_permission(self, request) -> bool:
        """Whether the user may accept and reject."""
        return request.user.has_perm("catalog.change_outlier")

    def get_urls(self):
        review = self.admin_site.admin_view(self.review_view)
        own = path("<int:outlier_id>/review/", review, name="catalog_outlier_review")
        return [own, *super().get_urls()]

    def get_search_results(self, request, queryset, search_term):
        for word in fold(search_term[:200]).split():
            queryset = queryset.filter(slug__contains=word)
        return queryset, False

    @action(description="Accept: the price is right", permissions=["review"])
    def accept(self, request, queryset):
        self._review_all(request, queryset, Outlier.State.ACCEPTED)

    @action(description="Reject: the price is wrong", permissions=["review"])
    def reject(self, request, queryset):
        self._review_all(request, queryset, Outlier.State.REJECTED)

    @posted("catalog.change_outlier")
    def review_view(self, request: HttpRequest, outlier_id: int) -> HttpResponse:
        """One verdict, from a button on the product's page."""
        try:
            outlier = curation.review_outlier(
                outlier_id=outlier_id, verdict=request.POST.get("verdict", ""), user=request.user
            )
        except Outlier.DoesNotExist as error:
            raise Http404("this outlier is gone: its snapshot was removed") from error
        except ValueError as error:
            raise Http404(str(error)) from error
        self.log_change(request, outlier, f"{outlier.state}")
        messages.success(request, f"{money(outlier.price, outlier.currency)} is {outlier.state}.")
        start_job(request, REFRESH)
        following = request.POST.get("next", "")
        if url_has_allowed_host_and_scheme(following, {request.get_host()}, request.is_secure()):
            return redirect(following)
        return redirect("admin:catalog_outlier_changelist")

    def _review_all(self, request, queryset, verdict: str) -> None:
        for key in queryset.values_list("pk", flat=True)[:COUNT_LIMIT]:
            outlier = curation.review_outlier(outlier_id=key, verdict=verdict, user=request.user)
            self.log_change(request, outlier, verdict)
        messages.success(request, f"{verdict.capitalize()}: the prices follow with the refresh.")
        start_job(request, REFRESH)

    @display(description="product", ordering="slug")
    def product(self, outlier):
        return product_link(outlier.slug)

    @display(description="seen", ordering="scraped_at")
    def seen(self, outlier):
        return ago(outlier.scraped_at)

    @display(description="price", ordering="price")
    def shown_price(self, outlier):
        return format_html(
            '<span class="sg-price">{}</span>', money(outlier.price, outlier.currency)
        )

    @display(description="median then")
    def shown_median(self, outlier):
        return money(outlier.median, outlier.currency)

    @display(description="off by")
    def times(self, outlier):
        return _times(outlier)

    @display(description="state", ordering="state")
    def shown_state(self, outlier):
        return badge(outlier.state, _OUTLIER_LEVELS[outlier.state], outlier.get_state_display())

    @display(description="judged by")
    def judge(self, outlier):
        return outlier.reviewed_by or "–"


@admin.register(SellerPriority)
class SellerPriorityAdmin(ModelAdmin):
    """Whose name, image and description lead a card: drag the rows, or type the numbers."""

    list_display = ("seller", "rank")
    list_display_links = None
    list_editable = ("rank",)
    ordering = ("rank", "seller")
    ordering_field = "rank"
    list_per_page = 200
    list_before_template = "catalog/seller_priority.html"
    fields = ("seller", "rank")

    def get_urls(self):
        rank = self.admin_site.admin_view(self.rank_view)
        return [path("rank/", rank, name="catalog_sellerpriority_rank"), *super().get_urls()]

    def changelist_view(self, request, extra_context=None):
        with transaction.atomic():
            extra = {"unranked": _unranked()} if request.method == "GET" else {}
            response = super().changelist_view(request, extra | (extra_context or {}))
            self._settle(request)
        return response

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        with transaction.atomic():
            response = super().changeform_view(request, object_id, form_url, extra_context)
            self._settle(request)
        return response

    def delete_view(self, request, object_id, extra_context=None):
        with transaction.atomic():
            response = super().delete_view(request, object_id, extra_context)
            self._settle(request)
        return response

    def save_model(self, request, obj, form, change):
        super().save_model(request, obj, form, change)
        _moved(request).append(obj.seller)

    def delete_model(self, request, obj):
        super().delete_model(request, obj)
        _moved(request)

    def delete_queryset(self, request, queryset):
        super().delete_queryset(request, queryset)
        _moved(request)

    @posted("catalog.add_sellerpriority")
    def rank_view(self, request: HttpRequest) -> HttpResponse:
        """Give one seller that has no rank the last one."""
        seller = request.POST.get("seller", "").replace("\0", "")  # which no query may hold
        if not SellerActivity.objects.filter(seller=seller).exists():
            raise Http404(f"no seller {seller!r}")
        with transaction.atomic():
            ranked = SellerPriority.objects.order_by("rank", "seller")
            order = [*ranked.exclude(seller=seller).values_list("seller", flat=True), seller]
            curation.reorder_sellers(sellers=order)
        start_job(request, REFRESH)
        return redirect("admin:catalog_sellerpriority_changelist")

    def _settle(self, request) -> None:
        """Number the sellers 1, 2, 3 …; one that was given a number that is taken goes before."""
        if not hasattr(request, "sellers_moved"):
            return
        rows = SellerPriority.objects.values_list("rank", "seller")
        moved = set(request.sellers_moved)
        order = sorted(rows, key=lambda row: (row[0], row[1] not in moved, row[1]))
        curation.reorder_sellers(sellers=[seller for _, seller in order])
        transaction.on_commit(lambda: start_job(request, REFRESH))


def _moved(request) -> list[str]:
    """The sellers whose rank this request changed; with it, that it changed any."""
    if not hasattr(request, "sellers_moved"):
        request.sellers_moved = []
    return request.sellers_moved


def _unranked() -> list[str]:
    """Sellers that staff have not ordered; they come after all others, freshest first."""
    ranked = SellerPriority.objects.values("seller")
    others = SellerActivity.objects.exclude(seller__in=ranked).order_by("seller")
    return list(others.values_list("seller", flat=True)[:UNRANKED_LISTED])


class RejectInline(TabularInline):
    """The rows of a run that were refused, 50 a page."""

    model = IngestReject
    fields = readonly_fields = ("line", "shown_reason", "field", "detail", "shown_raw")
    ordering = ("line", "pk")
    verbose_name_plural = "refused rows (the first 1,000)"
    per_page = 50
    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True

    def has_add_permission(self, request, obj=None):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    @display(description="reason")
    def shown_reason(self, reject):
        text = REASONS.get(reject.reason, "")
        return format_html('{}<br><span class="sg-soft sg-small">{}</span>', reject.reason, text)

    @display(description="row")
    def shown_raw(self, reject):
        return format_html('<code class="sg-small">{}</code>', reject.raw)


_RUN_LEVELS = {
    IngestRun.State.RUNNING: "info",
    IngestRun.State.FINISHED: "ok",
    IngestRun.State.FAILED: "bad",
    IngestRun.State.INTERRUPTED: "warn",
}


@admin.register(IngestRun)
class IngestRunAdmin(ReadOnlyAdmin):
    """What came in, from where, and what was refused; staff send files from here."""

    list_display = (
        "name",
        "shown_state",
        "start",
        "took",
        "read",
        "new",
        "again",
        "other_price",
        "refused",
        "by",
    )
    list_filter = ("state",)
    search_fields = ("source",)
    ordering = ("-started_at",)
    list_before_template = "catalog/uploads.html"
    inlines = (RejectInline,)
    fields = (
        ("name", "shown_state"),
        ("started_at", "took"),
        "counted",
        "why",
        "rejects_file",
        "shown_error",
        ("by", "process", "source_hash"),
    )
    readonly_fields = (
        "name", "shown_state", "took", "counted", "why", "rejects_file", "shown_error", "by",
        "process",
    )  # fmt: skip

    def get_urls(self):
        # The size is checked before the CSRF token: reading the token reads the whole body.
        upload = csrf_exempt(self.admin_site.admin_view(csrf_exempt(self.upload_view)))
        rejects = self.admin_site.admin_view(self.rejects_view)
        return [
            path("upload/", upload, name="catalog_ingestrun_upload"),
            path("<int:run_id>/rejects/", rejects, name="catalog_ingestrun_rejects"),
            *super().get_urls(),
        ]

    def changelist_view(self, request, extra_context=None):
        extra = {
            "waiting": uploads.waiting(),
            "worker_alive": worker_is_alive(),
            "may_upload": request.user.has_perm("catalog.add_ingestrun"),
        }
        return super().changelist_view(request, extra | (extra_context or {}))

    def upload_view(self, request: HttpRequest) -> HttpResponse:
        """The form that takes a file. Its body is not read where it is too large."""
        if not request.user.has_perm("catalog.add_ingestrun"):
            raise PermissionDenied
        limit = settings.CATALOG_UPLOAD_MAX_BYTES
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit + 64 * 1024:
            messages.error(request, f"The file is larger than {limit:,} bytes; send it in parts.")
            return redirect("admin:catalog_ingestrun_upload")
        return csrf_protect(self._upload)(request)

    def _upload(self, request: HttpRequest) -> HttpResponse:
        form = UploadForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            file = form.cleaned_data["file"]
            try:
                kept = uploads.keep_upload(
                    name=file.name,
                    size=file.size,
                    chunks=file.chunks(),
                    user=request.user.get_username(),
                    mapping=form.cleaned_data["mapping"],
                )
            except uploads.UploadRefused as error:
                form.add_error("file", str(error))
            else:
                messages.info(request, f"{kept.name} waits; its run appears below once it begins.")
                start_job(request, "ingest_uploads")
                return redirect("admin:catalog_ingestrun_changelist")
        return render(
            request,
            self,
            "catalog/upload.html",
            title="Send in snapshots",
            form=form,
            limit=settings.CATALOG_UPLOAD_MAX_BYTES,
        )

    def rejects_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """The whole rejects file of an upload."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        run = IngestRun.objects.filter(pk=run_id).first()
        file = _rejects_file(run) if run else None
        if file is None:
            raise Http404("this run has no rejects file here")
        return FileResponse(file.open("rb"), as_attachment=True, filename=file.name)

    @display(description="source", ordering="source")
    def name(self, run):
        return uploads.original_name(run.source)

    @display(description="state", ordering="state")
    def shown_state(self, run):
        if run.state == IngestRun.State.RUNNING and actions.is_dead(run):
            return badge("dead", "bad", "Its process is gone. Ingest the file again to go on.")
        return badge(run.state, _RUN_LEVELS[run.state], run.get_state_display())

    @display(description="started", ordering="-started_at")
    def start(self, run):
        return ago(run.started_at)

    @display(description="took")
    def took(self, run):
        return span(((run.finished_at or timezone.now()) - run.started_at).total_seconds())

    @display(description="rows", ordering="rows_read")
    def read(self, run):
        return number(run.rows_read)

    @display(description="accepted", ordering="accepted")
    def new(self, run):
        return number(run.accepted)

    @display(description="duplicate", ordering="duplicate")
    def again(self, run):
        return number(run.duplicate)

    @display(description="conflicts", ordering="conflicts")
    def other_price(self, run):
        return _alarming(run.conflicts)

    @display(description="rejected", ordering="rejected")
    def refused(self, run):
        return _alarming(run.rejected)

    @display(description="rows")
    def counted(self, run):
        counts = (
            ("read", number(run.rows_read)),
            ("accepted", number(run.accepted)),
            ("duplicate", number(run.duplicate)),
            ("conflicts", _alarming(run.conflicts)),
            ("rejected", _alarming(run.rejected)),
        )
        facts = format_html_join("", "<div><dt>{}</dt><dd>{}</dd></div>", counts)
        return format_html('<dl class="sg-facts" style="margin:0">{}</dl>', facts)

    @display(description="by", ordering="user_label")
    def by(self, run):
        return run.user_label or "–"

    @display(description="reasons")
    def why(self, run):
        row = "<tr><td class='sg-number'>{}</td><td>{}</td><td class='sg-soft'>{}</td></tr>"
        reasons = sorted(run.reasons.items(), key=lambda item: -item[1])
        rows = ((number(count), reason, REASONS.get(reason, "")) for reason, count in reasons)
        return (
            format_html("<table class='sg-table'>{}</table>", format_html_join("", row, rows))
            if reasons
            else "–"
        )

    @display(description="rejects file")
    def rejects_file(self, run):
        if _rejects_file(run):
            url = reverse("admin:catalog_ingestrun_rejects", args=[run.pk])
            return format_html('<a class="sg-link" href="{}">Download</a>', url)
        return run.rejects_path or "–"

    @display(description="error")
    def shown_error(self, run):
        return pre(run.error)

    @display(description="process")
    def process(self, run):
        return f"{run.pid} on {run.host}" if run.pid else run.host or "–"


class UploadForm(forms.Form):
    """A file of snapshots, and where its fields are where they are named otherwise."""

    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget,
        help_text="CSV or NDJSON in UTF-8, plain or gzip.",
    )
    mapping = forms.CharField(
        required=False,
        max_length=5_000,
        widget=UnfoldAdminTextareaWidget(
            attrs={"rows": 3, "placeholder": "seller=shop\ncurrency=:EUR"}
        ),
        help_text="One field=column a line; field=:value gives every row that value.",
    )

    def clean_mapping(self) -> list[str]:
        """The lines that say something."""
        return self.cleaned_data["mapping"].split()


def _rejects_file(run: IngestRun) -> Path | None:
    """The rejects file where it is an upload's: no other path of this machine is given out."""
    if not run.rejects_path:
        return None
    file = Path(run.rejects_path)
    inside = file.resolve().parent == (uploads.folder() / "rejects").resolve()
    return file if inside and file.is_file() else None


def _alarming(count: int) -> str:
    return format_html('<span class="sg-bad">{}</span>', number(count)) if count else "0"
