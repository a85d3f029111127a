"""`manage.py queue`: what waits, what is at work, what failed, and what nobody can read."""

import io
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_q.models import OrmQ, Task
from django_q.tasks import async_task

from config import jobs

pytestmark = pytest.mark.django_db


def told(*arguments: str) -> str:
    out = io.StringIO()
    call_command("queue", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def filled():
    """Two canaries that wait, one task at work, one that nobody can read, two that failed."""
    now = timezone.now()
    jobs.enqueue("canary", trigger="test")
    jobs.enqueue("prune", trigger="test")
    async_task("math.sqrt", 2)
    OrmQ.objects.filter(pk=OrmQ.objects.latest("pk").pk).update(lock=now + timedelta(minutes=5))
    OrmQ.objects.create(key="spyglass", payload="poison", lock=now - timedelta(minutes=7))
    for number in range(2):
        Task.objects.create(
            id=f"task-{number}", name=f"task-{number}", func="math.sqrt", started=now, stopped=now,
            success=False, result="Traceback\nValueError: math domain error",
        )  # fmt: skip


def test_an_empty_queue():
    assert told().strip() == "0 waiting (the oldest –), 0 at work, 0 failed within a day"
    assert told("--delete-unreadable").strip() == "Nothing to delete."


def test_what_it_holds(filled):
    text = told()
    first, *lines = text.strip().splitlines()
    assert first == "3 waiting (the oldest 7 min), 1 at work, 2 failed within a day"
    assert any("job:canary" in line and "1 waiting" in line for line in lines)
    assert any("math.sqrt" in line and "ValueError: math domain error" in line for line in lines)
    found = json.loads(told("--json"))
    by_name = {line["name"]: line for line in found["lines"]}
    assert by_name["math.sqrt"]["running"] == 1
    assert by_name["math.sqrt"]["failed"] == 2
    assert by_name["(unreadable)"]["waiting"] == 1


def test_what_nobody_can_read_is_taken_out(filled):
    assert told("--delete-unreadable").strip() == "1 taken out of the queue."
    assert OrmQ.objects.count() == 3


def test_one_is_taken_out_by_its_id(filled):
    key = OrmQ.objects.earliest("pk").pk
    assert told("--delete", str(key), "-v", "0") == ""
    assert not OrmQ.objects.filter(pk=key).exists()
    with pytest.raises(CommandError, match="1 of them were not there"):
        told("--delete", str(key))
