"""Log-ins are limited, tell nothing, and cannot be shut for ever by others."""

import statistics
import time
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from config import logins, throttles

LOGIN = "/admin/login/"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.HTTPS = settings.SECURE_SSL_REDIRECT = False
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # quick
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {
            "login_address": "4/h",
            "login_name": "3/h",
            "login_browser": "2/h",
        },
    }
    logins.local = logins.LocalCounts()


@pytest.fixture
def ada():
    return get_user_model().objects.create_superuser("ada", password="right")


def attempt(client=None, name="ada", word="wrong", address="10.0.0.1", **headers):
    form = {"username": name, "password": word}
    return (client or Client()).post(LOGIN, form, REMOTE_ADDR=address, **headers)


def test_a_name_has_so_many_attempts_from_wherever(ada):
    answers = [attempt(address=f"10.0.0.{n}").status_code for n in range(4)]
    assert answers == [200, 200, 200, 429]
    refused = attempt(address="10.0.9.9", word="right")  # the right one neither
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 3600
    assert "Too many attempts" in refused.content.decode()


@pytest.mark.parametrize("spelling", ["ADA", " ada ", "\uff41da"])  # full-width a
def test_another_spelling_is_the_same_name(ada, spelling):
    for number in range(3):
        attempt(address=f"10.0.0.{number}")
    assert attempt(name=spelling, address="10.0.9.9").status_code == 429


def test_an_address_has_so_many_attempts_at_whatever_names():
    assert [attempt(name=f"n{n}").status_code for n in range(5)] == [200] * 4 + [429]
    assert attempt(name="n9", address="10.0.0.2").status_code == 200


def test_an_account_of_ones_own_gives_no_attempts_at_others(ada):
    for _ in range(4):
        attempt(word="right")
    assert attempt(name="bob").status_code == 429


def test_forged_forwarding_gives_no_attempts(settings):
    answers = [
        attempt(name=f"n{n}", HTTP_X_FORWARDED_FOR=f"10.1.1.{n}").status_code for n in range(5)
    ]
    assert answers[-1] == 429


def test_a_known_browser_is_not_locked_out_by_others(ada):
    mine = Client()
    assert attempt(mine, word="right").status_code == 302
    mine.post("/admin/logout/")
    for number in range(9):
        attempt(address=f"10.0.1.{number}")
    assert attempt(address="10.0.1.99").status_code == 429
    assert attempt(mine, word="right").status_code == 302
    # And it has limits of its own, for a thief of the cookie.
    mine.post("/admin/logout/")
    assert [attempt(mine).status_code for _ in range(3)] == [200, 200, 429]


def test_the_cookie_is_for_its_name_only_and_cannot_be_made(ada):
    get_user_model().objects.create_superuser("bob", password="right")
    mine = Client()
    attempt(mine, word="right", address="10.0.5.5")
    cookie = mine.cookies[logins.COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    mine.post("/admin/logout/")
    for number in range(3):
        attempt(name="bob", address=f"10.0.2.{number}")
    assert attempt(mine, name="bob", word="right").status_code == 429
    forged = Client()
    forged.cookies[logins.COOKIE] = cookie.value[:-2]
    for number in range(3):
        attempt(address=f"10.0.3.{number}")
    assert attempt(forged, word="right").status_code == 429


def test_no_answer_tells_which_names_exist(ada):
    get_user_model().objects.create_user("plain", password="right")  # no staff
    get_user_model().objects.create_superuser("gone", password="right", is_active=False)
    pages = {
        name: attempt(name=name, word="right" if name != "ada" else "wrong", address=f"10.3.{i}.1")
        for i, name in enumerate(["ada", "nobody", "plain", "gone"])
    }
    errors = {name: str(page.context["form"].errors) for name, page in pages.items()}
    assert len(set(errors.values())) == 1, errors
    for name in ("ada", "nobody"):  # and both run out alike
        answers = [attempt(name=name, address=f"10.4.{n}.1").status_code for n in range(3)]
        assert answers == [200, 200, 429]


def test_an_unknown_name_takes_as_long_as_a_known_one(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    get_user_model().objects.create_superuser("ada", password="right")

    def seconds(name: str, part: int) -> float:
        taken = []
        for number in range(2):
            started = time.perf_counter()
            attempt(name=name, address=f"10.{part}.{number}.1")
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    known, unknown = seconds("ada", 5), seconds("nobody", 6)
    assert 0.5 < known / unknown < 2


def test_the_command_lets_somebody_in_again(ada):
    for number in range(4):
        attempt(address="10.0.0.1", name="ada" if number < 3 else "x")
    assert attempt(word="right", address="10.0.0.2").status_code == 429
    out = StringIO()
    call_command("unlock_login", "ada", "--address", "10.0.0.1", stdout=out)
    assert "start from 0 again" in out.getvalue()
    assert attempt(word="right").status_code == 302
    out = StringIO()
    call_command("unlock_login", "ada", stdout=out, verbosity=0)
    assert out.getvalue() == ""
    with pytest.raises(CommandError, match="Name a user"):
        call_command("unlock_login")


def test_staff_let_others_in_again(ada, admin_client):
    for number in range(3):
        attempt(address=f"10.0.0.{number}")
    form = {"action": "unlock", "_selected_action": [ada.pk]}
    admin_client.post("/admin/auth/user/", form)
    assert attempt(word="right", address="10.0.0.9").status_code == 302


def test_without_valkey_each_process_counts(ada, own_valkey):
    own_valkey.stop()
    answers = [attempt(address=f"10.0.0.{n}").status_code for n in range(4)]
    assert answers == [200, 200, 200, 429]
    with pytest.raises(CommandError, match="Valkey is not reachable"):
        call_command("unlock_login", "nobody")


def test_the_window_slides_open_again(ada, monkeypatch):
    now = 1_000_000 * 3600.0
    monkeypatch.setattr(throttles.time, "time", lambda: now)
    for number in range(3):
        attempt(address=f"10.0.0.{number}")
    assert attempt(address="10.0.0.9").status_code == 429
    now += 2 * 3600
    assert logins._charge(logins.NAME, logins.name_key("ada")) == 0


def test_what_a_process_keeps_is_bounded(monkeypatch):
    monkeypatch.setattr(logins, "LOCAL_CALLERS", 10)
    counts = logins.LocalCounts()
    for number in range(100):
        counts.count("s", str(number), 5, 60)
    assert len(counts._counts) == 10


def test_odd_names_do_no_harm():
    for name in ["", "\0", "x" * 100_000, "a\r\nb"]:
        assert attempt(name=name, address="10.7.7.7").status_code in (200, 400)
