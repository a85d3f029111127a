"""The loop of the daemons goes on whatever its step raises, and waits for what is away."""

import itertools
import logging
import threading
import time

import pytest
from django.db import OperationalError, connection
from redis.exceptions import RedisError

from config import loops

logger = logging.getLogger("spyglass.test")


@pytest.mark.django_db(transaction=True)
def test_a_loop_goes_on_whatever_its_step_raises(caplog, monkeypatch):
    monkeypatch.setattr(loops, "FAILED_SECONDS", 0.01)
    stop, done, beat = threading.Event(), [], loops.beat("test daemon")
    faults = [OperationalError("gone\nDETAIL: away"), RedisError("gone"), RuntimeError("a bug")]

    def step():
        beat()
        if faults:
            raise faults.pop(0)
        done.append(len(done))
        return len(done) < 3

    loops.repeat(stop, step, rest=stop.set, logger=logger)
    assert done == [0, 1, 2]  # it rested only when there was nothing to do
    assert loops.is_alive("test daemon")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("spyglass.test", "cannot use the database: gone"),
        ("spyglass.test", "cannot use Valkey: gone"),
        ("spyglass.test", "the worker goes on after an error"),
    ]


def test_without_a_database_a_loop_waits_for_it(unreachable_database):
    stop, steps = threading.Event(), []
    loop = threading.Thread(
        target=loops.repeat,
        args=(stop, lambda: steps.append(connection.ensure_connection())),
        kwargs={"rest": 0, "logger": logger},
    )
    loop.start()
    time.sleep(1.5)
    assert loop.is_alive()
    stop.set()
    loop.join(10)
    assert not loop.is_alive()
    assert steps == []


def test_what_is_done_every_so_often_is_done_at_first():
    done = []
    look = loops.every(0.1, lambda: done.append(time.monotonic()))
    look()
    assert len(done) == 1
    while len(done) < 3:
        look()
    assert all(later - sooner >= 0.1 for sooner, later in itertools.pairwise(done))
