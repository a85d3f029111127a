"""A match worker: claims jobs, looks for counterparts, stores what it found, waits for more.

It listens for new jobs on a connection of its own and looks for itself every few seconds, so that
it works where it cannot listen (PgBouncer) or a message was lost. A thread keeps the lease of the
job at work, and gives up a job that takes too long.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Self

from django.conf import settings
from django.db import DatabaseError, Error, connection, transaction

from config import logs, loops, runs, telemetry
from config.embeddings import EmbedderError
from config.listening import Ear
from config.outages import insist
from matching import badges, embedding, engine, features, metrics, pairs, queue, text, vectors
from matching.kinds import COUNTERPARTS, Kind
from matching.models import Item, MatchJob
from matching.queue import Claim, LeaseLost
from matching.scoring import Scored, Subject
from matching.text import embedded_text

logger = logging.getLogger("spyglass.matching")

WORKER = "match worker"  # the Heartbeat row that says that a worker looks at the queue
HEARTBEAT_SECONDS = 10  # of a lease of 30 s
RESCUE_SECONDS = 2
CHANNEL = "match_jobs"
SAMPLED_NEIGHBOURS = 10
LOOKS = 3  # of one attempt, where items change meanwhile
# Where people live is told no finer than its cell. Of what is lost or on offer the owner of a
# counterpart may learn how far it is: that is what the match is about.
HOMES = {Kind.RESUME, Kind.JOB}


def work(stop: threading.Event, *, overdue: Callable[[], None]) -> None:
    """Work until `stop` is set and the job at work has ended.

    `overdue` is called, in another thread, after a job was given back that took longer than
    MATCHING_JOB_TIMEOUT_SECONDS: it must end the process, whose main thread does not come back.
    """
    _warm_up()
    beat, rescue = loops.beat(WORKER), loops.every(RESCUE_SECONDS, queue.rescue)
    with _Heart(overdue) as heart, Ear(settings.MATCHING_LISTEN_URL, CHANNEL, WORKER) as ear:

        def step() -> bool:
            beat()
            rescue()
            ear.forget()
            return _work_one(heart)

        def rest() -> None:
            ear.wait(settings.MATCHING_POLL_SECONDS, stop)

        loops.repeat(stop, step, rest=rest, logger=logger)


def drain(go_on: Callable[[int], bool]) -> int:
    """Work until no job waits, or `go_on(how many so far)` says no; returns how many jobs."""
    done = 0
    with _Heart() as heart:
        queue.rescue()
        while go_on(done) and _work_one(heart):
            done += 1
    return done


def is_alive() -> bool:
    """Whether a match worker looked at the queue lately."""
    return loops.is_alive(WORKER)


def perform(job: Claim) -> str:
    """Do one job; returns its state then, or "lost" where it is somebody else's by now."""
    try:
        return _look(job)
    except LeaseLost as error:
        logger.warning("match job %s", error)
        return "lost"
    except Exception as error:
        logger.exception("match job %s, attempt %d", job.task_id, job.attempts)
        reason = f"{type(error).__name__}: {error}".strip()
    return insist(lambda: queue.give_back(job, reason)) or "lost"  # where it fails, its lease ends


def _warm_up() -> None:
    """Load the embedder before a job is claimed: meanwhile another worker does that job."""
    try:
        if embedding.available():
            embedding.embed_query("warm up")
    except (EmbedderError, DatabaseError) as error:
        logger.warning("the embedder is not ready: %s", error)
        connection.close()


def _work_one(heart: "_Heart") -> bool:
    job = queue.claim()
    if job is None:
        return False
    origin = {"request_id": job.request_id, "job": "match", "run": str(job.task_id)}
    trace = telemetry.span("job match", run=str(job.task_id), request_id=job.request_id)
    with logs.bound(**origin), trace, heart.beating(job):
        state = perform(job)
        level = logging.INFO if job.request_id else logging.DEBUG  # somebody may look for it
        logger.log(level, "match job %s: %s", job.task_id, state)
    return True


def _look(job: Claim) -> str:
    if job.item_id is None:
        return _look_for_query(job)
    item = Item.objects.filter(pk=job.item_id, status=Item.Status.OPEN, is_deleted=False).first()
    if item is None:
        return _cancel(job)
    _embed(item)
    for attempt in range(1, LOOKS + 1):
        try:
            _look_for_item(job, item)
            break
        except pairs.NotLive:
            return _cancel(job)
        except pairs.Changed:
            if attempt == LOOKS:
                raise  # the queue tries again later
            item.refresh_from_db()
    if random.random() < settings.MATCHING_RECALL_SAMPLE:  # noqa: S311 -- no secret
        _sample_recall(item)
    return MatchJob.State.DONE


def _look_for_item(job: Claim, item: Item) -> None:
    """Match an item as it is now, and store what was found. Raises NotLive, Changed, LeaseLost."""
    dismissed, standing = pairs.counterparts(item_id=item.pk, kind=item.kind)
    found = engine.match(
        engine.subject_of(item),
        kinds=[COUNTERPARTS[item.kind]],
        owner_id=item.owner_id,
        exclude=dismissed,
        also=standing,
        coarse=item.kind in HOMES,
        limit=engine.CANDIDATES,
    )
    hits, gone = _verdict(found, set(standing))
    with transaction.atomic(durable=True):
        queue.hold(job)
        stored = pairs.store(
            item_id=item.pk,
            kind=item.kind,
            hits=hits,
            gone=gone,
            versions=found.versions | {item.pk: item.updated_at},
            degraded=found.degraded,
        )
        result = _summary(found) | {"matches": stored.matches, "new": stored.new}
        seconds = queue.finish(job, result=result, degraded=found.degraded)
        metrics.count_job(found, seconds)
        transaction.on_commit(lambda: badges.forget(*stored.owners))


def _embed(item: Item) -> None:
    """Write the item's vector before looking: of two items posted at one moment, the later job then
    finds the other by its meaning too."""
    try:
        embedding.embed_now([item.pk])
    except (EmbedderError, DatabaseError) as error:
        logger.warning("item %d will be embedded later: %s", item.pk, error)


def _sample_recall(item: Item) -> None:
    """Look for an item's nearest vectors again, exactly, and count how many were found before."""
    try:
        vector = embedding.embed_query(embedded_text(item.title, item.description, item.category))
        if vector is None:
            return
        asked = {"kinds": [COUNTERPARTS[item.kind]], "limit": SAMPLED_NEIGHBOURS}
        right = {one for one, _ in vectors.nearest_exactly(vector, **asked).hits}
        found = {one for one, _ in vectors.nearest(vector, **asked).hits}
    except (EmbedderError, DatabaseError) as error:
        logger.warning("the recall was not sampled: %s", error)
        return
    if right:
        metrics.count_recall(len(found & right) / len(right))


def _verdict(found: engine.Outcome, standing: set[int]) -> tuple[list[Scored], list[int]]:
    """What is a match: the best, and what was suggested before and holds; and what is none now.

    A look that had to do without vectors takes nothing back.
    """
    holding = [hit for hit in found.hits if hit.score >= settings.MATCHING_SCORE_FLOOR]
    best = holding[: settings.MATCHING_RESULTS]
    hits = best + [hit for hit in holding[len(best) :] if hit.item_id in standing]
    gone = set() if found.degraded else standing - {hit.item_id for hit in hits}
    return hits, sorted(gone)


def _look_for_query(job: Claim) -> str:
    query = job.query
    found = engine.match(
        subject_of_query(query),
        kinds=[COUNTERPARTS[query["kind"]]],
        owner_id=job.owner_id,
        coarse=True,
        limit=settings.MATCHING_RESULTS,
    )
    hits = [
        {
            "item_id": hit.item_id,
            "score": hit.score,
            "components": [component.as_dict() for component in hit.components],
        }
        for hit in found.hits
        if hit.score >= settings.MATCHING_SCORE_FLOOR
    ]
    with transaction.atomic(durable=True):
        result = _summary(found) | {"hits": hits}
        seconds = queue.finish(job, result=result, degraded=found.degraded)
        metrics.count_job(found, seconds)
    return MatchJob.State.DONE


def subject_of_query(query: dict[str, Any]) -> Subject:
    """What a description asks to be matched; `query` as `matching.queue` stores it."""
    day = query.get("happened_on")
    return Subject(
        kind=query["kind"],
        title=query["title"],
        description=query.get("description", ""),
        terms=text.terms(query["title"], query.get("description", "")),
        features=features.normalise(query.get("attributes", {})),
        category=query.get("category", ""),
        country=query.get("country", ""),
        city=query.get("city", ""),
        latitude=query.get("latitude"),
        longitude=query.get("longitude"),
        happened_on=date.fromisoformat(day) if day else None,
    )


def _cancel(job: Claim) -> str:
    with transaction.atomic(durable=True):
        queue.finish(job, state=MatchJob.State.CANCELLED, error="Its item is not open any more.")
        metrics.count_attempt(MatchJob.State.CANCELLED)
    return MatchJob.State.CANCELLED


def _summary(found: engine.Outcome) -> dict[str, Any]:
    return {"routes": found.routes, "took_ms": round(found.took_ms, 3)}


class _Heart(threading.Thread):
    """Keeps the lease of the job at work, on a connection of its own, while it may take longer."""

    def __init__(self, overdue: Callable[[], None] = lambda: None):
        super().__init__(name="match heartbeat", daemon=True)
        self._overdue = overdue
        self._stopped = threading.Event()
        self._job: Claim | None = None
        self._since = self._extended = self._signed = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc) -> None:
        self._stopped.set()
        self.join(10)

    @contextlib.contextmanager
    def beating(self, job: Claim) -> Iterator[None]:
        """Keep this job's lease while the block runs."""
        self._since = self._extended = time.monotonic()
        self._job = job
        try:
            yield
        finally:
            self._job = None

    def run(self) -> None:
        try:
            while not self._stopped.wait(min(1, settings.MATCHING_JOB_TIMEOUT_SECONDS / 4)):
                job = self._job
                if job is not None:
                    self._beat(job, time.monotonic())
        finally:
            connection.close()  # connections are per thread: this closes only our own

    def _beat(self, job: Claim, now: float) -> None:
        limit = settings.MATCHING_JOB_TIMEOUT_SECONDS
        try:
            if now - self._signed > loops.BEAT_SECONDS:  # a long job is a sign of life, too
                self._signed = now
                runs.beat(WORKER)
            if now - self._since > limit:
                queue.give_back(job, f"It took longer than {limit:g} s.", outcome="overdue")
                if self._job is job:
                    logger.error("match job %s took longer than %g s", job.task_id, limit)
                    self._overdue()
                    self._job = None
            elif now - self._extended > HEARTBEAT_SECONDS:
                self._extended = now
                queue.extend(job)
        except Error as error:
            logger.warning("match job %s: heartbeat failed: %s", job.task_id, error)
            connection.close()
