"""The engine: what it unites, filters and leaves out, and that it goes on without vectors."""

import math
from dataclasses import replace
from datetime import date

import pytest
from django.contrib.auth import get_user_model
from django.db import DatabaseError, connection

from config import caching, readmodels
from config.embeddings import EmbedderError
from matching import embedding, engine, vectors
from matching.engine import Filters, match, search, subject_of
from matching.features import normalise
from matching.kinds import COUNTERPARTS
from matching.models import Item
from matching.scoring import Subject
from matching.text import terms

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _closed_breakers():
    embedding.breaker.reset()
    engine._vector_breaker.reset()
    yield
    embedding.breaker.reset()
    engine._vector_breaker.reset()


@pytest.fixture
def people():
    users = get_user_model().objects
    return users.create_user("ann"), users.create_user("bob")


@pytest.fixture
def put(people):
    """`put("found", "red bag", …)` is an item, of bob unless it says whose."""

    def write(kind, title, *, by=people[1], **fields):
        return Item.objects.create(
            owner=by,
            kind=kind,
            title=title,
            terms=terms(title, fields.get("description", "")),
            features=normalise(fields.get("attributes", {})),
            **fields,
        )

    return write


def take_in():
    """Vectors and words as the jobs would leave them."""
    embedding.drain()
    vectors.forget_estimates()
    readmodels.refresh(readmodels.all()["item_terms"])
    caching.forget()


def counterparts(item, **options):
    return match(
        subject_of(item), kinds=[COUNTERPARTS[item.kind]], owner_id=item.owner_id, **options
    )


def ids(outcome):
    return [hit.item_id for hit in outcome.hits]


class TestMatch:
    def test_the_right_one_comes_first_and_says_why(self, people, put):
        right = put(
            "found", "Black leather wallet with a bus card", latitude=48.857, longitude=2.35
        )
        put("found", "Black umbrella", latitude=48.90, longitude=2.40)
        put("found", "Child's bicycle")
        lost = put("lost", "Lost my black wallet", by=people[0], latitude=48.8566, longitude=2.3522)
        take_in()
        found = counterparts(lost)
        assert ids(found)[0] == right.pk
        assert found.degraded == ""
        assert {"words", "place", "vectors_exact"} <= found.routes.keys()
        best = found.hits[0]
        assert 0 < best.score <= 1
        assert {"words", "distance", "meaning"} <= {part.name for part in best.components}
        assert math.isclose(sum(part.contribution for part in best.components), best.score)

    @pytest.mark.parametrize("kind", ["lost", "found", "wanted", "offered", "resume", "job"])
    def test_each_side_finds_the_other_and_no_third(self, people, put, kind):
        others = {each: put(each, "grey parrot").pk for each in COUNTERPARTS}
        mine = put(kind, "grey parrot", by=people[0])
        take_in()
        assert ids(counterparts(mine)) == [others[COUNTERPARTS[kind]]]

    def test_what_is_not_live_own_or_dismissed_is_left_out(self, people, put):
        place = {"latitude": 48.8566, "longitude": 2.3522}
        put("found", "grey parrot", status="closed", **place)
        put("found", "grey parrot", is_deleted=True, **place)
        put("found", "grey parrot", by=people[0], **place)
        dismissed = put("found", "grey parrot", **place)
        live = put("found", "grey parrot", **place)
        mine = put("lost", "grey parrot", by=people[0], **place)
        take_in()
        assert ids(counterparts(mine, exclude=[dismissed.pk])) == [live.pk]

    def test_an_item_is_found_by_words_and_place_before_any_job_ran(self, people, put):
        by_words = put("found", "grey parrot")
        by_place = put("found", "Vogel", latitude=48.8566, longitude=2.3522)
        mine = put("lost", "parrot", by=people[0], latitude=48.8567, longitude=2.3522)
        assert {by_words.pk, by_place.pk} <= set(ids(counterparts(mine)))

    def test_across_borders(self, people, put):
        for here, there in (
            ((0.00002, 0.00002), (-0.00002, -0.00002)),
            ((-16.9, 179.99998), (-16.9, -179.99998)),
            ((89.99995, 10.0), (89.99995, -170.0)),
        ):
            item = put("found", "Schirm", latitude=there[0], longitude=there[1])
            mine = put("lost", "umbrella", by=people[0], latitude=here[0], longitude=here[1])
            best = counterparts(mine).hits[0]
            assert best.item_id == item.pk
            assert "distance" in {part.name for part in best.components}

    def test_no_words_and_no_place_still_answer(self, people, put):
        put("found", "grey parrot")
        mine = put("lost", "!!!", by=people[0])
        found = counterparts(mine)
        assert found.degraded == ""
        assert len(found.hits) == 1

    def test_also_names_candidates_that_no_route_brings(self, people, put):
        other = put("found", "completely different")
        mine = put("lost", "grey parrot", by=people[0])
        put("found", "grey parrot")
        assert other.pk not in ids(counterparts(mine))
        assert other.pk in ids(counterparts(mine, also=[other.pk]))

    def test_a_limit_is_kept_and_candidates_are_bounded(self, people, put, monkeypatch):
        seen = []
        real = engine.score

        def counted(subject, candidates, *rest):
            seen.append(len(candidates))
            return real(subject, candidates, *rest)

        monkeypatch.setattr(engine, "score", counted)
        Item.objects.bulk_create(
            Item(
                owner=people[1],
                kind="found",
                title="parrot",
                terms="parrot",
                latitude=1,
                longitude=1,
            )
            for _ in range(600)
        )
        mine = put("lost", "parrot", by=people[0], latitude=1, longitude=1)
        assert len(counterparts(mine, limit=7).hits) == 7
        assert seen[0] <= engine.CANDIDATES

    def test_a_subject_that_is_no_item(self, put):
        item = put("offered", "Mountain bike, 21 gears")
        take_in()
        asked = Subject(kind="wanted", title="mountain bike", terms=terms("mountain bike"))
        assert ids(match(asked, kinds=["offered"])) == [item.pk]


class TestDegraded:
    @pytest.fixture
    def pair(self, people, put):
        item = put("found", "grey parrot")
        mine = put("lost", "grey parrot", by=people[0])
        take_in()
        return mine, item

    def test_without_an_embedder(self, pair, settings):
        settings.EMBEDDER = "off"
        found = counterparts(pair[0])
        assert (ids(found), found.degraded) == ([pair[1].pk], "vectors")

    def test_an_embedder_that_fails(self, pair, monkeypatch):
        def fail(text):
            raise EmbedderError("no")

        monkeypatch.setattr(embedding, "embed_query", fail)
        found = counterparts(pair[0])
        assert (ids(found), found.degraded) == ([pair[1].pk], "vectors")

    def test_a_vector_path_that_fails_leaves_the_transaction_usable(self, pair, monkeypatch):
        calls = []

        def fail(*args, **kwargs):
            calls.append(args)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")

        monkeypatch.setattr(vectors, "nearest", fail)
        for _ in range(7):
            found = counterparts(pair[0])
            assert (ids(found), found.degraded) == ([pair[1].pk], "vectors")
        assert len(calls) == 5  # then the breaker spares the attempt

    def test_a_vector_path_that_comes_back(self, pair, monkeypatch):
        real, failures = vectors.nearest, [1, 2, 3]

        def sometimes(*args, **kwargs):
            if failures:
                failures.pop()
                raise DatabaseError("no")
            return real(*args, **kwargs)

        monkeypatch.setattr(vectors, "nearest", sometimes)
        assert [counterparts(pair[0]).degraded for _ in range(5)] == ["vectors"] * 3 + [""] * 2


class TestSearch:
    def test_words_find(self, put):
        wallet = put("found", "Black leather wallet")
        put("found", "Green umbrella")
        take_in()
        assert search("wallet", kinds=["found"]).hits[0].item_id == wallet.pk

    def test_all_kinds_are_searched_unless_told(self, put):
        items = {put(kind, "grey parrot").pk for kind in COUNTERPARTS}
        take_in()
        assert set(ids(search("grey parrot"))) == items
        assert len(search("grey parrot", kinds=["lost", "job"]).hits) == 2

    def test_each_filter(self, put):
        place = {"latitude": 48.8566, "longitude": 2.3522}
        full = {
            "category": "birds",
            "country": "FR",
            "city": "Paris",
            "happened_on": date(2025, 5, 5),
            **place,
        }
        right = put("found", "grey parrot", **full)
        for name, value in {
            "category": "pets",
            "country": "DE",
            "city": "Lyon",
            "happened_on": date(2025, 6, 1),
            "latitude": 49.5,
        }.items():
            put("found", "grey parrot", **full | {name: value})
        closed = put("found", "grey parrot", **full, status="closed")
        take_in()
        filters = {
            "category": "birds",
            "country": "FR",
            "city": "Paris",
            "date_from": date(2025, 5, 1),
            "date_to": date(2025, 5, 31),
            "radius_m": 5_000,
            **place,
        }
        for text in ("grey parrot", ""):
            assert ids(search(text, filters=Filters(**filters))) == [right.pk]
            for left_out in ("category", "country", "date_to", "radius_m"):
                fewer = {name: value for name, value in filters.items() if name != left_out}
                fewer = {k: v for k, v in fewer.items() if k != "city" or left_out != "country"}
                assert len(search(text, filters=Filters(**fewer)).hits) >= 2
        shut = search("parrot", filters=Filters(**filters, status="closed"))
        assert ids(shut) == [closed.pk]

    def test_a_common_word_is_found_in_a_crowd_within_a_radius(self, put, monkeypatch):
        little = replace(
            engine._SEARCH, of_place=5, of_words=5, of_vectors=1, postings=10, titles=0
        )
        monkeypatch.setattr(engine, "_SEARCH", little)
        for _ in range(30):
            put("found", "black wallet", latitude=10.0, longitude=10.0)
            put("found", "red bag", latitude=50.0, longitude=8.0)
        here = put("found", "black wallet", latitude=50.005, longitude=8.0)
        take_in()
        near = Filters(latitude=50.0, longitude=8.0, radius_m=2_000)
        page = search("black wallet", kinds=["found"], filters=near)
        assert page.hits[0].item_id == here.pk
        assert page.routes["words_near"] == 1

    def test_a_date_is_not_filtered_from_the_best_alone(self, put, monkeypatch):
        monkeypatch.setattr(engine, "_SEARCH", replace(engine._SEARCH, of_words=5, of_vectors=1))
        for number in range(60):
            put("found", f"black wallet {number}", happened_on=date(2026, 1, 1))
        other = put("found", "a rather long title that has a wallet", happened_on=date(2026, 2, 2))
        take_in()
        february = Filters(date_from=date(2026, 2, 1))
        page = search("black wallet", kinds=["found"], filters=february)
        assert [hit.item_id for hit in page.hits] == [other.pk]

    def test_dates_of_those_who_said_none_are_when_they_were_posted(self, put):
        item = put("found", "grey parrot")
        today = item.__class__.objects.get(pk=item.pk).created_at.date()
        assert ids(search("parrot", filters=Filters(date_from=today))) == [item.pk]
        assert ids(search("parrot", filters=Filters(date_to=date(2020, 1, 1)))) == []

    def test_without_a_text_the_newest_come_first(self, put):
        items = [put("found", f"thing {number}").pk for number in range(5)]
        assert ids(search("", kinds=["found"], limit=3)) == items[:1:-1]

    def test_without_a_text_the_nearest_come_first_where_a_place_is_given(self, put):
        far = put("found", "a", latitude=48.86, longitude=2.3522)
        near = put("found", "b", latitude=48.8567, longitude=2.3522)
        filters = Filters(latitude=48.8566, longitude=2.3522, radius_m=3_000)
        assert ids(search("", filters=filters)) == [near.pk, far.pk]

    def test_pages_follow_on_without_gap_or_repeat(self, put):
        put("found", "grey parrot with a ring")
        for number in range(29):
            put("found", f"grey parrot {number % 7}")
        take_in()
        whole = ids(search("grey parrot", limit=100))
        assert len(whole) == 30
        pages, after = [], None
        while True:
            page = search("grey parrot", limit=7, after=after)
            pages.append(ids(page))
            after = page.after
            if after is None:
                break
        assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
        assert sum(pages, []) == whole  # noqa: RUF017 -- five pages

    @pytest.mark.parametrize(
        "text", ["'; DROP TABLE items; --", "a" * 300, "%_\\", "🦜", "x " * 150, "\t\n", "NULL"]
    )
    def test_any_text_is_only_a_text(self, put, text):
        put("found", "grey parrot")
        take_in()
        assert search(text).degraded == ""
        assert Item.objects.count() == 1


def test_own_items_do_not_take_the_places_of_the_only_other(people, put):
    mine = put("lost", "grey parrot with a ring", by=people[0])
    for number in range(90):
        put("found", f"grey parrot with a ring {number}", by=people[0])
    right = put("found", "parrot of grey feathers, ringed")
    take_in()
    found = counterparts(mine)
    assert ids(found) == [right.pk]
    assert found.routes["vectors_exact"] == 1


def test_a_look_asks_with_the_vector_that_the_item_has(people, put):
    """What is compared are the texts as they stand, not as words were folded for the index."""
    text = "I lost it near the River's bend; it answers to ‘Polly’ and sings operas (badly)."
    mine = put("lost", "Grey parrot", description=text)
    twin = put("found", "Grey parrot", description=text, by=people[0])
    take_in()
    mine.owner = people[1]
    found = match(subject_of(mine), kinds=["found"], owner_id=people[1].pk)
    [hit] = [hit for hit in found.hits if hit.item_id == twin.pk]
    meaning = next(one.raw for one in hit.components if one.name == "meaning")
    assert meaning == pytest.approx(1, abs=2e-3)
