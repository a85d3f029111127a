"""What commands that take long share: bars on a terminal, numbers with limits."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

from config.runs import Run


def number(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse


class Steps:
    """A bar for each step of some work, on a terminal; also noted in its `run`."""

    def __init__(self, verbosity: int, run: Run | None = None) -> None:
        self._disable = None if verbosity else True  # None: unless it is a terminal
        self._run = run
        self._step = ""
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, step: str, done: int, due: int) -> None:
        """How far a step is. Raises LeaseLost where the run may not go on."""
        if step != self._step:
            if self._bar is not None:
                self._bar.close()
            self._step = step
            self._bar = tqdm(desc=step, total=due, unit_scale=True, disable=self._disable)
        self._bar.update(done - self._bar.n)
        if self._run is not None:
            self._run.progress(step=step, done=done, due=due)
