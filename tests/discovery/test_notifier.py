"""Who is told when: quiet hours, cooldown, cap, what is gone, retries; and notifiers that die."""

import hashlib
import hmac
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from config import runs, tally
from discovery import notifier, watch_queries
from discovery.models import Source, UserNotification, Watch
from tests.discovery import receivers
from tests.discovery.town import Town, states, watch
from tests.processes import exit_code, kill, stopped_by_sigterm, until

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "a-secret"


@pytest.fixture(autouse=True)
def _limits(settings):
    settings.OUTGOING_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.OUTGOING_TIMEOUT_SECONDS = 2
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 0


@pytest.fixture
def ann(transactional_db):
    return User.objects.create_user("ann")


@pytest.fixture
def town(transactional_db):
    return Town()


@pytest.fixture
def hook():
    with receivers.web() as found:
        yield found


@pytest.fixture
def by_hook(ann, hook):
    """`by_hook(**fields)` is a watch that tells the hook."""
    return lambda **fields: watch(ann, channel="webhook", target=hook.url, secret=SECRET, **fields)


@pytest.fixture
def fork(fork):
    """`fork()` is the id of a notifier that runs in a fork, at once."""
    return lambda: fork(lambda: notifier.work(stopped_by_sigterm()))


def deliver() -> int:
    """Tell all that is due; how many steps that took."""
    for step in range(1_000):
        if not notifier.deliver_next():
            return step
    raise AssertionError("it does not end")


def told(hook) -> list[list[str]]:
    """The slots that each message named."""
    return [[drop["slot_id"] for drop in call.data["drops"]] for call in hook.calls]


def due_now(*, state: str = "pending") -> None:
    UserNotification.objects.filter(state=state).update(due_at=timezone.now())


def waits() -> float:
    """Seconds until the first row that waits is due."""
    row = UserNotification.objects.filter(state="pending").earliest("due_at")
    return (row.due_at - timezone.now()).total_seconds()


def counted(state: str) -> float:
    return sum(
        row.value
        for row in tally.all()
        if (row.name, row.labels) == ("discovery_notifications_total", {"state": state})
    )


def test_one_message_tells_all_that_is_open(town, hook, by_hook):
    mine = by_hook(name="Dinner")
    starts = datetime(2199, 2, 20, 18, 30, tzinfo=UTC)
    first = town.open("a", starts_at=starts, party_min=2, party_max=4, payload={"table": 7})
    town.open("b", "c")
    assert deliver() == 1
    [call] = hook.calls
    data = call.data
    assert data["type"] == "drops"
    assert data["watch"] == {"id": mine.pk, "name": "Dinner"}
    assert [drop["slot_id"] for drop in data["drops"]] == ["a", "b", "c"]
    drop = data["drops"][0]
    assert (drop["id"], drop["source"]) == (first.pk, "tables")
    assert drop["starts_at"] == "2199-02-20T18:30:00Z"
    assert (drop["party_min"], drop["party_max"], drop["payload"]) == (2, 4, {"table": 7})
    assert drop["venue"]["name"] == "Bistro Nord"
    rows = UserNotification.objects.all()
    assert {str(row.message_id) for row in rows} == {call.headers["Idempotency-Key"]}
    assert {(row.state, row.attempts, row.lease_owner) for row in rows} == {("sent", 1, "")}
    mine.refresh_from_db()
    assert {row.told_at for row in rows} == {mine.last_told_at}
    assert counted("sent") == 3
    assert counted("pending") == 3
    waited = [row.value for row in tally.all() if row.name == "discovery_delivery_seconds_sum"]
    assert sum(waited) == pytest.approx(
        sum((row.told_at - drop.opened_at).total_seconds() for row, drop in _with_drops(rows))
    )
    assert deliver() == 0


def _with_drops(rows):
    from discovery.models import DropEvent

    return [(row, DropEvent.objects.get(pk=row.drop_id)) for row in rows]


def test_the_signature_verifies(town, hook, by_hook):
    by_hook()
    town.open("a")
    deliver()
    [call] = hook.calls
    at, signed = (part.partition("=")[2] for part in call.headers["Spyglass-Signature"].split(","))
    body = f"{at}.".encode() + call.body
    assert hmac.compare_digest(signed, hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest())


def test_what_people_read(town, ann, settings):
    Source.objects.filter(pk=town.source.pk).update(timezone="Europe/Berlin")
    with receivers.post() as box:
        settings.EMAIL_URL = "smtp://127.0.0.1"
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", box.port
        watch(ann, channel="email", target="ann@example.org", name="Dinner")
        starts = datetime(2199, 2, 20, 18, 30, tzinfo=UTC)
        town.open("a", starts_at=starts, party_min=2, party_max=4)
        town.open("b")
        deliver()
    [mail] = box.mails
    assert mail["Subject"] == "2 openings: Dinner"
    assert mail.get_content().splitlines() == [
        "Bistro Nord, Berlin",
        "Wed 2199-02-20 19:30, for 2 to 4",
        "https://bistro.example/",
        "",
        "Bistro Nord, Berlin",
        "free now",
        "https://bistro.example/",
    ]
    row = UserNotification.objects.first()
    assert str(row.message_id) in mail["Message-ID"]


def test_each_watch_is_told_by_itself(town, hook, by_hook):
    by_hook(name="one")
    by_hook(name="two")
    town.open("a")
    deliver()
    assert sorted(call.data["watch"]["name"] for call in hook.calls) == ["one", "two"]


def test_a_message_names_so_many_at_most(town, hook, by_hook, monkeypatch):
    monkeypatch.setattr(notifier, "DROPS_PER_MESSAGE", 3)
    monkeypatch.setattr(notifier, "POLL_SECONDS", 0)
    by_hook()
    town.open(*(f"s{number}" for number in range(7)))
    until(lambda: not deliver() and len(hook.calls) == 3)
    assert [len(slots) for slots in told(hook)] == [3, 3, 1]
    named = [slot for slots in told(hook) for slot in slots]
    assert sorted(named) == sorted(f"s{number}" for number in range(7))


def test_the_channel_none_is_told_by_the_list_alone(town, ann):
    mine = watch(ann, cooldown_seconds=3_600)
    town.open("a")
    town.open("gone")
    town.close("gone")
    deliver()
    assert states() == ["sent", "gone"]
    rows, _ = watch_queries.notifications(watch_id=mine.pk, limit=10)
    assert [(row["drop"]["slot_id"], row["state"]) for row in rows] == [
        ("gone", "gone"), ("a", "sent"),
    ]  # fmt: skip


def test_what_has_closed_is_not_told(town, hook, by_hook):
    by_hook()
    town.open("a")
    town.open("b")
    town.close("a")
    deliver()
    assert told(hook) == [["b"]]
    rows = UserNotification.objects.order_by("id")
    assert [(row.state, row.already_gone, row.attempts) for row in rows] == [
        ("gone", True, 0),
        ("sent", False, 1),
    ]
    assert counted("gone") == 1


def test_what_closed_and_opened_anew_is_told_once(town, hook, by_hook):
    by_hook()
    town.open("a")
    town.close("a")
    town.at += timedelta(minutes=1)
    town.open("a")
    deliver()
    assert told(hook) == [["a"]]
    assert states() == ["gone", "sent"]


def test_what_left_with_its_bucket_is_gone(town, hook, by_hook):
    by_hook()
    town.open("a")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM discovery_buckets")
    deliver()
    assert (hook.calls, states()) == ([], ["gone"])


def test_the_cooldown_bundles(town, hook, by_hook):
    mine = by_hook(cooldown_seconds=600)
    town.open("a")
    deliver()
    town.open("b")
    town.open("c")
    deliver()
    assert told(hook) == [["a"]]
    assert 590 < waits() <= 600
    town.close("b")
    town.open("d")
    Watch.objects.filter(pk=mine.pk).update(last_told_at=timezone.now() - timedelta(seconds=600))
    due_now()
    deliver()
    assert told(hook) == [["a"], ["c", "d"]]
    assert states() == ["sent", "gone", "sent", "sent"]


def test_so_many_messages_in_an_hour(town, hook, by_hook):
    by_hook(max_per_hour=2)
    for slot in "abc":
        town.open(slot)
        deliver()
    assert told(hook) == [["a"], ["b"]]
    assert 3_500 < waits() <= 3_600
    # The first of them leaves the hour: one more may go.
    first = UserNotification.objects.order_by("id").first()
    UserNotification.objects.filter(pk=first.pk).update(
        told_at=timezone.now() - timedelta(seconds=3_601)
    )
    due_now()
    deliver()
    town.open("d")
    deliver()
    assert told(hook) == [["a"], ["b"], ["c"]]


def test_a_message_of_many_drops_counts_once(town, hook, by_hook):
    by_hook(max_per_hour=2)
    town.open("a", "b", "c", "d")
    deliver()
    town.open("e")
    deliver()
    assert told(hook) == [["a", "b", "c", "d"], ["e"]]


def test_quiet_hours_postpone(town, hook, by_hook):
    zone = ZoneInfo("Asia/Kathmandu")
    now = timezone.now().astimezone(zone)
    begins, ends = (now - timedelta(hours=1)).time(), (now + timedelta(hours=2)).time()
    mine = by_hook(
        timezone=zone.key,
        quiet_from=begins.replace(second=0, microsecond=0),
        quiet_to=ends.replace(second=0, microsecond=0),
    )
    town.open("a")
    deliver()
    assert hook.calls == []
    assert 2 * 3_600 - 61 < waits() <= 2 * 3_600
    assert UserNotification.objects.get().attempts == 0
    Watch.objects.filter(pk=mine.pk).update(quiet_from=None, quiet_to=None)
    due_now()
    deliver()
    assert told(hook) == [["a"]]


def test_a_failure_is_tried_again_under_the_same_name(town, hook, by_hook):
    by_hook()
    town.open("a", "b")
    hook.answer(503, b"busy")
    deliver()
    rows = UserNotification.objects.all()
    assert {(row.state, row.attempts, row.error) for row in rows} == {("pending", 1, "503 busy")}
    assert 30 * 0.8 - 1 < waits() <= 30 * 1.2
    town.open("c")  # what is new is told at once, and by a message of its own
    hook.answer(200)
    deliver()
    due_now()
    deliver()
    assert told(hook) == [["a", "b"], ["c"], ["a", "b"]]
    names = [call.headers["Idempotency-Key"] for call in hook.calls]
    assert names[0] == names[2] != names[1]
    assert {(row.state, row.error) for row in rows.all()} == {("sent", "")}
    assert counted("failed") == 2


def test_what_closed_between_attempts_is_left_out(town, hook, by_hook):
    by_hook()
    town.open("a", "b")
    hook.answer(503)
    deliver()
    town.close("a")
    hook.answer(200)
    due_now()
    deliver()
    assert told(hook) == [["a", "b"], ["b"]]
    assert states() == ["gone", "sent"]


def test_after_five_attempts_it_is_given_up(town, hook, by_hook):
    by_hook()
    town.open("a")
    hook.answer(500, b"broken")
    pauses = []
    for _ in range(5):
        due_now()
        deliver()
        if states() == ["pending"]:
            pauses.append(waits())
    row = UserNotification.objects.get()
    assert (row.state, row.attempts, row.error) == ("dead", 5, "500 broken")
    for pause, planned in zip(pauses, (30, 120, 600, 3_600), strict=True):
        assert planned * 0.8 - 2 < pause <= planned * 1.2
    assert len({call.headers["Idempotency-Key"] for call in hook.calls}) == 1
    assert (counted("failed"), counted("dead")) == (4, 1)
    deliver()
    assert len(hook.calls) == 5


@pytest.mark.parametrize("status", [302, 400, 404, 410])
def test_what_will_never_arrive_is_given_up_at_once(town, hook, by_hook, status):
    by_hook()
    town.open("a")
    hook.answer(status)
    deliver()
    row = UserNotification.objects.get()
    assert (row.state, row.attempts) == ("dead", 1)
    assert str(status) in row.error


def test_a_target_that_became_private_is_given_up(town, hook, by_hook, settings):
    by_hook()
    town.open("a")
    settings.OUTGOING_ALLOWED_HOSTS = []
    deliver()
    row = UserNotification.objects.get()
    assert (row.state, hook.calls) == ("dead", [])
    assert "private" in row.error


def test_who_asks_for_a_pause_gets_it(town, hook, by_hook):
    by_hook()
    town.open("a")
    hook.answer(429, Retry_After="900")
    deliver()
    assert 890 < waits() <= 900


def test_staff_try_again_what_was_given_up(town, hook, by_hook):
    by_hook()
    town.open("a", "b")
    hook.answer(404)
    deliver()
    town.close("b")
    hook.answer(200)
    ids = list(UserNotification.objects.values_list("id", flat=True))
    assert notifier.retry_notifications(ids=[*ids, 999_999]) == 2
    assert notifier.retry_notifications(ids=ids) == 0  # they wait already
    deliver()
    assert states() == ["sent", "gone"]
    assert told(hook)[-1] == ["a"]
    assert len({call.headers["Idempotency-Key"] for call in hook.calls}) == 1


def test_what_lost_its_watch_is_neither_told_nor_tried_again(town, hook, by_hook):
    mine = by_hook()
    town.open("a")
    hook.answer(404)
    deliver()
    town.open("b")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM discovery_watches WHERE id = %s", [mine.pk])
    dead = UserNotification.objects.get(state="dead")
    assert notifier.retry_notifications(ids=[dead.pk]) == 0
    deliver()
    assert states() == ["dead"]
    assert len(hook.calls) == 1


@pytest.mark.parametrize("who", ["watch", "user"])
def test_who_is_not_active_is_told_nothing(town, hook, by_hook, ann, who):
    mine = by_hook()
    town.open("a")
    if who == "watch":
        Watch.objects.filter(pk=mine.pk).update(is_active=False)
    else:
        User.objects.filter(pk=ann.pk).update(is_active=False)
    deliver()
    assert (hook.calls, states()) == ([], [])


def test_a_full_queue_of_one_watch_keeps_no_other_waiting(town, hook, by_hook, monkeypatch):
    monkeypatch.setattr(notifier, "LOOKED_AT", 5)
    monkeypatch.setattr(notifier, "DROPS_PER_MESSAGE", 2)
    by_hook(name="busy", source=town.source)
    town.open(*(f"s{number}" for number in range(20)))
    by_hook(name="other", party_size=3)
    town.open("z")
    hook.held.clear()
    thread = threading.Thread(target=lambda: (notifier.deliver_next(), connection.close()))
    thread.start()
    until(lambda: hook.calls, what="the first message")
    second = threading.Thread(target=lambda: (deliver(), connection.close()))
    second.start()
    until(lambda: len(hook.calls) == 2, what="the message of the other watch")
    hook.held.set()
    thread.join(20)
    second.join(20)
    assert [call.data["watch"]["name"] for call in hook.calls][:2] == ["busy", "other"]


def test_many_notifiers_at_once_send_each_once(town, hook, by_hook):
    for number in range(12):
        by_hook(name=str(number))
    slots = [f"s{number}" for number in range(10)]
    town.open(*slots)
    start = threading.Barrier(6)

    def run():
        start.wait(10)
        try:
            deliver()
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(call.data["watch"]["name"] for call in hook.calls) == sorted(
        str(number) for number in range(12)
    )
    assert all(sorted(named) == sorted(slots) for named in told(hook))
    assert set(states()) == {"sent"}
    assert set(UserNotification.objects.values_list("attempts", flat=True)) == {1}


def test_one_message_of_a_watch_is_under_way_at_a_time(town, hook, by_hook):
    by_hook(cooldown_seconds=600)
    town.open("a")
    hook.held.clear()
    thread = threading.Thread(target=lambda: (notifier.deliver_next(), connection.close()))
    thread.start()
    until(lambda: hook.calls)
    town.open("b")
    deliver()  # postponed for a moment: whether the cooldown holds is not known yet
    assert waits() <= notifier.POLL_SECONDS
    hook.held.set()
    thread.join(20)
    due_now()
    deliver()
    assert told(hook) == [["a"]]
    assert waits() > 500


def test_killed_while_it_sends_and_another_finishes_it(town, hook, by_hook, fork):
    by_hook()
    town.open("a")
    hook.held.clear()
    first = fork()
    until(lambda: hook.calls, what="the message")
    kill(first)
    hook.held.set()
    row = UserNotification.objects.get()
    assert (row.state, row.attempts) == ("sending", 1)
    assert notifier.rescue() == 0  # its lease holds
    assert deliver() == 0
    UserNotification.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    town.open("b")  # does not slip into the message that may have arrived
    second = fork()
    until(lambda: states() == ["sent", "sent"], what="the rest")
    assert sorted(told(hook)) == [["a"], ["a"], ["b"]]
    names = {tuple(call.data["drops"][0]["slot_id"]): set() for call in hook.calls}
    for call in hook.calls:
        names[tuple(call.data["drops"][0]["slot_id"])].add(call.headers["Idempotency-Key"])
    assert [len(found) for found in names.values()] == [1, 1]
    assert UserNotification.objects.order_by("id").first().attempts == 2
    os.kill(second, signal.SIGTERM)
    assert exit_code(second) == 0


def test_a_message_that_kills_its_notifiers_is_given_up(town, by_hook):
    by_hook()
    town.open("a")
    for attempt in range(1, 6):
        UserNotification.objects.update(
            state="sending", attempts=attempt, lease_expires_at=timezone.now()
        )
        assert notifier.rescue() == 1
    row = UserNotification.objects.get()
    assert row.state == "dead"
    assert "ended while" in row.error


def test_who_comes_too_late_writes_nothing(town, hook, by_hook):
    """Its lease ended while it sent: what another notifier made of it stands."""
    by_hook()
    town.open("a")
    hook.held.clear()
    thread = threading.Thread(target=lambda: (notifier.deliver_next(), connection.close()))
    thread.start()
    until(lambda: hook.calls)
    UserNotification.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert notifier.rescue() == 1
    hook.held.set()
    thread.join(20)
    assert states() == ["pending"]
    assert counted("sent") == 0
    deliver()
    assert states() == ["sent"]


def test_a_fault_of_ours_is_a_failed_attempt(town, by_hook, monkeypatch):
    by_hook()
    town.open("a")

    def broken(*_args):
        raise KeyError("payload")

    monkeypatch.setattr(notifier.messages, "of_drops", broken)
    deliver()
    row = UserNotification.objects.get()
    assert (row.state, row.attempts) == ("pending", 1)
    assert "KeyError" in row.error


def test_cut_connections_are_made_again(town, hook, by_hook, fork):
    by_hook()
    pid = fork()
    town.open("a")
    until(lambda: states() == ["sent"], what="the first message")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 2
    town.open("b")
    until(lambda: states() == ["sent", "sent"], seconds=20, what="the second message")
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    assert told(hook) == [["a"], ["b"]]


def test_the_command_beats_sends_and_ends(spawn, town, hook, by_hook):
    by_hook()
    town.open("a")
    assert not notifier.is_alive()
    process = spawn(
        ["discovery_notifier"], stdout=None, stderr=None, OUTGOING_ALLOWED_HOSTS="127.0.0.1"
    )
    until(lambda: states() == ["sent"], what="the message")
    until(notifier.is_alive, what="a sign of life")
    assert notifier.NOTIFIER in runs.heartbeat_ages()
    process.terminate()
    assert process.wait(timeout=20) == 0


def test_a_slow_receiver_keeps_no_other_waiting(town, hook, by_hook, fork, settings):
    settings.OUTGOING_TIMEOUT_SECONDS = 20
    settings.DISCOVERY_SENDERS = 2
    with receivers.web() as slow:
        slow.held.clear()
        mine = by_hook(name="slow")
        Watch.objects.filter(pk=mine.pk).update(target=slow.url)
        by_hook(name="quick")
        town.open("a")
        fork()
        until(lambda: slow.calls, what="the slow one")
        until(lambda: hook.calls, what="the quick one")
        time.sleep(0.2)
        assert sorted(states()) == ["sending", "sent"]
        slow.held.set()
        until(lambda: states() == ["sent", "sent"])


def test_what_comes_back_inside_the_cooldown_is_told_after_all(town, hook, by_hook, settings):
    settings.DISCOVERY_CLOSE_AFTER_MISSES = 1
    settings.DISCOVERY_COOLDOWN_SECONDS = 3_600
    by_hook()
    town.open("a")
    town.close("a")
    deliver()
    assert (hook.calls, UserNotification.objects.get().state) == ([], "gone")
    town.open("a")
    assert deliver() == 1
    assert [drop["slot_id"] for drop in hook.calls[0].data["drops"]] == ["a"]
    assert UserNotification.objects.get().state == "sent"
