import os

from config.management.daemon import DaemonCommand
from matching import worker

OVERDUE = 70  # exit code (EX_SOFTWARE of sysexits.h)


class Command(DaemonCommand):
    help = (
        "Do match jobs until SIGTERM or Ctrl-C. `manage.py worker` starts and supervises "
        "MATCHING_WORKERS of these; further ones may run beside it, on this host or another."
    )

    def work(self, stop):
        worker.work(stop, overdue=lambda: os._exit(OVERDUE))
