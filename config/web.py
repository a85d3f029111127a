"""Starts the web server: `python -m config.web --host 0.0.0.0 --port 8000`.

`script/server` and the container image run this. `--check` asks a running one for its health
instead, and exits 1 without a good answer.
"""

import argparse
import os
import shutil
import sys
import urllib.request
from pathlib import Path

from config.embedded import var_folder

JSON_LOG = Path(__file__).with_name("granian_log.json")


def parser() -> argparse.ArgumentParser:
    """The options that `script/server` passes on."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    options.add_argument("--port", type=_port, default=8000, help="port (%(default)s)")
    options.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        help="web server processes (one per core: %(default)s)",
    )
    return options


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m config.web", description=__doc__.splitlines()[0], parents=[parser()]
    )
    arguments.add_argument("--check", action="store_true", help="ask a running server")
    options = arguments.parse_args()
    if options.check:
        sys.exit(0 if answers(options) else 1)
    metrics = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR") or var_folder() / "metrics")
    shutil.rmtree(metrics, ignore_errors=True)  # counters of processes that are gone
    metrics.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    os.environ["PROCESS_ROLE"] = "web"
    os.execv(sys.executable, command(options))  # noqa: S606 - the same process goes on as granian


def command(options: argparse.Namespace) -> list[str]:
    """Granian's command line.

    Two threads a process: one alone would let a slow query hold up cached answers behind it, and
    more than two only compete for the interpreter (measured with wrk: 1, 2, 4, 8).
    Backpressure counts connections, idle keep-alive ones too: at its default (512 for two
    processes) the client after them waits, accepted by nobody, until another one leaves.
    """
    return [
        *(sys.executable, "-m", "granian", "config.wsgi:application", "--interface", "wsgi"),
        *("--host", options.host, "--port", str(options.port)),
        *("--workers", str(options.workers), "--blocking-threads", "2"),
        *("--backlog", "4096", "--backpressure", "4096"),
        *("--respawn-failed-workers", "--no-ws", "--log-level", "warning"),
        *(("--log-config", str(JSON_LOG)) if os.environ.get("LOG_FORMAT") == "json" else ()),
    ]


def address(options: argparse.Namespace) -> str:
    """Where the server answers a client on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104
    return f"http://[{host}]:{options.port}" if ":" in host else f"http://{host}:{options.port}"


def answers(options: argparse.Namespace) -> bool:
    """Whether `/health/live` says yes. Sends a Host header that ALLOWED_HOSTS lets through."""
    allowed = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip().lstrip(".")
    request = urllib.request.Request(  # noqa: S310 - our own http address
        f"{address(options)}/health/live",
        headers={"Host": allowed if allowed not in ("", "*") else "localhost"},
    )
    try:
        with urllib.request.urlopen(request, timeout=3):  # noqa: S310 - the same
            return True
    except OSError:
        return False


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 256")
    return int(text)


if __name__ == "__main__":
    main()
