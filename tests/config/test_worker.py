"""The supervisor: whatever is killed, schedules go on; told to stop, nothing is left."""

import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Success

from config import jobs, runs
from config.models import Heartbeat, JobRun

pytestmark = pytest.mark.django_db(transaction=True)

STALE_SECONDS = 4


def until(condition, seconds=25, what="it"):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.1)
    return value


def processes():
    """(pid, parent, process group) of every live process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = path.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                found.append((int(path.parent.name), int(parent), int(group)))
    return found


def children(pid):
    return sorted(child for child, parent, _ in processes() if parent == pid)


class Worker:
    """A `manage.py worker` and the processes of its cluster."""

    def __init__(self, spawn, **options):
        self.process = spawn(
            ["worker", "--tick", "0.3", *options.pop("args", [])],
            WORKER_HEARTBEAT_STALE_SECONDS=str(STALE_SECONDS),
            WORKER_PROCESSES="2",
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
    ran = JobRun.objects.filter(job="canary", trigger="schedule", state="succeeded").count()
    # Another process may be taking the row for its run at this moment: ask until it was taken.
    Schedule.objects.filter(name="job:canary").update(next_run=timezone.now() - timedelta(hours=1))
    schedule = JobRun.objects.filter(job="canary", trigger="schedule", state="succeeded")
    until(lambda: schedule.count() > ran, what=f"a scheduled run {what}")
    until(lambda: stored_canaries() > count, what=f"a stored result {what}")


@pytest.fixture
def worker(spawn):
    started = Worker(spawn)
    until(stored_canaries, what="the first canary")
    until(lambda: len(started.members) == 4)
    return started


def test_schedules_go_on_whatever_is_killed(worker):
    # Two workers, of which one holds the queue's lock for reading: the new ones wait for ever.
    for pid in worker.members[:2]:
        os.kill(pid, signal.SIGKILL)
    works_end_to_end("after both workers were killed")

    leader = worker.leader
    os.kill(until(lambda: worker.sentinel), signal.SIGKILL)
    until(lambda: worker.leader not in {None, leader}, what="a new cluster")
    assert not worker.group(leader), "orphans of the old cluster"
    works_end_to_end("after the sentinel was killed")

    leader = worker.leader
    os.killpg(leader, signal.SIGKILL)
    until(lambda: worker.leader not in {None, leader}, what="a new cluster")
    works_end_to_end("after the whole cluster was killed")


def test_results_go_on_when_the_monitor_was_killed(worker):
    leader = worker.leader
    os.kill(worker.members[2], signal.SIGKILL)
    works_end_to_end("after the monitor was killed")
    assert worker.leader is not None
    assert leader != worker.leader or Heartbeat.objects.filter(name=jobs.RESULTS).exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything(worker, number):
    leader = worker.leader
    os.kill(worker.process.pid, number)
    assert worker.process.wait(timeout=20) == 0
    assert worker.group(leader) == []


def test_a_wedged_cluster_is_killed_when_told_to_stop(spawn):
    worker = Worker(spawn, args=["--grace", "0.5"])
    until(lambda: len(worker.members) == 4)
    leader = worker.leader
    for pid in worker.group(leader):
        os.kill(pid, signal.SIGSTOP)
    worker.process.terminate()
    assert worker.process.wait(timeout=20) == 0
    assert worker.group(leader) == []


def test_the_cluster_ends_when_the_supervisor_is_killed(worker):
    leader = worker.leader
    worker.process.kill()
    until(lambda: not worker.group(leader), what="the end of the cluster")


def test_a_broken_row_and_a_missing_function_stop_nothing(spawn):
    past = timezone.now() - timedelta(hours=1)
    rows = [
        Schedule(name="bad", func="math.hypot", schedule_type="C", cron="x", next_run=past),
        Schedule(name="missing", func="no.where", schedule_type="D", next_run=past),
        Schedule(name="good", func="math.hypot", args="3, 4", schedule_type="D", next_run=past),
    ]
    Schedule.objects.bulk_create(rows)
    Worker(spawn)
    until(lambda: Success.objects.filter(group="good").exists(), what="the good one")
    until(stored_canaries, what="the canary")
    assert set(Schedule.objects.filter(repeats=0).values_list("name", flat=True)) == {
        "bad",
        "missing",
    }


def test_a_busy_worker_is_not_taken_for_a_dead_one(spawn, monkeypatch):
    """Heartbeats of running jobs count: both workers sleep for longer than the limit."""
    worker = Worker(spawn)
    until(stored_canaries, what="the first canary")
    leader = worker.leader
    deadline = time.monotonic() + 2 * STALE_SECONDS
    while time.monotonic() < deadline:  # what the heart of a queued run does every 15 s
        runs.beat(runs.WORKER)
        time.sleep(0.5)
    assert worker.leader == leader


def test_several_workers_share_the_work(spawn):
    both = [Worker(spawn), Worker(spawn)]
    until(stored_canaries, what="a canary")
    for worker in both:
        until(lambda worker=worker: len(worker.members) == 4)
    assert Schedule.objects.filter(name="job:canary").count() == 1
    works_end_to_end("with two workers")
    until(lambda: not OrmQ.objects.filter(lock__lte=timezone.now()).exists())


def test_metrics_are_served_on_loopback(spawn):
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Worker(spawn, args=["--metrics-port", str(port)])

    def answer():
        with suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).read()

    assert b"# HELP" in until(answer)

    taken = spawn(["worker", "--metrics-port", str(port)])
    _, err = taken.communicate(timeout=20)
    assert taken.returncode == 1
    assert f"cannot serve metrics on 127.0.0.1:{port}" in err
