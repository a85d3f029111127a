"""Counters that commit with what they count. `/metrics` exposes each under its name."""

from django.db import connection
from psycopg.types.json import Jsonb

from config.models import Tally
from config.sqlfiles import queries


def add(name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name{labels}` in the caller's transaction.

    The row stays locked until that transaction ends: make this the last statement of a long one.
    """
    if not value:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            queries("config")["add_to_tally"],
            {"name": name, "labels": _json(labels), "value": value},
        )


def all() -> list[Tally]:
    """Every counter, by name."""
    return list(Tally.objects.order_by("name", "labels"))


def _json(labels: dict[str, str]):
    return Jsonb({key: str(value) for key, value in sorted(labels.items())})
