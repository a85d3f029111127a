"""The read models of matching: equal to the items after any writes, mended where they are not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from config import readmodels
from config.models import ReadModelState
from matching import projection
from matching import queries as reads
from matching import readmodels as matching_readmodels
from matching.geo import geohash
from matching.models import Item, ItemTerm, ItemTermChange
from matching.text import terms

WORDS = ("black", "white", "bag", "key", "grey")


def newest(*kinds, limit=10):
    """The newest items that everybody may see, of some kinds or all that are public."""
    public = ("lost", "found", "wanted", "offered", "job")
    return matching_readmodels.public_items(kinds=kinds or public, limit=limit)


def model(name):
    return readmodels.all()[name]


def counted():
    return {(row.kind, row.term): row.items for row in ItemTerm.objects.all()}


def truth():
    """What item_terms should hold, counted in Python."""
    expected = {}
    for item in Item.objects.filter(status="open", is_deleted=False):
        title, _, body = item.terms.partition(chr(31))
        said = dict.fromkeys((*title.split(), *body.split()), 1)
        said |= {"": 1, " title": len(title.split()), " body": len(body.split())}
        if item.category:
            said[f"#{item.category}"] = 1
        if item.country:
            said[f"@{item.country}"] = 1
            said |= {f"@{item.country}/{item.city}": 1} if item.city else {}
        for term, items in said.items():
            expected[item.kind, term] = expected.get((item.kind, term), 0) + items
    return {key: items for key, items in expected.items() if items}


@pytest.fixture
def owner(db):
    return get_user_model().objects.create_user("owner")


@pytest.fixture
def put(owner):
    def write(kind, title, **fields):
        said = terms(title, fields.get("description", ""))
        return Item.objects.create(owner=owner, kind=kind, title=title, terms=said, **fields)

    return write


class TestTerms:
    def test_a_fold_takes_in_what_changed(self, put):
        item = put("found", "black bag black", category="bags", country="FR", city="Lyon")
        put("found", "white bag", description="with a key")
        readmodels.refresh(model("item_terms"))
        assert counted() == truth()
        assert counted()["found", "bag"] == 2
        Item.objects.filter(pk=item.pk).update(status="closed")
        assert readmodels.refresh(model("item_terms")).rows > 0
        assert counted() == truth()
        assert ("found", "black") not in counted()
        assert readmodels.refresh(model("item_terms")).rows == 0

    @pytest.mark.django_db
    def test_any_writes_leave_them_equal_to_the_items(self, owner, monkeypatch):
        monkeypatch.setattr(matching_readmodels, "FOLD_CHANGES", 7)
        titles = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
        write = st.tuples(
            st.sampled_from(
                ["insert", "title", "close", "open", "delete", "kind", "remove", "fold"]
            ),
            st.integers(0, 5),
            titles,
            st.sampled_from(["lost", "found"]),
        )

        @settings(max_examples=25, deadline=None)
        @given(st.lists(write, max_size=14))
        def check(writes):
            for what, at, title, kind in writes:
                ids = list(Item.objects.order_by("pk").values_list("pk", flat=True))
                rows = Item.objects.filter(pk=ids[at % len(ids)]) if ids else Item.objects.none()
                match what:
                    case "insert":
                        Item.objects.bulk_create(
                            Item(
                                owner=owner,
                                kind=kind,
                                title=title,
                                terms=terms(title),
                                category=kind,
                            )
                            for _ in range(at)
                        )
                    case "title":
                        rows.update(title=title, terms=terms(title, "body"))
                    case "close" | "open":
                        rows.update(status="closed" if what == "close" else "open")
                    case "delete":
                        rows.update(is_deleted=True)
                    case "kind":
                        rows.update(kind=kind)
                    case "remove":
                        rows.delete()
                    case "fold":
                        readmodels.refresh(model("item_terms"))
            found = readmodels.reconcile(model("item_terms"))
            assert (found.count, found.samples) == (0, [])
            readmodels.refresh(model("item_terms"))
            assert counted() == truth()
            assert not ItemTermChange.objects.exists()

        check()

    def test_reconcile_finds_and_mends(self, put):
        for number in range(5):
            put("found", f"black bag {number}")
        readmodels.refresh(model("item_terms"))
        ItemTerm.objects.filter(kind="found", term="bag").update(items=99)
        ItemTerm.objects.filter(kind="found", term="3").delete()
        ItemTerm.objects.create(kind="job", term="nonsense", items=4)
        put("found", "bag that waits")
        found = readmodels.reconcile(model("item_terms"))
        assert (found.count, found.fixed) == (3, False)
        assert found.pending > 0
        assert "found 'bag': 100 is counted, should be 6" in found.samples
        assert readmodels.reconcile(model("item_terms"), fix=True).count == 3
        assert counted() == truth()

    def test_full_rebuilds_from_nothing(self, put):
        put("found", "black bag")
        readmodels.refresh(model("item_terms"))
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE item_terms")
        readmodels.refresh(model("item_terms"), full=True)
        assert counted() == truth() != {}

    def test_a_fold_raises_the_generation_only_where_something_changed(self, put):
        def generation():
            return ReadModelState.objects.get(name="item_terms").generation

        put("found", "black bag")
        readmodels.refresh(model("item_terms"))
        before = generation()
        readmodels.refresh(model("item_terms"))
        assert generation() == before
        put("found", "white bag")
        readmodels.refresh(model("item_terms"))
        assert generation() == before + 1


@pytest.mark.django_db(transaction=True)
def test_folds_at_once_count_each_change_once(monkeypatch):
    monkeypatch.setattr(matching_readmodels, "FOLD_CHANGES", 20)
    owner = get_user_model().objects.create_user("owner")
    Item.objects.bulk_create(
        Item(owner=owner, kind="found", title=f"bag {n}", terms=f"bag w{n}") for n in range(300)
    )
    errors = []

    def fold():
        try:
            matching_readmodels._fold_terms(lambda text: None)
        except Exception as error:  # noqa: BLE001 -- told by the assert below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=fold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert counted() == truth()


class TestRecent:
    def test_a_window_of_30_days(self, put):
        old, new = put("found", "old"), put("found", "new")
        Item.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=31))
        put("found", "deleted", is_deleted=True)
        assert model("mv_recent_items").backlog() == 1
        assert readmodels.refresh(model("mv_recent_items")).rows == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, status, title FROM mv_recent_items")
            assert cursor.fetchall() == [(new.pk, "open", "new")]
        assert model("mv_recent_items").backlog() == 0

    def test_reconcile_knows_what_changed_since_from_what_is_wrong(self, put):
        item = put("found", "bag")
        readmodels.refresh(model("mv_recent_items"))
        assert readmodels.reconcile(model("mv_recent_items")).count == 0
        Item.objects.filter(pk=item.pk).update(status="closed", updated_at=timezone.now())
        past = timezone.now() + timedelta(hours=1)
        ReadModelState.objects.filter(name="mv_recent_items").update(
            refreshed_at=timezone.now() - timedelta(hours=1)
        )
        assert readmodels.reconcile(model("mv_recent_items")).count == 0
        ReadModelState.objects.filter(name="mv_recent_items").update(refreshed_at=past)
        found = readmodels.reconcile(model("mv_recent_items"), fix=True)
        assert (found.count, found.samples) == (1, [f"{item.pk}: differs"])
        assert readmodels.reconcile(model("mv_recent_items")).count == 0


class TestPublic:
    @pytest.fixture
    def shown(self, put):
        items = [put("found", f"bag {number}", latitude=48.8, longitude=2.3) for number in range(3)]
        items.append(put("lost", "key"))
        for name in ("mv_recent_items", "items_public"):
            readmodels.refresh(model(name))
        return items

    def test_the_newest_first_of_one_kind_or_all(self, shown):
        ids = [item.pk for item in shown]
        public = newest()
        assert [item["id"] for item in public] == ids[::-1]
        of_kind = newest("found", limit=2)
        assert [item["id"] for item in of_kind] == [ids[2], ids[1]]

    def test_it_is_read_from_valkey_and_shows_no_exact_place(self, shown, monkeypatch):
        assert projection.size() == 4
        monkeypatch.setattr(reads, "public_items", lambda ids: pytest.fail("asked PostgreSQL"))
        [item] = newest("found", limit=1)
        assert item["title"] == "bag 2"
        assert item["cell"] == geohash(48.8, 2.3, 6)
        assert not {"latitude", "longitude", "owner_id", "geohash"} & item.keys()

    def test_without_valkey_it_comes_from_postgresql(self, shown, own_valkey):
        before = newest()
        own_valkey.stop()
        assert newest() == before

    def test_what_changed_is_forgotten(self, shown):
        gone, changed = shown[0], shown[1]
        Item.objects.filter(pk=gone.pk).update(status="closed")
        Item.objects.filter(pk=changed.pk).update(title="another title")
        projection.forget([gone.pk, changed.pk])
        titles = [item["title"] for item in newest()]
        assert titles == ["key", "bag 2", "another title"]

    def test_what_changes_during_a_rebuild_does_not_come_back(self, shown, monkeypatch):
        real = reads.public_items

        def overtaken(ids, **options):
            found = real(ids, **options)
            Item.objects.filter(pk=shown[0].pk).update(title="newer")
            projection.forget([shown[0].pk])
            return found

        monkeypatch.setattr(reads, "public_items", overtaken)
        projection.rebuild()
        monkeypatch.setattr(reads, "public_items", real)
        titles = [item["title"] for item in newest()]
        assert titles == ["key", "bag 2", "bag 1", "newer"]

    def test_what_was_forgotten_comes_back_with_a_build_that_began_later(self, shown):
        projection.forget([shown[0].pk])
        assert projection.size() == len(shown) - 1
        projection.forget([shown[1].pk])
        projection.rebuild()
        assert projection.size() == len(shown)

    def test_reconcile_finds_and_mends(self, shown):
        assert readmodels.reconcile(model("items_public")).count == 0
        Item.objects.filter(pk=shown[0].pk).update(title="changed by nobody who tells")
        assert readmodels.reconcile(model("items_public")).count == 1
        readmodels.reconcile(model("items_public"), fix=True)
        assert readmodels.reconcile(model("items_public")).count == 0

    def test_nothing_to_show(self, db):
        for name in ("mv_recent_items", "items_public"):
            readmodels.refresh(model(name))
        assert newest() == []


@pytest.mark.django_db(transaction=True)
def test_two_mends_of_the_words_at_once_mend_once(put):
    put("found", "bag")
    readmodels.refresh(model("item_terms"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE item_terms SET items = items + 3 WHERE term = ''")

    def mend(_):
        try:
            readmodels.reconcile(model("item_terms"), fix=True)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(mend, range(2)))
    assert readmodels.reconcile(model("item_terms")).count == 0
