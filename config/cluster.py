"""`python -m config.cluster`: the queue's cluster, started and watched by `manage.py worker`."""

import os


def main() -> None:
    """Be the cluster until SIGTERM."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django_q.cluster import Cluster

    from config import jobs

    jobs.all()  # so that the forked processes share the imports
    Cluster().start()


if __name__ == "__main__":
    main()
