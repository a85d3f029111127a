"""The vector search: each route against numpy, filters, and what the database does for it."""

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from matching import vectors
from matching.models import Item, ServingModel

pytestmark = pytest.mark.django_db

MODEL = "seeded-1"
CATEGORIES = ("dog", "cat", "phone")
COUNTRIES = ("GR", "CA")


@pytest.fixture(autouse=True)
def _no_estimates():
    vectors.forget_estimates()
    yield
    vectors.forget_estimates()


class Stock:
    """Items with seeded vectors, and the answer by numpy. A category is a cluster."""

    def __init__(self, count: int, kinds=("found",), seed: int = 1) -> None:
        chance = np.random.default_rng(seed)
        owner = User.objects.create(username="owner")
        self.kinds = np.array(kinds)[np.arange(count) % len(kinds)]
        cluster = chance.integers(0, len(CATEGORIES), count)
        self.categories = np.array(CATEGORIES)[cluster]
        self.countries = np.array(COUNTRIES)[chance.integers(0, 2, count)]
        self.centres = unit(chance.standard_normal((len(CATEGORIES), 384)))
        noise = chance.standard_normal((count, 384)) * 0.5 / np.sqrt(384)
        self.vectors = unit(self.centres[cluster] + noise).astype(np.float16)
        made = Item.objects.bulk_create(
            Item(owner=owner, kind=kind, title="thing", category=category, country=country)
            for kind, category, country in zip(
                self.kinds.tolist(), self.categories.tolist(), self.countries.tolist(), strict=True
            )
        )
        self.ids = np.array([item.pk for item in made])
        ServingModel.objects.create(model=MODEL)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO item_embeddings"
                " (item_id, model, kind, category, country, content_hash, text_embedding)"
                " SELECT i.id, %s, i.kind, i.category, i.country, '', v::halfvec(384)"
                " FROM unnest(%s::bigint[], %s::text[]) AS u (id, v) JOIN items AS i USING (id)",
                [MODEL, self.ids.tolist(), [vectors.literal(each) for each in self.vectors]],
            )
            cursor.execute("ANALYZE item_embeddings")

    def search(self, seed: int, cluster: int | None = None) -> np.ndarray:
        chance = np.random.default_rng([seed, 2])
        cluster = chance.integers(0, len(CATEGORIES)) if cluster is None else cluster
        noise = chance.standard_normal(384) * 0.5 / np.sqrt(384)
        return unit(self.centres[cluster] + noise).astype(np.float16).astype(np.float32)

    def truth(self, vector, *, kinds, category=None, country=None, limit, exclude=()):
        passing = np.isin(self.kinds, kinds) & ~np.isin(self.ids, exclude)
        passing &= (self.categories == category) if category is not None else True
        passing &= (self.countries == country) if country is not None else True
        stored = unit(self.vectors[passing].astype(np.float32))
        cosines = stored @ unit(vector)
        best = np.argsort(-cosines, kind="stable")[:limit]
        return self.ids[passing][best].tolist(), cosines[best].tolist()


def unit(vectors_: np.ndarray) -> np.ndarray:
    return vectors_ / np.linalg.norm(vectors_, axis=-1, keepdims=True)


def agreement(found: vectors.Neighbours, ids: list[int]) -> float:
    return len({item for item, _ in found.hits} & set(ids)) / len(ids) if ids else 1.0


def count_scans(index: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_get_xact_numscans(%s::regclass)", [index])
        return cursor.fetchone()[0]


@pytest.fixture
def stock() -> Stock:
    """400 items of two sides."""
    return Stock(400, kinds=("found", "offered"))


@examples(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_small_table_is_compared_whole(stock, data):
    vector = stock.search(data.draw(st.integers(0, 99)))
    asked = {
        "kinds": data.draw(st.sampled_from([["found"], ["found", "offered"], ["job"], []])),
        "category": data.draw(st.sampled_from([None, *CATEGORIES, "", "o'clock %s"])),
        "country": data.draw(st.sampled_from([None, *COUNTRIES, "XX"])),
        "limit": data.draw(st.integers(1, 300)),
        "exclude": data.draw(st.lists(st.sampled_from(stock.ids.tolist()), max_size=50)),
    }
    found = vectors.nearest(vector, **asked)
    ids, cosines = stock.truth(vector, **asked)
    assert found.route in ("exact", "")
    assert len(found.hits) == len(ids)
    assert [cosine for _, cosine in found.hits] == pytest.approx(cosines, abs=1e-4)
    assert agreement(found, ids) >= 0.95  # neighbours may swap where the numbers are equal


@pytest.fixture
def crowd(monkeypatch) -> Stock:
    """1,500 items of one side, which count as many."""
    monkeypatch.setattr(vectors, "EXACT_ROWS", 100)
    monkeypatch.setattr(vectors, "GRAPH_ROWS", 100)
    return Stock(1_500)


FILTERS = [{}, {"country": "GR"}, {"category": "cat"}, {"category": "cat", "country": "GR"}]


@pytest.mark.parametrize("share", [0.0, 2.0])  # the graph as soon as it may, or never
def test_each_route_finds_the_nearest(crowd, monkeypatch, share):
    monkeypatch.setattr(vectors, "GRAPH_SHARE", share)
    for where in FILTERS:
        recalls, routes = [], set()
        for seed in range(15):
            vector = crowd.search(seed)
            found = vectors.nearest(vector, kinds=["found"], limit=10, **where)
            ids, _ = crowd.truth(vector, kinds=["found"], limit=10, **where)
            assert len(found.hits) == 10
            recalls.append(agreement(found, ids))
            routes.add(found.route)
        assert np.mean(recalls) >= 0.97, where
        assert min(recalls) >= 0.8, where
        if share:
            assert routes == {"coded"}
        elif "category" in where:  # it has what passes near a search in its cluster only
            assert routes == {"graph", "coded"}
        else:
            assert routes == {"graph"}


def test_a_filter_that_the_graph_misses_is_scanned(crowd, monkeypatch):
    """The nearest hundreds lie in one cluster, and what passes in another."""
    monkeypatch.setattr(vectors, "GRAPH_SHARE", 0.0)
    vector = crowd.search(1, cluster=0)
    found = vectors.nearest(vector, kinds=["found"], category=CATEGORIES[1], limit=10)
    ids, _ = crowd.truth(vector, kinds=["found"], category=CATEGORIES[1], limit=10)
    assert found.route == "coded"
    assert agreement(found, ids) >= 0.8


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_never_fewer_rows_than_exist(crowd, monkeypatch, share):
    monkeypatch.setattr(vectors, "GRAPH_SHARE", share)
    rest = crowd.ids[:-7].tolist()
    found = vectors.nearest(crowd.search(3), kinds=["found"], limit=10, exclude=rest)
    assert {item for item, _ in found.hits} == set(crowd.ids[-7:].tolist())
    Item.objects.filter(category="dog").update(status="closed")
    left = int((crowd.categories != "dog").sum())
    assert len(vectors.nearest(crowd.search(3), kinds=["found"], limit=5_000).hits) == left


def test_deleted_items_are_passed_over(crowd):
    """Before a vacuum, with three of four gone."""
    kept = crowd.ids % 4 == 0
    Item.objects.filter(pk__in=crowd.ids[~kept].tolist()).update(is_deleted=True)
    gone = crowd.ids[~kept].tolist()
    recalls = []
    for seed in range(20):
        vector = crowd.search(seed)
        found = vectors.nearest(vector, kinds=["found"], limit=10)
        ids, _ = crowd.truth(vector, kinds=["found"], limit=10, exclude=gone)
        assert found.route == "graph"
        recalls.append(agreement(found, ids))
    assert np.mean(recalls) >= 0.98


def test_kinds_are_united(crowd):
    other = Item.objects.create(owner_id=User.objects.get().pk, kind="offered", title="thing")
    vector = crowd.search(5)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO item_embeddings VALUES (%s, %s, 'offered', '', '', '', %s::halfvec(384))",
            [other.pk, MODEL, vectors.literal(vector)],
        )
    found = vectors.nearest(vector, kinds=["found", "offered"], limit=10)
    assert found.hits[0] == (other.pk, pytest.approx(1, abs=1e-3))
    assert found.route == "exact+graph"
    assert len(found.hits) == 10


def test_only_the_model_that_serves_is_searched(crowd):
    ServingModel.objects.update(model="another-1")
    for limit in (10, 200):
        assert vectors.nearest(crowd.search(1), kinds=["found"], limit=limit).hits == []


def test_a_setting_compares_all(crowd, settings):
    settings.MATCHING_VECTOR = "exact"
    vector = crowd.search(1)
    found = vectors.nearest(vector, kinds=["found"], limit=50)
    ids, _ = crowd.truth(vector, kinds=["found"], limit=50)
    assert found.route == "exact"
    assert agreement(found, ids) >= 0.98


def test_plans(crowd):
    """The graph is walked where it is meant, and only there: the operator alone invites it."""
    vector = crowd.search(1)
    graph = "idx_item_embeddings_found"
    before = count_scans(graph)
    vectors.nearest_exactly(vector, kinds=["found"], category="dog", country="GR", limit=10)
    assert count_scans(graph) == before
    assert vectors.nearest(vector, kinds=["found"], limit=10).route == "graph"
    assert count_scans(graph) == before + 1


def test_settings_of_the_graph_end_with_the_search(crowd):
    assert vectors.nearest(crowd.search(1), kinds=["found"], limit=10).route == "graph"
    with connection.cursor() as cursor:
        for name, value in [
            ("hnsw.ef_search", "40"), ("hnsw.iterative_scan", "off"), ("enable_sort", "on"),
        ]:  # fmt: skip
            cursor.execute("SELECT current_setting(%s)", [name])
            assert cursor.fetchone() == (value,)


def test_the_code_is_a_thermometer():
    vector = np.random.default_rng(1).standard_normal(384).astype(np.float16) / np.float16(20)
    with connection.cursor() as cursor:
        cursor.execute("SELECT matching_code(%s::halfvec(384))::text", [vectors.literal(vector)])
        code = cursor.fetchone()[0]
    bits = np.array(list(code), int).reshape(4, 384)
    assert (np.diff(bits, axis=0) <= 0).all()  # below a threshold is below all higher ones
    level = np.searchsorted([-0.045, -0.0135, 0.0135, 0.045], vector.astype(float))
    near = np.abs(np.abs(vector.astype(float))[:, None] - [0.0135, 0.045]).min(axis=1) < 1e-4
    assert (bits.sum(axis=0) == level)[~near].all()


def test_literals_hold_what_half_precision_does():
    vector = np.array([1, -1, 0, 1e-5, 0.12345678, -3e-7], np.float32)
    read = np.array([float(each) for each in vectors.literal(vector)[1:-1].split(",")])
    assert np.abs(read - vector).max() <= 5.1e-6
