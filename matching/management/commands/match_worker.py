import os
import signal
import threading

from django.core.management.base import BaseCommand

from config import cluster
from matching import worker

OVERDUE = 70  # exit code (EX_SOFTWARE of sysexits.h)


class Command(BaseCommand):
    help = (
        "Do match jobs until SIGTERM or Ctrl-C. `manage.py worker` starts and supervises "
        "MATCHING_WORKERS of these; further ones may run beside it, on this host or another."
    )

    def handle(self, *args, **options):
        cluster.end_with_parent()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        worker.work(stop, overdue=lambda: os._exit(OVERDUE))
