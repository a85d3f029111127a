"""Catalog on the admin's first page: what waits for a verdict, and what grows."""

from collections.abc import Iterable

from django.urls import reverse

from catalog import uploads
from catalog.models import IngestRun, Outlier, SlugSummary
from config.admin.base import COUNT_LIMIT
from config.partitions import estimated_rows
from config.vitals import Question, Vital, register


@register
def waiting() -> Iterable[Vital]:
    """Outliers that wait for a verdict, and the last ingest."""
    suspects = Outlier.objects.filter(state=Outlier.State.SUSPECT)[:COUNT_LIMIT].count()
    yield Vital(
        key="catalog.outliers",
        question=Question.STUCK,
        title="Outliers to judge",
        number=suspects,
        value=f"{suspects:,}",
        note="left out of lows and discounts until then",
        link=reverse("admin:catalog_outlier_changelist") + "?state__exact=suspect",
        help="Judge them",
        level="warn" if suspects else "ok",
        permission="catalog.view_outlier",
    )
    last = IngestRun.objects.order_by("-started_at").first()
    failed = last is not None and last.state == IngestRun.State.FAILED
    yield Vital(
        key="catalog.last_ingest",
        question=Question.STUCK,
        title="Last ingest",
        number=None,
        value=last.state if last else "none yet",
        note=f"{uploads.original_name(last.source)}, {last.accepted:,} rows" if last else "",
        link=reverse("admin:catalog_ingestrun_changelist"),
        help="See why",
        level="bad" if failed else "ok",
        permission="catalog.view_ingestrun",
    )


@register
def size() -> Iterable[Vital]:
    """Products and their snapshots."""
    products = SlugSummary.objects.all()[:COUNT_LIMIT].count()
    if products == COUNT_LIMIT:
        products = max(products, estimated_rows("catalog_slug_summary"))
    yield Vital(
        key="catalog.products",
        question=Question.GROWS,
        title="Products",
        number=products,
        value=f"{products:,}",
        link=reverse("admin:catalog_slugsummary_changelist"),
        permission="catalog.view_slugsummary",
    )
    snapshots = estimated_rows("product_price_snapshots")
    yield Vital(
        key="catalog.snapshots",
        question=Question.GROWS,
        title="Price snapshots",
        number=snapshots,
        value=f"about {snapshots:,}",
        link=reverse("admin:catalog_ingestrun_changelist"),
        permission="catalog.view_slugsummary",
    )
