"""SQL by name: `<app>/sql/queries.sql` for statements, numbered files beside it for DDL."""

import re
from functools import cache
from pathlib import Path

from django.apps import apps

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
