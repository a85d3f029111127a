"""Tokens: issuing, using, scopes, expiry, throttles."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response
from rest_framework.views import APIView

from config import caching, doctor, retention, throttles
from config.models import ApiToken
from config.tokens import HasScope, issue_token


class Reading(APIView):
    def get(self, request):
        return Response({"token": request.auth.name if request.auth else None})

    def post(self, request):
        return Response({})


class Ingesting(APIView):
    permission_classes = [HasScope("ingest")]

    def post(self, request):
        return Response({"who": request.user.get_username()}, status=201)


urlpatterns = [
    path("api/v1/read", Reading.as_view()),
    path("api/v1/ingest", Ingesting.as_view()),
    path("", HttpResponse),
]
handler404 = "config.problems.handler404"
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


@pytest.fixture
def user():
    return get_user_model().objects.create_user("ada")


def issue(user, *scopes, lifetime=timedelta(days=1)):
    return issue_token(user=user, name="scraper", scopes=list(scopes), lifetime=lifetime)


def header(secret):
    return {"HTTP_AUTHORIZATION": f"Token {secret}"}


def limit(settings, **rates):
    drf = settings.REST_FRAMEWORK
    settings.REST_FRAMEWORK = {
        **drf,
        "DEFAULT_THROTTLE_RATES": {**drf["DEFAULT_THROTTLE_RATES"], **rates},
    }


def test_a_scope_opens_its_view_only(client, user):
    _, ingest = issue(user, "ingest")
    _, read = issue(user, "read")
    answer = client.post("/api/v1/ingest", **header(ingest))
    assert (answer.status_code, answer.json()) == (201, {"who": "ada"})
    assert client.post("/api/v1/ingest", **header(read)).status_code == 403
    anonymous = client.post("/api/v1/ingest")
    assert anonymous.status_code == 401
    assert anonymous["WWW-Authenticate"] == "Token"
    assert anonymous["Content-Type"] == "application/problem+json"


def test_reads_are_public_by_setting(client, user, settings):
    assert client.get("/api/v1/read").status_code == 200
    settings.API_PUBLIC_READS = False
    assert client.get("/api/v1/read").status_code == 401
    _, secret = issue(user, "ingest")
    assert client.get("/api/v1/read", **header(secret)).json() == {"token": "scraper"}


def test_a_view_without_a_scope_takes_no_writes(client, user):
    _, secret = issue(user, "ingest", "read", "metrics")
    assert client.post("/api/v1/read", **header(secret)).status_code == 403


def test_expired_and_inactive(client, user):
    row, secret = issue(user, "ingest")
    ApiToken.objects.filter(pk=row.pk).update(expiry=timezone.now() - timedelta(seconds=1))
    assert client.post("/api/v1/ingest", **header(secret)).status_code == 401
    assert ApiToken.objects.filter(pk=row.pk).exists()
    _, other = issue(user, "ingest", lifetime=None)
    assert client.post("/api/v1/ingest", **header(other)).status_code == 201
    user.is_active = False
    user.save()
    assert client.post("/api/v1/ingest", **header(other)).status_code == 401


@pytest.mark.parametrize(
    "value",
    [
        "Token",
        "Token ",
        "Token a b",
        "Token nonsense",
        "Token " + "a" * 64,
        "Token \xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe",
        "Token " + "a" * 20 + "\0" + "b" * 20,
        "Token " + "9" * 10_000,
    ],
)
def test_bad_headers_are_401(client, value):
    answer = client.post("/api/v1/ingest", HTTP_AUTHORIZATION=value)
    assert answer.status_code == 401
    assert answer.json()["status"] == 401


def test_one_query_and_a_touch_once_a_minute(client, user, django_assert_num_queries):
    row, secret = issue(user, "ingest")
    with django_assert_num_queries(2):
        client.post("/api/v1/ingest", **header(secret))
    row.refresh_from_db()
    first = row.last_used_at
    assert first is not None
    with django_assert_num_queries(1):
        client.post("/api/v1/ingest", **header(secret))
    row.refresh_from_db()
    assert row.last_used_at == first


def test_only_the_digest_is_stored(user):
    row, secret = issue(user, "read")
    assert secret not in str(ApiToken.objects.filter(pk=row.pk).values().get())


def test_issue_refuses(user):
    for scopes, lifetime in [([], None), (["root"], None), (["read"], timedelta(0))]:
        with pytest.raises(ValidationError):
            issue_token(user=user, name="", scopes=scopes, lifetime=lifetime)


def test_command(client, user, capsys):
    call_command("create_token", "ada", "--scope", "ingest", "--scope", "read", "--days", "7")
    secret = capsys.readouterr().out.strip()
    assert client.post("/api/v1/ingest", **header(secret)).status_code == 201
    row = ApiToken.objects.get()
    assert row.scopes == ["ingest", "read"]
    assert timedelta(days=6) < row.expiry - timezone.now() <= timedelta(days=7)


@pytest.mark.parametrize(
    "args", [["nobody", "--scope", "read"], ["ada", "--scope", "read", "--days", "-1"], ["ada"]]
)
def test_command_refuses(user, args):
    with pytest.raises(CommandError):
        call_command("create_token", *args)
    assert not ApiToken.objects.exists()


def test_address_throttle(client, settings):
    limit(settings, address="3/min")
    for left in [2, 1, 0]:
        answer = client.get("/api/v1/read")
        assert answer.status_code == 200
        assert answer["RateLimit"].startswith(f'"address";r={left};t=')
    answer = client.get("/api/v1/read")
    assert answer.status_code == 429
    assert answer["Content-Type"] == "application/problem+json"
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert answer["RateLimit-Policy"] == '"address";q=3;w=60'
    assert client.get("/api/v1/read", REMOTE_ADDR="10.9.8.7").status_code == 200


def test_a_token_has_a_limit_of_its_own(client, user, settings):
    limit(settings, address="1/min", token="2/min")
    _, secret = issue(user, "read")
    _, other = issue(user, "read")
    statuses = [client.get("/api/v1/read", **header(secret)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert client.get("/api/v1/read", **header(other)).status_code == 200


def test_guessing_tokens_is_limited(client, settings):
    limit(settings, address="2/min")
    statuses = [client.get("/api/v1/read", **header("f" * 64)).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


def test_forwarded_for_is_believed_only_for_known_proxies(client, settings, monkeypatch):
    limit(settings, address="1/min")
    assert client.get("/api/v1/read", HTTP_X_FORWARDED_FOR="1.1.1.1").status_code == 200
    assert client.get("/api/v1/read", HTTP_X_FORWARDED_FOR="2.2.2.2").status_code == 429
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    assert client.get("/api/v1/read", HTTP_X_FORWARDED_FOR="2.2.2.2").status_code == 200
    assert client.get("/api/v1/read", HTTP_X_FORWARDED_FOR="spoof, 2.2.2.2").status_code == 429


def test_throttle_off(client, settings):
    limit(settings, address="off")
    answer = client.get("/api/v1/read")
    assert "RateLimit" not in answer


def test_without_valkey_everybody_gets_through(client, settings, own_valkey):
    limit(settings, address="1/min")
    assert client.get("/api/v1/read").status_code == 200
    assert client.get("/api/v1/read").status_code == 429
    own_valkey.stop()
    caching.forget()
    before = throttles.BYPASSED._value.get()
    assert client.get("/api/v1/read").status_code == 200
    assert throttles.BYPASSED._value.get() == before + 1


def test_the_window_slides(settings, rf, monkeypatch):
    limit(settings, address="4/min")
    now = 1_000_000 * 60.0
    monkeypatch.setattr(throttles.time, "time", lambda: now)

    def allowed() -> bool:
        return throttles.AddressThrottle().allow_request(rf.get("/"), None)

    assert [allowed() for _ in range(5)] == [True] * 4 + [False]
    now += 60  # all of the four still count at the start of the next window
    assert not allowed()
    now += 31  # under half of them do now
    assert [allowed() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1%eth0", "2001:db8:1:2::"),
    ],
)
def test_addresses(text, key):
    assert throttles.normalized_address(text) == key


def test_odd_addresses_become_short_keys():
    for odd in ["", "unix:", "a b\r\nc", "x" * 10_000]:
        assert len(throttles.normalized_address(odd)) == 32


@pytest.mark.parametrize("text", ["600", "x/min", "0/min", "-1/s", "5/year"])
def test_bad_rates(text):
    with pytest.raises(ValueError, match="is not a rate"):
        throttles.parse_rate(text)


@pytest.mark.parametrize(
    "sent",
    [
        "Token",
        "Token ",
        "Token a b",
        "Token short",
        f"Token {'x' * 129}",
        f"Bearer {'x' * 64}",
        "Token " + "\u00e9" * 40,
        f"Token {'x' * 30}%00",
    ],
)
def test_malformed_tokens_open_nothing(client, sent):
    assert client.post("/api/v1/ingest", HTTP_AUTHORIZATION=sent).status_code == 401


def test_revoked_and_deleted_users_tokens_end_at_once(client, user):
    row, secret = issue(user, "ingest")
    _, other = issue(user, "ingest")
    row.delete()
    assert client.post("/api/v1/ingest", **header(secret)).status_code == 401
    assert client.post("/api/v1/ingest", **header(other)).status_code == 201
    user.delete()
    assert client.post("/api/v1/ingest", **header(other)).status_code == 401


def test_several_tokens_of_one_user_do_not_add_up(client, user):
    _, ingest = issue(user, "ingest")
    _, read = issue(user, "read")
    both = f"Token {read}, Token {ingest}"
    assert client.post("/api/v1/ingest", HTTP_AUTHORIZATION=both).status_code == 401
    assert client.post("/api/v1/ingest", **header(read)).status_code == 403


def test_the_last_use_is_written_once_a_minute(client, user, django_assert_num_queries):
    row, secret = issue(user, "ingest")
    client.post("/api/v1/ingest", **header(secret))
    row.refresh_from_db()
    assert row.last_used_at is not None
    with django_assert_num_queries(1):  # the token alone
        client.post("/api/v1/ingest", **header(secret))
    earlier = timezone.now() - timedelta(seconds=61)
    ApiToken.objects.update(last_used_at=earlier)
    client.post("/api/v1/ingest", **header(secret))
    row.refresh_from_db()
    assert row.last_used_at > earlier


def test_expired_tokens_are_pruned_after_a_while(user):
    ages = {"live": 1, "fresh": -1, "old": -31, "forever": None}
    for name, days in ages.items():
        row, _ = issue(user, "read", lifetime=None)
        expiry = None if days is None else timezone.now() + timedelta(days=days)
        ApiToken.objects.filter(pk=row.pk).update(name=name, expiry=expiry)
    retention.prune(["expired_tokens"])
    left = set(ApiToken.objects.values_list("name", flat=True))
    assert left == {"live", "fresh", "forever"}


def test_tokens_that_nobody_needs_are_pointed_out(user):
    used, _ = issue(user, "read")
    idle, _ = issue(user, "read")
    issue(user, "read")
    issue(user, "read", lifetime=None)
    old = timezone.now() - timedelta(days=91)
    ApiToken.objects.filter(pk=idle.pk).update(created=old)
    ApiToken.objects.filter(pk=used.pk).update(created=old, last_used_at=timezone.now())
    assert list(ApiToken.objects.unused()) == [idle]
    told = [check.finding for check in doctor._tokens()]
    assert told == ["1 never expire", "1 unused for 90 days"]


def test_a_method_that_an_address_lacks_is_said_so_with_any_token(client):
    """And not that a token is missing, which no scope would mend."""
    for method in ("PUT", "DELETE"):
        answer = client.generic(method, "/api/v1/read")
        assert answer.status_code == 405
        assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"
