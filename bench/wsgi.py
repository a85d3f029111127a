"""Requests through the whole WSGI application, in this process and without a socket.

For probes: Django must have been set up.
"""

from django.test import RequestFactory

from config.wsgi import application

_requests = RequestFactory(SERVER_NAME="localhost")


def get(path: str) -> int:
    """Read the whole answer; its status."""
    return _answered(_requests.get(path))


def post(path: str, body: dict, token: str) -> int:
    """The same for a body that is sent as JSON, with the text of a token."""
    request = _requests.post(
        path, body, "application/json", headers={"authorization": f"Token {token}"}
    )
    return _answered(request)


def _answered(request) -> int:
    said: list[str] = []
    parts = application(request.environ, lambda status, *_: said.append(status))
    b"".join(parts)
    parts.close()
    return int(said[0].split()[0])
