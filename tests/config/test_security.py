"""Headers, cookies, and secrets that nothing shows."""

import os
import pickle
import secrets
import subprocess
import sys

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import Client
from django.urls import include, path

from tests.conftest import PROJECT
from tests.people import staff

# Made up, so that the lines of this file, which DEBUG shows, do not hold them.
WORDS = DATABASE, VALKEY, MAIL, KEY = [secrets.token_hex(20) for _ in range(4)]
SECRETS = {
    "SECRET_KEY": KEY,
    "DATABASE_URL": f"postgresql://spyglass:{DATABASE}@127.0.0.1:1/spyglass",
    "REDIS_URL": f"redis://:{VALKEY}@127.0.0.1:1/0",
    "EMAIL_URL": f"smtp://mailer:{MAIL}@127.0.0.1:1",
}


def break_down(request) -> HttpResponse:
    raise RuntimeError("the view broke over whsec-in-the-message")


urlpatterns = [
    path("admin/broken", break_down),
    path("api/v1/broken", break_down),
    path("", include("config.urls")),
]
handler500 = "config.problems.handler500"


@pytest.fixture
def production(settings):
    """As behind TLS."""
    settings.SECURE_SSL_REDIRECT = settings.SESSION_COOKIE_SECURE = True
    settings.CSRF_COOKIE_SECURE = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/admin/login/", "/api/docs", "/api/v1/nothing"])
def test_every_page_has_its_headers(production, url):
    answer = Client().get(url, secure=True)
    policy = answer["Content-Security-Policy"]
    for directive in ("default-src 'self'", "object-src 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "script-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    hsts = "max-age=31536000; includeSubDomains; preload"
    assert answer["Strict-Transport-Security"] == hsts


@pytest.mark.django_db
def test_plain_http_is_sent_on_to_tls(production):
    answer = Client().get("/admin/login/")
    assert answer.status_code == 301
    assert answer["Location"].startswith("https://")


@pytest.mark.django_db
def test_cookies_are_for_tls_and_not_for_scripts(production):
    get_user_model().objects.create_superuser("ada", password="right")
    client = Client()
    form = {"username": "ada", "password": "right"}
    assert client.post("/admin/login/", form, secure=True).status_code == 302
    for name in ("sessionid", "known_browser"):
        cookie = client.cookies[name]
        assert cookie["secure"], name
        assert cookie["httponly"], name
        assert cookie["samesite"] == "Lax", name
    client.get("/admin/password_change/", secure=True)
    assert client.cookies["csrftoken"]["secure"]


@pytest.mark.django_db
@pytest.mark.urls(__name__)
@pytest.mark.parametrize("url", ["/admin/broken", "/api/v1/broken"])
def test_error_pages_tell_nothing(settings, url):
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    client = Client(raise_request_exception=False, headers={"Authorization": "Token whsec-header"})
    answer = client.get(url)
    assert answer.status_code == 500
    for word in ("whsec", "RuntimeError", "Traceback", settings.SECRET_KEY):
        assert word not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.urls(__name__)
def test_even_with_debug_on_the_settings_keep_their_secrets(settings):
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.DEBUG = True
    for name, value in SECRETS.items():
        setattr(settings, name, value)
    settings.MATCHING_LISTEN_URL = settings.FEEDS_LISTEN_URL = SECRETS["DATABASE_URL"]
    client = Client(raise_request_exception=False)
    answer = client.get("/admin/broken", headers={"Accept": "text/html"})
    assert b"RuntimeError" in answer.content
    shown = answer.content.decode()
    seen = [shown[max(0, shown.find(w) - 200) : shown.find(w) + 50] for w in WORDS if w in shown]
    assert not seen


@pytest.mark.parametrize("command", [["doctor"], ["create_token", "ada", "--scope", "read"]])
def test_commands_without_their_servers_show_no_secret(command):
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *command],
        env=os.environ | SECRETS | {"SPYGLASS_EMBEDDED": "0", "ALLOWED_HOSTS": "example.org"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    shown = done.stdout + done.stderr
    assert shown
    assert not [word for word in WORDS if word in shown]


@pytest.mark.django_db
def test_the_admin_shows_no_secret_of_a_token_and_no_password_hash(admin_client, admin_user):
    from config.tokens import issue_token

    row, secret = issue_token(user=admin_user, name="x", scopes=["read"], lifetime=None)
    for url in (
        "/admin/",
        "/admin/config/apitoken/",
        f"/admin/config/apitoken/{row.pk}/change/",
        f"/admin/auth/user/{admin_user.pk}/change/",
        "/admin/config/staffaction/",
    ):
        page = admin_client.get(url, secure=True).content.decode()
        for word in (secret, admin_user.password):
            assert word not in page, url


@pytest.mark.django_db
def test_who_may_edit_schedules_cannot_choose_what_runs():
    from django_q.models import Schedule

    client = staff("view_schedule", "add_schedule", "change_schedule", "delete_schedule")
    schedule = Schedule.objects.create(func="math.floor", args="1.5", schedule_type="O")
    url = "/admin/django_q/schedule/"
    form = {"name": "mine", "func": "os.system", "args": "'x'", "schedule_type": "O", "repeats": 1}
    form |= {"next_run_0": "2030-01-01", "next_run_1": "00:00:00"}
    client.post(f"{url}{schedule.pk}/change/", form, secure=True)
    assert client.post(f"{url}add/", form, secure=True).status_code == 403
    schedule.refresh_from_db()
    assert (schedule.func, schedule.args, schedule.name) == ("math.floor", "1.5", "mine")


def test_what_lies_in_valkey_runs_no_code():
    from django.core.cache import cache

    from config import valkey

    class Harm:
        def __reduce__(self):
            return (exec, ("raise SystemExit('it ran')",))

    valkey.client().set(cache.make_key("harm"), pickle.dumps(Harm()))
    assert cache.get("harm") is None
    cache.set("fine", {"a": [1, "x"]})
    assert cache.get("fine") == {"a": [1, "x"]}
