"""The fold against an oracle: whatever the order, the batches and the gaps, the same answer."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import readmodels as catalog_models
from catalog.models import Outlier, PricePoint, SellerSummary, SlugSummary
from config import partitions, readmodels
from config.models import ReadModelState
from tests.catalog import oracle
from tests.catalog.oracle import Row

pytestmark = pytest.mark.django_db

START = datetime(2025, 1, 5, tzinfo=UTC)


def insert(rows: list[Row]) -> None:
    partitions.ensure("product_price_snapshots", START, START + timedelta(days=215))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO product_price_snapshots (product_name_normalized, seller, currency,"
            " product_code, scraped_at, price, is_available, is_preorder, product_name_original,"
            " category_tags, description) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (r.slug, r.seller, r.currency, r.code, r.at, r.price, r.available, r.preorder,
                 r.name, list(r.tags), r.description)
                for r in rows
            ],
        )  # fmt: skip


def fold(at_most: int = 100_000) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT changes FROM catalog_fold_changes(%s)", [at_most])
        return cursor.fetchone()[0]


def refresh() -> None:
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)


def differences() -> list[str]:
    """Of lines and their days, and of the cards that the fold wrote with them."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE catalog_fold_state SET projected = folded")
    models = [
        readmodels.all()[name] for name in ("catalog_slug_seller_summary", "catalog_slug_summary")
    ]
    return [text for m in models for text in m.reconcile(False, lambda text: None).samples]


def at(days: float, hours: float = 6) -> datetime:
    return START + timedelta(days=days, hours=hours)


def price_rows(prices: list, *, every: float = 1, slug: str = "a", seller: str = "s") -> list[Row]:
    return [
        Row(
            slug,
            seller,
            "EUR",
            "c",
            at(i * every),
            None if p is None else Decimal(str(p)),
            p is not None,
        )
        for i, p in enumerate(prices)
    ]


def line(slug: str = "a", seller: str = "s", currency: str = "EUR") -> SellerSummary:
    return SellerSummary.objects.get(slug=slug, seller=seller, currency=currency)


PRICES = st.one_of(
    st.sampled_from([Decimal(p) for p in ("10", "10", "9", "11", "10.5", "40", "41", "100", "2")]),
    st.none(),
)
ROWS = st.builds(
    lambda slug, seller, currency, code, hours, price, preorder, name, tags: Row(
        slug, seller, currency, code, START + timedelta(hours=hours), price,
        price is not None, preorder, name, tags,
    ),
    st.sampled_from("ab"),
    st.sampled_from("st"),
    st.sampled_from(["EUR", "USD"]),
    st.sampled_from(["", "p", "q"]),
    st.integers(0, 3).flatmap(lambda scale: st.integers(0, 40).map(lambda n: n * 5**scale)),
    PRICES,
    st.booleans(),
    st.sampled_from(["N1", "N2"]),
    st.sampled_from([(), ("t",)]),
)  # fmt: skip
BATCHES = st.lists(
    st.tuples(st.lists(ROWS, max_size=15), st.sampled_from([0, 1, 4, 1000])), max_size=6
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=BATCHES)
def test_folding_in_any_order_and_batches_equals_the_oracle(batches):
    with transaction.atomic():
        check_batches(batches)
        transaction.set_rollback(True)


def check_batches(batches) -> None:
    stored: dict[tuple, Row] = {}
    for rows, at_most in batches:
        fresh = {}
        for row in rows:
            key = (row.slug, row.seller, row.at, row.code, row.currency)
            if key not in stored:
                fresh.setdefault(key, row)
        insert(list(fresh.values()))
        stored |= fresh
        if at_most:
            fold(at_most)
            assert differences() == []
    while fold():
        pass
    assert differences() == []
    expected = oracle.lines_of(list(stored.values()))
    assert set(SellerSummary.objects.values_list("slug", "seller", "currency")) == set(expected)
    for key, rows in expected.items():
        found = line(*key)
        wanted = oracle.summary(rows)
        assert {name: getattr(found, name, None) for name in wanted if "seen" not in name} == {
            name: value for name, value in wanted.items() if "seen" not in name
        }
        days = PricePoint.objects.filter(slug=key[0], seller=key[1], currency=key[2])
        assert {
            p.day: (p.first_price, p.last_price, p.low, p.high, p.observations) for p in days
        } == oracle.points(rows)
        outliers = Outlier.objects.filter(slug=key[0], seller=key[1], currency=key[2])
        assert {o.scraped_at: o.state for o in outliers} == oracle.verdicts(rows)


# One line in the order of time, over months: hours to the next poll, its price, whether to fold.
POLLS = st.lists(
    st.tuples(
        st.sampled_from([3, 10, 24, 24, 24 * 5, 24 * 14, 24 * 29, 24 * 30, 24 * 31]),
        st.sampled_from([Decimal(p) for p in ("9", "10", "11", "12")]),
        st.sampled_from([True, True, False]),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(polls=POLLS)
def test_the_prior_low_follows_each_change_as_the_oracle_says(polls):
    with transaction.atomic():
        rows, hours = [], 6
        for wait, price, folded in polls:
            hours += wait
            if hours > 24 * 210:
                break
            rows.append(Row("a", "s", "EUR", "c", START + timedelta(hours=hours), price, True))
            insert(rows[-1:])
            if folded:
                fold()
                wanted = oracle.summary(rows)
                found = line()
                assert (found.prior_low, found.prior_low_until) == (
                    wanted["prior_low"],
                    wanted["prior_low_until"],
                )
        fold()
        assert differences() == []
        transaction.set_rollback(True)


def test_a_reduction_counts_against_the_lowest_price_of_the_30_days_before():
    insert(price_rows([10, 8, 12, 9]))
    refresh()
    card = SlugSummary.objects.get(slug="a")
    assert line().prior_low == 8
    assert card.offers["EUR"]["discount"] == 0  # 12 -> 9 is no reduction: 8 was asked before


def test_the_price_in_force_when_the_window_opens_counts():
    insert(price_rows([7, 10, 8], every=40))
    refresh()
    assert line().prior_low == 10  # 10 came 40 days before and was in force; 7 was over by then
    assert SlugSummary.objects.get(slug="a").offers["EUR"]["discount"] == 20.0


def test_a_price_raised_just_before_its_reduction_earns_no_discount():
    insert(price_rows([10, 10, 20, 10]))
    refresh()
    assert SlugSummary.objects.get(slug="a").discount == 0


def test_two_currencies_are_two_lines_and_two_offers():
    insert([
        Row("a", "s", "EUR", "c", at(0), Decimal(10)),
        Row("a", "s", "USD", "c", at(0), Decimal(3)),
    ])  # fmt: skip
    refresh()
    offers = SlugSummary.objects.get(slug="a").offers
    assert {currency: offer["price"] for currency, offer in offers.items()} == {"EUR": 10, "USD": 3}
    assert line(currency="EUR").lowest == 10


def test_an_outlier_is_kept_flagged_and_left_out_of_lows():
    insert(price_rows([10, 10, 10, 1]))
    refresh()
    assert line().lowest == 10
    assert line().last_price == 10
    assert Outlier.objects.get().state == "suspect"


def test_a_second_observation_confirms_an_outlier():
    insert(price_rows([10, 10, 10, 1]))
    refresh()
    insert([Row("a", "s", "EUR", "c", at(4), Decimal("1.05"))])
    refresh()
    assert line().lowest == 1
    assert set(Outlier.objects.values_list("state", flat=True)) == {"confirmed"}


def test_the_preferred_seller_leads_the_card():
    for seller in ("zzz", "tlamagase", "tlamagames"):
        insert([Row("a", seller, "EUR", "c", at(0), Decimal(10), name=f"by {seller}")])
    refresh()
    card = SlugSummary.objects.get(slug="a")
    assert (card.seller, card.name, card.sellers) == ("tlamagames", "by tlamagames", 3)


def test_a_listing_a_week_behind_its_seller_is_off_the_shelf():
    insert([
        Row("a", "s", "EUR", "c", at(0), Decimal(10)),
        Row("b", "s", "EUR", "c", at(8), Decimal(10)),
    ])  # fmt: skip
    refresh()
    assert not SlugSummary.objects.get(slug="a").is_available
    assert SlugSummary.objects.get(slug="a").offers == {}
    assert SlugSummary.objects.get(slug="b").is_available


def test_reconcile_finds_and_mends_a_tampered_row():
    insert(price_rows([10, 9, 8]) + price_rows([5, 6], slug="b"))
    refresh()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE catalog_slug_seller_summary SET lowest = 1 WHERE slug = 'a'")
        cursor.execute("DELETE FROM catalog_price_points WHERE slug = 'b' AND low = 6")
    model = readmodels.all()["catalog_slug_seller_summary"]
    found = readmodels.reconcile(model)
    assert found.count == 2
    assert "lowest is 1" in "".join(found.samples)
    assert readmodels.reconcile(model, fix=True).count == 2
    assert readmodels.reconcile(model).count == 0


def test_full_refresh_rebuilds_from_nothing():
    insert(price_rows([10, 9, 8]))
    refresh()
    before = list(SellerSummary.objects.values())
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE catalog_slug_seller_summary, catalog_price_points")
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model, full=True)
    assert list(SellerSummary.objects.values()) == before
    assert SlugSummary.objects.get(slug="a").offers["EUR"]["price"] == 8


def test_an_undone_fold_gives_its_changes_back():
    insert(price_rows([10, 9, 8]))
    waiting = catalog_models.backlog()
    with transaction.atomic():
        assert fold() == 3
        transaction.set_rollback(True)
    assert catalog_models.backlog() == waiting == 3


def test_snapshots_cannot_be_changed():
    insert(price_rows([10]))
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        connection.cursor().execute("UPDATE product_price_snapshots SET price = 1")


def test_deleted_snapshots_leave_the_read_models():
    insert(price_rows([10, 9, 8]) + price_rows([5], slug="b"))
    refresh()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM product_price_snapshots WHERE price IN (8, 5)")
    refresh()
    assert line().last_price == 9
    assert not SellerSummary.objects.filter(slug="b").exists()
    assert differences() == []


def test_refresh_is_one_sql_call_too():
    insert(price_rows([10, 9]))
    with connection.cursor() as cursor:
        cursor.execute("SELECT refresh_catalog_aggregates()")
        assert cursor.fetchone()[0] == 2
    assert SlugSummary.objects.get(slug="a").offers["EUR"]["price"] == 9


def generations() -> dict[str, int]:
    return dict(ReadModelState.objects.values_list("name", "generation"))


def test_whoever_changes_a_read_model_raises_its_generation_with_it():
    insert(price_rows([10]))
    refresh()
    before = generations()
    insert([Row("a", "s", "EUR", "c", at(1), Decimal(9))])
    with connection.cursor() as cursor:
        cursor.execute("SELECT refresh_catalog_aggregates()")
    after = generations()
    assert all(after[name] > before[name] for name in before)
    refresh()
    assert generations() == after  # nothing changed, nothing to announce


def test_what_staff_change_during_a_projection_is_not_forgotten():
    insert(price_rows([10]))
    refresh()
    with connection.cursor() as cursor:
        # As it is seen by a projection that began before staff's change and ends after it.
        cursor.execute("UPDATE catalog_fold_state SET all_cards_stale = true, folded = folded + 1")
        cursor.execute(
            "CREATE FUNCTION pg_temp.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " UPDATE catalog_fold_state SET folded = folded + 1, all_cards_stale = true;"
            " RETURN NULL; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER meddle AFTER UPDATE ON catalog_seller_activity"
            " FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.meddle()"
        )
        cursor.execute("SELECT catalog_project_cards()")
        cursor.execute("DROP TRIGGER meddle ON catalog_seller_activity")
        cursor.execute("SELECT all_cards_stale, folded > projected FROM catalog_fold_state")
        assert cursor.fetchone() == (True, True)
