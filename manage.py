#!/usr/bin/env python
"""Every command of the project, run on embedded servers where no database URL is given."""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - people do run this with an older Python
    sys.exit("Spyglass needs Python 3.11 or later; this is Python " + sys.version.split()[0])

HELP = {"-h", "--help", "--version", "help", "version"}


def main() -> None:
    try:
        _run()
    except KeyboardInterrupt:
        _say("Interrupted.")
        sys.exit(130)


def _run() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError as error:
        sys.exit(
            f"{error.name} is not installed for {sys.executable}: run script/server once, then "
            "use .venv/bin/python manage.py."
        )
    from config import embedded

    if len(sys.argv) < 2 or sys.argv[1] in HELP or {"-h", "--help"} & set(sys.argv):
        embedded.describe()
        execute_from_command_line(sys.argv)
        return
    try:
        with embedded.session(announce=_say if sys.stderr.isatty() else None):
            execute_from_command_line(sys.argv)
    except embedded.EmbeddedError as error:
        sys.exit(str(error))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
