"""What the commands of daemons share (`config.daemons`): they work until they are told to stop."""

import signal
import threading

from django.core.management.base import BaseCommand

from config import cluster


class DaemonCommand(BaseCommand):
    """Works until SIGTERM or Ctrl-C, and ends with its supervisor."""

    def work(self, stop: threading.Event) -> None:
        """What the daemon does; it returns soon after `stop` is set."""
        raise NotImplementedError

    def handle(self, *args, **options):
        cluster.end_with_parent()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.work(stop)
