import signal
import threading

from django.core.management.base import BaseCommand

from config import cluster
from feeds import worker


class Command(BaseCommand):
    help = (
        "Deliver posts, build timelines and index posts, until SIGTERM or Ctrl-C. `manage.py "
        "worker` starts and supervises FEEDS_WORKERS of these; further ones may run beside it."
    )

    def handle(self, *args, **options):
        cluster.end_with_parent()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        worker.work(stop)
