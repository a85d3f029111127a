"""Whatever a host, a file or an error says can be stored."""

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from config.text import storable

# All of Unicode, lone surrogates included, and often what PostgreSQL refuses.
TEXT = st.text(st.one_of(st.characters(categories=None), st.sampled_from("\0\ud800\udfff\\x0…")))


@pytest.mark.parametrize(
    ("text", "most", "stored"),
    [
        ("plain, ß, 猫", None, "plain, ß, 猫"),
        ("a\0b", None, "a\\x00b"),
        ("a\ud800b", None, "a\\ud800b"),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a\0b", 3, "a\\…"),
    ],
)
def test_what_becomes_of_it(text, most, stored):
    assert storable(text, most) == stored


@given(TEXT, st.one_of(st.none(), st.integers(1, 40)))
def test_it_is_short_and_done_once_is_done_twice(text, most):
    stored = storable(text, most)
    assert "\0" not in stored
    stored.encode()  # no half of a pair, or it would raise
    assert most is None or len(stored) <= most
    assert storable(stored, most) == stored


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_what_can_be_stored_stays_as_it_is(text):
    assert storable(text) == text
    assert storable(text, 60) == text


@pytest.mark.django_db
@given(st.lists(TEXT, max_size=20))
def test_postgresql_gives_it_back(texts):
    stored = [storable(text, 50) for text in texts]
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text[]", [stored])
        assert cursor.fetchone()[0] == stored
