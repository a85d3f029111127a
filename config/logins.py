"""Limits of log-ins to the admin: by address, by name, and by browser.

Every attempt is charged before the password is looked at, so that many at once gain nothing; a
right password gives back what was charged of the name. Names that do not exist are charged alike:
no answer tells them apart.

Anybody can use up the attempts of somebody else's name. So a browser that has logged in to an
account before (it keeps a signed cookie) has attempts of its own, which nobody else can use up;
and the windows slide: whoever stops trying can log in again within two hours at most, or at once
after `manage.py unlock_login`.

The counters are in Valkey. While it is away each process counts by itself: the limits are then
those of every process, not none.
"""

import hashlib
import math
import threading
import time
import unicodedata
from collections import OrderedDict

from django.conf import settings
from django.contrib import admin
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from config import throttles
from config.throttles import THROTTLED, address_of, normalized_address, parse_rate

ADDRESS, NAME, BROWSER = "login_address", "login_name", "login_browser"
COOKIE = "known_browser"
COOKIE_SECONDS = 90 * 86_400
LOCAL_CALLERS = 10_000  # of whom a process keeps count while Valkey is away
_SALT = "config.logins.known_browser"


class LocalCounts:
    """The sliding counts of this process, for while Valkey is away. Bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: OrderedDict[tuple[str, str, int], int] = OrderedDict()

    def count(self, scope: str, caller: str, limit: int, window: int) -> float:
        """As `throttles.count`."""
        index, into = divmod(time.time(), window)
        key = (scope, caller, int(index))
        with self._lock:
            before = self._counts.get((scope, caller, int(index) - 1), 0) * (1 - into / window)
            used = before + self._counts.get(key, 0)
            if used < limit:
                self._counts[key] = self._counts.get(key, 0) + 1
                self._counts.move_to_end(key)
                while len(self._counts) > LOCAL_CALLERS:
                    self._counts.popitem(last=False)
        return used

    def forget(self, scope: str, caller: str) -> None:
        """As `throttles.forget`."""
        with self._lock:
            for key in [key for key in self._counts if key[:2] == (scope, caller)]:
                del self._counts[key]


local = LocalCounts()


@csrf_protect
@never_cache
def login(request: HttpRequest) -> HttpResponse:
    """The admin's page to log in, within limits: 429 with Retry-After beyond them."""
    if request.method != "POST":
        return admin.site.login(request)
    name = request.POST.get("username", "")
    callers = _callers(request, name)
    for scope, caller in callers:
        if wait := _charge(scope, caller):
            THROTTLED.labels(scope).inc()
            return _refused(request, wait)
    response = admin.site.login(request)
    if request.user.is_authenticated and response.status_code == 302:
        for scope, caller in callers:
            if scope != ADDRESS:  # with an account of one's own others could be guessed for ever
                _give_back(scope, caller)
        _remember(response, request.user)
    return response


def unlock(*, name: str = "", address: str = "") -> bool:
    """Give back the attempts of a name, known browsers included, or of an address.

    False while Valkey is away: then every process counts by itself until it restarts.
    """
    done = True
    if name:
        done = _give_back(NAME, name_key(name))
        done = _give_back(BROWSER, name_key(name)) and done
    if address:
        done = _give_back(ADDRESS, normalized_address(address)) and done
    return done


def name_key(name: str) -> str:
    """One key for all the ways to write a name, however long."""
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return hashlib.sha256(folded.encode("utf-8", "replace")).hexdigest()[:32]


def _callers(request: HttpRequest, name: str) -> list[tuple[str, str]]:
    if _is_known(request, name):
        return [(BROWSER, name_key(name))]
    return [(ADDRESS, normalized_address(address_of(request))), (NAME, name_key(name))]


def _charge(scope: str, caller: str) -> int:
    """0 where one more attempt is allowed, else the seconds until it may be."""
    rate = parse_rate(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"].get(scope, ""))
    if rate is None:
        return 0
    limit, window = rate
    used = throttles.count(scope, caller, limit, window)
    if used is None:
        used = local.count(scope, caller, limit, window)
    return 0 if used < limit else max(1, math.ceil(window - time.time() % window))


def _give_back(scope: str, caller: str) -> bool:
    local.forget(scope, caller)
    rate = parse_rate(settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"].get(scope, ""))
    return rate is None or throttles.forget(scope, caller, rate[1])


def _refused(request: HttpRequest, wait: int) -> HttpResponse:
    minutes = math.ceil(wait / 60)
    context = admin.site.each_context(request) | {"title": "Too many attempts", "minutes": minutes}
    headers = {"Retry-After": str(wait), "Cache-Control": "no-store"}
    return TemplateResponse(
        request, "config/login_refused.html", context, status=429, headers=headers
    )


def _is_known(request: HttpRequest, name: str) -> bool:
    """Whether this browser has logged in under this name before."""
    try:
        found = signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=COOKIE_SECONDS)
    except signing.BadSignature:
        return False
    return found == name_key(name)


def _remember(response: HttpResponse, user) -> None:
    response.set_cookie(
        COOKIE,
        signing.dumps(name_key(user.get_username()), salt=_SALT),
        max_age=COOKIE_SECONDS,
        path="/admin/login/",
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
