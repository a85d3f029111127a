"""The queue of the embedder: what it writes, races, kills, a change of model, the breaker."""

import hashlib
import threading
import time

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from config.embeddings import EmbedderError, embedder
from matching import embedding, vectors
from matching.models import Item, ItemEmbedding, ItemEmbeddingChange, ServingModel
from matching.text import embedded_text
from tests.processes import until

WORDLLAMA = "wordllama-l2_supercat-256"


@pytest.fixture(autouse=True)
def _closed_breaker():
    embedding.breaker.reset()
    vectors.forget_estimates()
    yield
    embedding.breaker.reset()


@pytest.fixture
def owner(db) -> User:
    return User.objects.create(username="owner")


class Hashed:
    """Words thrown into 16 dimensions; nothing for a text that says `mute`."""

    name = "hashed-1"

    def encode(self, texts):
        encoded = np.zeros((len(texts), 16))
        for row, text in zip(encoded, texts, strict=True):
            if "mute" not in text:
                for word in text.split():
                    row[hashlib.sha256(word.encode()).digest()[0] % 16] += 1
        return encoded


class Broken:
    name = "broken-1"
    calls = 0

    def encode(self, texts):
        Broken.calls += 1
        raise OSError("the model's server is away")


class Meddling(Hashed):
    """While it embeds, somebody else does something to an item."""

    name = "meddling-1"
    meddle = staticmethod(lambda: None)

    def encode(self, texts):
        encoded = super().encode(texts)
        meddle, Meddling.meddle = Meddling.meddle, staticmethod(lambda: None)
        other = threading.Thread(target=lambda: (meddle(), connection.close()))
        other.start()
        other.join()
        return encoded


def here(name: str) -> str:
    return f"{__name__}.{name}"


def items(owner, count: int, **fields) -> list[Item]:
    return Item.objects.bulk_create(
        Item(
            **{"owner": owner, "kind": "found", "category": "bag", "country": "GR"}
            | {"title": f"bag number {number}", "description": f"seen at gate {number % 7}"}
            | fields
        )
        for number in range(count)
    )


def check(model: str = WORDLLAMA, embed=None) -> None:
    """The table is what a computation from scratch would give: a vector for each live item."""
    embed = embed or embedder()
    live = {item.pk: item for item in Item.objects.filter(status="open", is_deleted=False)}
    rows = ItemEmbedding.objects.filter(model=model).order_by("item_id")
    assert [row.item_id for row in rows] == sorted(live)
    assert not ItemEmbedding.objects.exclude(item_id__in=live).exists()
    if not live:
        return
    texts = [
        embedded_text(live[row.item_id].title, live[row.item_id].description,
                      live[row.item_id].category)
        for row in rows
    ]  # fmt: skip
    for row, expected in zip(rows, embed.embed(texts), strict=True):
        item = live[row.item_id]
        assert (row.kind, row.category, row.country) == (item.kind, item.category, item.country)
        assert np.abs(np.array(row.text_embedding) - expected).max() < 1e-3


@pytest.mark.django_db
def test_a_new_item_gets_its_vector(owner):
    items(owner, 5)
    items(owner, 1, status="closed")
    items(owner, 1, is_deleted=True)
    assert embedding.queue_depth() == 5
    seen = []
    assert embedding.drain(progress=seen.append) == 5
    assert seen[-1] == 5
    assert embedding.queue_depth() == 0
    assert ServingModel.objects.get().model == WORDLLAMA
    check()
    vector = embedding.embed_query("bag number 3 seen at gate 3")
    assert vectors.nearest(vector, kinds=["found"], limit=1).hits[0][1] > 0.8


@pytest.mark.django_db
def test_only_what_changed_is_embedded(owner):
    first, second = items(owner, 2)
    embedding.drain()
    Item.objects.filter(pk=first.pk).update(city="Athens", updated_at=timezone.now())
    assert embedding.queue_depth() == 0
    Item.objects.filter(pk=first.pk).update(country="CA")
    assert ItemEmbedding.objects.get(item=first).country == "CA"
    assert embedding.drain() == 0
    Item.objects.filter(pk=second.pk).update(title="a green umbrella")
    assert embedding.drain() == 1
    Item.objects.filter(pk=second.pk).update(title="x")
    Item.objects.filter(pk=second.pk).update(title="a green umbrella")
    assert embedding.drain() == 0
    check()


@pytest.mark.django_db
def test_what_is_not_live_has_no_vector(owner):
    kept, closed, deleted, erased = items(owner, 4)
    embedding.drain()
    Item.objects.filter(pk=closed.pk).update(status="closed")
    Item.objects.filter(pk=deleted.pk).update(is_deleted=True)
    Item.objects.filter(pk=erased.pk).delete()
    assert [row.item_id for row in ItemEmbedding.objects.all()] == [kept.pk]
    Item.objects.filter(pk=closed.pk).update(status="open")
    embedding.drain()
    check()


@pytest.mark.django_db
def test_a_text_without_words_has_no_vector(owner, settings):
    settings.EMBEDDER = here("Hashed")
    loud, mute = items(owner, 2)
    embedding.drain()
    Item.objects.filter(pk=mute.pk).update(title="mute")
    assert embedding.drain() == 0
    assert [row.item_id for row in ItemEmbedding.objects.all()] == [loud.pk]
    assert embedding.embed_query("mute") is None
    assert embedding.queue_depth() == 0


@pytest.mark.django_db
def test_switched_off_it_leaves_the_queue(owner, settings):
    settings.EMBEDDER = "off"
    items(owner, 3)
    assert embedding.drain() == 0
    assert embedding.queue_depth() == 3
    assert not embedding.available()
    with pytest.raises(EmbedderError, match="switched off"):
        embedding.embed_query("a bag")
    settings.EMBEDDER = "wordllama"
    assert embedding.available()
    settings.MATCHING_VECTOR = "off"
    assert not embedding.available()


@pytest.mark.django_db
def test_a_model_that_fails_leaves_the_queue(owner, settings):
    settings.EMBEDDER = here("Broken")
    items(owner, 3)
    with pytest.raises(EmbedderError, match="server is away"):
        embedding.drain()
    assert embedding.queue_depth() == 3
    settings.EMBEDDER = "wordllama"
    ServingModel.objects.all().delete()
    assert embedding.drain() == 3


@pytest.mark.django_db
def test_the_breaker_spares_a_model_that_fails(settings, monkeypatch):
    settings.EMBEDDER = here("Broken")
    Broken.calls = 0
    for _ in range(20):
        with pytest.raises(EmbedderError):
            embedding.embed_query("a bag")
    assert Broken.calls == 5
    assert not embedding.available()
    now = time.monotonic()
    monkeypatch.setattr(embedding.time, "monotonic", lambda: now + 31)
    assert embedding.available()
    with pytest.raises(EmbedderError, match="server is away"):
        embedding.embed_query("a bag")  # one try, and it is open again
    assert not embedding.available()
    monkeypatch.setattr(embedding.time, "monotonic", lambda: now + 62)
    settings.EMBEDDER = "wordllama"
    assert embedding.embed_query("a bag") is not None
    assert embedding.available()


@pytest.mark.django_db(transaction=True)
def test_several_writers_and_drains_at_once(owner):
    made = items(owner, 700)
    drained = []

    def drain():
        drained.append(embedding.drain())
        connection.close()

    drains = [threading.Thread(target=drain) for _ in range(3)]
    for each in drains:
        each.start()
    for number, item in enumerate(made[:200]):
        change = {"title": f"changed {number}"} if number % 2 else {"status": "closed"}
        Item.objects.filter(pk=item.pk).update(**change)
    for each in drains:
        each.join()
    embedding.drain()
    check()
    assert ItemEmbeddingChange.objects.count() == 0
    assert sum(drained) >= 600


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change", [{"title": "a violin"}, {"status": "closed"}, {"is_deleted": True}, {"kind": "lost"}]
)
def test_an_item_that_changes_while_it_is_embedded(owner, settings, change):
    settings.EMBEDDER = here("Meddling")
    (item,) = items(owner, 1)
    Meddling.meddle = staticmethod(lambda: Item.objects.filter(pk=item.pk).update(**change))
    embedding.drain()
    embedding.drain()
    check("meddling-1")
    assert embedding.queue_depth() == 0


@pytest.mark.django_db(transaction=True)
def test_an_item_that_vanishes_while_it_is_embedded(owner, settings):
    settings.EMBEDDER = here("Meddling")
    kept, gone = items(owner, 2)
    Meddling.meddle = staticmethod(lambda: Item.objects.filter(pk=gone.pk).delete())
    embedding.drain()
    check("meddling-1")
    assert [row.item_id for row in ItemEmbedding.objects.all()] == [kept.pk]


@pytest.mark.django_db(transaction=True)
def test_what_progress_raises_ends_the_drain(owner, monkeypatch):
    monkeypatch.setattr(embedding, "BATCH_ITEMS", 10)
    items(owner, 400)

    def stop(written):
        raise TimeoutError("the job's time is over")

    with pytest.raises(TimeoutError):
        embedding.drain(progress=stop)
    left = ItemEmbeddingChange.objects.count()
    assert ItemEmbedding.objects.count() == 400 - left
    assert embedding.drain() == left
    check()


def at_work() -> bool:
    """Whether another session of this database is inside of a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            " AND xact_start IS NOT NULL"
        )
        return cursor.fetchone()[0] > 0


@pytest.mark.django_db(transaction=True)
def test_a_drain_that_is_killed_loses_nothing(owner, spawn):
    items(owner, 3_000)
    process = spawn(["run_job", "embed_items"])
    until(ItemEmbedding.objects.exists, "the first vectors")
    process.kill()
    process.wait()
    until(lambda: not at_work(), "the end of the killed process's session")
    written = ItemEmbedding.objects.count()
    assert 0 < written < 3_000
    with transaction.atomic():  # no row is locked any more
        waiting = ItemEmbeddingChange.objects.select_for_update(nowait=True).count()
    assert waiting == 3_000 - written
    assert embedding.drain() == waiting
    check()


def test_a_new_model_takes_over_when_it_is_complete(owner, settings, monkeypatch):
    made = items(owner, 40)
    embedding.drain()
    settings.EMBEDDER, settings.EMBEDDER_PREVIOUS = here("Hashed"), "wordllama"
    assert embedding.queue_depth() == 40
    old = embedding.embed_query("bag number 3")
    assert np.allclose(old, embedding.embedder_named("wordllama").embed(["bag number 3"])[0])

    def end(drain):
        raise TimeoutError("the job's time is over")

    monkeypatch.setattr(embedding._Drain, "_take_over", end)
    Item.objects.filter(pk=made[0].pk).update(title="a violin")
    with pytest.raises(TimeoutError):
        embedding.drain()
    monkeypatch.undo()
    # What changed meanwhile has a vector of both, and what serves is complete.
    check(WORDLLAMA, embedding.embedder_named("wordllama"))
    assert len(vectors.nearest(old, kinds=["found"], limit=100).hits) == 40
    assert ServingModel.objects.get().model == WORDLLAMA

    embedding.drain()
    assert ServingModel.objects.get().model == "hashed-1"
    assert embedding.queue_depth() == 0
    check("hashed-1")
    new = embedding.embed_query("bag number 3")
    assert len(vectors.nearest(new, kinds=["found"], limit=100).hits) == 40

    monkeypatch.setattr(embedding, "PRUNE_AFTER", embedding.timedelta(0))
    embedding.drain()
    assert set(ItemEmbedding.objects.values_list("model", flat=True)) == {"hashed-1"}
    assert ItemEmbedding.objects.count() == 40


def test_a_new_model_without_the_old_one_serves_at_once(owner, settings):
    items(owner, 5)
    embedding.drain()
    settings.EMBEDDER = here("Hashed")
    assert embedding.drain() == 5
    assert ServingModel.objects.get().model == "hashed-1"
    check("hashed-1")


class Fussy(Hashed):
    """One text makes it fail, as text does that its tokeniser cannot take."""

    name = "fussy-1"

    def encode(self, texts):
        if any("poison" in text for text in texts):
            raise ValueError("cannot encode this")
        return super().encode(texts)


def test_one_text_that_cannot_be_embedded_keeps_nobody_waiting(owner, settings):
    settings.EMBEDDER = here("Fussy")
    titles = ["red bag", "poison", "blue bag"]
    items = [Item.objects.create(owner=owner, kind="found", title=title) for title in titles]
    embedding.drain()
    assert not ItemEmbeddingChange.objects.exists()
    known = set(ItemEmbedding.objects.values_list("item_id", flat=True))
    assert known == {items[0].pk, items[2].pk}
