"""What messages say, to people and to programs. Pure: no database."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson
from django.utils import timezone

from discovery.channels import Message
from discovery.polls import zone_of

_DROP = (
    "id", "event_type", "source", "slot_id", "starts_at", "local_time", "party_min", "party_max",
    "opened_at",
)  # fmt: skip


def of_drops(
    watch: Mapping[str, Any], message_id: str, drops: Sequence[Mapping[str, Any]]
) -> Message:
    """That something is open: one message for all of it."""
    count = len(drops)
    what = f"{count} openings" if count > 1 else "1 opening"
    about = watch["name"] or _venue(drops[0])
    return Message(
        message_id=message_id,
        title=f"{what}: {about}",
        text="\n\n".join(_paragraph(drop) for drop in drops),
        data=_data("drops", watch, message_id) | {"drops": [_drop(drop) for drop in drops]},
    )


def test_of(watch: Mapping[str, Any]) -> Message:
    """That word of a watch arrives."""
    message_id = str(uuid4())
    name = watch["name"] or f"watch {watch['id']}"
    return Message(
        message_id=message_id,
        title=f"Test: {name}",
        text=f"This is how you will be told of openings for {name}.",
        data=_data("test", watch, message_id) | {"drops": []},
    )


def _data(kind: str, watch: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    return {
        "type": kind,
        "message_id": message_id,
        "sent_at": timezone.now(),
        "watch": {"id": watch["id"], "name": watch["name"]},
    }


def _drop(drop: Mapping[str, Any]) -> dict[str, Any]:
    venue = {"id": drop["venue_id"]} | {name: drop[name] for name in ("key", "name", "city", "url")}
    payload = drop["payload"]
    return {name: drop[name] for name in _DROP} | {
        "venue": venue,
        "payload": {} if payload is None else orjson.loads(payload),
    }


def _paragraph(drop: Mapping[str, Any]) -> str:
    place = ", ".join(filter(None, (_venue(drop), drop["city"])))
    return "\n".join(filter(None, (place, _details(drop), drop["url"])))


def _venue(drop: Mapping[str, Any]) -> str:
    return drop["name"] or drop["key"]


def _details(drop: Mapping[str, Any]) -> str:
    """When, in the time of the place, and for how many."""
    when = "free now"
    if drop["starts_at"] is not None:
        when = f"{drop['starts_at'].astimezone(zone_of(drop['timezone'])):%a %Y-%m-%d %H:%M}"
    least, most = drop["party_min"], drop["party_max"]
    if least is None and most is None:
        return when
    if least is None or most is None or least == most:
        number = least if most is None else most
        bound = " or more" if most is None else " or fewer" if least is None else ""
        return f"{when}, for {number}{bound}"
    return f"{when}, for {least} to {most}"
