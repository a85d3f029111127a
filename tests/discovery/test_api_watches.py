"""Watches over HTTP: making, changing, listing; whose they are; and where word may not go."""

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from config import outgoing
from config.pagination import encode_cursor
from discovery import notifier, watches
from discovery.api import watch_serializers
from discovery.models import UserNotification, Watch
from tests.discovery import receivers
from tests.discovery.town import Town

pytestmark = pytest.mark.django_db

NONE = {"channel": "none"}
HOOK = {"channel": "webhook", "target": "https://1.1.1.1/hook"}


@pytest.fixture
def ann(person):
    return person("ann", "watches")


@pytest.fixture
def bob(person):
    return person("bob", "watches")


@pytest.fixture
def hook(settings):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    with receivers.web() as found:
        yield found


def wrong(response) -> set[str]:
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    return {error["name"] for error in response.json()["errors"]}


def fields_of(serializer) -> set[str]:
    return set(serializer().get_fields())


def test_a_watch_is_made_shown_changed_and_deleted(ann):
    town = Town()
    given = {
        "name": "Dinner for two",
        "source": "tables",
        "venues": [town.venue.pk],
        "date_from": "2026-02-18",
        "date_to": "2026-02-28",
        "weekdays": [5, 6],
        "time_from": "18:30",
        "time_to": "21:00",
        "party_size": 2,
        "latitude": 52.52,
        "longitude": 13.405,
        "radius_m": 1_000,
        "channel": "webhook",
        "target": "https://1.1.1.1/hook",
        "timezone": "Europe/Berlin",
        "quiet_from": "23:00",
        "quiet_to": "07:00",
        "cooldown_seconds": 60,
        "max_per_hour": 5,
    }
    response = ann.send("watches", given)
    assert response.status_code == 201, response.content
    made = response.json()
    assert {name: made[name] for name in given} == given
    assert (made["is_active"], made["last_told_at"]) == (True, None)
    assert set(made) == fields_of(watch_serializers.WrittenWatchSerializer)
    secret = Watch.objects.get().secret
    assert made.pop("secret") == secret
    assert response["Cache-Control"] == "no-store"

    shown = ann.get(response["Location"])
    assert shown.json() == made  # without the secret
    assert set(made) == fields_of(watch_serializers.WatchSerializer)
    assert shown["Cache-Control"] == "private, no-cache"
    assert ann.get(response["Location"], HTTP_IF_NONE_MATCH=shown["ETag"]).status_code == 304

    path = f"watches/{made['id']}"
    changed = ann.send(path, {"name": "Lunch", "venues": [], "quiet_from": None,
                              "quiet_to": None, "time_from": None}, method="PATCH")  # fmt: skip
    assert changed.status_code == 200, changed.content
    assert changed.json()["updated_at"] > made["updated_at"]
    kept = {name: one for name, one in changed.json().items() if name != "updated_at"}
    assert kept == {name: one for name, one in made.items() if name != "updated_at"} | {
        "name": "Lunch",
        "venues": [],
        "quiet_from": None,
        "quiet_to": None,
        "time_from": None,
    }

    assert ann.delete(f"/api/v1/{path}").status_code == 204
    assert ann.read(path).status_code == 404
    assert ann.delete(f"/api/v1/{path}").status_code == 404
    assert not Watch.objects.exists()


def test_a_new_secret_is_shown_once(ann):
    made = ann.send("watches", NONE).json()
    assert "secret" not in made
    changed = ann.send(f"watches/{made['id']}", HOOK, method="PATCH")
    assert changed.json()["secret"] == Watch.objects.get().secret
    assert changed["Cache-Control"] == "no-store"
    again = ann.send(f"watches/{made['id']}", {"name": "x"}, method="PATCH")
    assert "secret" not in again.json()
    assert "secret" not in ann.read(f"watches/{made['id']}").json()
    assert "secret" not in ann.read("watches").json()["results"][0]


def test_a_repeated_post_makes_one_watch(ann, bob):
    first = ann.send("watches", HOOK, **{"Idempotency-Key": "k1"})
    again = ann.send("watches", HOOK, **{"Idempotency-Key": "k1"})
    assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert ann.send("watches", NONE, **{"Idempotency-Key": "k1"}).status_code == 422
    assert bob.send("watches", NONE, **{"Idempotency-Key": "k1"}).status_code == 201
    assert Watch.objects.count() == 2


def test_a_refused_post_frees_its_key(ann):
    assert ann.send("watches", {}, **{"Idempotency-Key": "k"}).status_code == 400
    assert ann.send("watches", NONE, **{"Idempotency-Key": "k"}).status_code == 201


def test_ones_watches_are_listed_newest_first(ann, bob):
    bob.send("watches", NONE)
    ids = [ann.send("watches", NONE).json()["id"] for _ in range(5)]
    page = ann.read("watches?limit=2").json()
    seen = [one["id"] for one in page["results"]]
    while page["next_cursor"]:
        page = ann.read(f"watches?limit=2&cursor={page['next_cursor']}").json()
        seen += [one["id"] for one in page["results"]]
    assert seen == ids[::-1]
    assert wrong(ann.read("watches?limit=0")) == {"limit"}
    assert wrong(ann.read("watches?limit=101")) == {"limit"}
    assert wrong(ann.read("watches?cursor=x")) == {"cursor"}
    assert wrong(ann.read(f"watches?cursor={encode_cursor(1, kind='watch:1')}")) == {"cursor"}
    assert wrong(ann.read("watches?colour=red")) == {"colour"}


ROUTES = [
    ("GET", "watches"),
    ("POST", "watches"),
    ("GET", "watches/{id}"),
    ("PATCH", "watches/{id}"),
    ("DELETE", "watches/{id}"),
    ("GET", "watches/{id}/notifications"),
    ("POST", "watches/{id}/test"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_whose_a_watch_is(ann, bob, person, hook, method, path):
    mine = Watch.objects.create(user=ann.user, channel="webhook", target=hook.url, secret="s")
    path = path.format(id=mine.pk)
    body = {"name": "x"} if method == "PATCH" else NONE
    assert APIClient().generic(method, f"/api/v1/{path}").status_code == 401
    wrong_scope = person("eve", "read", "ingest", "items")
    assert wrong_scope.send(path, body, method=method).status_code == 403
    if path != "watches":
        assert bob.send(path, body, method=method).status_code == 404
        far = path.replace(str(mine.pk), str(2**63))
        assert bob.send(far, body, method=method).status_code == 404
        mine.refresh_from_db()
        assert (mine.name, hook.calls) == ("", [])
    assert ann.send(path, body, method=method).status_code in (200, 201, 204)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "localhost", "2130706433",
        "0x7f000001", "0.0.0.0", "[::ffff:127.0.0.1]", "loopback.example", "127.0.0.1:8000",
    ],
)  # fmt: skip
def test_nobody_is_sent_into_our_network(ann, monkeypatch, scheme, host):
    real = outgoing._plain_getaddrinfo

    def resolve(name, *rest, **options):
        return real("127.0.0.1" if name == "loopback.example" else name, *rest, **options)

    monkeypatch.setattr(outgoing, "_plain_getaddrinfo", resolve)
    for target in (f"{scheme}://{host}", f"{scheme}://{host}/latest/meta-data/"):
        given = {"channel": "webhook", "target": target}
        assert wrong(ann.send("watches", given)) == {"target"}
    made = ann.send("watches", NONE).json()
    for channel, target in [
        ("webhook", f"{scheme}://{host}"),
        ("apprise", f"{scheme.replace('http', 'json')}://{host}"),
    ]:
        given = {"channel": channel, "target": target}
        answer = ann.send(f"watches/{made['id']}", given, method="PATCH")
        assert wrong(answer) == {"target"}
    assert Watch.objects.get().channel == "none"


@pytest.mark.parametrize(
    "target",
    ["https://user:pw@1.1.1.1/", "ftp://1.1.1.1/", "//1.1.1.1/", "https://", "https://1.1.1.1:0/",
     "https://1.1.1.1:99999/", "https://1.1.1.1\\@127.0.0.1/", "javascript:alert(1)"],
)  # fmt: skip
def test_what_is_no_address_of_a_webhook(ann, target):
    assert wrong(ann.send("watches", {"channel": "webhook", "target": target})) == {"target"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", {"body", "channel"}),
        (b"[]", {"body"}),
        (b'"text"', {"body"}),
        (b"null", {"body"}),
        ({}, {"channel"}),
        ({"channel": "none", "colour": 1, "id": 5}, {"colour", "id"}),
        ({"channel": "none", "weekdays": [9], "party_size": 0}, {"weekdays", "party_size"}),
        ({"channel": "none", "latitude": 1}, {"longitude", "radius_m"}),
        ({"channel": "none", "venues": [12345]}, {"venues"}),
        ({"channel": "none", "source": "nowhere"}, {"source"}),
        ({"channel": "email", "target": "nobody"}, {"target"}),
        ({"channel": "none", "name": "a\ud800b"}, {"name"}),
        ({"channel": "none", "a\x00\ud800": 1}, {"a"}),
        ({"channel": "none", "": 1}, {"(no name)"}),
    ],
)
def test_every_field_that_is_wrong_is_named(ann, body, named):
    answer = ann.send("watches", body)
    if answer.status_code == 400 and "errors" not in answer.json():
        assert "JSON" in answer.json()["detail"]
        return
    assert wrong(answer) <= named
    assert not Watch.objects.exists()


def test_a_change_that_names_nothing_or_nonsense(ann):
    path = f"watches/{ann.send('watches', NONE).json()['id']}"
    assert wrong(ann.send(path, {}, method="PATCH")) == {"body"}
    assert wrong(ann.send(path, [], method="PATCH")) == {"body"}
    assert wrong(ann.send(path, {"time_from": "25:00"}, method="PATCH")) == {"time_from"}
    assert wrong(ann.send(f"{path}?force=1", {"name": "x"}, method="PATCH")) == {"force"}


def test_a_person_has_so_many_at_most(ann, monkeypatch):
    monkeypatch.setattr(watches, "WATCHES", 1)
    assert ann.send("watches", NONE).status_code == 201
    answer = ann.send("watches", NONE)
    assert (answer.status_code, answer.json()["limit"]) == (409, 1)


def test_what_a_watch_told_is_listed(ann, settings):
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    town = Town()
    made = ann.send("watches", NONE).json()
    other = ann.send("watches", NONE).json()
    for slot in "abcde":
        town.open(slot, party_min=2)
    path = f"watches/{made['id']}/notifications"
    page = ann.read(f"{path}?limit=2").json()
    seen = page["results"]
    while page["next_cursor"]:
        page = ann.read(f"{path}?limit=2&cursor={page['next_cursor']}").json()
        seen += page["results"]
    assert [one["drop"]["slot_id"] for one in seen] == ["e", "d", "c", "b", "a"]
    first = seen[0]
    assert set(first) == fields_of(watch_serializers.WatchNotificationSerializer)
    assert set(first["drop"]) == fields_of(watch_serializers.NotifiedDropSerializer)
    assert set(first["drop"]["venue"]) == fields_of(watch_serializers.WatchVenueSerializer)
    assert (first["state"], first["message_id"], first["attempts"]) == ("pending", None, 0)
    assert first["drop"]["venue"]["name"] == "Bistro Nord"
    cursor = ann.read(f"{path}?limit=2").json()["next_cursor"]
    theirs = f"watches/{other['id']}/notifications?cursor={cursor}"
    assert wrong(ann.read(theirs)) == {"cursor"}


def test_a_test_message_is_sent_now(ann, hook):
    made = ann.send("watches", {"channel": "webhook", "target": hook.url, "name": "Dinner"}).json()
    answer = ann.send(f"watches/{made['id']}/test")
    assert answer.status_code == 200, answer.content
    [call] = hook.calls
    assert answer.json() == {"message_id": call.headers["Idempotency-Key"]}
    assert (call.data["type"], call.data["watch"]["name"]) == ("test", "Dinner")
    assert not UserNotification.objects.exists()

    hook.answer(404, b"no such hook")
    answer = ann.send(f"watches/{made['id']}/test")
    assert (answer.status_code, answer.json()["detail"]) == (502, "404 no such hook")


def test_a_watch_without_a_channel_has_no_test(ann):
    made = ann.send("watches", NONE).json()
    assert ann.send(f"watches/{made['id']}/test").status_code == 409


def test_test_messages_are_few(ann, bob, hook, settings):
    rates = settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"] | {"watch_test": "2/h"}
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"DEFAULT_THROTTLE_RATES": rates}
    given = {"channel": "webhook", "target": hook.url}
    mine, theirs = (who.send("watches", given).json()["id"] for who in (ann, bob))
    codes = [ann.send(f"watches/{mine}/test").status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert bob.send(f"watches/{theirs}/test").status_code == 200
    assert ann.read("watches").status_code == 200
    assert len(hook.calls) == 3


def test_what_was_given_up_says_why(ann):
    town = Town()
    made = ann.send("watches", NONE).json()
    town.open("a")
    UserNotification.objects.update(
        state="dead", error="410 gone", attempts=5, created_at=timezone.now() - timedelta(hours=1)
    )
    [row] = ann.read(f"watches/{made['id']}/notifications").json()["results"]
    assert (row["state"], row["error"], row["attempts"]) == ("dead", "410 gone", 5)
    assert notifier.retry_notifications(ids=[row["id"]]) == 1


@pytest.mark.parametrize("name", ["user", "watch_id"])
def test_names_of_arguments_are_no_fields(person, name):
    ann = person("ann", "watches")
    for method, path in (("POST", "watches"), ("PATCH", "watches/1")):
        refused = ann.send(path, {"channel": "none", name: 1}, method=method)
        assert refused.status_code == 400
        assert refused.json()["errors"] == [{"name": name, "reason": "Is not a field here."}]


def test_a_flood_of_unknown_fields_is_answered_shortly(person):
    refused = person("ann", "watches").send("watches", {f"k{at}": 0 for at in range(20_000)})
    assert refused.status_code == 400
    assert len(refused.content) < 50_000
