"""Matching over HTTP. What is one person's is never cached here but for its badges."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from config import caching, problems
from config.fields import MAX_ID
from config.idempotency import idempotent
from config.logs import first_line
from config.metrics import ITEM_SEARCH_LATENCY
from config.openapi import IDEMPOTENCY_KEY, in_path
from config.pagination import next_cursor, page_of, position
from config.params import NoQuery
from config.problems import Problem, invalid, invalid_fields
from config.rendering import digest, dumps, respond_private, respond_written
from config.tokens import HasScope, has_scope
from matching import actions, badges, engine, fields, queries, queue, readmodels
from matching.api import examples, serializers
from matching.kinds import Kind
from matching.models import Item, MatchJob

POLL_SECONDS = 1  # until a client may ask for its task again
ERROR_LENGTH = 300  # characters
SEARCH_TTL = 5
RECENT_TTL = 60
CLIENT_SECONDS = 5  # how long clients and proxies may keep what everybody may read
RECENT = ("mv_recent_items",)

_ITEM_ID = in_path("item_id", "The id of an item of yours.")
_MATCH_ID = in_path("match_id", "The id of a match of an item of yours.")
_TASK_ID = in_path("task_id", "The task_id that POST match gave.", UUID)


class OwnerView(APIView):
    """What belongs to the token's user. Anybody else's does not exist here."""

    permission_classes = [HasScope("items")]
    parser_classes = [serializers.LenientParser]


class ItemsView(OwnerView):
    """One's items."""

    reads_replica = True

    @extend_schema(
        operation_id="items_list",
        summary="List your items",
        description="Newest first.",
        tags=["items"],
        parameters=[serializers.OwnItemsQuery],
        responses={200: serializers.OwnItemPageSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("A page", examples.OWN_ITEM_PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.OwnItemsQuery.parse(request)
        status, kind = params.get("status"), params.get("kind")
        cursor = f"items:{status}:{kind}"
        page = queries.own_items(
            owner_id=request.user.pk,
            status=status,
            kind=kind,
            limit=params["limit"],
            after=position(params, datetime, int, kind=cursor),
        )
        return respond_private(request, page_of(page.rows, page.after, kind=cursor))

    @extend_schema(
        operation_id="items_create",
        summary="Post an item",
        description="It can be found at once, by its words and place, and a search for its"
        " counterparts is submitted with it.",
        tags=["items"],
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.ItemBody,
        responses={
            201: serializers.WrittenItemSerializer,
            **problems.responses(400, 401, 403, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("A lost phone", examples.NEW_ITEM, request_only=True),
            OpenApiExample(
                "The item", examples.WRITTEN_ITEM, response_only=True, status_codes=["201"]
            ),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "items") as once:
            if once.replay:
                return once.replay
            given = serializers.item_fields(request.data, serializers.ItemBody().fields)
            with transaction.atomic(), _refusals():
                item = actions.create_item(owner=request.user, **given)
                return once.store(_created(request, item))


class ItemView(OwnerView):
    """One item."""

    reads_replica = True

    @extend_schema(
        operation_id="items_show",
        summary="Show an item of yours",
        tags=["items"],
        parameters=[_ITEM_ID],
        responses={200: serializers.OwnItemSerializer, **problems.responses(400, 401, 403, 404)},
        examples=[OpenApiExample("An item", examples.OWN_ITEM, response_only=True)],
    )
    def get(self, request, item_id: int) -> HttpResponse:
        NoQuery.parse(request)
        return respond_private(request, _own_item(request, item_id))

    @extend_schema(
        operation_id="items_edit",
        summary="Change an item of yours",
        description="What is not named stays as it is. A change of what matching looks at submits"
        " a new search for counterparts.",
        tags=["items"],
        parameters=[_ITEM_ID],
        request=serializers.ItemChanges,
        responses={
            200: serializers.WrittenItemSerializer,
            **problems.responses(400, 401, 403, 404, 413, 415),
        },
        examples=[
            OpenApiExample("Another title", examples.ITEM_CHANGES, request_only=True),
            OpenApiExample("The item", examples.WRITTEN_ITEM, response_only=True),
        ],
    )
    def patch(self, request, item_id: int) -> HttpResponse:
        NoQuery.parse(request)
        changes = serializers.item_fields(request.data, serializers.ItemChanges().fields)
        if not changes:
            raise invalid(body="Names nothing to change.")
        with transaction.atomic(), _refusals():
            item = actions.edit_item(item_id=_key(item_id), owner=request.user, **changes)
            return respond_private(request, _written(request, item))

    @extend_schema(
        operation_id="items_delete",
        summary="Delete an item of yours",
        description="It is found no more, and its suggestions expire.",
        tags=["items"],
        parameters=[_ITEM_ID],
        responses={
            204: OpenApiResponse(description="It is deleted."),
            **problems.responses(400, 401, 403, 404),
        },
    )
    def delete(self, request, item_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with _refusals():
            actions.delete_item(item_id=_key(item_id), owner=request.user)
        return HttpResponse(status=204)


class ItemMatchesView(OwnerView):
    """The counterparts of an item."""

    reads_replica = True

    @extend_schema(
        operation_id="items_matches",
        summary="List the matches of an item of yours",
        description="Best first. `components` say why: their contributions add up to the score.",
        tags=["matches"],
        parameters=[_ITEM_ID, serializers.MatchesQuery],
        responses={200: serializers.MatchPageSerializer, **problems.responses(400, 401, 403, 404)},
        examples=[OpenApiExample("A page", examples.MATCH_PAGE, response_only=True)],
    )
    def get(self, request, item_id: int) -> HttpResponse:
        params = serializers.MatchesQuery.parse(request)
        item, state = _own_item(request, item_id), params["state"]
        cursor = f"matches:{item['id']}:{state}"
        page = queries.item_matches(
            item_id=item["id"],
            kind=item["kind"],
            states=queries.LISTED_STATES if state == "listed" else [state],
            limit=params["limit"],
            after=position(params, Decimal, int, kind=cursor),
        )
        return respond_private(request, page_of(page.rows, page.after, kind=cursor))


class _VerdictView(OwnerView):
    """What the owner of one side makes of a match."""

    act: Callable[..., Any]

    def answer(self, request, match_id: int) -> HttpResponse:
        NoQuery.parse(request)
        with transaction.atomic(), _refusals():
            type(self).act(match_id=_key(match_id), user=request.user)
            return respond_private(
                request, queries.own_match(match_id=match_id, owner_id=request.user.pk)
            )


class ConfirmView(_VerdictView):
    """A match is right."""

    act = staticmethod(actions.confirm_match)

    @extend_schema(
        operation_id="matches_confirm",
        summary="Confirm a match",
        description="The other side is told. The match is `confirmed` once both have. Confirming"
        " again changes nothing.",
        tags=["matches"],
        parameters=[_MATCH_ID],
        request=None,
        responses={
            200: serializers.MatchSerializer,
            **problems.responses(400, 401, 403, 404, 409),
        },
        examples=[OpenApiExample("The match", examples.MATCH, response_only=True)],
    )
    def post(self, request, match_id: int) -> HttpResponse:
        return self.answer(request, match_id)


class DismissView(_VerdictView):
    """A match is wrong."""

    act = staticmethod(actions.dismiss_match)

    @extend_schema(
        operation_id="matches_dismiss",
        summary="Dismiss a match",
        description="The two items are never suggested for each other again.",
        tags=["matches"],
        parameters=[_MATCH_ID],
        request=None,
        responses={
            200: serializers.MatchSerializer,
            **problems.responses(400, 401, 403, 404),
        },
        examples=[OpenApiExample("The match", examples.DISMISSED_MATCH, response_only=True)],
    )
    def post(self, request, match_id: int) -> HttpResponse:
        return self.answer(request, match_id)


class MatchView(OwnerView):
    """Where a search for counterparts begins."""

    @extend_schema(
        operation_id="match_submit",
        summary="Find counterparts",
        description="Of an item of yours, or of a description of something that is not posted."
        " Answers at once; Location says where the results will be.",
        tags=["matches"],
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.MatchRequestSerializer,
        responses={
            202: serializers.JobSerializer,
            **problems.responses(400, 401, 403, 404, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("An item", {"item": 4711}, request_only=True),
            OpenApiExample("A description", {"query": examples.NEW_ITEM}, request_only=True),
            OpenApiExample("A task", examples.JOB, response_only=True, status_codes=["202"]),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "match") as once:
            if once.replay:
                return once.replay
            asked = serializers.MatchBody.parse(request)
            with transaction.atomic(), _refusals("query."):
                job = queue.submit_match(
                    owner=request.user,
                    item=_open_item(request, asked["item"]) if "item" in asked else None,
                    query=_description(asked["query"]) if "query" in asked else None,
                    priority=MatchJob.Priority.PERSON,
                )
                return once.store(_waiting(_own_job(request, job.task_id)))


class MatchJobView(OwnerView):
    """What becomes of a search for counterparts."""

    @extend_schema(
        operation_id="match_status",
        summary="Show how a search for counterparts stands",
        description="202 while it waits or runs, with Retry-After; 200 once it has ended; 410 once"
        " its results have expired.",
        tags=["matches"],
        parameters=[_TASK_ID],
        responses={
            200: serializers.JobResultSerializer,
            202: serializers.JobSerializer,
            **problems.responses(400, 401, 403, 404, 410),
        },
        examples=[
            OpenApiExample(
                "Results", examples.JOB_RESULT, response_only=True, status_codes=["200"]
            ),
            OpenApiExample("Waiting", examples.JOB, response_only=True, status_codes=["202"]),
        ],
    )
    def get(self, request, task_id: UUID) -> HttpResponse:
        NoQuery.parse(request)
        job = _own_job(request, task_id)
        if job["is_expired"]:
            raise Problem(410, detail="The results of this task have expired; submit it again.")
        if job["state"] in (MatchJob.State.QUEUED, MatchJob.State.RUNNING):
            return _waiting(job)
        return respond_private(request, _result(job))


class BadgesView(OwnerView):
    """Counts for badges."""

    @extend_schema(
        operation_id="me_badges",
        summary="Count what waits for you",
        tags=["me"],
        responses={200: serializers.BadgesSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("Counts", examples.BADGES, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        NoQuery.parse(request)
        counts, cached = badges.badges(request.user.pk)
        return respond_private(request, counts, "hit" if cached else "miss")


class NotificationsView(OwnerView):
    """What one was told."""

    @extend_schema(
        operation_id="me_notifications",
        summary="List what you were told",
        description="Newest first.",
        tags=["me"],
        parameters=[serializers.NotificationsQuery],
        responses={
            200: serializers.NotificationPageSerializer,
            **problems.responses(400, 401, 403),
        },
        examples=[OpenApiExample("A page", examples.NOTIFICATION_PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.NotificationsQuery.parse(request)
        cursor = f"notifications:{params['unread']}"
        page = queries.notifications(
            user_id=request.user.pk,
            unread=params["unread"] == "yes",
            limit=params["limit"],
            after=position(params, datetime, int, kind=cursor),
        )
        return respond_private(request, page_of(page.rows, page.after, kind=cursor))


class ReadNotificationsView(OwnerView):
    """One has read what one was told."""

    @extend_schema(
        operation_id="me_notifications_read",
        summary="Mark notifications as read",
        tags=["me"],
        request=serializers.ReadBody,
        responses={
            200: serializers.ReadSerializer,
            **problems.responses(400, 401, 403, 413, 415),
        },
        examples=[
            OpenApiExample("Two", {"ids": [17, 18]}, request_only=True),
            OpenApiExample("All up to one", {"up_to": 18}, request_only=True),
            OpenApiExample("Done", {"read": 2}, response_only=True),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        asked = serializers.ReadBody.parse(request)
        return respond_private(
            request, {"read": actions.read_notifications(user=request.user, **asked)}
        )


class SearchView(APIView):
    """Search over everybody's items."""

    reads_replica = True

    @extend_schema(
        operation_id="items_search",
        summary="Search items",
        description="By words and meaning (`q`), near a place, or the newest. Best first, the 60"
        " best (200 without `q`). Without `q` a place orders by distance. Kinds that are not public"
        " (resumes) are found with a token that has the scope `items`.",
        tags=["items"],
        parameters=[serializers.SearchQuery],
        responses={200: serializers.SearchPageSerializer, **problems.responses(400, 403)},
        examples=[OpenApiExample("A page", examples.SEARCH_PAGE, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.SearchQuery.parse(request)
        is_member = has_scope(request, "items")
        kinds = _kinds(params, Kind.values if is_member else settings.MATCHING_PUBLIC_KINDS)
        asked = {name: str(params[name]) for name in sorted(params.keys() - {"cursor", "limit"})}
        cursor = f"search:{digest([kinds, asked])}"
        after = position(params, Decimal, int, kind=cursor)

        def build() -> bytes:
            with ITEM_SEARCH_LATENCY.labels("items_search").time():
                return dumps(_search(params, kinds, after, cursor))

        key = f"items-{cursor}:{params['limit']}:{digest(params.get('cursor', ''))}"
        found = caching.cached(key, name="items_search", ttl=SEARCH_TTL, models=(), build=build)
        return caching.respond(request, found, SEARCH_TTL, for_all=not is_member)


class RecentView(APIView):
    """The newest items."""

    @extend_schema(
        operation_id="items_recent",
        summary="List the newest items",
        description="Open items of public kinds (no resumes) of the last 30 days; as old as the"
        " last refresh, at most 15 minutes.",
        tags=["items"],
        parameters=[serializers.RecentQuery],
        responses={200: serializers.RecentSerializer, **problems.responses(400, 403)},
        examples=[OpenApiExample("Items", examples.RECENT, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.RecentQuery.parse(request)
        kinds, limit = _kinds(params, settings.MATCHING_PUBLIC_KINDS), params["limit"]

        def build() -> bytes:
            return dumps({"results": readmodels.public_items(kinds=kinds, limit=limit)})

        found = caching.cached(
            f"items-recent:{','.join(kinds)}:{limit}",
            name="items_recent",
            ttl=RECENT_TTL,
            models=RECENT,
            build=build,
        )
        return caching.respond(request, found, CLIENT_SECONDS)


@contextmanager
def _refusals(inside: str = "") -> Iterator[None]:
    """What actions and the queue raise, as problems. `inside`: where in the body the fields are."""
    try:
        yield
    except fields.InvalidItem as error:
        raise serializers.refused(error, inside) from error
    except actions.ItemNotFound as error:
        raise _no_such_item() from error
    except actions.MatchNotFound as error:
        raise Problem(404, detail="No match of an item of yours has this id.") from error
    except actions.MatchIsOver as error:
        raise Problem(409, detail=f"This match is {error.state}.", state=error.state) from error
    except queue.QuotaExceeded as error:
        raise _later(429, error) from error
    except queue.QueueFull as error:
        raise _later(503, error) from error


def _later(status: int, error: queue.Refused) -> Problem:
    return Problem(status, detail=str(error), headers={"Retry-After": str(error.retry_after)})


def _no_such_item() -> Problem:
    return Problem(404, detail="No item of yours has this id.")


def _key(row_id: int) -> int:
    """An id out of an address; one beyond bigint can be nobody's."""
    if row_id > MAX_ID:
        raise Problem(404, detail="Nothing of yours has this id.")
    return row_id


def _own_item(request, item_id: int) -> dict[str, Any]:
    found = queries.own_item(item_id=_key(item_id), owner_id=request.user.pk)
    if found is None:
        raise _no_such_item()
    return found


def _own_job(request, task_id: UUID) -> dict[str, Any]:
    found = queries.own_match_job(task_id=task_id, owner_id=request.user.pk)
    if found is None:
        raise Problem(404, detail="No task of yours has this id.")
    return found


def _open_item(request, item_id: int) -> Item:
    """The item of the body of POST match."""
    item = Item.objects.filter(pk=item_id, owner=request.user, is_deleted=False).first()
    if item is None:
        reason = "No item of yours has this id."
        raise Problem(404, detail=reason, errors=[{"name": "item", "reason": reason}])
    if item.status != Item.Status.OPEN:
        reason = f"The item is {item.status}; open it to find its counterparts."
        raise Problem(409, detail=reason, errors=[{"name": "item", "reason": reason}])
    return item


def _description(given: Any) -> dict[str, Any]:
    """The query of the body of POST match, checked, as JSON can hold it."""
    known = serializers.QueryBody().fields
    try:
        return serializers.item_fields(given, known)
    except Problem as problem:
        raise invalid_fields(
            error | {"name": f"query.{error['name']}"} for error in problem.members["errors"]
        ) from problem


def _written(request, item: Item) -> dict[str, Any]:
    """An item that was just written, with the task that looks for its counterparts."""
    return _own_item(request, item.pk) | {
        "match_task": item.match_job.task_id if item.match_job else None
    }


def _created(request, item: Item) -> Response:
    at = reverse("matching-item", args=[item.pk])
    return respond_written(_written(request, item), status=201, location=at)


def _job(job: dict[str, Any]) -> dict[str, Any]:
    kept = ("task_id", "state", "progress", "ahead", "attempts")
    times = ("submitted_at", "started_at", "finished_at", "expires_at")
    return (
        {name: job[name] for name in kept}
        | {"item": job["item_id"]}
        | {name: job[name] for name in times}
    )


def _result(job: dict[str, Any]) -> dict[str, Any]:
    """A job that has ended, with what it found."""
    result = job["result"] or {}
    hits = []
    if job["state"] == MatchJob.State.DONE:
        hits = _hits_of_item(job["item_id"]) if job["item_id"] else _hits(result["hits"])
    return _job(job) | {
        "degraded": job["degraded"],
        # The first line says what happened; PostgreSQL adds details, which are for staff.
        "error": first_line(job["error"])[:ERROR_LENGTH],
        "routes": result.get("routes", {}),
        "results": hits,
    }


def _hits_of_item(item_id: int) -> list[dict[str, Any]]:
    """The matches of the item as they stand now."""
    kind = Item.objects.values_list("kind", flat=True).get(pk=item_id)
    page = queries.item_matches(item_id=item_id, kind=kind, limit=settings.MATCHING_RESULTS)
    return [
        {"match": match["id"]} | {name: match[name] for name in ("score", "components", "item")}
        for match in page.rows
    ]


def _hits(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hits of a query, those that can still be found, with their items."""
    items = queries.public_items([hit["item_id"] for hit in found])
    return [
        {
            "match": None,
            "score": hit["score"],
            "components": hit["components"],
            "item": items[hit["item_id"]],
        }
        for hit in found
        if hit["item_id"] in items
    ]


def _kinds(params: dict[str, Any], allowed: Sequence[str]) -> list[str]:
    """The kinds that are asked for. Raises a 403 Problem for one that this caller may not see."""
    if "kind" not in params:
        return list(allowed)
    if params["kind"] not in allowed:
        reason = f"Not everybody may see items of the kind {params['kind']}."
        raise Problem(403, detail=reason, errors=[{"name": "kind", "reason": reason}])
    return [params["kind"]]


def _search(
    params: dict[str, Any], kinds: list[str], after: tuple[Decimal, int] | None, cursor: str
) -> dict:
    page = engine.search(
        params.get("q", ""),
        kinds=kinds,
        filters=engine.Filters(
            category=params.get("category", ""),
            status=params["status"],
            country=params.get("country", ""),
            city=params.get("city", ""),
            latitude=params.get("latitude"),
            longitude=params.get("longitude"),
            radius_m=params.get("radius_m"),
            date_from=params.get("from"),
            date_to=params.get("to"),
        ),
        limit=params["limit"],
        after=None if after is None else (float(after[0]), after[1]),
    )
    items = queries.public_items([hit.item_id for hit in page.hits], status=params["status"])
    return {
        "next_cursor": next_cursor(page.after, kind=cursor),
        "degraded": page.degraded,
        "results": [
            {
                "score": hit.score,
                "components": [component.as_dict() for component in hit.components],
                "item": items[hit.item_id],
            }
            for hit in page.hits
            if hit.item_id in items
        ],
    }


def _waiting(job: dict[str, Any]) -> Response:
    """202: where to ask, and how soon."""
    return Response(
        _job(job),
        status=202,
        headers={
            "Location": reverse("matching-job", args=[job["task_id"]]),
            "Retry-After": str(POLL_SECONDS),
            "Cache-Control": "no-store",
        },
    )
