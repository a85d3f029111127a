import os
from datetime import timedelta

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from config import jobs
from config.worker import Supervisor


class Command(BaseCommand):
    help = (
        "Run queued and scheduled jobs until SIGTERM or Ctrl-C. Supervises the queue's cluster and "
        "restarts it when it dies or falls silent; keeps the apps' daemons running beside it."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--metrics-port", type=int, help="serve Prometheus metrics of this process here"
        )
        parser.add_argument("--metrics-address", default="127.0.0.1", help="default: %(default)s")
        parser.add_argument(
            "--grace",
            type=float,
            default=30,
            metavar="SECONDS",
            help="how long jobs at work may take to end when stopped (default: %(default)s)",
        )
        parser.add_argument(
            "--tick",
            type=float,
            default=5,
            metavar="SECONDS",
            help="time between two looks at schedules and heartbeats (default: %(default)s)",
        )

    def handle(self, *args, metrics_port, metrics_address, grace, tick, **options):
        jobs.all()  # a job module that cannot be imported must show now, not in a log later
        if metrics_port:
            self._serve_metrics(metrics_address, metrics_port)
        Supervisor(
            stale=timedelta(seconds=settings.WORKER_HEARTBEAT_STALE_SECONDS),
            tick=timedelta(seconds=tick),
            grace=timedelta(seconds=grace),
        ).run()

    def _serve_metrics(self, address, port):
        registry = REGISTRY
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):  # then the jobs' processes count as well
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        try:
            start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            raise CommandError(
                f"cannot serve metrics on {address}:{port}: {error.strerror}; choose another "
                "--metrics-port"
            ) from error
