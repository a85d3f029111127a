"""Demo items: the same for one seed, nothing twice, and counterparts among them."""

import pytest

from matching import demo
from matching.models import Item, Match

pytestmark = pytest.mark.django_db(transaction=True)  # jobs beat on other connections


def test_it_is_the_same_again_and_adds_nothing_twice(monkeypatch):
    monkeypatch.setitem(demo.SIZES, "small", (3, 6))
    assert demo.is_empty()
    added = demo.load(size="small", seed=1)
    first = set(Item.objects.values_list("external_id", "title", "latitude"))
    assert added == len(first) > 15
    assert not demo.is_empty()
    assert demo.load(size="small", seed=1) == 0
    assert set(Item.objects.values_list("external_id", "title", "latitude")) == first
    assert {item.created_at.date() for item in Item.objects.all()} == set(
        Item.objects.values_list("happened_on", flat=True)
    )
    assert Item.objects.filter(embeddings__isnull=True).count() == 0


def test_most_of_what_was_posted_twice_is_matched_first(monkeypatch):
    monkeypatch.setitem(demo.SIZES, "small", (4, 10))
    demo.load(size="small", seed=2)

    def thing(item):
        return item.external_id.rsplit("-", 1)[0]

    posted = {thing(item) for item in Item.objects.exclude(kind__in=["lost", "wanted", "resume"])}
    best = {}
    for match in Match.objects.select_related("seeker", "offer").order_by("score"):
        if thing(match.seeker) in posted:
            best[match.seeker_id] = thing(match.seeker) == thing(match.offer)
    assert len(best) > 10
    assert sum(best.values()) / len(best) >= 0.8
