"""The vectors of items: brought up to date by a queue, from one model to the next.

A trigger queues an item when its text, side or liveness changes. `drain` claims a batch, embeds
what differs by content hash, and writes it in the same transaction: killed anywhere, the batch
waits as before, and any number of drains may run at once.

While another model takes over, the one that serves goes on serving, to which the setting
EMBEDDER_PREVIOUS must name its embedder; changed items get a vector of each. Once every item has
one of the new model, that one serves, and the old ones go. Without EMBEDDER_PREVIOUS the new model
serves at once, and an item is found by its vector again as the drain comes to it.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import DeadlockDetected

from config import prepared
from config.breakers import Breaker
from config.embeddings import DIMENSIONS, Embedder, EmbedderError, embedder, embedder_named
from config.sqlfiles import Statements, queries
from matching import vectors
from matching.models import ServingModel
from matching.text import embedded_text

logger = logging.getLogger("spyglass.matching")

_sql = Statements("matching")

# An item's owner who edits it while its batch is written waits for that: 0.3 s.
BATCH_ITEMS = 128
WRITERS = 2  # an insert into the graph takes 2 ms of one core
PRUNE_ITEMS = 1_000
# How long vectors of a model that no longer serves stay, for the searches that had begun.
PRUNE_AFTER = timedelta(seconds=60)
_ATTEMPTS = 5


breaker = Breaker("the embedder", failures=5, seconds=30)


def available() -> bool:
    """Whether searching by vectors is worth a try: it is on, and the embedder did not just fail."""
    return "off" not in (settings.EMBEDDER, settings.MATCHING_VECTOR) and not breaker.is_open


def embed_query(text: str) -> np.ndarray | None:
    """The vector of a text by the model that serves, float32 [384]; None if it has no words.

    Raises EmbedderError, at once while the breaker is open.
    """
    if not breaker.allows():
        raise EmbedderError("the embedder failed repeatedly and is left alone for a while")
    try:
        vector = _serving().embed([text])[0]
    except EmbedderError as error:
        breaker.failed(error)
        raise
    breaker.succeeded()
    return vector if vector.any() else None


def queue_depth() -> int:
    """Queued changes, and items that have no vector of the embedder's model yet."""
    return _sql.value("embedding_queue_depth", model=_target_name())


def drain(progress: Callable[[int], None] | None = None) -> int:
    """Bring all vectors up to date; returns how many were written.

    `progress(written)` is called after each batch, and what it raises ends the drain between two
    batches. With EMBEDDER=off nothing is done and the queue grows. Raises EmbedderError,
    DatabaseError.
    """
    if settings.EMBEDDER == "off":
        return 0
    work = _Drain(progress or (lambda written: None))
    work.run()
    return work.written


def embed_now(item_ids: Sequence[int]) -> None:
    """Bring the vectors of a few items up to date, as the drain would do a minute later.

    Their changes stay queued; the drain then finds nothing to write. Does nothing while searching
    by vectors is off or the embedder fails. Raises EmbedderError, DatabaseError.
    """
    if not available():
        return
    target = embedder()
    _make_serving(target)
    _again_after_deadlock(lambda: _write_batch(lambda: item_ids, target))


class _Drain:
    """One call of `drain`: several writers, for one waits for the graph on one core."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.written = 0
        self._progress = progress
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._target = embedder()

    def run(self) -> None:
        serving = _make_serving(self._target)
        if serving != self._target.name and _previous(serving) is None:
            logger.warning("%s serves at once: EMBEDDER_PREVIOUS is not set", self._target.name)
            _serve(self._target.name)
        self._empty(_claim_changes)
        if self._empty(_Stragglers(self._target.name).claim):
            self._empty(_claim_changes)
        if not self._stop.is_set():
            self._take_over()

    def _empty(self, claim: "Claim") -> int:
        """Batches until `claim` has none left; returns the number of items seen."""
        before = self.written
        if connection.in_atomic_block:  # other connections would not see what is queued
            seen = self._write_batches(claim)
        else:
            with ThreadPoolExecutor(WRITERS, thread_name_prefix="drain") as pool:
                writers = [pool.submit(self._write, claim) for _ in range(WRITERS)]
                try:
                    while not all(writer.done() for writer in writers):
                        time.sleep(0.05)
                        if self.written != before:
                            before = self.written
                            self._progress(self.written)
                finally:
                    if not all(writer.done() for writer in writers):
                        self._stop.set()
            seen = sum(writer.result() for writer in writers)
        self._progress(self.written)
        return seen

    def _write(self, claim: "Claim") -> int:
        """A writer's thread."""
        try:
            return self._write_batches(claim)
        finally:
            connection.close()

    def _write_batches(self, claim: "Claim") -> int:
        total = 0
        while not self._stop.is_set():
            seen, written = _again_after_deadlock(lambda: _write_batch(claim, self._target))
            total += seen
            with self._counting:
                self.written += written
            if not seen:
                break
        return total

    def _take_over(self) -> None:
        """Let the target serve, now that no item lacks its vector; remove what served before."""
        name = self._target.name
        serving = ServingModel.objects.get()
        if serving.model != name:
            _serve(name)
        elif serving.since < timezone.now() - PRUNE_AFTER:
            while not self._stop.is_set() and _sql.count(
                "prune_embeddings", model=name, limit=PRUNE_ITEMS
            ):
                self._progress(self.written)


class _Item(NamedTuple):
    """A claimed item: what the row says, and what stands of it. `hashes`: {model: content hash}."""

    id: int
    live: bool
    title: str
    description: str
    category: str
    fingerprint: int
    hashes: dict[str, str]


Claim = Callable[[], Iterable[int]]


def _claim_changes() -> list[int]:
    return sorted({item for (item,) in _sql.rows("claim_embedding_changes", limit=BATCH_ITEMS)})


class _Stragglers:
    """Items that have a vector, but none of `model`, by id. Shared by the writers of a drain."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._after = 0
        self._advancing = threading.Lock()

    def claim(self) -> list[int]:
        with self._advancing:
            rows = _sql.rows(
                "items_without_model", model=self._model, after=self._after, limit=BATCH_ITEMS
            )
            found = [item for (item,) in rows]
            self._after = found[-1] if found else self._after
            return found


def _write_batch(claim: Claim, target: Embedder) -> tuple[int, int]:
    """Claim, embed and write one batch in one transaction: (items claimed, vectors written)."""
    with transaction.atomic():
        claimed = list(claim())
        if not claimed:
            return 0, 0
        items = _load(claimed)
        written = 0
        for model in _models(target):
            written += _write_vectors(model, [item for item in items if item.live])
        _sql.count("remove_embeddings_of_others", items=claimed)
        return len(claimed), written


def _load(ids: list[int]) -> list[_Item]:
    rows = _sql.rows("items_to_embed", items=ids)
    return [_Item(*row[:-1], json.loads(row[-1])) for row in rows]


def _embed_all(model: Embedder, texts: list[str]) -> np.ndarray:
    """The vectors of texts; of one that makes the model fail zeros, as of a text without words.

    It must not keep those that wait behind it. Raises EmbedderError where the model fails at all.
    """
    try:
        return model.embed(texts)
    except EmbedderError:
        model.embed(["a word"])
    found = []
    for text in texts:
        try:
            found.append(model.embed([text])[0])
        except EmbedderError as error:
            logger.error("a text of %d characters gets no vector: %s", len(text), error)
            found.append(np.zeros(DIMENSIONS, np.float32))
    return np.stack(found)


def _write_vectors(model: Embedder, items: list[_Item]) -> int:
    """Embed the items whose text or model differs, and write them where they still say the same.

    What changed meanwhile is queued again by that change.
    """
    changed, texts, hashes = [], [], []
    for item in items:
        text = embedded_text(item.title, item.description, item.category)
        content_hash = hashlib.sha256(text.encode()).hexdigest()
        if item.hashes.get(model.name) != content_hash:
            changed.append(item)
            texts.append(text)
            hashes.append(content_hash)
    if not changed:
        return 0
    found = _embed_all(model, texts)
    speaking = [place for place, vector in enumerate(found) if vector.any()]
    _sql.count(
        "write_embeddings",
        model=model.name,
        items=[changed[place].id for place in speaking],
        fingerprints=[changed[place].fingerprint for place in speaking],
        hashes=[hashes[place] for place in speaking],
        vectors=[vectors.literal(found[place]) for place in speaking],
    )
    if len(speaking) < len(changed):
        wordless = set(range(len(changed))) - set(speaking)
        _sql.count(
            "remove_embeddings",
            model=model.name,
            items=[changed[place].id for place in wordless],
        )
    return len(speaking)


def _models(target: Embedder) -> list[Embedder]:
    """The embedders that a changed item is embedded by: the target, and what serves till then."""
    serving = _serving_name()
    if serving in (None, target.name):
        return [target]
    previous = _previous(serving)
    return [target, previous] if previous else [target]


def _serving() -> Embedder:
    """The embedder of the model that serves."""
    target, serving = embedder(), _serving_name()
    if serving in (None, target.name):
        return target
    return _previous(serving) or target


def _serving_name() -> str | None:
    return next(
        (name for (name,) in prepared.fetch(queries("matching")["serving_model"], {})), None
    )


def _previous(name: str) -> Embedder | None:
    """The embedder of EMBEDDER_PREVIOUS where it makes vectors of the model `name`."""
    if not settings.EMBEDDER_PREVIOUS:
        return None
    previous = embedder_named(settings.EMBEDDER_PREVIOUS)
    return previous if previous.name == name else None


def _target_name() -> str:
    """The model that vectors should be of; "" where there is no embedder to say so."""
    try:
        return embedder().name
    except EmbedderError:
        return ""


def _make_serving(target: Embedder) -> str:
    """The model that serves; the target from now on where none does yet."""
    serving = _serving_name()
    if serving is None:
        # Another process may have been quicker, with a model of its own.
        serving = ServingModel.objects.get_or_create(pk=1, defaults={"model": target.name})[0].model
    return serving


def _serve(name: str) -> None:
    ServingModel.objects.update_or_create(pk=1, defaults={"model": name, "since": timezone.now()})


def _again_after_deadlock(work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """`work()`, once more where PostgreSQL ended it to let another transaction go on."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except OperationalError as error:
            if not isinstance(error.__cause__, DeadlockDetected):
                raise
    return work()
