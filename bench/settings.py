"""The project's settings, and one view more: the smallest possible one, to compare with."""

from config.settings import *  # noqa: F403 -- everything else must be the same

ROOT_URLCONF = "bench.urls"
