"""The lists of a large side: made when due, made anew as it grows, read beside the graph."""

import numpy as np
import psycopg
import pytest
from django.db import OperationalError, connection

from config.jobs import run_job
from matching import lists, vectors
from matching.models import ItemEmbedding
from tests.matching.test_vectors import Stock, agreement, count_scans

pytestmark = pytest.mark.django_db(transaction=True)

MADE = "idx_items_embedding_ivfflat_found_10"


def standing() -> list[tuple[str, bool]]:
    """Names of the indexes that are lists, and whether they are valid."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE relname LIKE '%ivfflat%' ORDER BY relname"
        )
        return cursor.fetchall()


@pytest.fixture
def crowd(monkeypatch) -> Stock:
    """1,000 items of one side, which count as many, and 20 of another, which do not."""
    for module, name, value in [
        (vectors, "EXACT_ROWS", 100), (vectors, "GRAPH_ROWS", 100), (vectors, "LARGE_SIDE", 500),
        (lists, "ROWS_PER_LIST", 100),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, value)
    vectors.forget_estimates()
    yield Stock(1_020, kinds=("found",) * 50 + ("offered",))
    for name, _ in standing():
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX {name}")
    vectors.forget_estimates()


def test_made_once_and_again_when_the_side_has_doubled(crowd, monkeypatch):
    assert run_job("train_vector_lists", trigger="test").detail["made"] == [MADE]
    assert standing() == [(MADE, True)]
    assert lists.train() == []
    monkeypatch.setattr(lists, "ROWS_PER_LIST", 51)  # 19 lists: not yet double
    assert lists.train() == []
    monkeypatch.setattr(lists, "ROWS_PER_LIST", 50)
    assert lists.train() == ["idx_items_embedding_ivfflat_found_20"]
    assert standing() == [("idx_items_embedding_ivfflat_found_20", True)]


@pytest.mark.parametrize(("memory", "made"), [("12MB", 105), ("64MB", 477)])
def test_as_many_as_the_memory_allows(crowd, monkeypatch, memory, made):
    """pgvector refuses to train more than it has the memory for."""
    monkeypatch.setattr(lists, "ROWS_PER_LIST", 1)
    with connection.cursor() as cursor:
        cursor.execute(f"SET maintenance_work_mem = '{memory}'")
    assert lists.train() == [f"idx_items_embedding_ivfflat_found_{made}"]
    with connection.cursor() as cursor:
        cursor.execute("RESET maintenance_work_mem")


def test_they_are_read_beside_the_graph(crowd):
    lists.train()
    recalls = []
    for seed in range(20):
        vector = crowd.search(seed)
        before = count_scans(MADE)
        found = vectors.nearest(vector, kinds=["found"], limit=10)
        assert found.route == "graph"
        assert count_scans(MADE) > before
        ids, _ = crowd.truth(vector, kinds=["found"], limit=10)
        assert len({item for item, _ in found.hits}) == 10
        recalls.append(agreement(found, ids))
    assert np.mean(recalls) >= 0.98


def test_they_find_what_the_graph_does_not(crowd):
    """A graph that was made before the rows came, of which it knows nothing."""
    lists.train()
    vector = crowd.search(1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT item_id, distance FROM matching_listed('found', %s::halfvec(384), 10, 12)",
            [vectors.literal(vector)],
        )
        found = cursor.fetchall()
    ids, cosines = crowd.truth(vector, kinds=["found"], limit=10)
    assert {item for item, _ in found} == set(ids)
    assert sorted(1 - distance for _, distance in found) == pytest.approx(sorted(cosines), abs=1e-3)


def test_without_lists_the_graph_goes_alone(crowd):
    found = vectors.nearest(crowd.search(1), kinds=["found"], limit=10)
    assert found.route == "graph"
    assert len(found.hits) == 10
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM matching_listed('found', %s::halfvec(384), 10, 12)",
            [vectors.literal(crowd.search(1))],
        )
        assert cursor.fetchone() == (0,)


def test_what_a_broken_build_left_is_dropped(crowd):
    """An open transaction holds the build up until it is given up, as a kill would end it."""
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT count(*) FROM item_embeddings")  # a snapshot that stays
        other.execute("UPDATE item_embeddings SET country = country WHERE kind = 'offered'")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            lists.train()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
        other.rollback()
    assert standing() == [(MADE, False)]
    assert vectors.nearest(crowd.search(1), kinds=["found"], limit=10).hits
    assert lists.train() == [MADE]
    assert standing() == [(MADE, True)]


def test_new_vectors_join_the_lists(crowd):
    lists.train()
    item = ItemEmbedding.objects.filter(kind="offered").first()
    vector = crowd.search(7)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE item_embeddings SET kind = 'found', text_embedding = %s::halfvec(384)"
            " WHERE item_id = %s",
            [vectors.literal(vector), item.item_id],
        )
        cursor.execute(
            "SELECT item_id FROM matching_listed('found', %s::halfvec(384), 1, 1)",
            [vectors.literal(vector)],
        )
        assert cursor.fetchone() == (item.item_id,)
