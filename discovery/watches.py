"""Writes of watches: what a person waits for, and how to tell them.

A watch belongs to one person; anybody else's does not exist here. What its fields may hold is
decided here, whether they come from a request or from a command.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from email.errors import HeaderParseError
from email.headerregistry import Address
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.functions import Now

from config import outgoing
from config.fields import (
    MAX_ID,
    InvalidFields,
    Refused,
    degrees,
    entries,
    integer,
    optional,
    printable,
    text,
)
from config.sqlfiles import Statements
from discovery import channels
from discovery.models import Source, Venue, Watch, WatchVenue

_sql = Statements("discovery")

WATCHES = 50  # of one person
VENUES = 100  # named by one watch
NAME_LENGTH = 100
TARGET_LENGTH = outgoing.URL_LENGTH
PARTY_MAX = 1_000
RADIUS_MAX_M = 500_000
COOLDOWN_MAX_SECONDS = 86_400
MESSAGES_MAX_PER_HOUR = 3_600
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 1, 1)
MOST_ERRORS = 50  # in one answer

_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_PLACE = ("latitude", "longitude", "radius_m")
_QUIET = ("quiet_from", "quiet_to")


class InvalidWatch(InvalidFields):
    """A watch that cannot be stored."""


class TooManyWatches(Exception):
    """The person has as many as WATCHES allows."""


class WatchNotFound(LookupError):
    """No such watch, or it is somebody else's."""


def create_watch(*, user, **fields: Any) -> Watch:
    """Make a watch of this person's. One that tells by webhook gets a `secret`, to sign with, and
    `is_secret_new` says so.

    `fields` as in `clean`; `channel` is needed. Looks the target's host up. Raises InvalidWatch,
    TooManyWatches.
    """
    values = _checked(clean(fields), {})
    named = values.pop("venues", [])
    watch = Watch(user=user, has_venues=bool(named), **_columns(values))
    if watch.channel == Watch.Channel.WEBHOOK:
        watch.secret = _new_secret()
    with transaction.atomic():
        # Whoever counts next waits for the end of this, so that nobody has one too many.
        get_user_model().objects.select_for_update(no_key=True).get(pk=user.pk)
        if Watch.objects.filter(user=user).count() >= WATCHES:
            raise TooManyWatches(f"{WATCHES} watches are one person's at most.")
        watch.save(force_insert=True)
        _name_venues(watch, named)
    watch.refresh_from_db()
    watch.is_secret_new = bool(watch.secret)
    return watch


def edit_watch(*, watch_id: int, user, **changes: Any) -> Watch:
    """Change a watch. What is not named stays as it is; `secret` is set anew where the channel
    becomes a webhook.

    Where it is paused, what it still had to tell is forgotten. Raises InvalidWatch, WatchNotFound.
    """
    given = clean(changes, partial=True)
    before = Watch.objects.filter(pk=watch_id, user=user).first()
    if before is None:
        raise WatchNotFound(f"no watch {watch_id}")
    values = _checked(given, _as_given(before))
    named = values.pop("venues", None)
    with transaction.atomic():
        watch = _locked(watch_id, user)
        becomes_webhook = values.get("channel", watch.channel) == Watch.Channel.WEBHOOK
        if becomes_webhook and watch.channel != Watch.Channel.WEBHOOK:
            values["secret"] = _new_secret()
        for name, value in _columns(values).items():
            setattr(watch, name, value)
        if named is not None:
            watch.has_venues = bool(named)
            _name_venues(watch, named)
        if not watch.is_active:
            _sql.count("forget_pending", watch=watch.pk)
        watch.updated_at = Now()
        # What the notifier writes meanwhile (`last_told_at`) is not ours.
        written = {*_columns(values), "has_venues", "updated_at"}
        watch.save(update_fields=sorted(written))
    watch.refresh_from_db()
    watch.is_secret_new = "secret" in values
    return watch


def delete_watch(*, watch_id: int, user) -> None:
    """Delete a watch, with what it still had to tell. Raises WatchNotFound."""
    with transaction.atomic():
        watch = _locked(watch_id, user)
        _sql.count("forget_pending", watch=watch.pk)
        watch.delete()


def clean(given: Mapping[str, Any], *, partial: bool = False) -> dict[str, Any]:
    """The given fields, each checked alone and trimmed. Without `partial`, `channel` is needed.

    Days are dates or ISO text, times `HH:MM`, a source goes by its name, venues by their ids.
    Raises InvalidWatch with every field that is wrong, unknown or missing.
    """
    cleaned, errors = {}, {}
    for name, value in given.items():
        if len(errors) >= MOST_ERRORS:
            break
        try:
            cleaned[name] = _check_of(name)(value)
        except Refused as refused:
            errors[printable(name)] = str(refused)
    if not partial and "channel" not in given:
        errors["channel"] = "Is missing."
    if errors:
        raise InvalidWatch(errors)
    return cleaned


def _checked(values: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are to be written, checked together with what is there. Raises InvalidWatch.

    A channel goes with its target: what is checked together is written together.
    """
    whole = {**before, **values}
    if values.get("channel") == Watch.Channel.NONE and "target" not in values:
        whole["target"] = ""
    errors = _halves(whole) | _reversed(whole, values)
    if {"source", "venues"} & values.keys():
        errors |= _unknown(whole, values)
    if {"channel", "target"} & values.keys() and not errors:
        try:
            values |= {
                "channel": whole["channel"],
                "target": _target(whole["channel"], whole.get("target", "")),
            }
        except Refused as refused:
            errors["target"] = str(refused)
    if errors:
        raise InvalidWatch(errors)
    return values


def _halves(whole: Mapping[str, Any]) -> dict[str, str]:
    """What is missing of fields that go together."""
    errors = {}
    for names in (_PLACE, _QUIET):
        missing = [name for name in names if whole.get(name) is None]
        if missing and len(missing) < len(names):
            given = ", ".join(name for name in names if name not in missing)
            errors |= dict.fromkeys(missing, f"Is missing: it goes with {given}.")
    return errors


def _reversed(whole: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    errors = {}
    for first, last in (("date_from", "date_to"), ("time_from", "time_to")):
        if whole.get(first) and whole.get(last) and whole[first] > whole[last]:
            errors[first if first in values else last] = (
                f"Is later than {last}." if first in values else f"Is earlier than {first}."
            )
    if whole.get("quiet_from") is not None and whole["quiet_from"] == whole.get("quiet_to"):
        errors["quiet_to"] = "Is the same as quiet_from; pause the watch instead."
    return errors


def _unknown(whole: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """A source and venues that are not there, or do not belong together."""
    source = None
    if whole.get("source"):
        source = Source.objects.filter(name=whole["source"]).first()
        if source is None:
            return {"source": "Is the name of no source."}
    named = whole.get("venues") or []
    found = dict(Venue.objects.filter(pk__in=named).values_list("pk", "source_id"))
    field = "venues" if "venues" in values else "source"
    if missing := [str(one) for one in named if one not in found]:
        return {field: f"There is no venue {', '.join(missing[:10])}."}
    elsewhere = [str(one) for one in named if source and found[one] != source.pk]
    if elsewhere:
        return {field: f"Of another source: {', '.join(elsewhere[:10])}."}
    return {}


def _as_given(watch: Watch) -> dict[str, Any]:
    """A watch as `clean` would have its fields."""
    plain = {name: getattr(watch, name) for name in _CHECKS if name not in ("source", "venues")}
    return plain | {
        "source": watch.source.name if watch.source_id else None,
        "venues": list(
            WatchVenue.objects.filter(watch=watch).order_by("venue_id").values_list(
                "venue_id", flat=True
            )
        ),
    }  # fmt: skip


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as the table has them."""
    columns = {name: value for name, value in values.items() if name != "source"}
    if "source" in values:
        source = values["source"]
        columns["source"] = Source.objects.get(name=source) if source else None
    return columns


def _locked(watch_id: int, user) -> Watch:
    rows = Watch.objects.select_for_update(no_key=True)
    watch = rows.filter(pk=watch_id, user=user).first()
    if watch is None:
        raise WatchNotFound(f"no watch {watch_id}")
    return watch


def _name_venues(watch: Watch, venues: Iterable[int]) -> None:
    _sql.count("set_watch_venues", watch=watch.pk, venues=list(venues))


def _new_secret() -> str:
    return secrets.token_urlsafe(32)


def _target(channel: str, target: str) -> str:
    """Where word goes, checked as the channel needs it. Raises Refused."""
    if channel == Watch.Channel.NONE:
        if target:
            raise Refused("Must be empty: nothing is sent.")
        return ""
    if not target:
        raise Refused("Is missing.")
    if channel == Watch.Channel.EMAIL:
        return _mail_address(target)
    try:
        if channel == Watch.Channel.WEBHOOK:
            outgoing.check_url(target)
        else:
            channels.check_apprise_url(target)
    except outgoing.Refused as refused:
        raise Refused(str(refused)) from refused
    return target


def _mail_address(text: str) -> str:
    if not settings.EMAIL_URL:
        raise Refused("No mail is sent here: take another channel.")
    try:
        address = Address(addr_spec=text)
    except (HeaderParseError, ValueError, IndexError) as error:
        raise Refused("Is not an e-mail address.") from error
    if not address.username or "." not in address.domain or len(text) > 254:
        raise Refused("Is not an e-mail address.")
    return text


def _check_of(name: Any) -> Callable[[Any], Any]:
    if name not in _CHECKS:
        raise Refused(f"Is not a field of a watch; known: {', '.join(_CHECKS)}.")
    return _CHECKS[name]


def _line(value: Any, limit: int) -> str:
    given = text(value, limit)
    if found := _UNWANTED.search(given):
        raise Refused(f"Contains the character U+{ord(found[0]):04X}.")
    return given.strip()


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused("Must be true or false.")
    return value


def _source(value: Any) -> str | None:
    return None if value is None else _line(value, NAME_LENGTH) or None


def _integers(value: Any, least: int, most: int, count: int) -> list[int]:
    """Different integers, in order; none for None."""
    if value is None:
        return []
    return sorted({integer(one, least, most) for one in entries(value, count)})


def _day(value: Any) -> date:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError as error:
            raise Refused("Is not a day (2026-02-18).") from error
    if not isinstance(value, date) or isinstance(value, datetime):
        raise Refused("Must be a day (2026-02-18).")
    if not FIRST_DAY <= value < LAST_DAY:
        raise Refused(f"Must be from {FIRST_DAY} to before {LAST_DAY}.")
    return value


def _clock(value: Any) -> str:
    if not isinstance(value, str) or not CLOCK.fullmatch(value):
        raise Refused("Must be a time of day (19:30).")
    return value


def _zone(value: Any) -> str:
    name = _line(value, NAME_LENGTH)
    if name not in _zones():
        raise Refused("Is no time zone (Europe/Berlin).")
    return name


@cache
def _zones() -> set[str]:
    return available_timezones()


def _channel(value: Any) -> str:
    if value not in Watch.Channel.values:
        raise Refused(f"Must be one of {', '.join(Watch.Channel.values)}.")
    return str(value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: _line(value, NAME_LENGTH),
    "is_active": _flag,
    "source": _source,
    "venues": lambda value: _integers(value, 1, MAX_ID, VENUES),
    "date_from": optional(_day),
    "date_to": optional(_day),
    "weekdays": lambda value: _integers(value, 1, 7, 7),
    "time_from": lambda value: "" if value is None or value == "" else _clock(value),
    "time_to": lambda value: "" if value is None or value == "" else _clock(value),
    "party_size": optional(lambda value: integer(value, 1, PARTY_MAX)),
    "latitude": optional(lambda value: degrees(value, 90)),
    "longitude": optional(lambda value: degrees(value, 180)),
    "radius_m": optional(lambda value: integer(value, 1, RADIUS_MAX_M)),
    "channel": _channel,
    "target": lambda value: "" if value is None else _line(value, TARGET_LENGTH),
    "timezone": _zone,
    "quiet_from": optional(lambda value: time.fromisoformat(_clock(value))),
    "quiet_to": optional(lambda value: time.fromisoformat(_clock(value))),
    "cooldown_seconds": lambda value: integer(value, 0, COOLDOWN_MAX_SECONDS),
    "max_per_hour": lambda value: integer(value, 1, MESSAGES_MAX_PER_HOUR),
}
