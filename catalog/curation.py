"""Writes of staff: what an outlier is, and whose name leads a card.

Both only note what has to be computed again; the next refresh does it.
"""

from collections.abc import Iterable

from django.db import connection, transaction
from django.db.models.functions import Now

from catalog.models import Change, Outlier, SellerPriority
from config.sqlfiles import queries

VERDICTS = {Outlier.State.ACCEPTED, Outlier.State.REJECTED}


def review_outlier(*, outlier_id: int, verdict: str, user) -> Outlier:
    """Accept an outlier, so that it counts, or reject it; its line is computed again.

    `verdict`: accepted or rejected. The same verdict again changes nothing. Raises ValueError for
    another verdict, Outlier.DoesNotExist.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict {verdict!r}: it is accepted or rejected")
    with transaction.atomic():
        outlier = Outlier.objects.select_for_update().get(pk=outlier_id)
        if outlier.state == verdict:
            return outlier
        outlier.state = verdict
        outlier.reviewed_by = user.get_username()
        outlier.reviewed_at = Now()
        outlier.save(update_fields=["state", "reviewed_by", "reviewed_at"])
        Change.objects.create(slug=outlier.slug, seller=outlier.seller, currency=outlier.currency)
    outlier.refresh_from_db()
    return outlier


def reorder_sellers(*, sellers: Iterable[str]) -> list[str]:
    """Rank the sellers 1, 2, 3 … in this order; the cards follow with the next refresh.

    A seller without a rank so far gets one; those with a rank that are not named come last, in
    their old order. Returns the whole order. Raises ValueError for a seller named twice.
    """
    named = list(sellers)
    if len(set(named)) < len(named):
        raise ValueError("a seller is named twice in the order")
    with transaction.atomic():
        known = list(SellerPriority.objects.select_for_update().order_by("rank", "seller"))
        others = [row.seller for row in known if row.seller not in set(named)]
        order = named + others
        SellerPriority.objects.bulk_create(
            [SellerPriority(seller=seller, rank=at) for at, seller in enumerate(order, 1)],
            update_conflicts=True,
            unique_fields=["seller"],
            update_fields=["rank"],
        )
        with connection.cursor() as cursor:
            cursor.execute(queries("catalog")["spoil_cards"])
    return order
