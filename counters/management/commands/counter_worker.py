from config.management.daemon import DaemonCommand
from counters import worker


class Command(DaemonCommand):
    help = (
        "Count the events of the stream and fold what waits, until SIGTERM or Ctrl-C. "
        "`manage.py worker` starts and supervises COUNTERS_WORKERS of these; further ones may run "
        "beside it."
    )

    def work(self, stop):
        worker.work(stop)
