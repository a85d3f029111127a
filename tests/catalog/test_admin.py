"""The catalog's staff screens: what they show, what they change, who may, at what cost."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from catalog import charts, curation, uploads
from catalog.models import (
    Change,
    IngestReject,
    IngestRun,
    Outlier,
    SellerPriority,
    SellerSummary,
    SlugSummary,
)
from config import jobs, readmodels
from tests.people import page, staff

pytestmark = pytest.mark.django_db

PRODUCTS = "/admin/catalog/slugsummary/"
MORNING = datetime(2025, 10, 1, 6, tzinfo=UTC)


def days(name: str, prices, **fields) -> list[dict]:
    return [
        {"product_name": name, "scraped_at": (MORNING + timedelta(days=at)).isoformat()}
        | {"price": price}
        | fields
        for at, price in enumerate(prices)
        if price is not None
    ]


@pytest.fixture
def tea(stock):
    """Two sellers, two currencies, one outlier, a reduction."""
    stock(
        *days("Grüner Tee", ["10", "10", "10", "95", "10", "8"], seller="tlamagames"),
        *days("Grüner Tee", ["11"] * 6, seller="tlamagase"),
        *days("Grüner Tee", ["250"] * 2, seller="tlamagames", currency="CZK"),
    )
    return "gruner-tee"


@pytest.fixture
def queued(monkeypatch) -> list[str]:
    """The names of the jobs that were put in the queue."""
    names = []
    real = jobs.enqueue

    def note(name, trigger="admin"):
        names.append(name)
        return real(name, trigger)

    monkeypatch.setattr(jobs, "enqueue", note)
    return names


# --- products -----------------------------------------------------------------------------------


def test_products_are_listed_with_prices_and_state(admin_client, tea):
    text = page(admin_client, PRODUCTS)
    assert "Grüner Tee" in text
    assert "8.00 EUR" in text
    assert "250.00 CZK" in text
    assert "−20 %" in text
    assert "available" in text


@pytest.mark.parametrize("term", ["Grüner Tee", "gruner", "TEE", "grunner tee", "tee gru"])
def test_search_folds_and_forgives(admin_client, tea, stock, term):
    stock({"product_name": "Kaffee"})
    text = page(admin_client, f"{PRODUCTS}?q={term}")
    assert "Grüner Tee" in text
    assert "Kaffee" not in text


def test_filters(admin_client, stock):
    stock(
        {"product_name": "Cup", "category_tags": ["china"]},
        {"product_name": "Cake", "availability": "preorder"},
        {"product_name": "Salt", "price": "", "availability": "unavailable"},
    )
    assert "Cup" in page(admin_client, f"{PRODUCTS}?category=china")
    assert "Cake" not in page(admin_client, f"{PRODUCTS}?category=china")
    assert "Salt" in page(admin_client, f"{PRODUCTS}?availability=none")
    assert "Cup" not in page(admin_client, f"{PRODUCTS}?availability=none")
    assert "Cake" in page(admin_client, f"{PRODUCTS}?availability=preorder")
    assert "Cup" not in page(admin_client, f"{PRODUCTS}?reduced=10")


def test_products_list_costs_the_same_for_any_number(
    admin_client, stock, django_assert_max_num_queries
):
    stock(*[{"product_name": f"Thing {at}", "category_tags": ["things"]} for at in range(45)])
    page(admin_client, PRODUCTS)
    with django_assert_max_num_queries(7):
        page(admin_client, PRODUCTS)


def test_product_page(admin_client, tea, django_assert_max_num_queries):
    url = f"{PRODUCTS}{tea}/change/"
    page(admin_client, url)
    with django_assert_max_num_queries(8):
        text = page(admin_client, url)
    assert 'id="price-chart-data"' in text
    assert "95.00 EUR" in text
    assert "suspect" in text
    assert "÷" not in text
    assert "× 9.5" in text


def test_product_page_without_prices_has_an_empty_state(admin_client, stock):
    stock({"product_name": "Salt", "price": "", "availability": "unavailable"})
    text = page(admin_client, f"{PRODUCTS}salt/change/")
    assert "No seller has shown a price yet" in text
    assert "data-price-chart" not in text


def test_unknown_product_is_404(admin_client):
    assert admin_client.get(f"{PRODUCTS}nothing/change/").status_code == 404


def test_markup_in_names_stays_text(admin_client, stock):
    stock({"product_name": "<script>alert(1)</script> soap", "seller": "</script><b>x"})
    for url in (PRODUCTS, f"{PRODUCTS}{SlugSummary.objects.get().slug}/change/"):
        text = page(admin_client, url)
        assert "<script>alert" not in text
        assert "</script><b>" not in text


def test_read_models_cannot_be_changed(admin_client, tea):
    assert admin_client.get(f"{PRODUCTS}add/").status_code == 403
    assert admin_client.get(f"{PRODUCTS}{tea}/delete/").status_code == 403


# --- chart --------------------------------------------------------------------------------------


def chart(slug: str) -> dict:
    lines, outliers = charts.product_lines(slug), charts.product_outliers(slug)
    return charts.price_chart(slug=slug, lines=lines, outliers=outliers)


def test_chart_data(tea):
    euro, koruna = chart(tea)["currencies"]
    assert (euro["code"], koruna["code"]) == ("EUR", "CZK")
    first, second = euro["lines"]
    assert (first["seller"], second["seller"]) == ("tlamagames", "tlamagase")
    start = (MORNING.date() - charts.EPOCH).days
    assert first["days"] == [start, start + 4, start + 5]
    assert first["prices"] == [10, 10, 8]
    assert (first["priorLow"], first["discount"], first["since"]) == (10, 20, start + 5)
    assert [(o["day"], o["price"], o["state"]) for o in first["outliers"]] == [
        (start + 3, 95, "suspect")
    ]
    assert second["days"] == [start, start + 5]
    assert koruna["lines"][0]["colour"] == first["colour"] != second["colour"]


def test_thinning_keeps_every_change_and_gap():
    rows = [(day, 5.0, 5.0, 5.0) for day in (*range(10), *range(30, 40))]
    rows += [(day, 6.0, 6.0, 6.0) for day in (40, 41, 42)]
    kept, gaps = charts._thin(rows)
    assert [row[0] for row in kept] == [0, 9, 30, 39, 40, 42]
    assert gaps == [2]


def test_lines_follow_the_order_of_staff(tea):
    curation.reorder_sellers(sellers=["tlamagase", "tlamagames"])
    assert [line.seller for line in charts.product_lines(tea)][:2] == ["tlamagase", "tlamagames"]


# --- outliers -----------------------------------------------------------------------------------


def refresh() -> None:
    for model in readmodels.select(["catalog"]):
        readmodels.refresh(model)


def highest() -> int:
    return SellerSummary.objects.get(seller="tlamagames", currency="EUR").highest


def test_verdicts_move_the_prices(admin_user, tea):
    outlier = Outlier.objects.get()
    assert highest() == 10
    judged = curation.review_outlier(outlier_id=outlier.pk, verdict="accepted", user=admin_user)
    assert (judged.state, judged.reviewed_by) == ("accepted", "admin")
    assert judged.reviewed_at is not None
    assert list(Change.objects.values_list("snapshot_id", "slug", "seller", "currency")) == [
        (None, tea, "tlamagames", "EUR")
    ]
    refresh()
    assert highest() == 95
    curation.review_outlier(outlier_id=outlier.pk, verdict="rejected", user=admin_user)
    refresh()
    assert highest() == 10


def test_the_same_verdict_again_changes_nothing(admin_user, tea):
    key = Outlier.objects.get().pk
    curation.review_outlier(outlier_id=key, verdict="rejected", user=admin_user)
    Change.objects.all().delete()
    curation.review_outlier(outlier_id=key, verdict="rejected", user=admin_user)
    assert not Change.objects.exists()


def test_only_verdicts_of_staff_are_taken(admin_user, tea):
    with pytest.raises(ValueError, match="accepted or rejected"):
        curation.review_outlier(outlier_id=1, verdict="confirmed", user=admin_user)


def test_buttons_judge_and_queue_a_refresh(admin_client, tea, queued):
    url = reverse("admin:catalog_outlier_review", args=[Outlier.objects.get().pk])
    following = f"{PRODUCTS}{tea}/change/"
    response = admin_client.post(url, {"verdict": "accepted", "next": following})
    assert (response.status_code, response["Location"]) == (302, following)
    assert Outlier.objects.get().state == "accepted"
    assert queued == ["refresh_catalog"]
    response = admin_client.post(url, {"verdict": "rejected", "next": "https://evil.example/"})
    assert response["Location"] == "/admin/catalog/outlier/"
    assert admin_client.get(url).status_code == 405
    assert admin_client.post(url, {"verdict": "maybe"}).status_code == 404


def test_bulk_verdicts(admin_client, tea, queued):
    key = Outlier.objects.get().pk
    url = "/admin/catalog/outlier/"
    assert "gruner-tee" in page(admin_client, f"{url}?state__exact=suspect&q=tee")
    response = admin_client.post(url, {"action": "reject", "_selected_action": [key]})
    assert response.status_code == 302
    assert Outlier.objects.get().state == "rejected"
    assert queued == ["refresh_catalog"]


def test_looking_is_not_judging(tea):
    viewer = staff("view_outlier", "view_slugsummary")
    key = Outlier.objects.get().pk
    url = reverse("admin:catalog_outlier_review", args=[key])
    assert viewer.post(url, {"verdict": "accepted"}).status_code == 403
    assert "Accept" not in page(viewer, f"{PRODUCTS}{tea}/change/")
    viewer.post("/admin/catalog/outlier/", {"action": "accept", "_selected_action": [key]})
    assert Outlier.objects.get().state == "suspect"


def test_posts_need_a_csrf_token(admin_user, tea):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    url = reverse("admin:catalog_outlier_review", args=[Outlier.objects.get().pk])
    assert strict.post(url, {"verdict": "accepted"}).status_code == 403


def test_outlier_list_costs_the_same_for_any_number(
    admin_client, stock, django_assert_max_num_queries
):
    for at in range(12):
        stock(*days(f"Thing {at}", ["10", "10", "10", "99"]))
    url = "/admin/catalog/outlier/"
    page(admin_client, url)
    with django_assert_max_num_queries(7):
        assert page(admin_client, url).count("× 9.9") == 12


# --- order of sellers ---------------------------------------------------------------------------

PRIORITY = "/admin/catalog/sellerpriority/"


def order() -> list[tuple[int, str]]:
    return list(SellerPriority.objects.order_by("rank").values_list("rank", "seller"))


def save_ranks(client, ranks: dict[str, int]):
    rows = list(SellerPriority.objects.order_by("rank", "seller"))
    data = {"form-TOTAL_FORMS": len(rows), "form-INITIAL_FORMS": len(rows), "_save": "Save"}
    for at, row in enumerate(rows):
        data |= {f"form-{at}-id": row.pk, f"form-{at}-rank": ranks.get(row.seller, row.rank)}
    return client.post(PRIORITY, data)


@pytest.fixture
def sellers(tea, stock):
    stock({"product_name": "Cup", "seller": "milan"}, {"product_name": "Cup", "seller": "zoe"})
    curation.reorder_sellers(sellers=["tlamagames", "tlamagase", "milan"])
    refresh()


def leading() -> str:
    return SlugSummary.objects.get(slug="gruner-tee").seller


def test_a_new_order_reaches_the_cards(
    admin_client, sellers, queued, django_capture_on_commit_callbacks
):
    assert leading() == "tlamagames"
    with django_capture_on_commit_callbacks(execute=True):
        response = save_ranks(admin_client, {"tlamagase": 0, "tlamagames": 1, "milan": 2})
    assert response.status_code == 302
    assert order() == [(1, "tlamagase"), (2, "tlamagames"), (3, "milan")]
    assert queued == ["refresh_catalog"]
    refresh()
    assert leading() == "tlamagase"


def test_a_typed_number_goes_before_the_one_that_has_it(admin_client, sellers):
    save_ranks(admin_client, {"milan": 1})
    assert order() == [(1, "milan"), (2, "tlamagames"), (3, "tlamagase")]


def test_saving_without_a_change_refreshes_nothing(
    admin_client, sellers, queued, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        save_ranks(admin_client, {})
    assert queued == []


def test_sellers_without_a_rank_are_offered(admin_client, sellers):
    assert "zoe" in page(admin_client, PRIORITY)
    response = admin_client.post(f"{PRIORITY}rank/", {"seller": "zoe"})
    assert response.status_code == 302
    assert order()[-1] == (4, "zoe")
    for unknown in ["nobody", "no\0body", ""]:
        assert admin_client.post(f"{PRIORITY}rank/", {"seller": unknown}).status_code == 404


def test_removing_a_seller_closes_the_gap(admin_client, sellers):
    key = SellerPriority.objects.get(seller="tlamagames").pk
    admin_client.post(f"{PRIORITY}{key}/delete/", {"post": "yes"})
    assert order() == [(1, "tlamagase"), (2, "milan")]


def test_a_seller_named_twice_is_refused(db):
    with pytest.raises(ValueError, match="twice"):
        curation.reorder_sellers(sellers=["a", "b", "a"])


# --- ingest runs and uploads --------------------------------------------------------------------

RUNS = "/admin/catalog/ingestrun/"
CSV = b"""product_name,seller,price,currency,scraped_at
Cup,kritikos,3.20,EUR,2025-11-10T06:00:00Z
Mug,kritikos,-1,EUR,2025-11-10T06:00:00Z
"""


@pytest.fixture
def folder(settings, tmp_path):
    settings.VAR_DIR = tmp_path
    return tmp_path / "uploads"


def send(client, name: str = "prices.csv", content: bytes = CSV, **fields):
    return client.post(f"{RUNS}upload/", {"file": SimpleUploadedFile(name, content)} | fields)


class StubRun:
    """What a job is given, as far as ingesting uploads asks for it."""

    def progress(self, rows=None, **detail) -> None:
        self.rows = rows


def test_a_file_of_staff_goes_in(admin_client, folder, queued):
    assert send(admin_client).status_code == 302
    assert queued == ["ingest_uploads"]
    assert [(u.name, u.user) for u in uploads.waiting()] == [("prices.csv", "admin")]
    assert "prices.csv" in page(admin_client, RUNS)
    assert uploads.ingest_waiting(StubRun()) == 1
    assert uploads.waiting() == []
    run = IngestRun.objects.get()
    assert (run.accepted, run.rejected, run.user_label) == (1, 1, "admin")
    text = page(admin_client, f"{RUNS}{run.pk}/change/")
    assert "price_not_positive" in text
    response = admin_client.get(f"{RUNS}{run.pk}/rejects/")
    assert b"price_not_positive" in b"".join(response.streaming_content)
    assert sorted(path.name for path in folder.iterdir()) == ["rejects"]


def test_columns_can_be_mapped(admin_client, folder):
    content = b"title,amount,day\nCup,3,2025-11-10T06:00:00Z\n"
    mapping = "product_name=title\nprice=amount\nscraped_at=day\nseller=:kritikos\ncurrency=:EUR"
    assert send(admin_client, content=content, mapping=mapping).status_code == 302
    assert uploads.ingest_waiting(StubRun()) == 1


def test_an_unreadable_file_leaves_a_run_that_says_why(admin_client, folder):
    send(admin_client, content=b"col\0our\nred\n")
    send(admin_client, name="good.csv")
    assert uploads.ingest_waiting(StubRun()) == 1
    failed = IngestRun.objects.get(state="failed")
    assert "no column for product_name" in failed.error
    assert "it has col\\x00our" in failed.error
    assert uploads.waiting() == []


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("prices.exe", {}, "neither CSV nor NDJSON"),
        ("prices.csv", {"mapping": "nonsense"}, "write field=column"),
        ("prices.csv", {"mapping": "colour=red"}, "no field"),
    ],
)
def test_what_cannot_be_ingested_is_refused_at_once(admin_client, folder, name, fields, words):
    response = send(admin_client, name, **fields)
    assert response.status_code == 200
    assert words in response.content.decode()
    assert uploads.waiting() == []


def test_names_cannot_leave_the_folder(folder):
    kept = uploads.keep_upload(name="../../etc/x y.csv", size=1, chunks=[b"a"], user="eve")
    assert kept.path.parent == folder
    assert kept.name == "x_y.csv"


def test_size_is_checked_before_the_body_is_read(admin_client, folder, settings):
    settings.CATALOG_UPLOAD_MAX_BYTES = 10
    response = send(admin_client, content=b"x" * 200_000)
    assert response.status_code == 302
    assert response["Location"] == f"{RUNS}upload/"
    assert "neither" not in page(admin_client, f"{RUNS}upload/")
    response = send(admin_client)  # small enough to be read, too large to be kept
    assert "10 is the limit" in response.content.decode()
    assert uploads.waiting() == []


@pytest.mark.parametrize("name", ["日" * 240, "x" * 240, "ρύζι " * 40])
def test_an_upload_with_a_long_name_is_kept_under_its_end(folder, name):
    kept = uploads.keep_upload(name=f"{name}.csv.gz", size=1, chunks=[b"a"], user="eve")
    assert kept.name.endswith(f"{name.strip()[-1]}.csv.gz" if name[-1] != " " else "_.csv.gz")
    assert uploads.waiting() == [kept]
    uploads.rejects_path(kept.path).write_text("its name fits as well")


def test_uploads_need_permission_and_csrf_token(admin_user, folder):
    assert send(staff("view_ingestrun")).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    assert send(strict).status_code == 403
    assert send(Client()).status_code == 302  # to the login
    assert uploads.waiting() == []


def test_only_rejects_of_uploads_are_given_out(admin_client, folder):
    run = IngestRun.objects.create(source="x", rejects_path="/etc/passwd")
    assert admin_client.get(f"{RUNS}{run.pk}/rejects/").status_code == 404
    assert "Download" not in page(admin_client, f"{RUNS}{run.pk}/change/")


def test_a_dead_run_is_told_from_one_at_work(admin_client):
    IngestRun.objects.create(source="dead.csv", host="gone", pid=1, started_at=MORNING)
    IngestRun.objects.create(source="alive.csv")
    text = page(admin_client, RUNS)
    assert ">dead<" in text
    assert ">running<" in text


def test_runs_and_their_rejects_are_bounded(admin_client, django_assert_max_num_queries):
    runs = IngestRun.objects.bulk_create([IngestRun(source=f"{at}.csv") for at in range(60)])
    IngestReject.objects.bulk_create(
        [IngestReject(run=runs[0], line=at, reason="encoding") for at in range(200)]
    )
    page(admin_client, RUNS)
    with django_assert_max_num_queries(8):
        page(admin_client, RUNS)
    with django_assert_max_num_queries(12):
        text = page(admin_client, f"{RUNS}{runs[0].pk}/change/")
    assert text.count("the text is not valid UTF-8") == 50
