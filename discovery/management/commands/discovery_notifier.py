import signal
import threading

from django.core.management.base import BaseCommand

from config import cluster
from discovery import notifier


class Command(BaseCommand):
    help = (
        "Tell people of drops that fit their watches, until SIGTERM or Ctrl-C. `manage.py worker` "
        "starts and supervises DISCOVERY_NOTIFIERS of these; further ones may run beside it."
    )

    def handle(self, *args, **options):
        cluster.end_with_parent()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        notifier.work(stop)
