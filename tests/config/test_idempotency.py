"""A POST under a key has its effect once, also when requests race or die."""

import subprocess
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from config import leases, tally
from config.idempotency import CLAIM_LIFETIME, idempotent
from config.models import IdempotencyRecord, Tally
from config.problems import Problem
from config.tokens import HasScope
from tests.people import Person
from tests.processes import until

hooks = {}


class Creating(APIView):
    permission_classes = [HasScope("ingest")]

    def post(self, request):
        with idempotent(request, "things") as once:
            if once.replay:
                return once.replay
            with transaction.atomic():
                tally.add("things_total", request.data["amount"])
                hooks.get("inside", lambda: None)()
                answer = Response(
                    {"made": request.data["amount"]}, status=201, headers={"Location": "/things/1"}
                )
                once.store(answer)
                hooks.get("stored", lambda: None)()
            return answer


urlpatterns = [path("api/v1/things", Creating.as_view())]
handler404 = "config.problems.handler404"
pytestmark = [pytest.mark.urls(__name__)]


@pytest.fixture(autouse=True)
def _no_hooks():
    hooks.clear()
    yield
    hooks.clear()


@pytest.fixture
def secret(db):
    return Person("ada", ["ingest"]).secret


@pytest.fixture
def post(secret):
    def send(key=None, amount=3, **extra):
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Token {secret}")
        if key is not None:
            extra["HTTP_IDEMPOTENCY_KEY"] = key
        return client.post("/api/v1/things", {"amount": amount}, format="json", **extra)

    return send


def effects() -> float:
    row = Tally.objects.filter(name="things_total").first()
    return row.value if row else 0


def test_replay(post):
    first, second = post("k1"), post("k1")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert "Idempotent-Replayed" not in first
    assert second["Idempotent-Replayed"] == "true"
    assert second["Location"] == "/things/1"
    assert effects() == 3


def test_other_keys_and_no_key_are_separate(post):
    for key in ["k1", "k2", None, None]:
        assert post(key).status_code == 201
    assert effects() == 12


def test_another_body_is_422(post):
    post("k1", amount=3)
    assert post("k1", amount=4).status_code == 422
    assert post("k1", amount=3, QUERY_STRING="x=1").status_code == 422
    assert effects() == 3


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "κ".encode().decode("latin-1"), "a\x7f"])
def test_bad_keys(post, key):
    answer = post(key)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["name"] == "Idempotency-Key"
    assert effects() == 0


def test_keys_belong_to_a_user(post):
    post("k1")
    other = Person("bob", ["ingest"])
    assert other.send("things", {"amount": 5}, **{"Idempotency-Key": "k1"}).status_code == 201
    assert effects() == 8


def test_expired_keys_can_be_used_again(post):
    post("k1")
    IdempotencyRecord.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert post("k1", amount=4).status_code == 201
    assert effects() == 7


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["inside", "stored"])
def test_a_failed_request_frees_its_key(post, where):
    def fail():
        raise Problem(409, "Not now")

    hooks[where] = fail
    assert post("k1").json()["title"] == "Not now"
    assert not IdempotencyRecord.objects.exists()
    hooks.clear()
    assert post("k1").status_code == 201
    assert effects() == 3


@pytest.mark.django_db(transaction=True)
def test_a_key_is_freed_when_postgresql_is_back(post):
    """The request that failed with it could not; another process would wait for the claim's end."""
    where = dict(connection.settings_dict)

    def lose_it():
        connection.close()
        connection.settings_dict.update(HOST="/nonexistent", PORT="1")
        connection.ensure_connection()

    hooks["inside"] = lose_it
    assert post("k1").status_code == 503
    hooks.clear()
    connection.close()
    connection.settings_dict.update(HOST=where["HOST"], PORT=where["PORT"])
    assert IdempotencyRecord.objects.exists()
    until(lambda: not IdempotencyRecord.objects.exists(), "the end of the claim", seconds=10)
    assert post("k1").status_code == 201
    assert effects() == 3


@pytest.mark.django_db(transaction=True)
def test_in_flight_is_409(post):
    answers = []
    hooks["inside"] = lambda: answers.append(in_thread(lambda: post("k1")))
    assert post("k1").status_code == 201
    assert answers[0].status_code == 409
    assert answers[0]["Retry-After"] == "1"
    assert effects() == 3


@pytest.mark.django_db(transaction=True)
def test_a_dead_claim_is_taken_over_and_the_slow_request_rolls_back(post):
    def overtake():
        hooks.clear()
        old = timezone.now() - CLAIM_LIFETIME
        in_thread(lambda: IdempotencyRecord.objects.update(claimed_at=old))
        # The effect of this test's view locks its row: let the second request do its work only
        # after the first has rolled back.
        second.start()
        wait_for_claim_change()

    claims = []

    def wait_for_claim_change():
        before = IdempotencyRecord.objects.get().claim
        for _ in range(200):
            claims[:] = [in_thread(lambda: IdempotencyRecord.objects.get().claim)]
            if claims != [before]:
                return
        raise AssertionError("the claim was not taken over")

    answers = []
    second = threading.Thread(target=lambda: closing(lambda: answers.append(post("k1"))))
    hooks["inside"] = overtake
    first = post("k1")
    second.join()
    assert first.status_code == 409
    assert answers[0].status_code == 201
    assert effects() == 3
    assert post("k1")["Idempotent-Replayed"] == "true"


def test_a_claim_of_a_killed_process_is_taken_over_at_once(post):
    with subprocess.Popen(["sleep", "60"]) as other:
        started = leases._process(other.pid)[1]
        record = {"claim": f"token {leases._realm()} {started} {other.pid}", "status": None}
        assert post("k1").status_code == 201
        IdempotencyRecord.objects.update(**record)
        assert post("k1").status_code == 409  # it lives
        other.kill()
    assert post("k1", amount=4).status_code == 422
    assert post("k1").status_code == 201
    assert effects() == 6
    assert post("k1")["Idempotent-Replayed"] == "true"


@pytest.mark.django_db(transaction=True)
def test_many_at_once_have_one_effect(post):
    answers = []
    barrier = threading.Barrier(8)

    def race():
        barrier.wait()
        answers.append(post("k1").status_code)

    threads = [threading.Thread(target=closing, args=[race]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {201, 409}
    assert 201 in answers
    assert effects() == 3


@pytest.mark.django_db(transaction=True)
def test_store_wants_the_transaction_of_the_effect(rf):
    request = rf.post("/", b"x", content_type="text/plain", HTTP_IDEMPOTENCY_KEY="k")
    request.user = None
    with idempotent(request, "things") as once, pytest.raises(RuntimeError, match="transaction"):
        once.store(Response({}))


def closing(action):
    try:
        return action()
    finally:
        connection.close()


def in_thread(action):
    found = []
    thread = threading.Thread(target=lambda: found.append(closing(action)))
    thread.start()
    thread.join()
    return found[0]
