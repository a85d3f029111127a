"""Watches over HTTP: what one waits for, what one was told, and whether word arrives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.views import APIView

from config import problems
from config.fields import MAX_ID
from config.idempotency import idempotent
from config.openapi import IDEMPOTENCY_KEY, in_path
from config.pagination import page_of, position
from config.params import NoQuery, PageQuery, object_of
from config.problems import Problem, invalid
from config.rendering import respond_private, respond_written
from config.throttles import AddressThrottle, SlidingThrottle, TokenThrottle
from config.tokens import HasScope
from discovery import channels, messages, watch_queries, watches
from discovery.api import examples
from discovery.api import watch_serializers as serializers
from discovery.models import Watch

_WATCH_ID = in_path("watch_id", "The id of a watch of yours.")


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
        parameters=[PageQuery],
        responses={200: serializers.WatchPageSerializer, **problems.responses(400, 401, 403)},
        examples=[
            OpenApiExample(
                "A page", {"next_cursor": None, "results": [examples.WATCH]}, response_only=True
            )
        ],
    )
    def get(self, request) -> HttpResponse:
        params = PageQuery.parse(request)
        rows, last = watch_queries.own_watches(
            user_id=request.user.pk,
            limit=params["limit"],
            before=position(params, int, kind="watches"),
        )
        return respond_private(request, page_of(rows, last, kind="watches"))

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
            OpenApiExample("A table for two", examples.NEW_WATCH, request_only=True),
            OpenApiExample(
                "The watch",
                examples.WATCH | examples.WATCH_SECRET,
                response_only=True,
                status_codes=["201"],
            ),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "watches") as once:
            if once.replay:
                return once.replay
            fields = _fields(request)
            with transaction.atomic(), _refusals():
                watch = watches.create_watch(user=request.user, **fields)
                shown = _own(request, watch.pk) | _secret_of(watch)
                at = reverse("discovery-watch", args=[watch.pk])
                return once.store(respond_written(shown, status=201, location=at))


class WatchView(WatchOwnerView):
    """One watch."""

    @extend_schema(
        operation_id="watches_show",
        summary="Show a watch of yours",
        tags=["watches"],
        parameters=[_WATCH_ID],
        responses={200: serializers.WatchSerializer, **problems.responses(400, 401, 403, 404)},
        examples=[OpenApiExample("A watch", examples.WATCH, response_only=True)],
    )
    def get(self, request, watch_id: int) -> HttpResponse:
        NoQuery.parse(request)
        return respond_private(request, _own(request, watch_id))

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
            OpenApiExample("The watch", examples.WATCH | {"is_active": False}, response_only=True),
        ],
    )
    def patch(self, request, watch_id: int) -> HttpResponse:
        NoQuery.parse(request)
        changes = _fields(request)
        if not changes:
            raise invalid(body="Names nothing to change.")
        with _refusals():
            watch = watches.edit_watch(watch_id=_key(watch_id), user=request.user, **changes)
        return respond_written(_own(request, watch.pk) | _secret_of(watch))

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
        NoQuery.parse(request)
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
        parameters=[_WATCH_ID, PageQuery],
        responses={
            200: serializers.WatchNotificationPageSerializer,
            **problems.responses(400, 401, 403, 404),
        },
        examples=[
            OpenApiExample(
                "A page",
                {"next_cursor": None, "results": [examples.WATCH_NOTIFICATION]},
                response_only=True,
            )
        ],
    )
    def get(self, request, watch_id: int) -> HttpResponse:
        params = PageQuery.parse(request)
        watch = _own(request, watch_id)
        kind = f"watch:{watch['id']}"
        rows, last = watch_queries.notifications(
            watch_id=watch["id"], limit=params["limit"], before=position(params, int, kind=kind)
        )
        return respond_private(request, page_of(rows, last, kind=kind))


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
        NoQuery.parse(request)
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
        return respond_private(request, {"message_id": message.message_id})


@contextmanager
def _refusals() -> Iterator[None]:
    """What actions raise, as problems."""
    try:
        yield
    except watches.InvalidWatch as error:
        raise invalid(**error.errors) from error
    except watches.TooManyWatches as error:
        raise Problem(409, detail=str(error), limit=watches.WATCHES) from error
    except watches.WatchNotFound as error:
        raise _no_such_watch() from error


def _no_such_watch() -> Problem:
    return Problem(404, detail="No watch of yours has this id.")


def _fields(request) -> dict[str, Any]:
    given = object_of(request.data)
    taken = given.keys() & {"user", "watch_id"}  # names of ours, not of fields
    if taken:
        raise invalid(**dict.fromkeys(sorted(taken), "Is not a field here."))
    return given


def _key(watch_id: int) -> int:
    """An id out of an address; one beyond bigint can be nobody's."""
    if watch_id > MAX_ID:
        raise _no_such_watch()
    return watch_id


def _own(request, watch_id: int) -> dict[str, Any]:
    found = watch_queries.own_watch(watch_id=_key(watch_id), user_id=request.user.pk)
    if found is None:
        raise _no_such_watch()
    return found


def _secret_of(watch: Watch) -> dict[str, str]:
    return {"secret": watch.secret} if watch.is_secret_new else {}
