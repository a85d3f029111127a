"""Daemons: what ends is started again, after a pause where it ends early, and nothing is left."""

import os
import signal
import sys
import time

import pytest
from django.conf import settings

from config import children
from config.children import Child
from tests.processes import processes, until


@pytest.fixture
def keep(tmp_path, monkeypatch, settings):
    """`keep(source)` keeps a manage.py of that source running."""
    settings.BASE_DIR = tmp_path
    keepers = []

    def start(source):
        (tmp_path / "manage.py").write_text(source)
        command = [sys.executable, "manage.py", "daemon"]
        keepers.append(Child("test", command, cwd=tmp_path, environment={}))
        keepers[-1].look()
        return keepers[-1]

    yield start
    for keeper in keepers:
        keeper.kill()


WAIT = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('up', 'w'); {WAIT}"
WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{WAIT}']).wait()"


def test_what_is_killed_is_started_again_after_a_pause_that_grows(keep):
    keeper = keep(WAIT)
    pids, pauses = [keeper.pid], []
    for _ in range(2):
        os.kill(pids[-1], signal.SIGKILL)
        until(lambda: keeper.ended, what="its end")
        died = time.monotonic()
        keeper.look()
        assert keeper.pid is None
        until(lambda: keeper.look() or keeper.pid, what="another process")
        pauses.append(time.monotonic() - died)
        pids.append(keeper.pid)
    assert len(set(pids)) == 3
    assert 1 <= pauses[0] < 2 <= pauses[1]


def test_what_lived_long_is_started_at_once(keep):
    keeper = keep(WAIT)
    keeper._started -= children.SETTLED_SECONDS + 1
    first = keeper.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: keeper.ended, what="its end")
    keeper.look()
    assert keeper.pid not in (None, first)


def test_a_command_that_cannot_start_is_tried_ever_more_seldom(keep):
    keeper = keep("raise SystemExit(3)")
    for failures in range(1, 9):
        until(lambda: keeper.ended, what="its end")
        keeper.look()
        pause = keeper._due - time.monotonic()
        assert pause <= min(2 ** (failures - 1), children.LONGEST_PAUSE_SECONDS)
        keeper._due = 0
        keeper.look()
    assert pause > children.LONGEST_PAUSE_SECONDS - 2


def test_told_to_stop_it_ends_with_its_children(keep):
    keeper = keep(WITH_CHILD)
    group = keeper.pid
    until(lambda: sum(one == group for _, _, one in processes()) == 2, what="the child")
    keeper.ask_to_stop()
    keeper.wait(time.monotonic() + 10)
    until(lambda: group not in {one for _, _, one in processes()}, what="the end of all")
    assert not keeper.ended
    keeper.kill()  # nothing is left to kill


def test_who_does_not_listen_is_killed_in_time(keep):
    keeper = keep(STUBBORN)
    until((settings.BASE_DIR / "up").exists, what="the daemon")
    started = time.monotonic()
    keeper.ask_to_stop()
    keeper.wait(started + 0.5)
    assert 0.5 <= time.monotonic() - started < 5
    assert keeper.pid is None
