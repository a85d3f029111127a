"""Declaration, leases, the run log, and what a killed or hung run leaves behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from django_q.scheduler import scheduler

from config import jobs, leases, runs, schedules
from config.models import Heartbeat, JobRun, Lease, Tally
from tests.processes import until

PROJECT = Path(__file__).resolve().parents[2]
State = JobRun.State
LONG_AGO = timezone.now() - timedelta(minutes=6)

pytestmark = pytest.mark.django_db
# For threads and processes that must see each other's work, and for broken connections.
committing = pytest.mark.django_db(transaction=True)


@pytest.fixture
def declare():
    """`declare("name", function, …)` declares a job for the length of a test."""
    names = []
    jobs.all()

    def add(name, function, **options):
        names.append(name)
        jobs.job(name=name, description="A job of a test.", **options)(function)

    yield add
    for name in names:
        jobs._jobs.pop(name, None)


@pytest.fixture
def holder(database_url):
    """`holder("name", **changes)`: another process that holds the lease, runs, and never ends."""
    started = []

    def start(name):
        code = (
            "import django; django.setup()\n"
            "from datetime import timedelta; from config import runs; import time\n"
            "def work(run): print('at work', flush=True); time.sleep(60)\n"
            f"runs.execute({name!r}, work, timeout=timedelta(minutes=2), trigger='command')\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"DATABASE_URL": database_url},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "at work\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def outcomes(name):
    rows = Tally.objects.filter(name="job_runs_total", labels__job=name)
    return {row.labels["outcome"]: row.value for row in rows}


# Declaration


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "With space"}, "a name is"),
        ({"every": timedelta(seconds=30)}, "whole minutes"),
        ({"every": timedelta(days=40)}, "whole minutes"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"cron": "0 3 * * *", "every": timedelta(minutes=1)}, "not both"),
        ({"timeout": timedelta(0)}, "timeout"),
    ],
)
def test_a_job_that_could_not_run_is_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        jobs.job(**{"name": "refused", "description": "…"} | options)
    assert "refused" not in jobs.all()


def test_a_name_is_taken_once(declare):
    declare("taken", lambda run: 1)
    with pytest.raises(ValueError, match="declared twice"):
        declare("taken", test_a_name_is_taken_once)


def test_unknown_jobs_are_named():
    with pytest.raises(jobs.UnknownJob, match=r"no job 'nowhere'; known: .*canary"):
        jobs.run_job("nowhere", trigger="command")


# The run log


def test_a_run_is_logged_and_counted(declare):
    def work(run):
        run.progress(rows=2, step="half \x00 \udcff", odd=timedelta(1), none=float("nan"))
        return 3

    declare("works", work)
    record = jobs.run_job("works", trigger="api")
    assert (record.state, record.rows, record.trigger) == (State.SUCCEEDED, 3, "api")
    assert record.detail == {
        "step": "half \ufffd ?",
        "odd": "1 day, 0:00:00",
        "none": "NaN",
    }
    assert record.finished_at >= record.started_at
    assert outcomes("works") == {"succeeded": 1}
    assert not Lease.objects.exists()


def test_a_failure_keeps_its_traceback_and_frees_the_lease(declare):
    def work(run):
        raise ValueError("no such page \x00\udcff")

    declare("fails", work)
    with pytest.raises(jobs.JobFailed, match="ValueError: no such page") as caught:
        jobs.run_job("fails", trigger="command")
    assert isinstance(caught.value.__cause__, ValueError)
    record = JobRun.objects.get()
    assert record.state == State.FAILED
    assert "Traceback" in record.error
    assert "in work" in record.error
    assert outcomes("fails") == {"failed": 1}
    assert not Lease.objects.exists()


def test_an_interrupt_is_logged_and_goes_on_up(declare):
    def work(run):
        raise SystemExit(143)

    declare("interrupted", work)
    with pytest.raises(SystemExit):
        jobs.run_job("interrupted", trigger="command")
    assert JobRun.objects.get().state == State.FAILED
    assert not Lease.objects.exists()


@committing
def test_the_outcome_is_stored_though_the_job_lost_its_connection(declare):
    def work(run):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    declare("cut_off", work)
    with pytest.raises(jobs.JobFailed):
        jobs.run_job("cut_off", trigger="command")
    assert JobRun.objects.get().state == State.FAILED
    assert not Lease.objects.exists()


def test_a_job_does_not_run_inside_a_transaction(declare):
    declare("works", lambda run: 1)
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        jobs.run_job("works", trigger="command")


# One at a time


@committing
def test_two_at_once_make_one_run_and_one_skip(declare):
    started, go = threading.Event(), threading.Event()

    def work(run):
        started.set()
        assert go.wait(10)
        return 1

    def first():
        try:
            results.append(jobs.run_job("slow", trigger="command"))
        finally:
            connection.close()

    declare("slow", work)
    results = []
    thread = threading.Thread(target=first)
    thread.start()
    assert started.wait(10)
    skipped = jobs.run_job("slow", trigger="admin")
    go.set()
    thread.join()
    assert skipped.state == State.SKIPPED
    assert f"process {os.getpid()} on" in runs.describe(skipped)
    assert results[0].state == State.SUCCEEDED
    assert outcomes("slow") == {"succeeded": 1, "skipped": 1}


@committing
def test_many_takers_of_one_lease_make_one_holder():
    owners = [leases.new_owner() for _ in range(12)]
    barrier, won = threading.Barrier(len(owners)), []

    def take(owner):
        try:
            barrier.wait()
            if leases.take("contended", owner):
                won.append(owner)
        finally:
            connection.close()

    for round_ in range(5):
        Lease.objects.filter(name="contended").update(expires_at=timezone.now())
        won.clear()
        threads = [threading.Thread(target=take, args=[owner]) for owner in owners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, round_
        assert Lease.objects.get().owner == won[0]


def test_after_a_kill_the_next_run_works_at_once(declare, holder):
    process = holder("killed")
    declare("killed", lambda run: 5)
    assert jobs.run_job("killed", trigger="command").state == State.SKIPPED
    process.kill()  # and not waited for: a zombie is dead as well
    held = Lease.objects.get()
    until(lambda: leases.is_dead(held.owner, held.pid))
    assert jobs.run_job("killed", trigger="command").rows == 5
    assert [run.state for run in JobRun.objects.order_by("pk")] == [
        State.ABANDONED,
        State.SKIPPED,
        State.SUCCEEDED,
    ]
    assert outcomes("killed") == {"abandoned": 1, "skipped": 1, "succeeded": 1}


def test_a_process_id_given_to_another_process_is_not_the_holder(declare, holder):
    holder("reused")
    lease = Lease.objects.get()
    token, realm, started = lease.owner.split(" ")
    Lease.objects.update(owner=f"{token} {realm} {int(started) - 1}")
    declare("reused", lambda run: 1)
    assert jobs.run_job("reused", trigger="command").state == State.SUCCEEDED


def test_from_another_host_a_dead_holder_is_replaced_when_its_lease_ends(declare, holder):
    process = holder("elsewhere")
    process.kill()
    process.wait()
    owner = Lease.objects.get().owner.split(" ")
    elsewhere = " ".join([owner[0], "0123456789abcdef", owner[2]])
    Lease.objects.update(owner=elsewhere, host="elsewhere")
    JobRun.objects.update(owner=elsewhere)
    declare("elsewhere", lambda run: 1)
    assert jobs.run_job("elsewhere", trigger="command").state == State.SKIPPED
    lease = Lease.objects.get()
    assert lease.expires_at - timezone.now() <= timedelta(seconds=60)
    Lease.objects.update(expires_at=timezone.now())
    assert jobs.run_job("elsewhere", trigger="command").state == State.SUCCEEDED


# Heartbeat and loss


@committing
def test_the_heartbeat_extends_the_lease_and_stores_progress(declare, monkeypatch):
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)
    seen = []

    def backends():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            return cursor.fetchone()[0]

    def work(run):
        before = Lease.objects.get().expires_at
        run.progress(rows=7, step="two")
        with transaction.atomic():  # the heart does not wait for the job's transaction
            JobRun.objects.count()
            until(lambda: Lease.objects.get().expires_at > before)
        until(lambda: JobRun.objects.get().rows == 7)
        seen.append(JobRun.objects.get())

    quiet = backends()
    declare("long", work)
    jobs.run_job("long", trigger="command")
    assert seen[0].detail == {"step": "two"}
    assert seen[0].heartbeat_at > seen[0].started_at
    until(lambda: backends() == quiet)  # the heart closed its connection


@committing
def test_who_lost_the_lease_is_told(declare, monkeypatch):
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)

    def work(run):
        Lease.objects.update(expires_at=timezone.now())
        assert leases.take("robbed", leases.new_owner())
        JobRun.objects.update(state=State.ABANDONED)
        for _ in range(200):
            run.check()
            time.sleep(0.05)

    declare("robbed", work)
    with pytest.raises(jobs.JobFailed, match="abandoned") as caught:
        jobs.run_job("robbed", trigger="command")
    assert isinstance(caught.value.__cause__, jobs.LeaseLost)
    assert Lease.objects.count() == 1, "the other one's lease stays"


def test_work_done_after_losing_the_lease_is_not_called_a_success(declare):
    def work(run):
        Lease.objects.all().delete()
        JobRun.objects.update(state=State.ABANDONED, error="gone")
        return 1

    declare("late", work)
    with pytest.raises(jobs.JobFailed, match="abandoned"):
        jobs.run_job("late", trigger="command")
    assert JobRun.objects.get().state == State.ABANDONED


# Timeout


def test_a_run_past_its_timeout_is_stopped_in_python(declare):
    declare("sleeps", lambda run: time.sleep(30), timeout=timedelta(seconds=0.2))
    started = time.monotonic()
    with pytest.raises(jobs.JobFailed, match=r"longer than its timeout of 0.2 s"):
        jobs.run_job("sleeps", trigger="command")
    assert time.monotonic() - started < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@committing
def test_a_run_past_its_timeout_is_stopped_in_postgresql(declare):
    def work(run):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    declare("stuck", work, timeout=timedelta(seconds=0.2))
    started = time.monotonic()
    with pytest.raises(jobs.JobFailed, match="longer than its timeout"):
        jobs.run_job("stuck", trigger="command")
    assert time.monotonic() - started < 5
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ %s",
            ["^SELECT pg_sleep"],
        )
        assert cursor.fetchone()[0] == 0, "the statement went on without its client"


def test_the_alarm_of_the_caller_rings_on(declare):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *args: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        declare("works", lambda run: 1)
        jobs.run_job("works", trigger="command")
        until(lambda: rung)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Schedules and the queue


def test_sync_makes_corrects_and_removes_schedules(declare):
    declare("often", lambda run: 1, every=timedelta(minutes=7))
    declare("nightly", lambda run: 1, cron="15 3 * * *")
    declare("by_hand", lambda run: 1)
    assert "made job:often" in jobs.sync_schedules()
    assert jobs.sync_schedules() == []
    often, nightly = (
        Schedule.objects.get(name="job:often"),
        Schedule.objects.get(name="job:nightly"),
    )
    assert often.next_run <= timezone.now()
    assert (nightly.next_run.hour, nightly.next_run.minute) == (3, 15)
    assert not Schedule.objects.filter(name="job:by_hand").exists()

    foreign = Schedule.objects.create(name="theirs", func="math.hypot", args="3, 4", repeats=4)
    Schedule.objects.filter(pk=often.pk).update(repeats=0, args="nonsense(", next_run=None)
    Schedule.objects.filter(pk=nightly.pk).update(cron="never", next_run="2200-01-01T00:00Z")
    Schedule.objects.create(name="job:often", func="x")
    Schedule.objects.create(name="job:gone", func="x")
    changes = jobs.sync_schedules()
    assert len(changes) == 4, changes
    assert jobs.sync_schedules() == []
    often, nightly = (
        Schedule.objects.get(name="job:often"),
        Schedule.objects.get(name="job:nightly"),
    )
    assert (often.repeats, often.args) == (-1, "('often', 'schedule')")
    assert often.next_run is not None
    assert nightly.next_run.year < 2200
    foreign.refresh_from_db()
    assert foreign.repeats == 4


BROKEN = {
    "cron": {"schedule_type": "C", "cron": "61 * * * *"},
    "never": {"schedule_type": "C", "cron": "0 0 31 2 *"},
    "type": {"schedule_type": "ZZ"},
    "args": {"args": "open('x')"},
    "kwargs": {"kwargs": "[1]"},
    "options": {"kwargs": "{'q_options': 3}"},
    "stars": {"kwargs": "**{}"},
    "func in kwargs": {"kwargs": "{'func': 'x'}"},
    "inline": {"kwargs": "{'sync': True}"},
    "no function": {"func": "math.no_such_function"},
    "no module": {"func": "no.such.module"},
    "bad module": {"func": "tests_broken_module.f"},
}


@pytest.fixture
def _broken_module(tmp_path, monkeypatch):
    (tmp_path / "tests_broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.usefixtures("_broken_module")
def test_a_broken_schedule_is_recognised(kind):
    sound = {"func": "math.hypot", "args": "3, 4", "kwargs": "x=1", "schedule_type": "I"}
    assert schedules.fault(Schedule(**sound)) == ""
    assert schedules.fault(Schedule(**sound | BROKEN[kind])) != ""


@committing
@pytest.mark.usefixtures("_broken_module")
def test_broken_schedules_do_not_stop_the_others():
    past = timezone.now() - timedelta(hours=1)
    common = {"func": "math.hypot", "schedule_type": "I", "minutes": 1, "next_run": past}
    rows = [Schedule(name=kind, **common | fields) for kind, fields in BROKEN.items()]
    Schedule.objects.bulk_create(rows)
    jobs.sync_schedules()
    assert set(Schedule.objects.filter(repeats=0).values_list("name", flat=True)) == set(BROKEN)
    Schedule.objects.filter(name="job:canary").update(next_run=past)
    scheduler()
    assert Schedule.objects.get(name="job:canary").next_run > past
    assert [row.task["args"] for row in OrmQ.objects.all() if "canary" in row.task["args"]]


def test_a_schedule_due_for_years_is_moved():
    old = timezone.now() - timedelta(days=4000)
    Schedule.objects.create(
        name="old", func="math.hypot", schedule_type="I", minutes=1, next_run=old
    )
    assert any(change.startswith("moved schedule old") for change in jobs.sync_schedules())
    assert Schedule.objects.get(name="old").repeats == -1


@committing
def test_concurrent_syncs_make_each_schedule_once():
    def sync():
        try:
            jobs.sync_schedules()
        finally:
            connection.close()

    threads = [threading.Thread(target=sync) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Schedule.objects.filter(name="job:canary").count() == 1


def test_the_queue_holds_a_job_once(declare):
    declare("asked_for", lambda run: 1)
    assert jobs.enqueue("asked_for")
    assert not jobs.enqueue("asked_for", trigger="api")
    OrmQ.objects.update(lock=timezone.now() + timedelta(minutes=5))  # a worker took it
    assert jobs.enqueue("asked_for")
    task = OrmQ.objects.latest("pk").task
    assert (task["func"], task["args"]) == ("config.jobs.run_queued", ("asked_for", "admin"))
    assert task["timeout"] > 14 * 60

    with pytest.raises(jobs.UnknownJob):
        jobs.enqueue("nowhere")


def test_surplus_entries_are_dropped(declare):
    declare("asked_for", lambda run: 1)
    jobs.enqueue("asked_for")
    row = OrmQ.objects.get()
    for _ in range(3):
        OrmQ.objects.create(key=row.key, payload=row.payload, lock=row.lock)
    assert jobs.coalesce_queue() == 3
    assert OrmQ.objects.get().pk == row.pk


def test_what_a_killed_cluster_had_taken_is_given_back(declare, holder):
    for name in ("lost", "at_work"):
        declare(name, lambda run: 1)
        jobs.enqueue(name)
    OrmQ.objects.update(lock=timezone.now() + timedelta(minutes=15))
    holder("at_work")
    busy = next(row for row in OrmQ.objects.all() if row.task["args"][0] == "at_work")
    JobRun.objects.update(detail={"task": busy.task["id"]})
    assert jobs.release_taken() == 1
    assert OrmQ.objects.get(lock__gt=timezone.now()).pk == busy.pk


def test_a_queued_run_says_that_the_worker_lives(declare):
    declare("works", lambda run: 4)
    assert jobs.run_queued("works", "schedule").startswith("works succeeded: 4 rows in ")
    assert Heartbeat.objects.get().name == "worker"
    assert jobs.run_queued("undeclared", "schedule") == "undeclared is not declared any more"


@committing
def test_the_heart_of_a_queued_run_is_a_sign_of_life_of_the_worker(declare, monkeypatch):
    monkeypatch.setattr(runs, "HEARTBEAT_SECONDS", 0.05)

    def work(run):
        before = Heartbeat.objects.get(name=runs.WORKER).beat_at
        until(lambda: Heartbeat.objects.get(name=runs.WORKER).beat_at > before)

    declare("long", work)
    assert jobs.run_queued("long", "schedule").startswith("long succeeded")


def test_a_task_that_keeps_killing_its_process_is_given_up(declare, monkeypatch):
    declare("deadly", lambda run: 1)
    monkeypatch.setitem(jobs._current_task, "id", "t" * 32)
    for _ in range(3):
        JobRun.objects.create(
            job="deadly",
            trigger="admin",
            state=State.ABANDONED,
            owner="x",
            host="h",
            pid=1,
            detail={"task": "t" * 32},
        )
    assert jobs.run_queued("deadly", "admin") == "deadly: gave up after 3 attempts"
    assert JobRun.objects.count() == 3


# Housekeeping


def test_the_canary_closes_the_rows_of_runs_that_died(declare):
    for job, owner in [("gone", "dead"), ("alive", "beating late")]:
        JobRun.objects.create(
            job=job, trigger="schedule", owner=owner, host="h", pid=1, heartbeat_at=LONG_AGO
        )
    Lease.objects.create(
        name="alive",
        owner="beating late",
        host="h",
        pid=1,
        acquired_at=LONG_AGO,
        expires_at=timezone.now() + timedelta(seconds=30),
    )
    assert jobs.run_job("canary", trigger="command").detail == {"abandoned": 1}
    assert JobRun.objects.get(job="gone").state == State.ABANDONED
    assert JobRun.objects.get(job="alive").state == State.RUNNING
    assert not Heartbeat.objects.exists(), "by hand it says nothing about the queue"


@pytest.mark.parametrize("name", ["partitions_ahead", "prune"])
def test_housekeeping_runs_twice(only_new_partitions, name):
    for _ in range(2):
        assert jobs.run_job(name, trigger="command").state == State.SUCCEEDED
    assert JobRun.objects.filter(job=name).count() == 2


def test_every_shared_job_has_a_schedule():
    assert {"canary": "every minute", "prune": "cron 15 3 * * *"}.items() <= {
        name: job.schedule for name, job in jobs.all().items()
    }.items()


# Commands


def test_run_job_reports_one_line(declare, capsys):
    declare("works", lambda run: 1200)
    call_command("run_job", "works")
    line = capsys.readouterr().out
    assert line.startswith("works succeeded: 1,200 rows in ")
    assert line.count("\n") == 1


def test_run_job_fails_loudly(declare):
    declare("fails", lambda run: 1 / 0)
    with pytest.raises(
        CommandError, match=r"fails failed in .*: ZeroDivisionError: division by zero"
    ):
        call_command("run_job", "fails")
    with pytest.raises(CommandError, match="no job 'nowhere'"):
        call_command("run_job", "nowhere")
    with pytest.raises(CommandError, match="which job"):
        call_command("run_job")


def test_run_job_lists_the_jobs(capsys):
    call_command("run_job", list=True)
    out = capsys.readouterr().out
    assert "canary" in out
    assert "cron 15 3 * * *" in out


def test_sync_schedules_reports(capsys):
    call_command("sync_schedules")
    assert "made job:canary" in capsys.readouterr().out
    call_command("sync_schedules")
    assert "schedules in order" in capsys.readouterr().out


def test_run_job_in_a_process_of_its_own(spawn):
    done, failed = spawn(["run_job", "canary"]), spawn(["run_job", "nowhere"])
    out, err = done.communicate(timeout=30)
    assert done.returncode == 0, err
    assert out.startswith("canary succeeded in ")
    out, err = failed.communicate(timeout=30)
    assert failed.returncode == 1
    assert "no job 'nowhere'" in err


def test_a_polite_kill_gets_into_the_run_log(spawn):
    JobRun.objects.create(
        job="gone", trigger="x", owner="x", host="h", pid=1, heartbeat_at=LONG_AGO
    )
    with transaction.atomic():
        JobRun.objects.select_for_update().get()  # the canary waits for it in the midst of work
        process = spawn(["run_job", "canary"])
        until(lambda: JobRun.objects.filter(job="canary", state=State.RUNNING))
        until(lambda: waiting_for_locks() == 1)
        process.terminate()
        assert process.wait(timeout=20) == 143
    record = JobRun.objects.get(job="canary")
    assert (record.state, Lease.objects.exists()) == (State.FAILED, False)
    assert "SystemExit: 143" in record.error


def waiting_for_locks():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return cursor.fetchone()[0]
