"""The queue while processes are killed, frozen and poisoned: every job ends once."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from config import tally
from matching import actions, embedding, engine, queue, worker
from matching.models import Match, MatchJob
from tests.processes import children, exit_code, kill, stopped_by_sigterm, until

pytestmark = pytest.mark.django_db(transaction=True)

PERSON, CHANGE, BACKGROUND = MatchJob.Priority
OVERDUE = 70
THINGS = ["red leather phone case", "blue school bag", "grey cat with a collar", "gold ring"]


@pytest.fixture(autouse=True)
def _room(settings, database_url):
    settings.MATCHING_JOBS_PER_OWNER = 1_000
    settings.MATCHING_LISTEN_URL = database_url
    settings.MATCHING_POLL_SECONDS = 0.2


@pytest.fixture
def owners(transactional_db):
    return [User.objects.create_user(name) for name in ("seeker", "finder")]


@pytest.fixture
def fork(fork):
    """`fork(before=…)` is the id of a match worker that runs in a fork, at once."""
    embedding.embed_query("loaded once, for all forks")

    def start(before=lambda: None):
        def work():
            before()
            worker.work(stopped_by_sigterm(), overdue=lambda: os._exit(OVERDUE))

        return fork(work)

    return start


def ended(pid):
    """The exit status of a worker that has ended by itself; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return status if found else None


def post(owners, count):
    """So many items of both sides, each with a job that waits."""
    for n in range(count):
        actions.create_item(
            owner=owners[n % 2],
            kind=("lost", "found")[n % 2],
            title=f"{THINGS[n // 2 % len(THINGS)]} {n // 2 % 7}",
            latitude=55.9 + n % 5 / 1000,
            longitude=-3.2,
        )


def ask(owner, title="gold ring", priority=PERSON):
    query = {"kind": "lost", "title": title}
    return queue.submit_match(owner=owner, query=query, priority=priority)


def still_open():
    return MatchJob.objects.filter(state__in=["queued", "running"]).count()


def state_of(job):
    return MatchJob.objects.get(pk=job.pk).state


def attempts(outcome):
    return sum(
        row.value
        for row in tally.all()
        if (row.name, row.labels) == ("matching_attempts_total", {"outcome": outcome})
    )


def pairs_are_unique():
    found = Match.objects.values_list("seeker_id", "offer_id")
    return len(found) == len(set(found))


def test_killed_at_random_points_over_200_jobs_each_ends_once(fork, owners):
    post(owners, 200)
    chance = random.Random(7)
    at_work = [fork(), fork()]
    done = MatchJob.objects.filter(state="done")
    again = MatchJob.objects.filter(state__in=["queued", "running"], attempts__gte=2)
    for goal in range(5, 200, 5):
        until(lambda goal=goal: done.count() >= goal, what=f"the end of {goal} jobs")
        # Whoever was killed twice may end: a third time it would fail, which is another test.
        until(lambda: not again.exists(), what="the end of another attempt")
        time.sleep(chance.uniform(0, 0.1))
        kill(at_work.pop(chance.randrange(2)))
        at_work.append(fork())
    until(lambda: not still_open(), what="the end of all jobs")
    jobs = MatchJob.objects.values_list("state", "attempts", "lease_owner", "error")
    assert {(state, lease, error) for state, _, lease, error in jobs} == {("done", "", "")}
    assert len(jobs) == attempts("done") == 200  # counted with what was stored
    died = attempts("died")
    assert sum(tried for _, tried, _, _ in jobs) == 200 + died
    assert died >= 10, "too few kills met a job: nothing was shown"
    assert Match.objects.exists()
    assert pairs_are_unique()


def test_a_job_that_kills_its_workers_fails_and_the_others_are_done(fork, owners):
    poison = ask(owners[0], "poison")
    others = [ask(owners[0]) for _ in range(3)]
    look = engine.match

    def poisoned(subject, **options):
        if subject.title == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return look(subject, **options)

    def take_poison():
        engine.match = poisoned

    for _ in range(3):
        pid = fork(take_poison)
        assert exit_code(pid) == -signal.SIGKILL
    last = fork(take_poison)
    until(lambda: not still_open(), what="the end of all jobs")
    assert ended(last) is None
    poison.refresh_from_db()
    assert (poison.state, poison.attempts) == ("failed", 3)
    assert "died" in poison.error
    assert {state_of(job) for job in others} == {"done"}


def test_a_job_that_hangs_is_given_up_with_its_process(fork, owners, settings):
    settings.MATCHING_JOB_TIMEOUT_SECONDS = 0.4
    job = ask(owners[0])

    def hang():
        engine.match = lambda subject, **options: time.sleep(1_000)

    for attempt in (1, 2, 3):
        pid = fork(hang)
        assert exit_code(pid) == OVERDUE
        job.refresh_from_db()
        assert job.attempts == attempt
        assert job.error == "It took longer than 0.4 s."
    assert job.state == "failed"
    assert attempts("overdue") == 3


def test_a_frozen_worker_that_wakes_up_stores_nothing(fork, owners):
    post(owners, 2)
    look = engine.match

    def freeze_once():
        def freezing(subject, **options):
            engine.match = look
            outcome = look(subject, **options)
            os.kill(os.getpid(), signal.SIGSTOP)
            return outcome

        engine.match = freezing

    pid = fork(freeze_once)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    frozen = MatchJob.objects.get(state="running")
    assert queue.rescue() == 0  # it is alive, as far as anybody can see
    MatchJob.objects.filter(pk=frozen.pk).update(lease_expires_at=frozen.submitted_at)
    assert worker.drain(lambda done: True) == 2
    rows = list(Match.objects.values())
    os.kill(pid, signal.SIGCONT)
    later = ask(owners[0])
    until(lambda: state_of(later) == "done", what="the next job")
    assert ended(pid) is None
    assert attempts("done") == 3
    assert attempts("expired") == 1
    assert list(Match.objects.values()) == rows


def test_who_froze_while_it_stored_keeps_nobody_waiting(owners):
    """A row that is locked by a transaction that hangs is passed over by the rescue."""
    frozen, other = ask(owners[0]), ask(owners[0])
    claim = queue.claim()
    locked, go_on = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            queue.hold(claim)
            locked.set()
            go_on.wait(20)
        connection.close()

    MatchJob.objects.filter(pk=frozen.pk).update(lease_expires_at=frozen.submitted_at)
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert locked.wait(10)
        started = time.monotonic()
        assert queue.rescue() == 0
        assert worker.drain(lambda done: True) == 1
        assert time.monotonic() - started < 5
        assert state_of(other) == "done"
    finally:
        go_on.set()
        thread.join()
    assert queue.rescue() == 1


def listening():
    """How many sessions of this database wait for a notification."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
        )
        return cursor.fetchone()[0]


def test_two_workers_and_one_is_killed(spawn, owners):
    """The real command: what the dead one held is done by the other within seconds."""
    workers = [spawn(["match_worker"], stdout=None, stderr=None) for _ in range(2)]
    first = ask(owners[0])
    until(lambda: state_of(first) == "done", what="the first job")
    until(lambda: listening() == 2, what="both")
    post(owners, 80)
    mine = MatchJob.objects.filter(state="running", pid=workers[0].pid)
    until(mine.exists, what="a job of the first worker")
    workers[0].kill()
    workers[0].wait()
    killed_at = time.monotonic()
    until(lambda: not MatchJob.objects.filter(pid=workers[0].pid, state="running").exists())
    assert time.monotonic() - killed_at < 10
    until(lambda: not still_open(), what="the end of all jobs")
    assert set(MatchJob.objects.values_list("state", flat=True)) == {"done"}
    assert attempts("done") == 81
    assert pairs_are_unique()

    workers[1].terminate()
    assert workers[1].wait(timeout=20) == 0


def test_a_person_waits_for_the_job_at_work_at_most(fork, owners):
    for _ in range(60):
        ask(owners[1], priority=BACKGROUND)
    fork()
    until(lambda: attempts("done") >= 3, what="the start of the background")
    person = ask(owners[0])
    asked = timezone.now()  # later than submitted_at, the beginning of what has committed by now
    change = ask(owners[0], priority=CHANGE)
    until(lambda: not still_open(), what="the end of all jobs")
    person.refresh_from_db()
    change.refresh_from_db()
    started = MatchJob.objects.filter(started_at__gt=asked)
    before = started.filter(started_at__lt=person.started_at).count()
    assert before <= 1
    since = max(person.started_at, change.submitted_at)
    between = started.filter(started_at__gt=since, started_at__lt=change.started_at)
    assert between.count() <= 1
    assert started.filter(priority=BACKGROUND, started_at__gt=change.started_at).exists()


@pytest.mark.parametrize("listens", [True, False])
def test_a_job_is_begun_when_it_is_submitted(fork, owners, settings, listens):
    """At once where the worker may listen; at the next look where it may not."""
    settings.MATCHING_POLL_SECONDS = 30 if listens else 0.3
    settings.MATCHING_LISTEN_URL = settings.MATCHING_LISTEN_URL if listens else ""
    first = ask(owners[0])
    fork()
    until(lambda: state_of(first) == "done", what="the first job")
    for _ in range(3):
        time.sleep(0.3)  # it waits
        job = ask(owners[0])
        until(lambda job=job: state_of(job) == "done", seconds=10, what="the job")


def test_cut_connections_are_made_again(fork, owners, settings):
    settings.MATCHING_POLL_SECONDS = 0.5
    first = ask(owners[0])
    pid = fork()
    until(lambda: state_of(first) == "done", what="the first job")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone()[0] >= 2  # one that works, one that listens
    job = ask(owners[0])
    until(lambda: state_of(job) == "done", seconds=15, what="the job")
    assert ended(pid) is None


def test_the_supervisor_restarts_what_died_and_ends_what_it_started(spawn, owners):
    supervisor = spawn(
        ["worker", "--tick", "0.5"],
        stdout=None,
        stderr=None,
        MATCHING_WORKERS="1",
        DISCOVERY_POLLERS="0",
        DISCOVERY_NOTIFIERS="0",
        COUNTERS_WORKERS="0",
        FEEDS_WORKERS="0",
        WORKER_PROCESSES="1",
    )

    def match_worker():
        for pid in children(supervisor.pid):
            with suppress(OSError):
                if "match_worker" in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return None

    job = ask(owners[0])
    until(lambda: state_of(job) == "done", what="the first job")
    first = until(match_worker)
    os.kill(first, signal.SIGKILL)
    until(lambda: match_worker() not in (None, first), what="another match worker")
    job = ask(owners[0])
    until(lambda: state_of(job) == "done", what="a job of the second one")
    second = match_worker()
    supervisor.terminate()
    assert supervisor.wait(timeout=40) == 0
    assert not Path(f"/proc/{second}").exists()
