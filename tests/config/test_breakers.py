"""A breaker opens after failures in a row, lets one caller try at a time, and says so once."""

import logging
import threading
import time

import pytest

from config.breakers import Breaker

FAULT = OSError("it is away")


@pytest.fixture
def clock(monkeypatch):
    """A list of one number: the time of the monotonic clock."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_it_opens_after_failures_in_a_row_only(clock):
    breaker = Breaker("It", failures=3, seconds=10)
    for _ in range(2):
        breaker.failed(FAULT)
        breaker.failed(FAULT)
        assert breaker.allows()
        assert not breaker.is_open
        breaker.succeeded()
    for _ in range(3):
        breaker.failed(FAULT)
    assert breaker.is_open
    assert not breaker.allows()


def test_one_caller_tries_again_at_a_time(clock):
    breaker = Breaker("It", failures=1, seconds=10)
    breaker.failed(FAULT)
    clock[0] += 11
    assert not breaker.is_open  # which takes nobody's turn
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    clock[0] += 11  # that one never said how it went
    assert [breaker.allows() for _ in range(2)] == [True, False]
    breaker.failed(FAULT)
    assert breaker.is_open
    clock[0] += 11
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True] * 3


def test_who_comes_while_it_closes_does_not_open_it_again(clock):
    """Such a one waits for the lock; open without a failure, nothing would ever close it."""
    breaker = Breaker("It", failures=1, seconds=10)
    breaker.failed(FAULT)
    clock[0] += 11
    waits, closes = threading.Event(), threading.Lock()

    class Lock:
        """A lock for which the first caller waits until another has closed the breaker."""

        def __enter__(self):
            if not waits.is_set():
                waits.set()
                breaker.succeeded()
            closes.acquire()

        def __exit__(self, *_error):
            closes.release()

    breaker._changing = Lock()
    assert breaker.allows()
    assert waits.is_set()
    breaker.succeeded()
    assert [breaker.allows() for _ in range(3)] == [True] * 3


def test_it_says_what_fails_now_and_then(clock, caplog):
    caplog.set_level(logging.WARNING, "spyglass.breakers")
    breaker = Breaker("It", failures=1, seconds=1)
    for _ in range(50):
        breaker.failed(FAULT)
        clock[0] += 1
    breaker.succeeded()
    breaker.succeeded()
    fails = "It fails; going on without it: it is away"
    assert [record.getMessage() for record in caplog.records] == [fails, fails, "It works again."]
