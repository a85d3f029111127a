"""What the triggers on items keep is equal to a count from scratch, whoever writes, and however."""

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from matching.kinds import Kind
from matching.models import Item

pytestmark = pytest.mark.django_db

KINDS = st.sampled_from(Kind.values)
STATUSES = st.sampled_from([*Item.Status.values, "open", "open"])
CATEGORIES = st.sampled_from(["", "phone", "dog", 'a "b" c'])
TITLES = st.sampled_from(["Red phone", "Dog", "Ünïcode ☃"])
TERMS = st.sampled_from(["", "red phone", "dog\x1fsmall brown dog", "phone phone", "naïve ☃ 2.0"])
PLACES = st.sampled_from(
    [(None, None), (55.95, -3.19), (55.9501, -3.1901), (90.0, 180.0), (-90.0, -180.0), (0.0, 0.0)]
)
SOME = st.tuples(st.integers(1, 4), st.integers(0, 3))  # those whose id % first = second


def as_array(place):
    return list(map(float, place)) if place[0] is not None else [None, None]


INSERT = """
    INSERT INTO items (owner_id, kind, status, category, title, description, terms, latitude,
        longitude, external_id)
    SELECT %(owner)s, %(kind)s, %(status)s, %(category)s, %(title)s, 'item ' || n, %(terms)s,
        (%(place)s::float8[])[1], (%(place)s::float8[])[2],
        CASE WHEN %(external)s = '' THEN '' ELSE %(external)s || n END
    FROM generate_series(1, %(many)s) AS n"""

inserts = st.fixed_dictionaries(
    {
        "many": st.integers(1, 4),
        "kind": KINDS,
        "status": STATUSES,
        "category": CATEGORIES,
        "title": TITLES,
        "terms": TERMS,
        "place": PLACES.map(as_array),
        "external": st.sampled_from(["", "a", "b"]),
    }
)


def insert(values):
    return INSERT + " ON CONFLICT DO NOTHING", values


def upsert(values):
    """One statement that inserts some rows and updates others: both triggers fire."""
    conflict = """
        ON CONFLICT (owner_id, external_id) WHERE external_id <> '' DO UPDATE SET
            kind = excluded.kind, status = excluded.status, category = excluded.category,
            title = excluded.title, terms = excluded.terms, latitude = excluded.latitude,
            longitude = excluded.longitude"""
    return INSERT + conflict, values


def update(which, assignment):
    column, value = assignment
    if column == "place":
        text = """
            UPDATE items SET latitude = (%(value)s::float8[])[1],
                longitude = (%(value)s::float8[])[2]"""
    else:
        text = f"UPDATE items SET {column} = %(value)s"
    return text + " WHERE id %% %(every)s = %(rest)s", {
        "value": value,
        "every": which[0],
        "rest": which[1],
    }


def delete(which):
    return "DELETE FROM items WHERE id %% %(every)s = %(rest)s", dict(
        zip(("every", "rest"), which, strict=True)
    )


def shuffle(_):
    """Each item gets what the next one has: every row of one statement changes otherwise."""
    text = """
        UPDATE items AS i SET kind = n.kind, status = n.status, category = n.category,
            terms = n.terms, latitude = n.latitude, longitude = n.longitude, title = n.title
        FROM (
            SELECT id, coalesce(lead(id) OVER (ORDER BY id), first_value(id) OVER (ORDER BY id))
                AS next
            FROM items
        ) AS pair
        JOIN items AS n ON n.id = pair.next
        WHERE i.id = pair.id"""
    return text, {}


def both(which):
    """One statement that closes some items and deletes others."""
    text = """
        WITH closed AS (
            UPDATE items SET status = 'closed' WHERE id %% %(every)s = %(rest)s
        )
        DELETE FROM items WHERE id %% %(every)s = %(rest)s + 1"""
    return text, dict(zip(("every", "rest"), which, strict=True))


assignments = st.one_of(
    st.tuples(st.just("kind"), KINDS),
    st.tuples(st.just("status"), STATUSES),
    st.tuples(st.just("is_deleted"), st.booleans()),
    st.tuples(st.just("category"), CATEGORIES),
    st.tuples(st.just("title"), TITLES),
    st.tuples(st.just("description"), TITLES),
    st.tuples(st.just("terms"), TERMS),
    st.tuples(st.just("country"), st.sampled_from(["", "GB", "CA"])),
    st.tuples(st.just("place"), PLACES.map(as_array)),
    st.tuples(st.just("updated_at"), st.just("2030-01-01")),
)
steps = st.one_of(
    inserts.map(insert),
    inserts.map(upsert),
    st.builds(update, SOME, assignments),
    st.builds(update, SOME, assignments),
    SOME.map(delete),
    st.none().map(shuffle),
    SOME.map(both),
)


def rows(text, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        return cursor.fetchall()


def run(step, owner):
    text, parameters = step
    with connection.cursor() as cursor:
        cursor.execute(text, {**parameters, "owner": owner})


def embedded():
    """What vectors come from and are filtered by, of the live items."""
    found = rows("""
        SELECT id, kind, title, description, category, country
        FROM items WHERE status = 'open' AND NOT is_deleted""")
    return {item_id: fields for item_id, *fields in found}


def embed():
    """What the drain leaves behind: a vector for each live item that lacks one."""
    with connection.cursor() as cursor:
        cursor.execute("""
            INSERT INTO item_embeddings
                (item_id, kind, category, country, content_hash, model, text_embedding)
            SELECT id, kind, category, country, '', 'test', array_fill(1, ARRAY[384])::halfvec
            FROM items WHERE status = 'open' AND NOT is_deleted
            ON CONFLICT DO NOTHING""")


def check_buckets():
    kept = rows("""
        SELECT geohash6, category, item_id, created_at, kind, owner_id, geohash,
            location_point::text
        FROM item_buckets ORDER BY item_id, geohash6, category""")
    right = rows("""
        SELECT left(geohash, 6), category, id, created_at, kind, owner_id, geohash,
            location_point::text
        FROM items WHERE status = 'open' AND NOT is_deleted AND latitude IS NOT NULL
        ORDER BY id""")
    assert kept == right


def check_terms():
    kept = rows("""
        SELECT kind, term, sum(items) FROM item_term_changes
        GROUP BY 1, 2 HAVING sum(items) <> 0 ORDER BY 1, 2""")
    right = rows("""
        SELECT kind, counted.term, sum(counted.items)
        FROM items, matching_counts(search, terms) AS counted
        WHERE status = 'open' AND NOT is_deleted
        GROUP BY 1, 2 HAVING sum(counted.items) <> 0 ORDER BY 1, 2""")
    assert kept == right


def check_embeddings():
    """No vector of what is not live, and each filtered by what its item says now."""
    wrong = rows("""
        SELECT i.id FROM items AS i JOIN item_embeddings AS e ON e.item_id = i.id
        WHERE (e.kind, e.category, e.country) IS DISTINCT FROM (i.kind, i.category, i.country)
            OR i.status <> 'open' OR i.is_deleted""")
    assert wrong == []


def check_embedding_changes(before):
    """Queued is what is live and has no vector yet, or one of another text."""
    after = embedded()
    right = {item_id for item_id, fields in after.items() if before.get(item_id) != fields}
    queued = {item_id for (item_id,) in rows("SELECT item_id FROM item_embedding_changes")}
    assert queued == right


@pytest.fixture
def owner(db):
    return User.objects.create_user("owner").pk


@given(st.lists(st.tuples(steps, st.booleans()), min_size=1, max_size=12))
@examples(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_equal_to_a_count_from_scratch(owner, sequence):
    with transaction.atomic():
        for step, drained in sequence:
            if drained:
                embed()
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM item_embedding_changes")
            before = embedded()
            run(step, owner)
            check_buckets()
            check_terms()
            check_embeddings()
            check_embedding_changes(before)
        transaction.set_rollback(True)


def test_words_are_counted_once_an_item_and_kind(owner):
    """The one count above that leans on the function that it tests, by hand."""
    values = {
        "many": 2, "kind": "lost", "status": "open", "category": "", "title": "x",
        "terms": "red phone\x1fphone red naïve", "place": [1.0, 2.0], "external": "",
    }  # fmt: skip
    run(insert(values), owner)
    run(insert(values | {"kind": "found", "many": 1}), owner)
    run(insert(values | {"status": "closed"}), owner)
    counts = rows("SELECT kind, term, items FROM item_term_changes ORDER BY 1, 2")
    assert [row for row in counts if row[1].isalpha()] == [
        ("found", "naïve", 1), ("found", "phone", 1), ("found", "red", 1),
        ("lost", "naïve", 2), ("lost", "phone", 2), ("lost", "red", 2),
    ]  # fmt: skip


def test_a_write_that_changes_nothing_queues_nothing(owner):
    values = {
        "many": 3, "kind": "lost", "status": "open", "category": "dog", "title": "Dog",
        "terms": "dog", "place": [1.0, 2.0], "external": "x",
    }  # fmt: skip
    run(insert(values), owner)
    for table in ("item_embedding_changes", "item_term_changes"):
        run((f"DELETE FROM {table}", {}), owner)
    buckets = rows("SELECT ctid, * FROM item_buckets")
    run(
        ("UPDATE items SET title = title, updated_at = now(), happened_on = '2026-01-01'", {}),
        owner,
    )
    assert rows("SELECT * FROM item_embedding_changes") == []
    assert rows("SELECT * FROM item_term_changes") == []
    assert rows("SELECT ctid, * FROM item_buckets") == buckets


def test_all_of_it_rolls_back_with_the_writer(owner):
    values = {
        "many": 2, "kind": "job", "status": "open", "category": "", "title": "Cook",
        "terms": "cook", "place": [1.0, 2.0], "external": "",
    }  # fmt: skip
    with transaction.atomic():
        run(insert(values), owner)
        assert rows("SELECT count(*) FROM item_buckets") == [(2,)]
        transaction.set_rollback(True)
    for table in ("item_buckets", "item_embedding_changes", "item_term_changes"):
        assert rows(f"SELECT * FROM {table}") == []


def test_an_owner_that_goes_takes_everything_along(owner):
    values = {
        "many": 2, "kind": "job", "status": "open", "category": "", "title": "Cook",
        "terms": "cook", "place": [1.0, 2.0], "external": "",
    }  # fmt: skip
    run(insert(values), owner)
    embed()
    run(("DELETE FROM auth_user WHERE id = %(owner)s", {}), owner)
    check_terms()
    assert rows("SELECT * FROM item_buckets") == rows("SELECT * FROM item_embeddings") == []


def test_a_bulk_update_after_a_small_one_is_not_quadratic(owner):
    """PL/pgSQL keeps the plan of the first use, which was made for one row."""
    values = {
        "many": 10_000, "kind": "lost", "status": "open", "category": "", "title": "Dog",
        "terms": "dog", "place": [1.0, 2.0], "external": "",
    }  # fmt: skip
    run(insert(values), owner)
    run(("SET LOCAL statement_timeout = '30s'", {}), owner)  # 2 s; with nested loops, minutes
    for bound in ("= (SELECT min(id) FROM items)", "> 0"):
        run((f"UPDATE items SET terms = 'cat', category = 'cat' WHERE id {bound}", {}), owner)
    check_buckets()
    check_terms()
