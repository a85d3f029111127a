"""Watches over HTTP: what one waits for, what one was told, and whether word arrives."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from django.urls import path, reverse
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from config import caching, problems
from config.idempotency import idempotent
from config.openapi import IDEMPOTENCY_KEY
from config.pagination import decode_cursor, encode_cursor
from config.problems import Problem, invalid, invalid_fields
from config.rendering import dumps
from config.throttles import AddressThrottle, SlidingThrottle, TokenThrottle
from config.tokens import HasScope
from discovery import channels, messages, watch_queries, watches
from discovery.api import watch_serializers as serializers
from discovery.models import Watch

_WATCH_ID = OpenApiParameter(
    "watch_id", int, OpenApiParameter.PATH, description="The id of a watch of yours."
)
_NEW = {
    "name": "Dinner for two",
    "venues": [17],
    "date_from": "2026-02-18",
    "date_to": "2026-02-28",
    "weekdays": [5, 6],
    "time_from": "18:30",
    "time_to": "21:00",
    "party_size": 2,
    "channel": "webhook",
    "target": "https://example.org/hooks/openings",
    "timezone": "Europe/Berlin",
    "quiet_from": "23:00",
    "quiet_to": "07:00",
}
_WATCH = (
    {"id": 4711, "is_active": True, "source": None}
    | _NEW
    | {
        "latitude": None,
        "longitude": None,
        "radius_m": None,
        "cooldown_seconds": 300,
        "max_per_hour": 12,
        "last_told_at": None,
        "created_at": "2026-02-17T09:30:00Z",
        "updated_at": "2026-02-17T09:30:00Z",
    }
)
_SECRET = {"secret": "5T0mJ8yL1a0Zk3v9cV7QmW2xR4nB6hD8fG1jK3lP5s0"}
_NOTIFICATION = {
    "id": 90210,
    "state": "sent",
    "created_at": "2026-02-17T10:00:01Z",
    "told_at": "2026-02-17T10:00:03Z",
    "attempts": 1,
    "error": "",
    "message_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "already_gone": False,
    "drop": {
        "id": 123456,
        "event_type": "opened",
        "source": "tables",
        "slot_id": "bistro-nord|2026-02-20T19:30:00",
        "starts_at": "2026-02-20T18:30:00Z",
        "local_time": "19:30",
        "party_min": 2,
        "party_max": 4,
        "opened_at": "2026-02-17T10:00:00Z",
        "closed_at": None,
        "venue": {"id": 17, "key": "bistro-nord", "name": "Bistro Nord", "city": "Berlin"},
    },
}


class WatchTestThrottle(SlidingThrottle):
    """Limits test messages by person: they go out whatever cooldown and cap say."""

    scope = "watch_test"

    def caller(self, request) -> str | None:
        return None if request.auth is None else str(request.user.pk)


class WatchOwnerView(APIView):
    """What belongs to the token's user. Anybody else's does not exist here."""

    permission_classes = [HasScope("watches")]


class WatchesView(WatchOwnerView):
    """One's watches."""

    @extend_schema(
        operation_id="watches_list",
        summary="List your watches",
        description="Newest first.",
        tags=["watches"],
        parameters=[serializers.WatchesPageQuery],
        responses={200: serializers.WatchPageSerializer, **problems.responses(400, 401, 403)},
        examples=[
            OpenApiExample("A page", {"next_cursor": None, "results": [_WATCH]}, response_only=True)
        ],
    )
    def get(self, request) -> HttpResponse:
        params = serializers.WatchesPageQuery.parse(request)
        rows, last = watch_queries.own_watches(
            user_id=request.user.pk, limit=params["limit"], before=_before(params, "watches")
        )
        return _private(request, _page(rows, last, "watches"))

    @extend_schema(
        operation_id="watches_create",
        summary="Watch openings",
        description="Openings from now on that fit are told by the channel. What is left out will"
        f" do as it is; at most {watches.WATCHES} watches.",
        tags=["watches"],
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.WatchBody,
        responses={
            201: serializers.WrittenWatchSerializer,
            **problems.responses(400, 401, 403, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("A table for two", _NEW, request_only=True),
            OpenApiExample("The watch", _WATCH | _SECRET, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request) -> HttpResponse:
        serializers.WatchesNoQuery.parse(request)
        with idempotent(request, "watches") as once:
            if once.replay:
                return once.replay
            fields = _fields(request)
            with transaction.atomic(), _refusals():
                watch = watches.create_watch(user=request.user, **fields)
                shown = _own(request, watch.pk) | _secret_of(watch)
                headers = {
                    "Location": reverse("discovery-watch", args=[watch.pk]),
                    "Cache-Control": "no-store",
                }
                return once.store(Response(shown, status=201, headers=headers))


class WatchView(WatchOwnerView):
    """One watch."""

    @extend_schema(
        operation_id="watches_show",
        summary="Show a watch of yours",
        tags=["watches"],
        parameters=[_WATCH_ID],
        responses={200: serializers.WatchSerializer, **problems.responses(400, 401, 403, 404)},
        examples=[OpenApiExample("A watch", _WATCH, response_only=True)],
    )
    def get(self, request, watch_id: int) -> HttpResponse:
        serializers.WatchesNoQuery.parse(request)
        return _private(request, _own(request, watch_id))

    @extend_schema(
        operation_id="watches_edit",
        summary="Change a watch of yours",
        description="What is not named stays as it is. Where the channel becomes a webhook, the"
        " answer has its secret.",
        tags=["watches"],
        parameters=[_WATCH_ID],
        request=serializers.WatchChanges,
        responses={
            200: serializers.WrittenWatchSerializer,
            **problems.responses(400, 401, 403, 404, 413, 415),
        },
        examples=[
            OpenApiExample("Pause it", {"is_active": False}, request_only=True),
            OpenApiExample("The watch", _WATCH | {"is_active": False}, response_only=True),
        ],
    )
    def patch(self, request, watch_id: int) -> HttpResponse:
        serializers.WatchesNoQuery.parse(request)
        changes = _fields(request)
        if not changes:
            raise invalid(body="Names nothing to change.")
        with _refusals():
            watch = watches.edit_watch(watch_id=_key(watch_id), user=request.user, **changes)
        shown = _own(request, watch.pk) | _secret_of(watch)
        return Response(shown, headers={"Cache-Control": "no-store"})

    @extend_schema(
        operation_id="watches_delete",
        summary="Delete a watch of yours",
        tags=["watches"],
        parameters=[_WATCH_ID],
        responses={
            204: OpenApiResponse(description="It is deleted."),
            **problems.responses(400, 401, 403, 404),
        },
    )
    def delete(self, request, watch_id: int) -> HttpResponse:
        serializers.WatchesNoQuery.parse(request)
        with _refusals():
            watches.delete_watch(watch_id=_key(watch_id), user=request.user)
        return HttpResponse(status=204)


class WatchNotificationsView(WatchOwnerView):
    """What a watch told."""

    @extend_schema(
        operation_id="watches_notifications",
        summary="List what a watch of yours told",
        description="The newest opening first, with how its delivery went.",
        tags=["watches"],
        parameters=[_WATCH_ID, serializers.WatchesPageQuery],
        responses={
            200: serializers.WatchNotificationPageSerializer,
            **problems.responses(400, 401, 403, 404),
        },
        examples=[
            OpenApiExample(
                "A page", {"next_cursor": None, "results": [_NOTIFICATION]}, response_only=True
            )
        ],
    )
    def get(self, request, watch_id: int) -> HttpResponse:
        params = serializers.WatchesPageQuery.parse(request)
        watch = _own(request, watch_id)
        kind = f"watch:{watch['id']}"
        rows, last = watch_queries.notifications(
            watch_id=watch["id"], limit=params["limit"], before=_before(params, kind)
        )
        return _private(request, _page(rows, last, kind))


class WatchTestView(WatchOwnerView):
    """Whether word arrives."""

    throttle_classes = [AddressThrottle, TokenThrottle, WatchTestThrottle]

    @extend_schema(
        operation_id="watches_test",
        summary="Send a test message",
        description="Now, by the channel of the watch. 502 says why it did not go out.",
        tags=["watches"],
        parameters=[_WATCH_ID],
        request=None,
        responses={
            200: serializers.WatchTestSerializer,
            **problems.responses(400, 401, 403, 404, 409, 502),
        },
        examples=[
            OpenApiExample(
                "It went out",
                {"message_id": "0f8fad5b-d9cb-469f-a165-70867728950e"},
                response_only=True,
            )
        ],
    )
    def post(self, request, watch_id: int) -> HttpResponse:
        serializers.WatchesNoQuery.parse(request)
        watch = Watch.objects.filter(pk=_key(watch_id), user=request.user).first()
        if watch is None:
            raise _no_such_watch()
        if watch.channel == Watch.Channel.NONE:
            raise Problem(409, detail="This watch has no channel to send a test by.")
        message = messages.test_of({"id": watch.pk, "name": watch.name})
        try:
            channels.send(
                channel=watch.channel, target=watch.target, secret=watch.secret, message=message
            )
        except channels.SendFailed as failed:
            raise Problem(502, "Not delivered", failed.reason) from failed
        return _private(request, {"message_id": message.message_id})


@contextmanager
def _refusals() -> Iterator[None]:
    """What actions raise, as problems."""
    try:
        yield
    except watches.InvalidWatch as error:
        raise invalid_fields(
            {"name": name, "reason": reason} for name, reason in error.errors.items()
        ) from error
    except watches.TooManyWatches as error:
        raise Problem(409, detail=str(error), limit=watches.WATCHES) from error
    except watches.WatchNotFound as error:
        raise _no_such_watch() from error


def _no_such_watch() -> Problem:
    return Problem(404, detail="No watch of yours has this id.")


def _fields(request) -> dict[str, Any]:
    if not isinstance(request.data, Mapping):
        raise invalid(body="Must be a JSON object.")
    taken = request.data.keys() & {"user", "watch_id"}  # names of ours, not of fields
    if taken:
        raise invalid(**dict.fromkeys(sorted(taken), "Is not a field here."))
    return dict(request.data)


def _key(watch_id: int) -> int:
    """An id out of an address; one beyond bigint can be nobody's."""
    if watch_id > watches.MAX_ID:
        raise _no_such_watch()
    return watch_id


def _own(request, watch_id: int) -> dict[str, Any]:
    found = watch_queries.own_watch(watch_id=_key(watch_id), user_id=request.user.pk)
    if found is None:
        raise _no_such_watch()
    return found


def _secret_of(watch: Watch) -> dict[str, str]:
    return {"secret": watch.secret} if watch.is_secret_new else {}


def _private(request, data: Any) -> HttpResponse:
    return caching.respond_private(request, dumps(data))


def _before(params: Mapping[str, Any], kind: str) -> int | None:
    """Where the cursor points, if there is one. Raises a 400 Problem that names `cursor`."""
    if "cursor" not in params:
        return None
    return decode_cursor(params["cursor"], (int,), kind=kind)[0]


def _page(rows: list[dict[str, Any]], last: int | None, kind: str) -> dict[str, Any]:
    cursor = None if last is None else encode_cursor(last, kind=kind)
    return {"next_cursor": cursor, "results": rows}


watch_patterns = [
    path("watches", WatchesView.as_view(), name="discovery-watches"),
    path("watches/<int:watch_id>", WatchView.as_view(), name="discovery-watch"),
    path(
        "watches/<int:watch_id>/notifications",
        WatchNotificationsView.as_view(),
        name="discovery-watch-notifications",
    ),
    path("watches/<int:watch_id>/test", WatchTestView.as_view(), name="discovery-watch-test"),
]
