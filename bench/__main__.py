"""`python -m bench NAME [--rows N] [--quick] [--only ID …] [--json PATH]`: for `script/bench`.

NAME `all` runs every benchmark at a small size, one after the other, and prints one table: whether
all of it still works, and roughly how fast. The goals are meant for the whole sizes.

Exits with 0 whatever falls short of its goal, and with 2 where something could not run.
"""

import argparse
import importlib
import signal
import sys
import time
from pathlib import Path

from bench import harness
from bench.harness import Bench, CannotRunError, Figure, say
from config.embedded import EmbeddedError

BENCHES = {
    "catalog": "bench.catalog",
    "matching": "bench.matching",
    "discovery": "bench.discovery",
    "counters": "bench.counters",
    "feeds": "bench.feeds",
    "match-quality": "bench.match_quality",
    "chaos": "bench.chaos",
}
ALL = "all"
_LEAST_ROWS = 10_000  # what a benchmark needs that says nothing else


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    if options.name not in BENCHES and options.name != ALL:
        known = ", ".join([*BENCHES, ALL])
        print(f"No benchmark named {options.name!r}: choose one of {known}.", file=sys.stderr)
        return 2
    if options.json and not Path(options.json).resolve().parent.is_dir():
        print(f"No folder for {options.json}: make it first.", file=sys.stderr)
        return 2
    # So that a run that is told to end stops its servers and removes its folder.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    names = BENCHES if options.name == ALL else [options.name]
    found: list[Figure] = []
    try:
        for name in names:
            found += _run(name, options)
    except (CannotRunError, EmbeddedError) as error:
        print(f"The benchmark cannot run: {error}", file=sys.stderr)
        return 2
    if not found:
        print("No figure has an id of --only.", file=sys.stderr)
        return 2
    print(harness.table(found))
    if options.name == ALL:
        print("The goals are those of whole sizes, whose results are in docs/performance.md.")
    if options.json:
        rows = None if options.name == ALL else _rows_of(options.name, options)
        harness.write_json(options.json, harness.report(options.name, found, rows=rows))
    return 2 if any(each.value is None for each in found) else 0


def _run(name: str, options: argparse.Namespace) -> list[Figure]:
    """One benchmark on servers of its own. Raises CannotRunError, EmbeddedError."""
    module = importlib.import_module(BENCHES[name])
    rows = _rows_of(name, options)
    least = getattr(module, "LEAST_ROWS", _LEAST_ROWS)
    if rows < least:
        raise CannotRunError(f"{rows:,} is too small a data set: {least:,} at least")
    started = time.monotonic()
    with harness.servers(rows, is_quick=_is_quick(options)) as bench:
        found = _measure(module, bench, set(options.only))
    if options.name == ALL:
        say(f"{name} took {time.monotonic() - started:.0f} s")
    return found


def _is_quick(options: argparse.Namespace) -> bool:
    return options.quick or options.name == ALL


def _rows_of(name: str, options: argparse.Namespace) -> int:
    module = importlib.import_module(BENCHES[name])
    return options.rows or (module.QUICK_ROWS if _is_quick(options) else module.ROWS)


def _measure(module, bench: Bench, only: set[str]) -> list[Figure]:
    """Every figure in turn. One that fails says why, and the others go on."""
    found: list[Figure] = []
    for ids, run in module.figures(bench):
        if only and not only & set(ids):
            continue
        say(f"measuring {', '.join(ids)}")
        try:
            made = run()
        except Exception as error:  # noqa: BLE001 -- the other figures are worth having
            say(f"failed: {type(error).__name__}: {error}")
            reason = f"{type(error).__name__}: {error}"[:2000]
            made = [Figure(each, None, "", "", False, {"error": reason}) for each in ids]
        found += made if isinstance(made, list) else [made]
    return found


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__.split("\n\n")[0])
    known = ", ".join([*BENCHES, ALL])
    parser.add_argument("name", nargs="?", default="", help=f"one of: {known}")
    parser.add_argument("--rows", type=_rows, help="snapshots of the data set, instead of all")
    parser.add_argument("--quick", action="store_true", help="small and short: does it work?")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="only these figures")
    parser.add_argument("--json", metavar="PATH", help="write the figures there as JSON")
    return parser.parse_args(arguments)


def _rows(text: str) -> int:
    rows = int(text.replace("_", "").replace(",", ""))
    if rows < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of rows")
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
