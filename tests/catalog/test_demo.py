"""Demo data: the same for the same seed, nothing twice, and worth looking at."""

from datetime import date
from itertools import islice

import pytest
from django.core.management import call_command

from catalog import demo, queries
from catalog.models import IngestRun, SellerPriority, SellerSummary, SlugSummary, Snapshot
from catalog.rows import Row, Validator
from catalog.slugs import slug

LONG_AGO = date(2025, 3, 1).toordinal()


@pytest.fixture
def tiny(monkeypatch):
    """Few enough products for a test."""
    monkeypatch.setattr(demo, "SIZES", {"small": (24, 100), "medium": (27, 110)})


def _listings(seed: int, *, products: int = 60, days: int = 120) -> list[tuple]:
    span = range(LONG_AGO, LONG_AGO + days)
    return [
        row
        for product in islice(demo._products(seed), products)
        for seller in demo.SELLERS
        for row in demo._listing(seed, product, seller, span)
    ]


def _prices() -> set[tuple]:
    return set(
        Snapshot.objects.values_list(
            "product_name_normalized", "seller", "currency", "scraped_at", "price"
        )
    )


def test_names_have_slugs_of_their_own_and_every_spelling_has_the_same():
    products = list(islice(demo._products(1), 3_000))
    assert len({slug(product.name) for product in products}) == 3_000
    spellings = [seller.spell for seller in demo.SELLERS]
    assert all(
        {slug(spell(product.name)) for spell in spellings} == {slug(product.name)}
        for product in products[:300]
    )
    assert any(not product.name.isascii() for product in products[:10])


def test_every_row_is_valid_and_points_at_no_real_site():
    checked = [
        Validator().check_mapping(dict(zip(demo._COLUMNS, row, strict=True)))
        for row in _listings(1)
    ]
    assert {type(row) for row in checked} == {Row}
    images = {row.hero_image_url for row in checked} - {""}
    assert images
    assert all(url.startswith("https://example.org/") for url in images)


def test_a_price_depends_on_seed_product_seller_and_day_alone():
    later = range(LONG_AGO + 40, LONG_AGO + 60)
    product = next(demo._products(1))
    for seller in demo.SELLERS:
        whole = {row[4:6]: row[3] for row in demo._listing(1, product, seller, _days(100))}
        part = {row[4:6]: row[3] for row in demo._listing(1, product, seller, later)}
        assert part.items() <= whole.items()
    assert _listings(1) == _listings(1)
    assert _listings(1) != _listings(2)


def _days(number: int) -> range:
    return range(LONG_AGO, LONG_AGO + number)


def test_the_data_shows_what_shops_do():
    rows = _listings(1, products=150)
    assert {row[6] for row in rows} == {"available", "preorder", "unavailable"}
    assert {row[4] for row in rows} == {"EUR", "SEK", "GBP"}
    assert any(row[3] == "" for row in rows)
    factors = [demo._season(f"season {number}")[0] for number in range(400)]
    assert any(min(each.values(), default=1) < 0.95 for each in factors)
    assert any(
        1.15 < max(each.values(), default=1) < 1.5 and 0.9 < min(each.values()) <= 1
        for each in factors
        if each
    ), "no reduction that only takes back a rise"


@pytest.mark.django_db(transaction=True)
def test_loading_again_changes_nothing_and_a_larger_size_adds(tiny):
    call_command("demo", "--seed", "7", verbosity=0)
    first = _prices()
    assert len(first) > 5_000
    call_command("demo", "--seed", "7", verbosity=0)
    assert _prices() == first
    assert demo.load(size="medium", seed=7) == len(_prices() - first) > 0
    assert set(IngestRun.objects.values_list("conflicts", "rejected")) == {(0, 0)}


@pytest.mark.django_db(transaction=True)
def test_the_catalog_is_browsable_at_once(tiny):
    assert demo.is_empty()
    call_command("demo", verbosity=0)
    assert not demo.is_empty()
    assert SlugSummary.objects.count() == 24
    assert SlugSummary.objects.filter(sellers__gte=3).exists()
    assert SlugSummary.objects.filter(discount__gt=0).exists()
    assert SellerSummary.objects.exclude(currency="EUR").exists()
    assert [row["tag"] for row in queries.categories()][:3]
    ranks = list(SellerPriority.objects.order_by("rank").values_list("seller", flat=True))
    assert ranks[:2] == ["tlamagames", "tlamagase"]
    assert set(ranks) == {seller.name for seller in demo.SELLERS}


@pytest.mark.django_db(transaction=True)
def test_if_empty_leaves_data_alone(tiny):
    call_command("demo", "--if-empty", verbosity=0)
    runs = IngestRun.objects.count()
    assert runs
    call_command("demo", "--if-empty", verbosity=0)
    assert IngestRun.objects.count() == runs


def test_an_unknown_size_is_refused():
    with pytest.raises(Exception, match="invalid choice: 'huge'"):
        call_command("demo", "--size", "huge")
