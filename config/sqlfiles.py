"""SQL by name: `<app>/sql/queries.sql` for statements, numbered files beside it for DDL."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import connection

_HEADER = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)


class UnknownQuery(KeyError):
    """No statement of that name in the file."""


class Queries(dict):
    """Statements by name. Read once per process."""

    def __missing__(self, name: str) -> str:
        raise UnknownQuery(f"no query {name!r}; known: {', '.join(sorted(self))}")


def _folder(app_label: str) -> Path:
    return Path(apps.get_app_config(app_label).path) / "sql"


@cache
def queries(app_label: str) -> Queries:
    """The statements of `<app>/sql/queries.sql`.

    A statement starts at `-- name: some_name`, the next line is a comment that describes it, and
    it runs up to the next name. Raises ValueError for a name that stands twice or a statement
    without a description.
    """
    text = (_folder(app_label) / "queries.sql").read_text(encoding="utf-8")
    found = Queries()
    parts = _HEADER.split(text)[1:]
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        statement = body.strip()
        if name in found:
            raise ValueError(f"{app_label}/sql/queries.sql: {name} stands twice")
        if not statement.startswith("-- "):
            raise ValueError(f"{app_label}/sql/queries.sql: {name} has no description")
        found[name] = statement
    return found


def ddl(app_label: str, name: str) -> str:
    """The text of one DDL file, for a migration. Such a file is never edited once released."""
    return (_folder(app_label) / name).read_text(encoding="utf-8")


class Statements:
    """The statements of an app, to be run by name: `Statements("feeds").rows("due", limit=5)`.

    For hot ones see `config.prepared`. Every method raises UnknownQuery and DatabaseError.
    """

    def __init__(self, app_label: str) -> None:
        self._app = app_label

    def rows(self, name: str, /, **parameters: Any) -> list[tuple]:
        """All rows."""
        with connection.cursor() as cursor:
            cursor.execute(queries(self._app)[name], parameters)
            return cursor.fetchall()

    def row(self, name: str, /, **parameters: Any) -> tuple | None:
        """The first row, if there is one."""
        with connection.cursor() as cursor:
            cursor.execute(queries(self._app)[name], parameters)
            return cursor.fetchone()

    def dicts(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """All rows, each by the names of the columns."""
        return dicts(queries(self._app)[name], parameters)

    def value(self, name: str, /, **parameters: Any) -> Any:
        """The first column of the only row."""
        return self.row(name, **parameters)[0]

    def count(self, name: str, /, **parameters: Any) -> int:
        """How many rows it wrote, or returned."""
        with connection.cursor() as cursor:
            cursor.execute(queries(self._app)[name], parameters)
            return cursor.rowcount


def dicts(statement: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All rows of a statement, composed or plain, each by the names of the columns."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
