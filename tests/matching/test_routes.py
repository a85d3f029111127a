"""The routes: what they bring, what they leave out, and that they read a bounded number of rows."""

from datetime import date

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from config import caching, readmodels
from matching import geo, routes
from matching.models import Item
from matching.routes import Filters, Scope
from matching.text import split_terms, terms

pytestmark = pytest.mark.django_db
FOUND = Scope(("found",))
PARIS = (48.8566, 2.3522)


@pytest.fixture
def owner():
    return get_user_model().objects.create_user("owner")


@pytest.fixture
def put(owner):
    """`put("found", "red bag", latitude=…)` writes an item past the actions, of any status."""

    def write(kind, title, *, by=owner, **fields):
        return Item.objects.create(
            owner=by,
            kind=kind,
            title=title,
            terms=terms(title, fields.get("description", "")),
            **fields,
        ).pk

    return write


def count_words():
    readmodels.refresh(readmodels.all()["item_terms"])
    caching.forget()


def find(text, *, scope=FOUND, postings=2_000, limit=50, body=()):
    title, _ = split_terms(terms(text))
    words = {*title, *body, *scope.filters.tags()}
    return routes.words(
        title,
        body,
        scope=scope,
        statistics=routes.statistics(scope.kinds, words),
        postings=postings,
        limit=limit,
    )


def buffers(statement, parameters):
    """Pages that a statement reads, in functions too."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters
        )
        plan = cursor.fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


class TestWords:
    def test_an_item_is_found_before_the_words_are_counted(self, put):
        item = put("found", "Black leather wallet")
        assert find("wallet") == [item]

    def test_the_side_and_the_dead_are_left_out(self, put):
        put("lost", "wallet")
        put("found", "wallet", status="closed")
        put("found", "wallet", is_deleted=True)
        live = put("found", "wallet")
        count_words()
        assert find("wallet") == [live]

    def test_own_items_and_excluded_ones_are_left_out(self, put):
        other = get_user_model().objects.create_user("other")
        mine, gone, theirs = put("found", "key", by=other), put("found", "key"), put("found", "key")
        scope = Scope(("found",), owner_id=other.pk, exclude=[gone])
        assert find("key", scope=scope) == [theirs]
        assert mine not in find("key", scope=scope)

    def test_a_rare_word_counts_more_than_common_ones(self, put):
        for _ in range(30):
            put("found", "black bag")
        rare = put("found", "zyzzogeton case")
        count_words()
        assert find("black zyzzogeton")[0] == rare

    def test_the_more_words_the_better(self, put):
        one, two = put("found", "umbrella"), put("found", "umbrella green")
        put("found", "gloves")
        count_words()
        assert find("green umbrella") == [two, one]

    def test_words_too_common_to_be_read_are_asked_for_together(self, put):
        both = put("found", "black phone")
        for _ in range(40):
            put("found", "black hat")
            put("found", "white phone")
        count_words()
        assert find("black phone", postings=10, limit=5)[0] == both

    def test_three_common_words_bring_items_with_two_of_them(self, put):
        two = put("found", "black phone")
        for word in ("black", "phone", "samsung"):
            for _ in range(30):
                put("found", f"{word} thing")
        count_words()
        assert find("black samsung phone", postings=10, limit=8)[0] == two

    def test_a_single_common_word_brings_the_newest(self, put):
        items = [put("found", "black hat") for _ in range(30)]
        count_words()
        assert find("black", postings=10, limit=5) == items[:-6:-1]

    def test_a_common_word_is_found_behind_a_sides_newest_items(self, put, monkeypatch):
        monkeypatch.setattr(routes, "NEWEST_ROWS", 5)
        items = [put("found", "black hat") for _ in range(20)]
        for _ in range(10):
            put("wanted", "something else")
            put("found", "something else")
        count_words()
        found = find("black", postings=10, limit=5)
        assert len(found) == 5
        assert set(found) <= set(items)

    def test_a_misspelt_word_brings_what_it_may_have_meant(self, put):
        wallet = put("found", "wallet")
        put("found", "umbrella")
        count_words()
        assert find("walet") == [wallet]

    def test_words_of_the_body_count(self, put):
        item = put("found", "Something", description="engraved with marzipan")
        count_words()
        assert find("", body=["marzipan"]) == [item]

    def test_no_word_finds_nothing(self, put):
        put("found", "wallet")
        assert find("") == []
        assert find("!!! ???") == []

    @pytest.mark.parametrize("text", ["it's", "back\\slash", "a:b", "x & y | !z", "c++", "日本語"])
    def test_nothing_that_people_write_breaks_a_query(self, put, text):
        item = put("found", text)
        assert item in find(text)

    def test_filters_narrow_common_words(self, put):
        for _ in range(60):
            put("found", "black hat", category="hats", country="FR", city="Lyon")
        bag = put("found", "black bag", category="Bob's \\ bags", country="FR", city="Saint-Denis")
        count_words()
        for filters in (
            Filters(category="Bob's \\ bags"),
            Filters(country="FR", city="Saint-Denis"),
            Filters(country="FR", category="Bob's \\ bags"),
        ):
            assert find("black", scope=Scope(("found",), filters), postings=10) == [bag]
        assert find("black", scope=Scope(("found",), Filters(country="DE"))) == []

    def test_another_status_can_be_asked_for(self, put):
        closed = put("found", "wallet", status="closed")
        put("found", "wallet")
        assert find("wallet", scope=Scope(("found",), Filters(status="closed"))) == [closed]

    def test_a_text_of_500_words_takes_a_bounded_number_of_looks(self, put):
        words = [f"word{number}" for number in range(500)]
        for start in range(0, 500, 20):
            put("found", " ".join(words[start : start + 20]))
        count_words()
        counted = routes.statistics(("found",), words)
        plan = routes.plan(
            words[:64], words, scope=FOUND, statistics=counted, postings=2_000, limit=50
        )
        assert len(plan) <= routes.SINGLE_WORDS + routes.UNKNOWN_WORDS + 7
        assert find(" ".join(words[:60]), body=words)

    def test_a_plan_reads_no_more_postings_than_it_may(self, put):
        for number in range(40):
            put("found", f"black hat number{number}")
        count_words()
        words = ["black", "hat", "number7"]
        counted = routes.statistics(("found",), words)
        plan = routes.plan(words, [], scope=FOUND, statistics=counted, postings=20, limit=10)
        assert [query.text for query in plan] == ["('f:number7')", "('f:black' & 'f:hat')"]


class TestPlace:
    def test_the_nearest_come_first(self, put):
        far = put("found", "a", latitude=48.90, longitude=2.3522)
        near = put("found", "b", latitude=48.857, longitude=2.3522)
        put("lost", "c", latitude=48.8566, longitude=2.3522)
        put("found", "d")
        assert routes.place(*PARIS, scope=FOUND, limit=10) == [near, far]

    def test_a_radius_is_kept(self, put):
        near = put("found", "a", latitude=48.857, longitude=2.3522)
        put("found", "b", latitude=48.90, longitude=2.3522)
        assert routes.place(*PARIS, scope=FOUND, limit=10, radius_m=1_000) == [near]

    @pytest.mark.parametrize("radius", [50, 300, 5_000, 80_000, 2_000_000, 25_000_000])
    def test_all_within_a_radius_are_found(self, put, radius):
        offsets = (0, 0.0001, 0.001, 0.01, 0.1, 1, 5)
        ids = {
            put("found", "x", latitude=PARIS[0] + offset, longitude=PARIS[1] - offset): offset
            for offset in offsets
        }
        expected = [
            item
            for item, offset in ids.items()
            if geo.distance_m(*PARIS, PARIS[0] + offset, PARIS[1] - offset) <= radius
        ]
        assert routes.place(*PARIS, scope=FOUND, limit=50, radius_m=radius) == expected

    @pytest.mark.parametrize(
        ("here", "there"),
        [
            ((0.00002, 0.00002), (-0.00002, -0.00002)),
            ((-16.9, 179.99998), (-16.9, -179.99998)),
            ((12.0, 180.0), (12.0, -180.0)),
            ((89.99995, 10.0), (89.99995, -170.0)),
            ((-89.99995, 10.0), (-90.0, 0.0)),
            ((90.0, 0.0), (89.9999, 123.0)),
        ],
    )
    def test_borders_are_no_walls(self, put, here, there):
        item = put("found", "x", latitude=there[0], longitude=there[1])
        assert geo.distance_m(*here, *there) < 15
        assert routes.place(*here, scope=FOUND, limit=5) == [item]
        assert routes.place(*here, scope=FOUND, limit=5, radius_m=20) == [item]

    def test_a_category_can_be_asked_for(self, put):
        put("found", "a", latitude=48.8566, longitude=2.3522, category="bags")
        key = put("found", "b", latitude=48.86, longitude=2.3522, category="keys")
        assert routes.place(*PARIS, scope=FOUND, limit=5, category="keys") == [key]

    def test_own_items_do_not_crowd_out_those_of_others(self, put, monkeypatch):
        monkeypatch.setattr(routes, "RING_ROWS", 10)
        other = get_user_model().objects.create_user("other")
        for _ in range(40):
            put("found", "mine", by=other, latitude=48.8566, longitude=2.3522)
        theirs = put("found", "theirs", latitude=48.8567, longitude=2.3522)
        scope = Scope(("found",), owner_id=other.pk)
        assert routes.place(*PARIS, scope=scope, limit=5) == [theirs]

    def test_a_crowd_is_not_read_to_its_end(self, put, owner):
        Item.objects.bulk_create(
            Item(
                owner=owner, kind="found", title="x", terms="x", latitude=48.8566, longitude=2.3522
            )
            for _ in range(5_000)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE item_buckets")
        assert len(routes.place(*PARIS, scope=FOUND, limit=50)) == 50
        low, high = geo.rings(*PARIS, [100])[0][0]
        read = buffers(
            "SELECT * FROM matching_around(ARRAY['found'], NULL, ARRAY[%s], ARRAY[%s], ARRAY[1],"
            " 50, 2000, NULL)",
            [low, high],
        )
        assert read < 2_600  # pages of 2,000 rows that no vacuum has seen, not of 5,000


class TestTitlesAndNewest:
    def test_titles_that_are_spelt_alike(self, put):
        alike = put("found", "Mc Donalds Restaurant")
        put("found", "Burger bar")
        put("lost", "McDonalds Restaurant")
        assert routes.titles("McDonald's restaurant", scope=FOUND, limit=5) == [alike]

    def test_the_newest_that_pass(self, put):
        items = {
            name: put("found", name, category=category, country=country, city=city)
            for name, category, country, city in (
                ("a", "bags", "FR", "Lyon"),
                ("b", "keys", "FR", "Lyon"),
                ("c", "bags", "FR", "Paris"),
                ("d", "bags", "DE", "Bonn"),
            )
        }

        def newest(**filters):
            scope = Scope(("found", "lost"), Filters(**filters))
            return routes.newest(scope=scope, limit=10)

        assert newest() == [items[name] for name in "dcba"]
        assert newest(category="bags") == [items[name] for name in "dca"]
        assert newest(country="FR") == [items[name] for name in "cba"]
        assert newest(country="FR", city="Lyon") == [items[name] for name in "ba"]
        assert newest(category="bags", country="FR", city="Lyon") == [items["a"]]
        assert newest(category="hats") == []

    def test_another_sides_newest_items_hide_none(self, put, monkeypatch):
        monkeypatch.setattr(routes, "NEWEST_ROWS", 5)
        item = put("found", "black hat")
        for _ in range(10):
            put("wanted", "something else")
        assert routes.newest(scope=FOUND, limit=5) == [item]

    def test_dates_are_no_business_of_a_route(self):
        assert Filters(date_from=date(2025, 1, 1)).after_the_fact
        assert not Filters(category="bags", country="FR", city="Lyon").after_the_fact


class TestStatistics:
    def test_what_is_counted(self, put):
        put("found", "black hat", category="hats", description="with a band")
        put("found", "black bag", category="bags")
        put("lost", "black hat")
        put("found", "black coat", status="closed")
        count_words()
        counted = routes.statistics(("found",), ["black", "hat", "nothing", "#hats"])
        assert (counted.items, counted.title_words, counted.body_words) == (2, 2.0, 1.5)
        assert counted.frequency == {"black": 2, "hat": 1, "nothing": 0, "#hats": 1}

    def test_several_kinds_are_added_up(self, put):
        put("found", "black hat")
        put("lost", "black hat")
        count_words()
        assert routes.statistics(("found", "lost"), ["hat"]).frequency == {"hat": 2}

    def test_they_are_read_anew_after_a_refresh(self, put):
        put("found", "hat")
        assert routes.statistics(("found",), ["hat"]).items == 0
        count_words()
        assert routes.statistics(("found",), ["hat"]).items == 1
