"""What `doctor` finds, in a sound installation and in ones that are not."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.utils import timezone
from django_q.models import Schedule

from config import doctor, jobs, partitions, runs
from config.models import Heartbeat, JobRun

pytestmark = pytest.mark.django_db


def findings(name):
    return [check for check in doctor.examine() if check.name.startswith(name)]


def the(name):
    found = findings(name)
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def sound():
    """A worker at work, schedules in order, partitions made."""
    jobs.sync_schedules()
    partitions.ensure_ahead()
    for name in (runs.WORKER, jobs.CANARY, jobs.RESULTS):
        runs.beat(name)


def aged(name, **age):
    Heartbeat.objects.filter(name=name).update(beat_at=timezone.now() - timedelta(**age))


def test_a_sound_installation_passes(sound):
    bad = [check for check in doctor.examine() if check.level == doctor.FAIL]
    assert bad == []
    assert the("PostgreSQL").level == doctor.OK
    assert {check.name for check in findings("extension")} == {
        f"extension {name}" for name in doctor.EXTENSIONS
    }
    assert the("migrations").finding == "all applied"
    assert the("worker").finding.startswith("last sign of life ")
    assert the("job prune").finding == "cron 15 3 * * *; has not run yet"


def test_a_missing_worker(sound):
    aged(runs.WORKER, hours=5)
    assert (the("worker").level, the("worker").finding) == (doctor.FAIL, "silent for 5 h")
    aged(runs.WORKER, seconds=5)
    aged(jobs.RESULTS, hours=1)
    assert the("worker").level == doctor.WARN
    Heartbeat.objects.all().delete()
    assert the("worker").finding == "never seen"


def test_schedules_that_do_not_run(sound):
    Schedule.objects.filter(name="job:canary").delete()
    assert the("job canary").finding == "has no schedule"
    jobs.sync_schedules()
    canary = Schedule.objects.filter(name="job:canary")
    canary.update(repeats=0)
    assert the("job canary").finding == "its schedule is switched off"
    canary.update(repeats=-1, next_run=timezone.now() - timedelta(minutes=40))
    assert the("job canary").finding == "overdue by 40 min"
    Schedule.objects.create(name="theirs", func="no.where", schedule_type="D")
    assert the("schedule theirs").level == doctor.WARN


def test_runs_that_failed_or_died(sound):
    common = {"trigger": "schedule", "owner": "x", "host": "somewhere", "pid": 7}
    JobRun.objects.create(job="prune", state="failed", error="…\nOSError: disk full\n", **common)
    assert the("job prune").finding.endswith(" ago: OSError: disk full")
    past = timezone.now() - timedelta(minutes=30)
    JobRun.objects.create(job="canary", heartbeat_at=past, **common)
    assert the("run of canary").finding == "process 7 on somewhere has been silent for 30 min"


def test_a_partition_of_another_owner(sound):
    table = next(iter(partitions.all()))
    part = partitions.existing(table)[-1].name
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE parts_stranger")
        cursor.execute(f"ALTER TABLE {part} OWNER TO parts_stranger")
    found = [check for check in doctor.examine() if check.name == f"partitions of {table}"]
    assert [check.level for check in found] == [doctor.OK, doctor.FAIL]
    assert f"as {part} to parts_stranger" in found[1].finding
    assert f"ALTER TABLE {part} OWNER TO " in found[1].advice


def test_missing_partitions(sound):
    table = next(iter(partitions.all()))
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {partitions.existing(table)[-1].name}")
    found = the(f"partitions of {table}")
    assert (found.level, found.advice) == (doctor.FAIL, "manage.py partitions")


def test_old_versions(sound, monkeypatch):
    monkeypatch.setitem(vars(connections["default"]), "pg_version", 170004)
    assert the("PostgreSQL").level == doctor.WARN
    monkeypatch.setitem(vars(connections["default"]), "pg_version", 150004)
    assert the("PostgreSQL").level == doctor.FAIL
    monkeypatch.setitem(doctor.EXTENSIONS, "vector", (9, 0))
    assert the("extension vector").level == doctor.FAIL
    monkeypatch.setitem(doctor.EXTENSIONS, "postgis", ())
    assert the("extension postgis").finding == "not installed"


def test_unapplied_migrations(sound):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
    assert the("migrations").advice == "manage.py migrate"
    assert doctor.examine()[-1].name == "migrations", "the rest reads tables that may be missing"


def test_production_settings(settings):
    settings.EMBEDDED, settings.DEBUG = False, True
    settings.SECRET_KEY, settings.ALLOWED_HOSTS = "short", []
    assert {check.level for check in findings("settings")} == {doctor.FAIL}
    assert len(findings("settings")) == 3
    settings.DEBUG, settings.SECRET_KEY, settings.ALLOWED_HOSTS = False, "x" * 50, ["*"]
    assert [check.level for check in findings("settings")] == [doctor.WARN, doctor.OK]


def test_without_a_cache_it_warns(sound, own_valkey):
    assert the("cache").level == doctor.OK
    own_valkey.stop()
    assert the("cache").level == doctor.WARN


def test_without_a_database_it_says_so(unreachable_database, capsys):
    with pytest.raises(SystemExit) as stopped:
        call_command("doctor")
    assert stopped.value.code == 1
    assert "FAIL  database" in capsys.readouterr().out


def test_a_check_that_cannot_work_does_not_hide_the_others(sound, monkeypatch):
    monkeypatch.setattr(doctor.readmodels, "states", lambda: 1 / 0)
    assert the("read models").finding.startswith("cannot be checked: ZeroDivisionError")
    assert findings("partitions")


def test_the_report_for_people_and_for_cron(sound, capsys):
    call_command("doctor")
    out = capsys.readouterr().out
    assert "ok    PostgreSQL" in out
    assert "\x1b" not in out, "colours belong on a terminal"

    Heartbeat.objects.all().delete()
    with pytest.raises(SystemExit):
        call_command("doctor", verbosity=0)
    out = capsys.readouterr().out
    assert "ok    " not in out
    assert "FAIL  worker" in out
    assert "→ start it: manage.py worker" in out


def test_strict_and_json(sound, capsys):
    Schedule.objects.create(name="theirs", func="no.where", schedule_type="D")
    call_command("doctor", json=True)
    checks = json.loads(capsys.readouterr().out)
    assert {"level": "ok", "name": "migrations", "finding": "all applied", "advice": ""} in checks
    with pytest.raises(SystemExit):
        call_command("doctor", json=True, strict=True)
