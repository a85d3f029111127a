"""The catalog over HTTP. Reads are answered with cached bytes; see `config.caching`."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlencode

import orjson
from django.http import HttpResponse, HttpResponsePermanentRedirect
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from catalog import queries
from catalog.actions import Outcome, record_snapshots
from catalog.api import examples, serializers
from catalog.rows import NAME_LENGTH
from catalog.slugs import slug as slug_of
from config import caching, problems
from config.idempotency import idempotent
from config.metrics import ITEM_SEARCH_LATENCY
from config.openapi import IDEMPOTENCY_KEY, in_path
from config.pagination import PAGE_DEPTH_CAP, check_depth, encode_cursor, position
from config.params import NoQuery
from config.problems import Problem
from config.rendering import OrjsonParser, digest, dumps
from config.tokens import HasScope

# How long clients and proxies may keep an answer; ours are dropped by the refresh itself.
CLIENT_SECONDS = 15

CARDS = ("catalog_slug_summary",)
LINES = ("catalog_slug_seller_summary", "catalog_slug_summary")
CATEGORIES = ("catalog_categories",)
CATALOG_TTL = 120
PRODUCT_TTL = 300
SUGGEST_TTL = 60
CATEGORIES_TTL = 600
RECENT_TTL = 120


class CatalogView(APIView):
    """Products as cards."""

    @extend_schema(
        operation_id="catalog_list",
        summary="List products",
        description="Numbered pages for looking around, `cursor` for going through everything:"
        " it sees each product once. Prices are decimals as text.",
        tags=["catalog"],
        parameters=[serializers.CatalogQuery],
        responses={200: serializers.CardPageSerializer, **problems.responses(400)},
        examples=[OpenApiExample("A page", examples.CARD_PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.CatalogQuery.parse(request)
        filters_hash = digest(_filters_of(params))
        if "cursor" in params:
            page = "after-" + digest(params["cursor"])
            after = _position(params, filters_hash)
        else:
            page, after = params["page"], None
            check_depth(page, params["page_size"])

        def build() -> bytes:
            with _timed("catalog", when=params["q"]):
                return dumps(_card_page(params, filters_hash, after))

        key = f"catalog:{filters_hash}:{page}:{params['page_size']}"
        return _answer(request, key, "catalog", CATALOG_TTL, CARDS, build)


class ProductView(APIView):
    """One product with its price history."""

    @extend_schema(
        operation_id="catalog_product",
        summary="Show a product with its price history",
        description="One series for each seller and currency. A name that is not a slug redirects"
        " to its slug; the slug of a renamed product to the newer one.",
        tags=["catalog"],
        parameters=[
            in_path("name", "The slug, or any name of it.", str),
            serializers.ProductQuery,
        ],
        responses={
            200: serializers.ProductSerializer,
            308: OpenApiResponse(description="The product is at the address in Location."),
            **problems.responses(400, 404),
        },
        examples=[OpenApiExample("A product", examples.PRODUCT, response_only=True)],
    )
    def get(self, request, name: str) -> HttpResponse:
        params = serializers.ProductQuery.parse(request)
        slug = slug_of(name) if len(name) <= NAME_LENGTH else ""
        if not slug:
            raise Problem(404, detail="No product can have this name.")
        if slug != name:
            return _moved(request, slug)
        redirects = params.pop("redirect") == "yes"
        # The default view has the plain key; what is asked for stands behind it.
        asked = {key: str(value) for key, value in params.items() if value != "auto"}
        key = f"product:{slug}" + (f":{digest(asked)}" if asked else "")
        if not redirects:
            key += ":stay"

        def build() -> bytes:
            found = queries.product(
                slug=slug,
                resolution=params["resolution"],
                start=params.get("from"),
                end=params.get("to"),
            )
            if found is None:
                raise Problem(404, detail=f"No product has the slug {slug!r}.")
            if found.moved_to and redirects:
                raise _Moved(found.moved_to)
            return dumps(_product(found))

        try:
            return _answer(request, key, "product", PRODUCT_TTL, LINES, build)
        except _Moved as moved:
            return _moved(request, moved.slug)


class SuggestView(APIView):
    """Suggestions while somebody types."""

    @extend_schema(
        operation_id="catalog_suggest",
        summary="Suggest products for what was typed so far",
        description="Names that start so, then names with such words; where there are none,"
        " names with similar words.",
        tags=["catalog"],
        parameters=[serializers.SuggestQuery],
        responses={200: serializers.SuggestionsSerializer, **problems.responses(400)},
        examples=[OpenApiExample("A typo", examples.SUGGESTIONS, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.SuggestQuery.parse(request)
        q = " ".join(queries.search_words(params["q"]))
        availability, limit = params["availability"], params["limit"]

        def build() -> bytes:
            with _timed("suggest"):
                found = queries.suggest(q=q, availability=availability, limit=limit)
                return dumps({"results": found})

        key = f"suggest:{q}:{availability}:{limit}"
        return _answer(request, key, "suggest", SUGGEST_TTL, CARDS, build)


class CategoriesView(APIView):
    """Categories with counts."""

    @extend_schema(
        operation_id="catalog_categories",
        summary="List categories",
        description="The 1,000 largest, the largest first.",
        tags=["catalog"],
        responses={200: serializers.CategoriesSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Categories", examples.CATEGORIES, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        NoQuery.parse(request)
        return _answer(
            request,
            "categories:list",
            "categories",
            CATEGORIES_TTL,
            CATEGORIES,
            lambda: dumps({"results": queries.categories()}),
        )


class RecentSnapshotsView(APIView):
    """The newest snapshots."""

    @extend_schema(
        operation_id="catalog_recent_snapshots",
        summary="List the newest snapshots",
        tags=["catalog"],
        parameters=[serializers.RecentQuery],
        responses={200: serializers.RecentSnapshotsSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Snapshots", examples.RECENT, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        limit = serializers.RecentQuery.parse(request)["limit"]
        return _answer(
            request,
            f"recent:{limit}",
            "recent",
            RECENT_TTL,
            LINES,
            lambda: dumps({"results": queries.recent_snapshots(limit=limit)}),
        )


class SnapshotsView(APIView):
    """Where sellers' prices come in."""

    permission_classes = [HasScope("ingest")]
    parser_classes = [OrjsonParser, serializers.NdjsonParser]

    @extend_schema(
        operation_id="catalog_record_snapshots",
        summary="Record snapshots",
        description="Up to 5,000, as a JSON array, as an object with the array under `snapshots`,"
        " or as NDJSON. Valid rows are recorded and the others reported; sending a row again is"
        " harmless. They show in the catalog with the next refresh.",
        tags=["catalog"],
        parameters=[IDEMPOTENCY_KEY],
        request={
            "application/json": serializers.SnapshotSerializer(many=True),
            "application/x-ndjson": serializers.SnapshotSerializer,
        },
        responses={
            200: serializers.ReportSerializer,
            **problems.responses(400, 401, 403, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample(
                "Two rows",
                examples.SNAPSHOTS,
                request_only=True,
                media_type="application/json",
            ),
            OpenApiExample("Two outcomes", examples.REPORT, response_only=True),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "snapshots") as once:
            if once.replay:
                return once.replay
            answer = Response(headers={"Cache-Control": "no-store"})

            def finish(outcomes: list[Outcome]) -> None:
                answer.data = _report(outcomes)
                once.store(answer)

            record_snapshots(
                rows=serializers.snapshot_rows(request.data),
                source="api",
                user_label=request.user.get_username(),
                finish=finish,
            )
            return answer


class _Moved(Exception):
    """The product has another slug now."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug


def _answer(
    request, key: str, name: str, ttl: int, models: tuple[str, ...], build: Callable[[], bytes]
) -> HttpResponse:
    found = caching.cached(key, name=name, ttl=ttl, models=models, build=build)
    return caching.respond(request, found, min(CLIENT_SECONDS, ttl))


def _timed(endpoint: str, *, when: Any = True):
    return ITEM_SEARCH_LATENCY.labels(endpoint).time() if when else nullcontext()


def _filters_of(params: dict[str, Any]) -> dict[str, Any]:
    """What makes one list of cards another one: the filters and their order."""
    return {key: params[key] for key in sorted(params.keys() - {"page", "page_size", "cursor"})}


def _filters(params: dict[str, Any]) -> queries.Filters:
    return queries.Filters(
        currency=params["currency"],
        availability=params["availability"],
        min_price=params.get("min_price"),
        max_price=params.get("max_price"),
        categories=tuple(params["categories"]),
        q=params["q"],
    )


def _position(params: dict[str, Any], filters_hash: str) -> tuple[Any, str]:
    """Where the cursor points. Raises a 400 Problem that names `cursor`."""
    kind = queries.SORTS[params["sort"]].kind
    if kind is None:
        return None, position(params, str, kind=filters_hash)
    return position(params, kind, str, kind=filters_hash)


def _card_page(
    params: dict[str, Any], filters_hash: str, after: tuple[Any, str] | None
) -> dict[str, Any]:
    filters, page, size = _filters(params), params["page"], params["page_size"]
    numbered = after is None
    found = queries.catalog_page(
        filters=filters,
        sort=params["sort"],
        limit=size,
        offset=(page - 1) * size if numbered else 0,
        after=after,
    )
    total = _total(filters, filters_hash)
    cursor = None
    if found.after is not None:
        key, slug = found.after
        values = (slug,) if queries.SORTS[params["sort"]].kind is None else (key, slug)
        cursor = encode_cursor(*values, kind=filters_hash)
    deeper = numbered and (page + 1) * size <= PAGE_DEPTH_CAP
    onward = {"page": page + 1} if deeper else {"cursor": cursor}
    return {
        **total,
        "page": page if numbered else None,
        "page_size": size,
        "next": _link(params, **onward) if cursor else None,
        "previous": _link(params, page=page - 1) if numbered and page > 1 else None,
        "next_cursor": cursor,
        "results": found.cards,
    }


def _total(filters: queries.Filters, filters_hash: str) -> dict[str, Any]:
    """The totals, which all pages of a list share."""

    def build() -> bytes:
        total = queries.catalog_total(filters=filters)
        return dumps({"total": total.exact, "total_estimate": total.estimate})

    key = f"catalog:{filters_hash}:total"
    found = caching.cached(key, name="catalog_total", ttl=CATALOG_TTL, models=CARDS, build=build)
    return orjson.loads(found.body)


def _link(params: dict[str, Any], **place: Any) -> str:
    """The path of another page of the same list."""
    asked = _filters_of(params) | {"page_size": params["page_size"]} | place
    asked["categories"] = ",".join(params["categories"])
    return f"{reverse('catalog')}?{urlencode({k: v for k, v in asked.items() if v != ''})}"


def _moved(request, slug: str) -> HttpResponse:
    """308 to the product's own address, query string and all."""
    location = reverse("catalog-product", kwargs={"name": slug})
    query = request.META.get("QUERY_STRING", "")
    return HttpResponsePermanentRedirect(
        f"{location}?{query}" if query else location,
        preserve_request=True,
        headers={"Cache-Control": "no-cache"},
    )


def _product(found: queries.Product) -> dict[str, Any]:
    series = [
        line | {name: orjson.Fragment(line[name]) for name in ("outliers", "points")}
        for line in found.lines
    ]
    return found.card | {
        "renamed_to": found.moved_to,
        "resolution": found.resolution,
        "series": series,
    }


def _report(outcomes: list[Outcome]) -> dict[str, Any]:
    counts = Counter(outcome.outcome for outcome in outcomes)
    rows = [
        {"row": row} | {name: value for name, value in outcome._asdict().items() if value}
        for row, outcome in enumerate(outcomes, 1)
    ]
    kinds = ("accepted", "duplicate", "conflict", "rejected")
    return {kind: counts[kind] for kind in kinds} | {"rows": rows}
