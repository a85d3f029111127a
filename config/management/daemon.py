"""What the commands of daemons share (`config.daemons`): they work until they are told to stop."""

import signal
import threading

from django.core.management.base import BaseCommand


class DaemonCommand(BaseCommand):
    """Works until SIGTERM or Ctrl-C."""

    def work(self, stop: threading.Event) -> None:
        """What the daemon does; it returns soon after `stop` is set."""
        raise NotImplementedError

    def handle(self, *args, **options):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self.work(stop)
