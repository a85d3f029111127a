"""Events over HTTP: taken at once, counted by workers."""

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.views import APIView

from config import problems
from config.params import NoQuery
from config.problems import Problem, invalid_fields
from config.rendering import OrjsonParser, respond_written
from config.tokens import HasScope
from counters import incoming, stream
from counters.api import examples, serializers

RETRY_SECONDS = 5


class EventsView(APIView):
    """Where clients say what was seen."""

    permission_classes = [HasScope("events")]
    parser_classes = [OrjsonParser]

    @extend_schema(
        operation_id="events_report",
        summary="Report events",
        description="Views and impressions, 1,000 at most. Each is counted once, within seconds,"
        " however often it is sent: `id` and `at` name it. 503 where they could not be kept; then"
        " send them again as they were.",
        tags=["events"],
        request=serializers.EventsBody,
        responses={
            202: serializers.AcceptedSerializer,
            **problems.responses(400, 401, 403, 413, 415),
        },
        examples=[
            OpenApiExample("Two views", examples.EVENTS, request_only=True),
            OpenApiExample("Taken", {"accepted": 2}, response_only=True, status_codes=["202"]),
        ],
    )
    def post(self, request) -> HttpResponse:
        NoQuery.parse(request)
        try:
            events = incoming.events_of(request.data)
            stream.offer(events)
        except incoming.InvalidEvents as error:
            raise invalid_fields(error.errors) from error
        except (stream.Full, stream.Unavailable) as error:
            raise Problem(
                503,
                detail=f"{error} Nothing was lost: send them again.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            ) from error
        return respond_written({"accepted": len(events)}, status=202)
