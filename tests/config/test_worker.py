"""The supervisor: whatever is killed, schedules go on; told to stop, nothing is left."""

import os
import signal
import time
import urllib.request
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Success

from bench.harness import free_port
from config.models import JobRun
from config.worker import Supervisor
from tests.processes import children, processes, until

pytestmark = pytest.mark.django_db(transaction=True)

STALE_SECONDS = 4


class Worker:
    """A `manage.py worker` and the processes of its cluster."""

    def __init__(self, spawn, **options):
        self.process = spawn(
            ["worker", "--tick", "0.3", *options.pop("args", [])],
            WORKER_HEARTBEAT_STALE_SECONDS=str(STALE_SECONDS),
            WORKER_PROCESSES="2",
            MATCHING_WORKERS="0",  # so that its first child is the cluster
            DISCOVERY_POLLERS="0",
            DISCOVERY_NOTIFIERS="0",
            COUNTERS_WORKERS="0",
            FEEDS_WORKERS="0",
            stdout=None,
            stderr=None,
            **options,
        )

    @property
    def leader(self):
        return next(iter(children(self.process.pid)), None)

    @property
    def sentinel(self):
        return next(iter(children(self.leader)), None) if self.leader else None

    @property
    def members(self):
        """Workers, monitor and pusher, in the order in which they were started."""
        return children(self.sentinel) if self.sentinel else []

    def group(self, leader):
        return [pid for pid, _, group in processes() if group == leader]


def stored_canaries():
    return Success.objects.filter(group="job:canary").count()


def works_end_to_end(what):
    """A schedule that is due becomes a task, a run, and a stored result."""
    count = stored_canaries()
    name = "partitions_ahead"
    scheduled = JobRun.objects.filter(job=name, trigger="schedule", state="succeeded")
    ran = scheduled.count()
    Schedule.objects.filter(name=f"job:{name}").update(next_run=timezone.now() - timedelta(hours=1))
    until(lambda: scheduled.count() > ran, what=f"a scheduled run {what}")
    until(lambda: stored_canaries() > count, what=f"a stored result {what}")


def started(spawn, **options):
    worker = Worker(spawn, **options)
    until(stored_canaries, what="the first canary")
    until(lambda: len(worker.members) == 4, what="the cluster")
    return worker


def test_schedules_go_on_whatever_is_killed(spawn):
    worker = started(spawn)
    # Two workers, of which one holds the queue's lock for reading: the new ones wait for ever.
    for pid in worker.members[:2]:
        os.kill(pid, signal.SIGKILL)
    works_end_to_end("after both workers were killed")

    until(lambda: len(worker.members) == 4, what="the cluster")
    os.kill(worker.members[2], signal.SIGKILL)
    works_end_to_end("after the monitor was killed")

    leader = until(lambda: worker.leader)
    os.kill(until(lambda: worker.sentinel), signal.SIGKILL)
    until(lambda: worker.leader not in {None, leader}, what="a new cluster")
    assert not worker.group(leader), "orphans of the old cluster"
    works_end_to_end("after the sentinel was killed")

    leader = until(lambda: worker.leader)
    os.killpg(leader, signal.SIGKILL)
    until(lambda: worker.leader not in {None, leader}, what="a new cluster")
    works_end_to_end("after the whole cluster was killed")


def test_a_bad_schedule_stops_nothing_and_sigterm_stops_everything(spawn):
    """Nor does a payload that cannot be read, nor a schedule of before or after a clock's jump."""
    past = timezone.now() - timedelta(hours=1)
    OrmQ.objects.create(key="spyglass", payload="poison", lock=past)
    rows = [
        Schedule(name="bad", func="math.hypot", schedule_type="C", cron="x", next_run=past),
        Schedule(name="missing", func="no.where", schedule_type="D", next_run=past),
        Schedule(name="good", func="math.hypot", args="3, 4", schedule_type="D", next_run=past),
        Schedule(
            name="old",
            func="math.hypot",
            args="5, 12",
            schedule_type="D",
            next_run=past - timedelta(days=300),
        ),
    ]
    Schedule.objects.bulk_create(rows)
    port = free_port()
    worker = started(spawn, args=["--metrics-port", str(port)])
    for name in ("good", "old"):
        until(lambda name=name: Success.objects.filter(group=name).exists(), what=f"the {name} one")
    until(lambda: not OrmQ.objects.filter(payload="poison").exists(), what="the end of the poison")
    off = Schedule.objects.filter(repeats=0).values_list("name", flat=True)
    assert set(off) == {"bad", "missing"}

    answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
    assert b"# HELP" in answer
    second = spawn(["worker", "--metrics-port", str(port)])
    _, err = second.communicate(timeout=40)
    assert second.returncode == 1
    assert f"cannot serve metrics on 127.0.0.1:{port}" in err

    leader = worker.leader
    worker.process.terminate()
    assert worker.process.wait(timeout=40) == 0
    assert worker.group(leader) == []


def test_workers_side_by_side(spawn):
    one, other = Worker(spawn), Worker(spawn)
    for worker in (one, other):
        until(lambda worker=worker: len(worker.members) == 4, what="both clusters")
    assert Schedule.objects.filter(name="job:canary").count() == 1

    leader = one.leader
    one.process.kill()
    until(lambda: not one.group(leader), what="the end of a cluster without supervisor")
    works_end_to_end("in the other one")

    leader = other.leader
    other.process.send_signal(signal.SIGINT)
    assert other.process.wait(timeout=40) == 0
    assert other.group(leader) == []


def test_a_wedged_cluster_is_killed_when_told_to_stop(spawn):
    worker = Worker(spawn, args=["--grace", "0.5"])
    until(lambda: len(worker.members) == 4, what="the cluster")
    leader = worker.leader
    for pid in worker.group(leader):
        os.kill(pid, signal.SIGSTOP)
    worker.process.terminate()
    assert worker.process.wait(timeout=40) == 0
    assert worker.group(leader) == []


def supervisor(alive_for):
    """A supervisor of nothing, whose cluster started so many seconds ago."""
    one = Supervisor(stale=timedelta(seconds=180))
    one._since = time.monotonic() - alive_for
    return one


@pytest.mark.parametrize(
    ("alive_for", "ages", "finding"),
    [
        (200, {"worker": 10, "canary": 10, "worker results": 10}, ""),
        (200, {"worker": 181, "canary": 181, "worker results": 181}, "no job ran"),
        (200, {}, "no job ran"),
        (170, {}, ""),  # it has only just started
        (900, {"worker": 10, "canary": 800, "worker results": 800}, ""),  # busy with long jobs
        (900, {"worker": 10, "canary": 10, "worker results": 200}, "not stored"),
        (200, {"worker": 10, "canary": 10}, "not stored"),
    ],
)
def test_what_counts_as_silence(alive_for, ages, finding):
    found = supervisor(alive_for)._silence(ages)
    assert finding in found
    assert bool(finding) == bool(found)


def test_a_cluster_that_never_gets_going_is_given_longer_each_time():
    one = supervisor(alive_for=200)
    one._silences = 1
    assert one._silence({}) == ""
    assert supervisor(alive_for=361)._silence({})
    one._silence({"worker": 1})
    assert one._silences == 0


def test_a_cluster_that_waits_to_be_started_again_is_not_restarted_for_silence():
    one = supervisor(alive_for=181)
    one._cluster._due = time.monotonic() + 60
    try:
        one._look()
        assert one._cluster.pid is None
    finally:
        one._cluster.kill()


def test_without_a_database_the_cluster_is_left_alone(unreachable_database):
    one = supervisor(alive_for=10_000)
    assert one._tend() == ""
    assert time.monotonic() - one._since < 60
