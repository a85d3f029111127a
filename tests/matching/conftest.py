"""People, their items, and what is found for them."""

from collections.abc import Callable

import pytest


@pytest.fixture
def ann(person):
    """Somebody who has lost things."""
    return person("ann")


@pytest.fixture
def bob(person):
    """Somebody who has found things."""
    return person("bob")


@pytest.fixture
def post(db) -> Callable:
    """`post(person, "lost", "Red bag", **fields)` posts an item through the action."""
    from matching.actions import create_item

    def make(owner, kind: str, title: str, **fields):
        return create_item(owner=getattr(owner, "user", owner), kind=kind, title=title, **fields)

    return make


COMPONENTS = [
    {"name": "words", "raw": 0.9, "weight": 0.5, "contribution": 0.45},
    {"name": "meaning", "raw": 0.5, "weight": 0.5, "contribution": 0.25},
]


@pytest.fixture
def suggest(db) -> Callable:
    """`suggest(seeker, offer, score=0.7)` is a match as a worker stores it."""
    from matching.kinds import pair_of
    from matching.models import Match

    def make(seeker, offer, *, score: float = 0.7, components=None, **fields):
        return Match.objects.create(
            pair=pair_of(seeker.kind),
            seeker=seeker,
            offer=offer,
            score=score,
            components=COMPONENTS if components is None else components,
            **fields,
        )

    return make


@pytest.fixture
def work(db) -> Callable[[], int]:
    """`work()` does the match jobs that wait, here; returns how many."""
    from matching import worker

    return lambda: worker.drain(lambda done: True)
