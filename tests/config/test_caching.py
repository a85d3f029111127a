"""The cache: hits, invalidation over processes, stampedes, and Valkey going away and back."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.http import HttpResponse

from config import caching, generations, valkey
from config.models import ReadModelState
from tests.processes import until

MODELS = ("cards",)
pytestmark = pytest.mark.django_db


class Builder:
    """Counts what it builds."""

    def __init__(self, delay: float = 0) -> None:
        self.calls = 0
        self.delay = delay
        self.may_end = threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        with self._lock:
            self.calls += 1
            body = f'{{"built":{self.calls}}}'.encode()
        time.sleep(self.delay)
        self.may_end.wait(10)
        return body


@pytest.fixture
def build():
    return Builder()


def look(build, key="catalog:x:1:20", ttl=60, models=MODELS) -> caching.Cached:
    return caching.cached(key, name="test", ttl=ttl, models=models, build=build)


def forget_local() -> None:
    """What another process would have: no local copies."""
    caching.process.bodies = caching._LocalStore()


def refresh(generation: int, model: str = "cards") -> None:
    ReadModelState.objects.update_or_create(name=model, defaults={"generation": generation})
    generations.announce(model, generation)


def counted(result: str) -> float:
    return caching.CACHE_REQUESTS.labels("test", result)._value.get()


def test_miss_then_hit_here_then_hit_in_another_process(build):
    before = counted("hit"), counted("miss")
    first, second = look(build), look(build)
    forget_local()
    third = look(build)
    assert [first.state, second.state, third.state] == ["miss", "hit", "hit"]
    assert first.body == second.body == third.body == b'{"built":1}'
    assert first.etag == third.etag
    assert (counted("hit"), counted("miss")) == (before[0] + 2, before[1] + 1)


def test_the_key_in_valkey_is_the_documented_one(build):
    look(build)
    assert valkey.client().exists(cache.make_key("catalog:x:1:20"))
    assert 60 < valkey.client().ttl(cache.make_key("catalog:x:1:20")) <= 300


def test_a_refresh_invalidates_at_once(build):
    assert look(build).body == b'{"built":1}'
    refresh(1)
    assert look(build).body == b'{"built":2}'
    refresh(1, model="something else")
    assert look(build).state == "hit"


def test_a_restored_backup_invalidates_too(build):
    refresh(7)
    look(build)
    ReadModelState.objects.update(generation=3)
    generations.known.fresh_until = 0.1
    assert look(build).state == "miss"


def test_a_rebuild_after_the_ttl(build, monkeypatch):
    look(build, ttl=10)
    now = time.time()
    monkeypatch.setattr(caching.time, "time", lambda: now + 11)
    assert look(build, ttl=10).body == b'{"built":2}'


def test_a_failing_build_is_not_stored(build):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        look(fail)
    assert look(build).state == "miss"


def test_what_an_older_version_stored_is_a_miss(build):
    valkey.client().set(cache.make_key("catalog:x:1:20"), b"\x80\x05pickle\nbody")
    assert look(build).state == "miss"


@pytest.mark.django_db(transaction=True)
def test_threads_build_once():
    build = Builder(delay=0.2)
    with ThreadPoolExecutor(16) as pool:
        found = [one.result() for one in [pool.submit(in_thread, look, build) for _ in range(16)]]
    assert build.calls == 1
    assert sorted({one.state for one in found}) == ["hit", "miss"]


@pytest.mark.django_db(transaction=True)
def test_threads_get_the_last_body_while_one_builds(build):
    look(build)
    refresh(1)
    slow = Builder()
    slow.may_end.clear()
    with ThreadPoolExecutor(9) as pool:
        leader = pool.submit(in_thread, look, slow)
        until(lambda: slow.calls, "the beginning", seconds=5)
        others = [pool.submit(in_thread, look, slow) for _ in range(8)]
        assert {one.result().state for one in others} == {"stale"}
        assert not leader.done()
        slow.may_end.set()
        assert leader.result().state == "miss"
    assert slow.calls == 1


def test_another_process_builds_and_a_stale_body_stands_in(build):
    look(build)
    refresh(1)
    valkey.client().set(cache.make_key("catalog:x:1:20:building"), "other", ex=15)
    assert look(build).state == "stale"
    assert valkey.client().get(cache.make_key("catalog:x:1:20:building")) == b"other"


def test_another_process_builds_and_we_wait_for_it(build):
    valkey.client().set(cache.make_key("catalog:x:1:20:building"), "other", ex=15)

    def finish():
        time.sleep(0.2)
        made = caching._Body("0", time.time(), caching.etag_of(b"theirs"), b"theirs")
        valkey.client().set(cache.make_key("catalog:x:1:20"), made.packed())

    other = threading.Thread(target=finish)
    other.start()
    found = look(build)
    other.join()
    assert (found.state, found.body, build.calls) == ("hit", b"theirs", 0)


def test_another_process_died_while_building(build):
    valkey.client().set(cache.make_key("catalog:x:1:20:building"), "dead", ex=15)
    started = time.monotonic()
    assert look(build).state == "miss"
    assert time.monotonic() - started < caching.WAIT_SECONDS + 0.5


def test_an_announcement_reaches_other_processes():
    assert generations.of(MODELS) == "0"
    wait_for_subscriber()
    generations.known.fresh_until = time.monotonic() + 60  # no polling in this test
    run_python("from config import generations; generations.announce('cards', 5)")
    until(lambda: generations.of(MODELS) == "5", seconds=5)


def test_without_valkey_generations_come_from_postgresql(build, own_valkey):
    own_valkey.stop()
    assert look(build).state == "miss"
    assert look(build).state == "hit"
    ReadModelState.objects.create(name="cards", generation=1)
    until(lambda: look(build).state == "miss", seconds=generations.POLL_SECONDS + 0.5)


def test_a_lost_subscription_comes_back(own_valkey):
    generations.of(MODELS)
    wait_for_subscriber()
    own_valkey.stop()
    own_valkey.start()
    wait_for_subscriber()
    generations.known.fresh_until = time.monotonic() + 60
    valkey.client().publish(valkey.prefixed("generations"), "cards 9")
    until(lambda: generations.of(MODELS) == "9", seconds=5)


def test_noise_on_the_channel_does_not_end_the_subscription():
    generations.of(MODELS)
    wait_for_subscriber()
    generations.known.fresh_until = time.monotonic() + 60
    for noise in [b"", b"cards", b"cards x", b"\xff\xfe 1", b"cards 8"]:
        valkey.client().publish(valkey.prefixed("generations"), noise)
    until(lambda: generations.of(MODELS) == "8", seconds=5)


@pytest.mark.parametrize("how", ["stop", "freeze"])
@pytest.mark.django_db(transaction=True)
def test_valkey_goes_away_under_load_and_comes_back(own_valkey, how):
    build, slowest, states, over = Builder(), [0.0], [], threading.Event()

    def load():
        while not over.is_set():
            started = time.monotonic()
            forget_local()
            states.append(look(build).state)
            cache.get("x")
            slowest[0] = max(slowest[0], time.monotonic() - started)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(in_thread, load) for _ in range(4)]
        time.sleep(0.3)
        if how == "stop":
            own_valkey.stop()
        else:
            os.kill(own_valkey.pid, signal.SIGSTOP)
        time.sleep(2.5)
        answered = len(states)
        if how == "stop":
            own_valkey.start()
        else:
            os.kill(own_valkey.pid, signal.SIGCONT)
        until(lambda: valkey.attempt(lambda: valkey.client().ping(), False), seconds=3)
        over.set()
        for one in running:
            one.result()
    assert answered > 100
    assert slowest[0] < 0.6
    forget_local()
    key = f"after:{how}"
    look(build, key=key)
    assert valkey.client().exists(cache.make_key(key))


def test_django_cache_without_valkey_misses(own_valkey):
    own_valkey.stop()
    before = valkey.CACHE_ERRORS._value.get()
    assert cache.get("a", "fallback") == "fallback"
    assert cache.get_many(["a"]) == {}
    assert cache.set("a", 1) is False
    assert cache.add("a", 1) is False
    assert cache.delete("a") is False
    assert cache.touch("a") is False
    assert ("a" in cache) is False
    assert cache.incr("a") is None
    assert cache.get_or_set("a", 7) == 7
    cache.clear()
    assert valkey.CACHE_ERRORS._value.get() == before + 1  # the breaker kept the rest away


def test_django_cache_with_valkey():
    assert cache.set("a", {"x": 1}) is True
    assert cache.get("a") == {"x": 1}
    assert "a" in cache
    with pytest.raises(ValueError, match="missing"):
        cache.incr("missing")


def test_a_refused_command_does_not_open_the_breaker():
    valkey.client().set("text", "abc")
    assert valkey.attempt(lambda: valkey.client().incr("text"), None) is None
    assert not valkey.breaker.is_open


def test_a_forked_child_starts_afresh():
    generations.of(MODELS)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fresh = generations.known._listener is None and not caching.process.bodies.entries
        os.write(writer, b"1" if fresh else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)


def test_the_subscriber_dies_with_the_process():
    started = time.monotonic()
    run_python(
        "from config import generations; generations.known._listen();"
        "import time; time.sleep(0.3); assert generations.known._listener.is_alive()"
    )
    assert time.monotonic() - started < 15


def test_the_local_store_is_bounded():
    store = caching._LocalStore()
    for number in range(500):
        store.put(number, caching._Body("0", 0, "e", b"x" * 100_000))
    assert store._bytes <= caching.LOCAL_BYTES
    assert sum(entry.size for entry in store.entries.values()) == store._bytes
    assert 499 in store.entries
    assert 0 not in store.entries
    store.put("huge", caching._Body("0", 0, "e", b"x" * caching.LOCAL_BYTES))
    assert "huge" not in store.entries


def test_respond(rf, build, settings):
    found = look(build)
    answer = caching.respond(rf.get("/"), found, 120)
    assert (answer.status_code, answer.content) == (200, found.body)
    assert answer["Cache-Control"] == "public, max-age=120"
    assert (answer["X-Cache"], answer["ETag"]) == ("miss", found.etag)
    for known in [found.etag, f"W/{found.etag}", f'"other", {found.etag}', "*"]:
        answer = caching.respond(rf.get("/", HTTP_IF_NONE_MATCH=known), found, 120)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer["ETag"] == found.etag
    for known in ['"other"', "nonsense", "\xff"]:
        answer = caching.respond(rf.get("/", HTTP_IF_NONE_MATCH=known), found, 120)
        assert answer.status_code == 200
    settings.API_PUBLIC_READS = False
    assert caching.respond(rf.get("/"), found, 1)["Cache-Control"].startswith("private")


class HotView:
    """A view behind `hot` that counts its calls."""

    def __init__(self, status: int = 200) -> None:
        self.build, self.calls, self.status = Builder(), 0, status

        @caching.hot("test-hot", 60, MODELS)
        def view(request):
            self.calls += 1
            if self.status != 200:
                return HttpResponse(b"{}", status=self.status)
            key = f"hot:{request.get_full_path()}"
            return caching.respond(request, look(self.build, key=key), 60)

        self.view = view


def test_hot_skips_the_view(rf):
    hot = HotView()
    first, second = hot.view(rf.get("/a?x=1")), hot.view(rf.get("/a?x=1"))
    assert hot.calls == 1
    assert first.content == second.content
    assert (first["X-Cache"], second["X-Cache"]) == ("miss", "hit")
    for name in ["ETag", "Cache-Control", "Content-Type"]:
        assert first[name] == second[name]
    known = hot.view(rf.get("/a?x=1", HTTP_IF_NONE_MATCH=first["ETag"]))
    assert (known.status_code, hot.calls) == (304, 1)
    hot.view(rf.get("/a?x=2"))
    hot.view(rf.get("/b?x=1"))
    assert hot.calls == 3


def test_hot_follows_a_refresh(rf):
    hot = HotView()
    before = hot.view(rf.get("/a")).content
    refresh(1)
    assert hot.view(rf.get("/a")).content != before


def test_hot_trusts_its_copy_for_two_seconds(rf, monkeypatch):
    hot = HotView()
    hot.view(rf.get("/a"))
    now = time.monotonic()
    monkeypatch.setattr(caching.time, "monotonic", lambda: now + caching.LOCAL_SECONDS + 0.1)
    hot.view(rf.get("/a"))
    assert hot.calls == 2


def test_hot_leaves_the_rest_to_the_view(rf, settings):
    hot = HotView()
    hot.view(rf.get("/a"))
    hot.view(rf.get("/a", HTTP_AUTHORIZATION="Token x"))
    hot.view(rf.head("/a"))
    hot.view(rf.post("/a"))
    settings.API_PUBLIC_READS = False
    hot.view(rf.get("/a"))
    assert hot.calls == 5


@pytest.mark.parametrize("status", [304, 404, 400])
def test_hot_keeps_only_good_answers(rf, status):
    hot = HotView(status)
    hot.view(rf.get("/a"))
    hot.view(rf.get("/a"))
    assert hot.calls == 2


def test_hot_keeps_nothing_from_a_conditional_request(rf):
    hot = HotView()
    etag = hot.view(rf.get("/a"))["ETag"]
    caching.process.hot = caching._LocalStore()
    assert hot.view(rf.get("/a", HTTP_IF_NONE_MATCH=etag)).status_code == 304
    assert hot.view(rf.get("/a")).status_code == 200


def in_thread(action, *args):
    from django.db import connection

    try:
        return action(*args)
    finally:
        connection.close()


def wait_for_subscriber() -> None:
    channel = valkey.prefixed("generations")

    def subscribed() -> bool:
        found = valkey.attempt(lambda: valkey.client().pubsub_numsub(channel), [])
        return bool(found and found[0][1])

    until(subscribed, seconds=5)


def run_python(code: str) -> None:
    program = f"import django; django.setup(); {code}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_while_the_database_is_away_only_one_caller_waits_for_it(build, request):
    look(build)
    request.getfixturevalue("unreachable_database")
    generations.known.fresh_until = time.monotonic()  # asks again
    assert (look(build).state, build.calls) == ("hit", 1)
    assert generations.known.away
    assert generations.known.fresh_until > time.monotonic()
    with pytest.raises(OperationalError, match="a moment ago"):
        look(build, key="catalog:y:1:20")
    assert build.calls == 1
