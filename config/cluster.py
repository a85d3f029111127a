"""`python -m config.cluster`: the queue's cluster, started and watched by `manage.py worker`."""

import os
import sys

from config import children

PARENT = "SPYGLASS_SUPERVISOR"  # the environment variable with the supervisor's process id


def main() -> None:
    """Be the cluster until SIGTERM, or until the supervisor dies."""
    end_with_parent()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django_q.cluster import Cluster

    from config import jobs

    jobs.all()  # so that the forked processes share the imports
    Cluster().start()


def end_with_parent() -> None:
    """Get a SIGTERM when the supervisor is killed, so that no second cluster lingers (Linux)."""
    supervisor = os.environ.get(PARENT)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    children.end_with_parent()
    if os.getppid() != int(supervisor):  # it died before the call
        sys.exit("the supervisor is gone")


if __name__ == "__main__":
    main()
