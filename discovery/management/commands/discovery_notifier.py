from config.management.daemon import DaemonCommand
from discovery import notifier


class Command(DaemonCommand):
    help = (
        "Tell people of drops that fit their watches, until SIGTERM or Ctrl-C. `manage.py worker` "
        "starts and supervises DISCOVERY_NOTIFIERS of these; further ones may run beside it."
    )

    def work(self, stop):
        notifier.work(stop)
