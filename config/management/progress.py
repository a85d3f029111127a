"""How commands that take long show how far they are; docs/operations.md says when they do."""

import sys
import time
from typing import Self

from tqdm import tqdm

from config.runs import Run

LINE_SECONDS = 2  # where there is no terminal, a line at most this often


class Progress:
    """On a terminal a bar for each step of some work; elsewhere lines with `-v 2`, else nothing.

    `unit`: of what is counted. With a `run`, it is noted there as well.
    """

    def __init__(self, verbosity: int, *, unit: str = "", run: Run | None = None) -> None:
        self._on_terminal = verbosity > 0 and sys.stderr.isatty()
        self._in_lines = verbosity > 1 and not self._on_terminal
        self._unit = unit
        self._run = run
        self._step = ""
        self._bar: tqdm | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def show(self, step: str, done: int, due: int | None, note: str = "") -> None:
        """How far a step is; `due` None where nobody knows. Raises LeaseLost where the run may not
        go on."""
        if self._on_terminal:
            if step != self._step or self._bar is None:
                self._open(step, unit=self._unit, unit_scale=True, dynamic_ncols=True)
            self._bar.total = due
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._in_lines and (step != self._step or done == due or self._is_time()):
            self._step, self._shown = step, time.monotonic()
            of = "" if due is None else f" of {due:,}"
            self._write(f"{step}: {done:,}{of} {self._unit}".rstrip() + (note and f", {note}"))
        if self._run is not None:
            self._run.progress(step=step, done=done, due=due)

    def say(self, text: str) -> None:
        """What is going on, of work that says so in words."""
        if self._on_terminal:
            if self._bar is None:
                self._open("", bar_format="{desc}", leave=False)
            self._bar.set_description_str(text)
        elif self._in_lines:
            self._write(text)

    def _open(self, step: str, **options) -> None:
        self._close()
        self._step = step
        self._bar = tqdm(desc=step, **options)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _is_time(self) -> bool:
        return time.monotonic() - self._shown >= LINE_SECONDS

    def _write(self, text: str) -> None:
        sys.stderr.write(f"  {text}\n")
