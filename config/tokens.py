"""API tokens: who calls, and what the token may do.

Tokens are knox's: the client holds the secret, the database only its SHA-512 digest.
"""

import re
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone
from knox.auth import TokenAuthentication as KnoxAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed, MethodNotAllowed, Throttled
from rest_framework.permissions import SAFE_METHODS, BasePermission

from config.models import ApiToken
from config.throttles import AddressThrottle

SCOPES = {
    "ingest": "Write price snapshots and other observations.",
    "items": "Post items, find their counterparts, and see what is one's own.",
    "watches": "Watch openings and be told of them.",
    "feeds": "Post, follow, like and comment, and read one's timeline.",
    "events": "Report views and impressions.",
    "read": "Read, where reads are not public.",
    "metrics": "Read /metrics from another host.",
}
TOUCH_EVERY = timedelta(minutes=1)
_SECRET = re.compile(r"[0-9A-Za-z_-]{16,128}\Z")


def issue_token(
    *, user, name: str = "", scopes: list[str], lifetime: timedelta | None
) -> tuple[ApiToken, str]:
    """Create a token for `user`; returns its row and the secret, which is shown only here.

    `lifetime` None means that it never expires. Raises ValidationError for an unknown scope, no
    scope, a lifetime that is not positive, or an inactive user.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ValidationError(
            f"Unknown scope {', '.join(unknown) or '(none given)'}; known: {', '.join(SCOPES)}."
        )
    if lifetime is not None and lifetime <= timedelta(0):
        raise ValidationError("The lifetime of a token must be longer than zero.")
    if not user.is_active:
        raise ValidationError(f"User {user} is not active; activate the account first.")
    return ApiToken.objects.create(
        user=user, name=name[:100], scopes=sorted(set(scopes)), expiry=lifetime
    )


class TokenAuthentication(KnoxAuthentication):
    """`Authorization: Token <secret>`: one indexed query, `last_used_at` once a minute at most.

    Expired tokens are refused but kept, so that staff can see what expired.
    """

    def authenticate(self, request):
        try:
            return super().authenticate(request)
        except AuthenticationFailed:
            # Authentication comes before the view's throttles; guessing must not be free.
            throttle = AddressThrottle()
            if not throttle.allow_request(request, None):
                raise Throttled(throttle.wait()) from None
            raise

    def authenticate_credentials(self, token: bytes):
        secret = token.decode("latin-1")
        if not _SECRET.match(secret):
            raise AuthenticationFailed("Invalid token.")
        row = ApiToken.objects.select_related("user").filter(digest=hash_token(secret)).first()
        now = timezone.now()
        if row is None:
            raise AuthenticationFailed("Invalid token.")
        if row.expiry is not None and row.expiry <= now:
            raise AuthenticationFailed("The token has expired.")
        if row.last_used_at is None or row.last_used_at < now - TOUCH_EVERY:
            ApiToken.objects.filter(
                Q(last_used_at=None) | Q(last_used_at__lt=now - TOUCH_EVERY), pk=row.pk
            ).update(last_used_at=now)
        return self.validate_user(row)


class PublicRead(BasePermission):
    """Reads are open, or need any valid token where API_PUBLIC_READS is off.

    Writes are refused: a view that writes names its scope with `HasScope`.
    """

    message = "Writing here needs a token with the right scope."

    def has_permission(self, request, view) -> bool:
        if request.method not in SAFE_METHODS:
            if not hasattr(view, request.method.lower()):
                raise MethodNotAllowed(request.method)  # with any token
            return False
        return settings.API_PUBLIC_READS or request.auth is not None


def has_scope(request, scope: str) -> bool:
    """Whether the request carries a token that has `scope`."""
    return request.auth is not None and scope in request.auth.scopes


def HasScope(scope: str) -> type[BasePermission]:  # noqa: N802  (it stands where a class does)
    """A permission class: the request carries a token that has `scope`.

    OPTIONS is answered without one, so that the interface can be discovered.
    """
    if scope not in SCOPES:
        raise ValueError(f"Unknown scope {scope!r}; known: {', '.join(SCOPES)}.")

    class ScopePermission(BasePermission):
        needs = scope
        message = f"This needs a token with the scope {scope!r}."

        def has_permission(self, request, view) -> bool:
            return request.method == "OPTIONS" or has_scope(request, scope)

    return ScopePermission
