"""Discovery over HTTP: polls in, drops out. What is read comes out of `feed_cache` as bytes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import close_old_connections, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.views import APIView

from config import caching, generations, problems, retention
from config.idempotency import idempotent
from config.openapi import IDEMPOTENCY_KEY
from config.params import NoQuery, object_of
from config.problems import Problem, invalid
from config.rendering import OrjsonParser, dumps, respond_written
from config.tokens import HasScope, PublicRead
from discovery import actions, feed, polls, queries
from discovery.api import examples, serializers

CLIENT_SECONDS = 2  # how long clients and proxies may keep what everybody may read
FEED_TTL = 60
DROPS_TTL = 5
HEALTH_TTL = 5
FEED = (feed.FEED,)
DROPS = (actions.DROPS,)
PRUNED = (
    "drop_events", "user_notifications", "discovery_buckets", "silent_buckets",
    "slot_closures", "discovery_scans", "venues",
)  # fmt: skip
PRUNE_BUDGET = timedelta(seconds=5)
STREAM_SECONDS = 60  # then the client connects again, and misses nothing
STREAM_PAUSE = 0.5
STREAM_HEARTBEAT = 15


class PollsView(APIView):
    """Where sources say what is open."""

    permission_classes = [HasScope("ingest")]
    parser_classes = [OrjsonParser]

    @extend_schema(
        operation_id="discovery_poll",
        summary="Record a poll",
        description="What a source showed at one moment. Sending it again changes nothing; one"
        " that is older than the last is `late` and changes nothing either. The first poll is the"
        " baseline. A source that is not known is made.",
        tags=["discovery"],
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.PollBody,
        responses={
            200: serializers.PollReportSerializer,
            **problems.responses(400, 401, 403, 409, 413, 415, 422),
        },
        examples=[
            OpenApiExample("A poll", examples.POLL, request_only=True),
            OpenApiExample("A failed poll", examples.FAILED_POLL, request_only=True),
            OpenApiExample("What it changed", examples.POLL_REPORT, response_only=True),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        with idempotent(request, "discovery-polls") as once:
            if once.replay:
                return once.replay
            answer = respond_written(_record(object_of(request.data)))
            # The poll has its effect bucket by bucket, and none when it comes again.
            with transaction.atomic():
                return once.store(answer)


class _FeedView(APIView):
    """A segment of the feed."""

    segment: str

    def answer(self, request) -> HttpResponse:
        NoQuery.parse(request)
        found = caching.cached(
            f"discovery:{self.segment}",
            name="discovery_feed",
            ttl=FEED_TTL,
            models=FEED,
            build=self.built,
        )
        return caching.respond(request, found, CLIENT_SECONDS)

    def built(self) -> bytes:
        stored = queries.segment(self.segment)
        if stored is None:  # nothing was ever polled, or the table was emptied
            return feed.rendered(feed.segments()[self.segment](), queries.freshness())
        return stored


class JustOpenedView(_FeedView):
    """What opened a moment ago."""

    segment = "just_opened"

    @extend_schema(
        operation_id="watches_just_opened",
        summary="List what has just opened",
        description="Drops of the last 15 minutes (JUST_OPENED_MINUTES), newest first; 500 at most"
        " (FEED_JUST_OPENED_LIMIT). As old as the last change, at most a minute.",
        tags=["discovery"],
        responses={200: serializers.FeedSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Drops", examples.FEED, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        return self.answer(request)


class StillOpenView(_FeedView):
    """What opened before and is open still."""

    segment = "still_open"

    @extend_schema(
        operation_id="watches_still_open",
        summary="List what is still open",
        description="Slots that dropped earlier and are open still, newest first; 1,000 at most"
        " (FEED_STILL_OPEN_LIMIT).",
        tags=["discovery"],
        responses={200: serializers.FeedSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Drops", examples.FEED, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        return self.answer(request)


class BoardView(_FeedView):
    """Where it is worth looking."""

    segment = "board"

    @extend_schema(
        operation_id="watches_board",
        summary="Rank venues with open drops",
        description="Many, fresh and rare drops first; 100 venues at most (FEED_BOARD_LIMIT).",
        tags=["discovery"],
        responses={200: serializers.BoardSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Venues", examples.BOARD, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        return self.answer(request)


class NewDropsView(APIView):
    """What is new since a poller asked last."""

    @extend_schema(
        operation_id="watches_new_drops",
        summary="List new drops",
        description="Send `at` of each answer as `since` of the next request: no drop is missed"
        " and none comes twice, whatever commits when. 500 at most (NEW_DROPS_LIMIT); `more` says"
        " that there are others.",
        tags=["discovery"],
        parameters=[serializers.NewDropsQuery],
        responses={200: serializers.NewDropsSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Drops", examples.NEW_DROPS, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        since = serializers.NewDropsQuery.parse(request).get("since")
        found = caching.cached(
            f"discovery:new-drops:{since.isoformat() if since else ''}",
            name="discovery_new_drops",
            ttl=DROPS_TTL,
            models=DROPS,
            build=lambda: dumps(_new_drops(since)),
        )
        return caching.respond(request, found, 0)


class BucketsView(APIView):
    """The window of days."""

    @extend_schema(
        operation_id="discovery_buckets",
        summary="Show the window",
        description="Each part of each day with its open slots and when it was checked.",
        tags=["discovery"],
        parameters=[serializers.BucketsQuery],
        responses={200: serializers.BucketsSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Buckets", examples.BUCKETS, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        source = serializers.BucketsQuery.parse(request).get("source")
        found = caching.cached(
            f"discovery:buckets:{source or ''}",
            name="discovery_health",
            ttl=HEALTH_TTL,
            models=FEED,
            build=lambda: dumps(_listed(queries.bucket_health(source=source))),
        )
        return caching.respond(request, found, CLIENT_SECONDS)


class SourcesView(APIView):
    """The sources and their last scans."""

    @extend_schema(
        operation_id="discovery_sources",
        summary="Show the last scans",
        description="Each source with its newest poll. 200 at most.",
        tags=["discovery"],
        responses={200: serializers.ScansSerializer, **problems.responses(400)},
        examples=[OpenApiExample("Sources", examples.SOURCES, response_only=True)],
    )
    def get(self, request) -> HttpResponse:
        NoQuery.parse(request)
        found = caching.cached(
            "discovery:sources",
            name="discovery_health",
            ttl=HEALTH_TTL,
            models=FEED,
            build=lambda: dumps(_listed(_scans())),
        )
        return caching.respond(request, found, CLIENT_SECONDS)


class PruneNowView(APIView):
    """Retention, at once."""

    permission_classes = [HasScope("ingest")]

    @extend_schema(
        operation_id="watches_prune_now",
        summary="Remove what has expired",
        description="What the daily job does, for at most 5 seconds. For staff.",
        tags=["discovery"],
        request=None,
        responses={200: serializers.PruneSerializer, **problems.responses(400, 401, 403)},
        examples=[OpenApiExample("Removed", examples.PRUNED, response_only=True)],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        if not request.user.is_staff:
            raise Problem(403, detail="Only staff may remove what has expired.")
        done = retention.prune(PRUNED, budget=PRUNE_BUDGET)
        return respond_written({"results": [asdict(each) for each in done]})


class _EventStreamRenderer(BaseRenderer):
    """For the content negotiation, and for errors before the stream begins."""

    media_type = "text/event-stream"
    format = "txt"
    charset = None

    def render(self, data, accepted_media_type=None, renderer_context=None) -> bytes:
        return b"" if data is None else dumps(data)


class StreamView(APIView):
    """New drops as server-sent events.

    Each stream holds a thread of the web server, so that there are few of them
    (DISCOVERY_STREAMS_PER_PROCESS); they end after a minute, and the browser connects again with
    the id of the last event.
    """

    permission_classes = [PublicRead]
    renderer_classes = [_EventStreamRenderer]

    def head(self, request) -> HttpResponse:
        """Without the stream: Django's own would take a place and hold it."""
        return HttpResponse(content_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @extend_schema(exclude=True)  # a stream has no document; docs/api.md describes it
    def get(self, request) -> StreamingHttpResponse:
        since = serializers.NewDropsQuery.parse(request).get("since")
        if last := request.headers.get("Last-Event-ID"):
            try:
                since = serializers.MomentField().run_validation(last)
            except ValidationError as error:
                raise Problem(400, detail="Last-Event-ID is no id of this stream.") from error
        if not _streams.acquire(blocking=False):
            raise Problem(
                503,
                detail="All streams are taken; ask for new-drops every few seconds instead.",
                headers={"Retry-After": "30"},
            )
        return StreamingHttpResponse(
            _Stream(since),
            content_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


_streams = threading.BoundedSemaphore(max(1, settings.DISCOVERY_STREAMS_PER_PROCESS))


class _Stream:
    """The events of one client. Gives its place back when it ends or the client goes."""

    def __init__(self, since: datetime | None) -> None:
        self._since = since
        self._events = self._all()
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """Called by the server, whatever ended the answer."""
        if self._open:
            self._open = False
            try:
                self._events.close()
            finally:
                _streams.release()
                close_old_connections()

    def _all(self) -> Iterator[bytes]:
        end = time.monotonic() + STREAM_SECONDS
        quiet_until = time.monotonic() + STREAM_HEARTBEAT
        seen = None
        yield b"retry: 1000\n\n"
        while time.monotonic() < end:
            current = generations.of(DROPS)
            if current != seen or self._since is None:
                seen = current
                for event in self._news(end):
                    quiet_until = time.monotonic() + STREAM_HEARTBEAT
                    yield event
            if time.monotonic() > quiet_until:
                quiet_until = time.monotonic() + STREAM_HEARTBEAT
                yield b": still here\n\n"
            time.sleep(STREAM_PAUSE)

    def _news(self, end: float) -> Iterator[bytes]:
        more = True
        while more and time.monotonic() < end:
            found = _new_drops(self._since)
            self._since, more = found["at"], found["more"]
            close_old_connections()
            for drop in found["results"]:
                yield b"id: %b\nevent: drop\ndata: %b\n\n" % (
                    dumps(drop["published_at"]).strip(b'"'),
                    dumps(drop),
                )


def _record(data: dict[str, Any]) -> dict[str, Any]:
    """What a pushed poll changed. Raises Problem."""
    try:
        if "error" in data:
            return _record_failure(data)
        return _shown(actions.tick(polls.clean_poll(data)))
    except polls.InvalidPoll as refused:
        raise invalid(**refused.errors) from refused
    except actions.SourcePaused as paused:
        raise Problem(409, detail=f"{paused}: its polls are not taken.") from paused
    except actions.TooManySources as refused:
        raise Problem(409, detail=f"No new source is made: {refused}.") from refused


def _record_failure(data: dict[str, Any]) -> dict[str, Any]:
    poll, reason = polls.clean_failure(data)
    source = actions.ensure_source(name=poll.source)
    actions.record_failure(source=source, at=poll.polled_at, error=reason)
    return _shown(actions.Report(poll.source, poll.polled_at, outcome="failed"))


def _shown(report: actions.Report) -> dict[str, Any]:
    kept = ("source", "polled_at", "outcome", "buckets", "slots", "opened", "closed", "outside")
    return {name: getattr(report, name) for name in kept} | report.counts


def _new_drops(since: datetime | None) -> dict[str, Any]:
    limit = settings.NEW_DROPS_LIMIT
    drops, at = queries.new_drops(since=since, limit=limit)
    return {
        "at": at,
        "as_of": timezone.now(),
        "sources": queries.freshness(),
        "more": len(drops) == limit,
        "results": drops,
    }


def _listed(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"as_of": timezone.now(), "results": results}


def _scans() -> list[dict[str, Any]]:
    """The last scans; why one failed is for staff."""
    return [
        {name: value for name, value in row.items() if name != "last_error"}
        for row in queries.last_scans()
    ]
