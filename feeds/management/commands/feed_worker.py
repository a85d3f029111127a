from config.management.daemon import DaemonCommand
from feeds import worker


class Command(DaemonCommand):
    help = (
        "Deliver posts, build timelines and index posts, until SIGTERM or Ctrl-C. `manage.py "
        "worker` starts and supervises FEEDS_WORKERS of these; further ones may run beside it."
    )

    def work(self, stop):
        worker.work(stop)
