"""What a command shows of how far it is: on a terminal, in a log, for cron."""

import os
import termios

import pytest

from config.management.progress import Progress

ROWS = "user_a,user_b\n" + "".join(f"{one},{one + 1}\n" for one in range(300))


def shown(spawn, *command: str, terminal: bool) -> str:
    """What goes to standard error of a command that succeeds."""
    if not terminal:
        process = spawn(command)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return errors
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 200))
    process = spawn(command, stderr=theirs)
    os.close(theirs)
    process.communicate(timeout=60)
    text = b""
    while block := _read(ours):
        text += block
    os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so at the end
        return b""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("verbosity", "terminal", "expected"),
    [
        (1, True, "300 rows"),
        (1, False, ""),
        (2, False, "graph.csv: 2,196 of 2,196 B, 300 rows"),
        (0, True, ""),
    ],
)
def test_an_import(spawn, tmp_path, verbosity, terminal, expected):
    path = tmp_path / "graph.csv"
    path.write_text(ROWS)
    command = ("import_graph", path, "--dry-run", "-v", verbosity)
    said = shown(spawn, *command, terminal=terminal)
    assert expected in said
    assert bool(said) == bool(expected)
    assert ("100%" in said) == (terminal and verbosity == 1)


def test_work_that_says_in_words_what_it_does(capsys):
    for verbosity in (0, 1, 2):
        with Progress(verbosity) as progress:
            progress.say("folded 1 of 2 snapshots")
    assert capsys.readouterr().err == "  folded 1 of 2 snapshots\n"


def test_lines_come_at_the_ends_of_a_step_and_now_and_then(capsys):
    with Progress(2, unit="files") as progress:
        for done in range(1_001):
            progress.show("verifying", done, 1_000)
        progress.show("counting", 1, None, "so far")
    assert capsys.readouterr().err.splitlines() == [
        "  verifying: 0 of 1,000 files",
        "  verifying: 1,000 of 1,000 files",
        "  counting: 1 files, so far",
    ]
