import asyncio
import signal

from django.core.management.base import BaseCommand

from discovery import poller


class Command(BaseCommand):
    help = (
        "Poll the sources that are due until SIGTERM or Ctrl-C. `manage.py worker` starts and "
        "supervises DISCOVERY_POLLERS of these; further ones may run beside it, on this host or "
        "another."
    )

    def handle(self, *args, **options):
        asyncio.run(_poll_until_told())


async def _poll_until_told() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await poller.poll(stop)
