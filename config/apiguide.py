"""The API guide: every operation of the OpenAPI document with a request that runs, as Markdown."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from drf_spectacular.generators import SchemaGenerator

# In the order in which somebody new would meet them.
SECTIONS = {
    "catalog": "Products and prices",
    "items": "Items: lost and found, wanted and offered, resumes and jobs",
    "matches": "Counterparts of an item",
    "discovery": "Openings",
    "watches": "What one waits for",
    "feed": "The timeline",
    "posts": "Posts",
    "comments": "Comments",
    "people": "People",
    "events": "Views and impressions",
    "me": "Oneself",
}
METHODS = ("get", "post", "put", "patch", "delete")
ANSWER_LINES = 40
# What of a request's example stands for something of the reader's, or for now.
_OF_THE_READER = {
    "item": "$ITEM_ID",
    "target": "$POST_ID",
    "venues": "$VENUE_ID",
    "at": "$(date -u +%FT%TZ)",
}

_INTRODUCTION = """\
# API guide

Every operation with a request that runs. Written by `manage.py api_guide` from the OpenAPI document
(`/api/schema`; pages at `/api/docs`): change the views, not this file. [api.md](api.md) says what
all operations share: paging, errors, caching, tokens, limits.

The requests are for a server on this machine (`script/server`):

    API=http://127.0.0.1:8000/api/v1
    TOKEN=$(.venv/bin/python manage.py create_token admin \\
        --scope items --scope watches --scope feeds --scope events --scope ingest 2>/dev/null)

Where a path needs the id of something of yours, a variable stands for it: `$ITEM_ID` is the `id` of
an item that you posted.
"""


def render() -> str:
    """The guide as Markdown. Raises KeyError for a tag without a section."""
    document = SchemaGenerator().get_schema(request=None, public=True)
    by_tag: dict[str, list[str]] = {tag: [] for tag in SECTIONS}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                operation = methods[method]
                by_tag[operation["tags"][0]].append("\n".join(_operation(method, path, operation)))
    parts = [_INTRODUCTION]
    for tag, title in SECTIONS.items():
        parts += [f"## {title}\n", *by_tag[tag]]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    short = path.removeprefix("/api/v1/")
    yield f"### {operation['summary']}: `{method.upper()} {short}`\n"
    about = [operation.get("description", "").strip(), _needs(operation)]
    yield " ".join(part for part in about if part) + "\n"
    yield from _parameters(operation.get("parameters", []))
    yield "\n".join(f"    {line}" for line in _request(method, short, operation))
    yield ""
    yield from _answer(operation["responses"])


def _needs(operation: dict[str, Any]) -> str:
    scopes = operation.get("x-scopes", [])
    if scopes:
        return f"Needs a token with the scope `{scopes[0]}`."
    return "Open to everybody, unless `API_PUBLIC_READS` is off."


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    shown = [one for one in parameters if one["in"] != "path"]
    if not shown:
        return
    yield "| parameter | |\n|---|---|"
    for one in shown:
        text = re.split(r"\n\s*\n", one.get("description", ""))[0].replace("\n", " ")
        limits = _limits(one["schema"])
        name = f"`{one['name']}`" + (" (header)" if one["in"] == "header" else "")
        yield f"| {name} | {'; '.join(part for part in (text.rstrip('.'), limits) if part)} |"
    yield ""


def _limits(schema: dict[str, Any]) -> str:
    parts = []
    if "enum" in schema:
        parts.append(", ".join(f"`{value}`" for value in schema["enum"]))
    if "minimum" in schema or "maximum" in schema:
        parts.append(f"{schema.get('minimum', '')} to {schema.get('maximum', '')}".strip())
    if "default" in schema:
        parts.append(f"default `{schema['default']}`")
    return "; ".join(parts)


def _request(method: str, short: str, operation: dict[str, Any]) -> Iterator[str]:
    """A curl command in lines."""
    path = re.sub(r"\{(\w+)\}", lambda found: f"${found[1].upper()}", short)
    query = "&".join(
        f"{one['name']}={one['schema'].get('example', 'x')}"
        for one in operation.get("parameters", [])
        if one["in"] == "query" and one.get("required")
    )
    url = f'"$API/{path}{"?" if query else ""}{query}"'
    verb = "" if method == "get" else f"-X {method.upper()} "
    lines = [f"curl -s {verb}{url}"]
    if operation.get("x-scopes"):
        lines.append('-H "Authorization: Token $TOKEN"')
    body = _first_example(operation.get("requestBody", {}))
    if body is not None:
        lines.append(f"-H 'Content-Type: application/json' \\\n        -d {_shell(body)}")
    yield from " \\\n    ".join(lines).split("\n")


def _shell(body: Any) -> str:
    """A body as an argument of a shell command, with its variables outside of the quotes."""

    def put_variables(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: put_variables(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [put_variables(one, name) for one in value]
        stands_for = isinstance(value, int) != (name == "at")  # ids are numbers
        return f"@{name}@" if name in _OF_THE_READER and stands_for else value

    text = shlex.quote(json.dumps(put_variables(body), ensure_ascii=False))
    for name, variable in _OF_THE_READER.items():
        is_text = variable.startswith("$(")
        marked = f"@{name}@" if is_text else f'"@{name}@"'
        text = text.replace(marked, f"'\"{variable}\"'")
    return text


def _first_example(content: dict[str, Any]) -> Any:
    examples = content.get("content", {}).get("application/json", {}).get("examples", {})
    return next((one["value"] for one in examples.values()), None)


def _answer(responses: dict[str, Any]) -> Iterator[str]:
    status, response = next(
        (status, one) for status, one in sorted(responses.items()) if status.startswith("2")
    )
    example = _first_example(response)
    if example is None:
        yield f"{status}, without a body.\n"
        return
    lines = json.dumps(example, indent=2, ensure_ascii=False).split("\n")
    if len(lines) > ANSWER_LINES:
        lines = [*lines[:ANSWER_LINES], "…"]
    yield f"{status}:\n\n" + "\n".join(f"    {line}" for line in lines) + "\n"
