"""Eight writers at once, while folds, comparisons, switches of mode and kills go on."""

import os

import pytest
from django.db import connection

from bench import stressing
from counters import actions, declared
from counters.declared import Counter
from counters.models import Delta

SECONDS = float(os.environ.get("SPYGLASS_STRESS_SECONDS", "6"))


@pytest.mark.django_db(transaction=True)
def test_exact_under_fire(database_url):
    environment = os.environ | {"DATABASE_URL": database_url}
    found = stressing.run(database_url, environment, SECONDS)
    assert found["died"] == 0
    assert found["statements"] > 20 * SECONDS, found
    assert found["kills"] >= SECONDS / 4
    assert found["deadlocks"] == 0, found
    assert found["negatives"] == 0, found
    # Comparisons ran all the while, between writers and folds: none of them saw a difference.
    assert found["false_drift"] == []
    actions.fold()
    for counter in declared.all().values():
        if isinstance(counter, Counter):
            compared = actions.compare(counter=counter)
            assert (compared.wrong, compared.divergence) == (0, 0), compared.samples
    assert not Delta.objects.exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM posts WHERE likes_count < 0 OR comments_count < 0")
        assert cursor.fetchone() == (0,)
