"""The search index: follows what happens, newest version wins, is built anew beside itself."""

import threading

import pytest
from django.core.management import call_command
from django.db import connection

from config import readmodels
from feeds import actions, indexing
from feeds.models import Document, Post, PostEvent
from feeds.search import Document as Indexed
from feeds.search import backend
from tests.feeds.people import profile

pytestmark = pytest.mark.django_db


def index() -> int:
    done = 0
    while count := indexing.index_next():
        done += count
    return done


def texts() -> dict[int, str]:
    return dict(Document.objects.filter(is_gone=False).values_list("post_id", "text"))


def test_the_index_follows_posts_and_people():
    ann = profile("ann")
    post = actions.create_post(author=ann, text="first")
    assert indexing.lag()[0] == 1
    assert index() == 1
    assert texts() == {post.pk: "first"}
    actions.edit_post(post_id=post.pk, author=ann, text="second")
    index()
    assert texts() == {post.pk: "second"}
    actions.edit_profile(user=ann.user, display_name="Anna")
    index()
    with connection.cursor() as cursor:
        cursor.execute("SELECT author_name FROM post_documents")
        assert cursor.fetchall() == [("Anna",)]
    actions.edit_profile(user=ann.user, is_private=True)
    index()
    assert texts() == {}
    actions.edit_profile(user=ann.user, is_private=False)
    index()
    assert texts() == {post.pk: "second"}
    Post.objects.filter(pk=post.pk).delete()
    index()
    assert texts() == {}
    assert indexing.lag() == (0, 0.0)


def test_counts_are_indexed_when_they_have_doubled():
    ann = profile("ann")
    post = actions.create_post(author=ann, text="x")
    index()
    events = []
    for number in range(8):
        actions.react(post_id=post.pk, user=profile(f"fan-{number}"), reaction=actions.LIKE)
        events.append(index())
    assert events == [1, 0, 1, 0, 0, 0, 1, 0]  # at 1, 3 and 7: the logarithm of one more


def test_what_comes_late_never_wins():
    ann = profile("ann")
    post = actions.create_post(author=ann, text="new")
    index()
    version = Document.objects.get().version
    late = Indexed(post.pk, version - 1, False, ann.pk, "ann", "", "post", "old")
    assert backend().apply([late]) == 0
    assert texts() == {post.pk: "new"}
    gone = Indexed(post.pk, version + 5, is_gone=True)
    assert backend().apply([gone]) == 1
    late = Indexed(post.pk, version + 4, False, ann.pk, "ann", "", "post", "risen")
    assert backend().apply([late]) == 0
    assert texts() == {}


def test_without_an_embedder_words_are_found(settings):
    settings.EMBEDDER = "off"
    post = actions.create_post(author=profile("ann"), text="a red umbrella")
    index()
    hits = backend().search(text="umbrella", vector=None, kind=None, author_id=None, limit=5)
    assert [hit.post_id for hit in hits] == [post.pk]


def test_reconciliation_finds_and_mends():
    ann = profile("ann")
    post = actions.create_post(author=ann, text="right")
    index()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE post_documents SET text = 'wrong'")
    [model] = readmodels.select([indexing.INDEX])
    assert readmodels.reconcile(model).samples == [f"post_documents: post {post.pk} differs"]
    readmodels.reconcile(model, fix=True)
    assert readmodels.reconcile(model).count == 0
    assert texts() == {post.pk: "right"}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM post_documents")
    assert readmodels.reconcile(model).count == 1


@pytest.mark.django_db(transaction=True)
def test_reindexing_beside_writers(monkeypatch, capsys):
    ann = profile("ann")
    posts = [actions.create_post(author=ann, text=f"before {number}") for number in range(30)]
    index()
    monkeypatch.setattr(indexing, "REBUILT_AT_ONCE", 5)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            post = posts[number % 30]
            actions.edit_post(post_id=post.pk, author=ann, text=f"meanwhile {number}")
            indexing.index_next()
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            call_command("reindex")
    finally:
        stop.set()
        writer.join()
    index()
    assert "30 posts indexed" in capsys.readouterr().out
    [model] = readmodels.select([indexing.INDEX])
    assert readmodels.reconcile(model).count == 0
    assert len(texts()) == 30
    assert not PostEvent.objects.exists()
    readmodels.refresh(model, full=True)
    assert readmodels.reconcile(model).count == 0
