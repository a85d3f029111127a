"""The poller: asks every source that is due, records what it shows, and comes back when it may.

Sources are claimed by lease, so that any number of pollers share them, and one at a time asks a
source. Asking is asynchronous; the database is used in threads, so that neither holds up the other.
What a source showed is recorded under its lease only, and sent again after an error: recording it
twice changes nothing.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

import aiohttp
import orjson
from django.conf import settings
from django.db import close_old_connections, connection, connections

from config import leases, runs
from config.logs import first_line
from config.outages import AWAY, PAUSES
from config.sqlfiles import Statements, queries
from discovery import actions, providers
from discovery.models import Source
from discovery.polls import local_day, zone_of
from discovery.providers import base
from discovery.providers.base import Fetched, FetchFailed

_sql = Statements("discovery")

logger = logging.getLogger("spyglass.discovery")

POLLER = "discovery poller"  # the Heartbeat row that says that a poller looks for what is due
AT_ONCE = 8  # sources
CONNECTIONS = 4  # to the database, one more for the heartbeat
LEASE = timedelta(seconds=30)
HEARTBEAT_SECONDS = 10
LOOK_SECONDS = 1.0
FETCH_TIMES = 4  # a fetch of several requests takes so many times the limit of one at most
JITTER = 0.1  # pollers and hosts drift apart; only upward, as a source is never asked too soon
LONGEST_BACKOFF = 15 * 60  # seconds


@dataclass(frozen=True)
class Claim:
    """A source that this process asks, under a lease of its own.

    `claimed_at` is the database's time, `since` the same on the monotonic clock of this process.
    """

    source: Source
    lease: str
    claimed_at: datetime
    since: float
    floor_seconds: float  # how long to wait at least between two polls

    def now(self) -> datetime:
        """The database's time: on all hosts the same, so that no later poll seems to be earlier."""
        return self.claimed_at + timedelta(seconds=time.monotonic() - self.since)


async def poll(stop: asyncio.Event) -> None:
    """Poll until `stop` is set; then fetches are given up, and what was fetched is recorded."""
    # Threads that wait for a name server must not keep the other sources waiting.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(AT_ONCE * 4, "discovery"))
    async with base.session() as session, _Database() as database:
        await _Poller(session, database).run(stop)


def is_alive() -> bool:
    """Whether a poller looked for due sources lately."""
    return runs.is_alive(POLLER, within=LEASE.total_seconds() + HEARTBEAT_SECONDS)


def pause_after(*, floor: float, failures: int = 0, retry_after: float | None = None) -> float:
    """Seconds until the next poll, given how many failed in a row.

    Each failure doubles it, up to 15 minutes; what the source asks for holds in any case.
    """
    backoff = min(floor * 2 ** min(max(failures - 1, 0), 20), LONGEST_BACKOFF)
    return max(floor, backoff, retry_after or 0) * random.uniform(1, 1 + JITTER)  # noqa: S311


def claim(*, limit: int, busy: Sequence[int] = ()) -> list[Claim]:
    """Take up to so many sources that are due, none of `busy`."""
    lease = leases.new_owner()
    rows = _sql.rows(
        "claim_sources",
        providers=[str(name) for name in providers.PROVIDERS],
        busy=list(busy),
        limit=limit,
        lease=lease,
        length=LEASE,
    )
    since = time.monotonic()
    found = Source.objects.in_bulk([source for source, _ in rows])
    return [_claim(found[key], lease, at, since) for key, at in rows if key in found]


def keep(claims: Sequence[Claim]) -> dict[int, str]:
    """Push the end of the leases out; {id: name} of the sources whose leases still hold."""
    return dict(
        _sql.rows(
            "keep_source_leases",
            sources=[each.source.pk for each in claims],
            leases=[each.lease for each in claims],
            length=LEASE,
        )
    )


def _claim(source: Source, lease: str, at: datetime, since: float) -> Claim:
    floor = max(source.poll_seconds, source.validators.get("floor_seconds", 0))
    return Claim(source, lease, at, since, floor)


class _Poller:
    """One process's share of the polling."""

    def __init__(self, session: aiohttp.ClientSession, database: "_Database"):
        self._session, self._database = session, database
        self._claims: dict[asyncio.Task, Claim] = {}
        self._fetching: set[asyncio.Task] = set()
        self._checked: dict[int, str] = {}  # source: the fingerprint of the set-up that is right
        self._is_stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        heart = asyncio.create_task(self._beat())
        try:
            while not stopped.done():
                await self._look()
                is_full = len(self._claims) >= AT_ONCE
                waited_for = {stopped, *(self._claims if is_full else ())}
                await asyncio.wait(
                    waited_for, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            self._is_stopping = True
            for task in self._fetching:
                task.cancel()
            if self._claims:
                await asyncio.wait(self._claims)
            for task in (stopped, heart):
                task.cancel()
            await asyncio.wait({stopped, heart})

    async def _look(self) -> None:
        """Begin with what is due, as far as there is room."""
        room = AT_ONCE - len(self._claims)
        if room <= 0:
            return
        busy = [each.source.pk for each in self._claims.values()]
        try:
            found = await self._database.run(partial(claim, limit=room, busy=busy))
        except AWAY as error:
            logger.warning("cannot use the database: %s", first_line(error))
            return
        except Exception:
            logger.exception("the poller goes on after an error")
            return
        for each in found:
            task = asyncio.create_task(self._attend(each), name=f"poll {each.source.name}")
            self._claims[task] = each
            task.add_done_callback(self._claims.pop)

    async def _attend(self, claimed: Claim) -> None:
        """One poll of one source, from the question to the record."""
        task = asyncio.current_task()
        self._fetching.add(task)
        try:
            fetched = await self._fetch(claimed)
            outcome = partial(_record, claimed, fetched, claimed.now())
        except FetchFailed as failure:
            outcome = partial(_fail, claimed, failure, claimed.now())
        except asyncio.CancelledError:
            outcome = partial(_end, claimed, pause=0)
        except Exception as error:
            logger.exception("%s: the provider failed", claimed.source.name)
            failure = FetchFailed(f"The provider failed: {type(error).__name__}: {error}")
            outcome = partial(_fail, claimed, failure, claimed.now())
        finally:
            self._fetching.discard(task)
        await self._store(claimed, outcome)

    async def _fetch(self, claimed: Claim) -> Fetched:
        source = claimed.source
        fingerprint = _fingerprint(claimed)
        kept = source.validators
        # A provider gets what it kept itself, if that is still of use.
        source.validators = kept.get("memory", {}) if kept.get("for") == fingerprint else {}
        limit = settings.OUTGOING_TIMEOUT_SECONDS * FETCH_TIMES
        try:
            async with asyncio.timeout(limit):
                if self._checked.get(source.pk) != fingerprint:
                    await _check(source)
                    self._checked[source.pk] = fingerprint
                provider = providers.PROVIDERS[source.provider]()
                return await provider.fetch(self._session, source)
        except TimeoutError as error:
            raise FetchFailed(f"No whole answer within {limit:g} s") from error

    async def _store(self, claimed: Claim, outcome: partial) -> None:
        """Record the outcome; what cannot be recorded is left to the end of its lease."""
        name = claimed.source.name
        for pause in (*PAUSES, None):
            try:
                await self._database.run(outcome)
                return
            except AWAY as error:
                if pause is None or self._is_stopping:
                    logger.error("%s: not recorded: %s", name, first_line(error))
                    return
                await asyncio.sleep(pause)
            except Exception as error:
                logger.exception("%s: it could not be recorded", name)
                if outcome.func is not _end:
                    await self._store(claimed, _instead(outcome, claimed, error))
                return

    async def _beat(self) -> None:
        """Say that this poller lives, and keep its leases."""
        while True:
            try:
                await self._database.beat(partial(_live, list(self._claims.values())))
            except AWAY as error:
                logger.warning("heartbeat failed: %s", first_line(error))
            except Exception:
                logger.exception("heartbeat failed")
            await asyncio.sleep(HEARTBEAT_SECONDS)


class _Database:
    """Threads that use the database, each with a connection of its own."""

    def __init__(self) -> None:
        self._heart, *lanes = [
            ThreadPoolExecutor(1, "discovery database") for _ in range(CONNECTIONS + 1)
        ]
        self._lanes = lanes
        self._free: asyncio.LifoQueue[ThreadPoolExecutor] = asyncio.LifoQueue()
        for lane in lanes:
            self._free.put_nowait(lane)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc) -> None:
        """What runs ends first."""
        for lane in (self._heart, *self._lanes):
            lane.submit(connections.close_all)
        await asyncio.to_thread(self._join)

    async def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns, run in a thread that is free."""
        lane = await self._free.get()
        try:
            return await asyncio.get_running_loop().run_in_executor(lane, _connected, function)
        finally:
            self._free.put_nowait(lane)

    async def beat(self, function: Callable[[], Any]) -> Any:
        """The same in the thread of the heartbeat, which no recording keeps waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._heart, _connected, function)

    def _join(self) -> None:
        for lane in (self._heart, *self._lanes):
            lane.shutdown()


def _connected(function: Callable[[], Any]) -> Any:
    close_old_connections()
    try:
        return function()
    except AWAY:
        connection.close()
        raise


def _live(claims: Sequence[Claim]) -> None:
    runs.beat(POLLER, sources=len(claims))
    if claims:
        keep(claims)


async def _check(source: Source) -> None:
    """Raise FetchFailed where the source is not set up as its provider needs it."""
    look = partial(
        providers.check,
        provider=source.provider,
        config=source.config,
        window_days=source.window_days,
    )
    if errors := await asyncio.to_thread(look):
        raise FetchFailed("; ".join(f"{key}: {reason}" for key, reason in errors.items()))


def _instead(failed: partial, claimed: Claim, error: Exception) -> partial:
    """What to store where storing something raised an error that would come again."""
    if failed.func is _fail:
        return partial(_end, claimed, pause=LONGEST_BACKOFF)
    reason = FetchFailed(f"It could not be recorded: {type(error).__name__}: {error}")
    return partial(_fail, claimed, reason, claimed.now())


def _record(claimed: Claim, fetched: Fetched, at: datetime) -> None:
    """Record what was fetched, if the source is still this poller's, and give it back."""
    source, name = claimed.source, _name_if_held(claimed)
    if name is None:
        return
    is_settled = True
    if fetched.poll is None:
        actions.record_unchanged(source=source, at=at)
    else:
        try:
            report = actions.tick(replace(fetched.poll, source=name, polled_at=at))
        except actions.SourcePaused:
            _end(claimed, pause=0)
            return
        is_settled = _is_settled(report)
    if source.consecutive_failures >= settings.DISCOVERY_OUTAGE_FAILURES:
        logger.warning("%s answers again, after %d failures", name, source.consecutive_failures)
    memory = {
        "for": _fingerprint(claimed),
        "floor_seconds": fetched.floor_seconds,
        "memory": fetched.memory if is_settled else _unconditional(fetched.memory),
    }
    floor = max(source.poll_seconds, fetched.floor_seconds)
    _end(claimed, pause=pause_after(floor=floor), memory=memory)


def _fail(claimed: Claim, failure: FetchFailed, at: datetime) -> None:
    """Note a poll that failed, and leave the source alone for the longer the more have."""
    source, name = claimed.source, _name_if_held(claimed)
    if name is None:
        return
    failures = source.consecutive_failures + 1
    actions.record_failure(source=source, at=at, error=failure.reason)
    pause = pause_after(
        floor=claimed.floor_seconds, failures=failures, retry_after=failure.retry_after
    )
    _end(claimed, pause=pause)
    is_out = failures == settings.DISCOVERY_OUTAGE_FAILURES
    logger.log(
        logging.ERROR if is_out else logging.WARNING,
        "%s: failure %d in a row, next poll in %.0f s: %s",
        name,
        failures,
        pause,
        failure.reason,
    )


def _name_if_held(claimed: Claim) -> str | None:
    """The source's name while the lease holds; None where it is somebody else's, or no more."""
    name = keep([claimed]).get(claimed.source.pk)
    if name is None:
        logger.warning("%s: polled in vain, the lease was lost", claimed.source.name)
    return name


def _end(claimed: Claim, *, pause: float, memory: Mapping[str, Any] | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            queries("discovery")["end_source_poll"],
            {
                "source": claimed.source.pk,
                "lease": claimed.lease,
                "pause": pause,
                "memory": None if memory is None else orjson.dumps(memory).decode(),
            },
        )


def _is_settled(report: actions.Report) -> bool:
    """Whether the same answer again would change nothing.

    Where it would (a slot must be missed once more, emptiness be confirmed), "not modified" must
    not stand in for it.
    """
    waiting = ("missing", "quarantined", "left_out")
    return report.outcome == "recorded" and not any(report.counts[name] for name in waiting)


def _unconditional(memory: Mapping[str, Any]) -> dict[str, Any]:
    """The memory of a fetch without what makes the next one conditional."""
    return {
        url: {key: value for key, value in kept.items() if key not in ("etag", "last_modified")}
        for url, kept in memory.items()
    }


def _fingerprint(claimed: Claim) -> str:
    """What a source's memory hangs on: how it is set up, and which buckets there are today.

    An answer that did not change means something else once these have.
    """
    source = claimed.source
    days = settings.DISCOVERY_WINDOW_DAYS if source.window_days is None else source.window_days
    today = local_day(claimed.claimed_at, zone_of(source.timezone))
    told = [source.provider, source.config, source.timezone]
    if days:
        told += [days, settings.DISCOVERY_TIME_SLOTS, today]
    return hashlib.sha256(orjson.dumps(told)).hexdigest()[:16]
