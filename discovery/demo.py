"""Demo data of discovery: restaurants whose tables are booked and given back, and a watch.

What the source shows is a function of seed and time (`discovery.providers.demo`), so that a poller
goes on where this ends. Loading it again adds only the polls of the time that has passed since.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

from config import jobs
from discovery import actions, watches
from discovery.models import Source, Watch
from discovery.providers.demo import shown_at

NAME = "demo-tables"
HOURS = {"small": 4, "medium": 24}  # of past polls
STEP = timedelta(minutes=5)
POLL_SECONDS = 15
WATCHER = "demo-anna"
WATCHES = "Dinner for two in Lyon"
LYON = (45.7640, 4.8357)


def is_empty() -> bool:
    """Whether no source stands yet."""
    return not Source.objects.exists()


def load(*, size: str, seed: int, progress: Callable[[str], None] = lambda text: None) -> int:
    """Record the demo source's past polls, watch it, build the feed; how many drops are new.

    `size`: a key of HOURS. Raises `config.runs.JobFailed` where a job fails.
    """
    source = actions.ensure_source(
        name=NAME,
        title="Tables of a dozen restaurants (made up)",
        provider=Source.Provider.DEMO,
        config={"seed": seed},
        timezone="Europe/Paris",
        poll_seconds=POLL_SECONDS,
        # A poll of today would make those of the past late ones.
        next_poll_at=timezone.now() + timedelta(minutes=10),
    )
    _watch(source)
    drops = 0
    for at in () if source.is_paused else _moments(source, HOURS[size]):
        report = actions.record_source_poll(shown_at(source, at))
        drops += len(report.opened)
    Source.objects.filter(pk=source.pk).update(next_poll_at=timezone.now())
    progress(f"{drops:,} drops of {NAME}")
    progress("running refresh_discovery")
    jobs.run_job("refresh_discovery", trigger="command")
    return drops


def _moments(source: Source, hours: int) -> Iterator[datetime]:
    """The past moments at which the source was polled, on a grid, those that are missing yet."""
    now = timezone.now()
    begin = now - timedelta(hours=hours)
    if source.last_success_at is not None:
        begin = max(begin, source.last_success_at)
    step = STEP.total_seconds()
    at = datetime.fromtimestamp((begin.timestamp() // step + 1) * step, UTC)
    while at < now:
        yield at
        at += STEP


def _watch(source: Source) -> None:
    """A watch whose word is kept in its list, of a person who cannot log in with a password."""
    person, is_new = get_user_model().objects.get_or_create(username=WATCHER)
    if is_new:
        person.set_unusable_password()
        person.save(update_fields=["password"])
    if Watch.objects.filter(user=person, name=WATCHES).exists():
        return
    watches.create_watch(
        user=person,
        name=WATCHES,
        source=source.name,
        time_from="18:00",
        time_to="21:30",
        party_size=2,
        latitude=LYON[0],
        longitude=LYON[1],
        radius_m=10_000,
        channel=Watch.Channel.NONE,
        timezone=source.timezone,
    )
