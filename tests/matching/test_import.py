"""Items out of files: what goes in, what is refused and told, and what a kill leaves."""

import csv
import gzip
import json
import random
import signal
import subprocess
import time
from datetime import date
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from config import files
from config.files import SourceError
from matching import engine, importing
from matching.importing import Mapped, import_file
from matching.models import AuditLog, Item, ItemBucket, MatchJob
from tests.processes import until

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "matching"
HEADER = "external_id,title,description,category,latitude,longitude,happened_on"
LOST = Mapped(kind="lost")


@pytest.fixture
def owner(db):
    return get_user_model().objects.create_user("importer")


@pytest.fixture
def take(owner, tmp_path):
    """`take(path)` imports a file for the owner."""

    def run(path, mapped=LOST, **options):
        options.setdefault("rejects_path", str(tmp_path / "out.rejects.csv"))
        return import_file(path=str(path), owner_id=owner.pk, mapped=mapped, **options)

    return run


def write(folder, lines, name="items.csv", header=HEADER):
    path = folder / name
    text = "\n".join([header, *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def many(count):
    return [
        f"k{n},Grey parrot {n},with a ring,birds,{48 + n % 100 / 100},2.35,2025-05-{n % 28 + 1:02}"
        for n in range(count)
    ]


class TestRows:
    def test_every_field_arrives(self, take, tmp_path):
        report = take(
            write(tmp_path, ['7,"Grey parrot, talks",Says hello,birds,48.85,2.35,2025-05-06'])
        )
        item = Item.objects.get()
        assert (item.kind, item.external_id, item.title) == ("lost", "7", "Grey parrot, talks")
        assert (item.description, item.category) == ("Says hello", "birds")
        assert (item.latitude, item.longitude) == (48.85, 2.35)
        assert item.happened_on == date(2025, 5, 6)
        assert item.terms.startswith("grey parrot talks\x1fsays hello")
        assert (report.counts.rows_read, report.counts.accepted, report.rejects_path) == (1, 1, "")

    def test_it_is_found_at_once_by_words_and_by_place(self, take, tmp_path):
        take(write(tmp_path, ["1,Grey parrot,,birds,48.85,2.35,", "2,Umbrella,,things,,,"]))
        found = {item.external_id: item.pk for item in Item.objects.all()}
        assert engine.search("parrot").hits[0].item_id == found["1"]
        near = engine.Filters(latitude=48.8501, longitude=2.35, radius_m=100)
        assert [hit.item_id for hit in engine.search("", filters=near).hits] == [found["1"]]
        assert ItemBucket.objects.count() == 1

    def test_no_match_jobs_but_an_audit_row(self, take, owner, tmp_path):
        path = write(tmp_path, many(3))
        take(path)
        assert not MatchJob.objects.exists()
        row = AuditLog.objects.get()
        assert (row.actor_id, row.action, row.detail) == (
            owner.pk,
            "import",
            {"source": path, "items": 3},
        )

    def test_bad_rows_are_told_and_the_rest_goes_in(self, take, tmp_path):
        lines = [
            "1,Good,,,,,",
            "2,,,,,,",
            "3,North of north,,,91,0,",
            "4,Nowhere,,,nan,0,",
            "5,Half a place,,,48,,",
            "6,Some day,,,,,someday",
            f"7,{'x' * 301},,,,,",
            "8,too,few",
            '9,"never closed,,,,,',
            "10,Bell\x07,,,,,",
            "11,Also good,,,,,",
        ]
        report = take(write(tmp_path, lines))
        assert set(Item.objects.values_list("external_id", flat=True)) == {"1", "11"}
        assert (report.counts.accepted, report.counts.rejected) == (2, 9)
        with Path(report.rejects_path).open(newline="") as file:
            refused = {row["line"]: (row["reason"], row["field"]) for row in csv.DictReader(file)}
        assert refused == {
            "3": ("invalid", "title"),
            "4": ("invalid", "latitude"),
            "5": ("invalid", "latitude"),
            "6": ("invalid", "longitude"),
            "7": ("invalid", "happened_on"),
            "8": ("invalid", "title"),
            "9": ("columns_wrong", ""),
            "10": ("csv_unclosed_quote", ""),
            "11": ("invalid", "title"),
        }

    def test_the_kind_of_a_column(self, take, tmp_path):
        path = write(tmp_path, ["Lost,Cat", "FOUND,Dog", "Matched,Hen"], header="state,title")
        report = take(path, Mapped(["kind=state"]))
        kinds = dict(Item.objects.values_list("title", "kind"))
        assert kinds == {"Cat": "lost", "Dog": "found"}
        assert report.counts.reasons == {"invalid kind": 1}

    def test_columns_are_joined_picked_and_made_attributes(self, take, tmp_path):
        path = write(
            tmp_path,
            ["9,Beagle,,Brown,M,pets,2025-05-01T10:00:00Z", "8,Cat,Tabby,,F,cars,"],
            header="id,breed,kind_of,color,sex,group,day",
        )
        pairs = ["title=breed+kind_of+color", "external_id=id", "city=:Lyon", "happened_on=day"]
        attributes = ["attributes.color=color", "attributes.sex=sex"]
        mapped = Mapped([*pairs, *attributes], kind="found", where=["group=pets"], prefix="city-")
        report = take(path, mapped)
        item = Item.objects.get()
        assert (item.title, item.external_id, item.city) == ("Beagle Brown", "city-9", "Lyon")
        assert item.attributes == {"color": "Brown", "sex": "M"}
        assert item.features == {"color": ["brown"], "sex": ["m"]}
        assert item.happened_on == date(2025, 5, 1)
        assert (report.counts.skipped, report.counts.rows_read) == (1, 2)

    def test_ndjson(self, take, tmp_path):
        rows = [
            {
                "id": 1,
                "name": "Bike",
                "attributes": {"gears": 21},
                "lat": 1.5,
                "lon": 2,
                "kind": "lost",
            },
            {"id": 2, "name": "Bike", "attributes": {"nested": {}}},
            {"id": 3, "name": 7},
        ]
        path = tmp_path / "items.ndjson"
        path.write_text("\n".join(map(json.dumps, rows)) + "\n[]\n")
        report = take(path, Mapped(["external_id=id"], kind="lost"))
        item = Item.objects.get()
        assert (item.external_id, item.attributes) == ("1", {"gears": 21})
        assert (item.latitude, item.longitude) == (1.5, 2.0)
        assert report.counts.reasons == {
            "invalid attributes": 1,
            "invalid title": 1,
            "json_not_object": 1,
        }

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"pairs": ["nonsense=a"]}, "no field 'nonsense'"),
            ({"pairs": ["title"]}, "write field=column"),
            ({"pairs": ["title=a", "title=b"]}, "mapped twice"),
            ({"kind": "lost", "pairs": ["kind=b"]}, "mapped twice"),
            ({"where": ["state"]}, "write column=value"),
        ],
    )
    def test_a_map_that_makes_no_sense(self, options, told):
        with pytest.raises(SourceError, match=told):
            Mapped(**options)

    def test_a_column_that_is_not_there(self, take, tmp_path):
        with pytest.raises(SourceError, match="no column for title"):
            take(write(tmp_path, ["1,2"], header="a,b"))
        with pytest.raises(SourceError, match=r"no column for where\.0"):
            take(write(tmp_path, many(1)), Mapped(kind="lost", where=["colour=red"]))


class TestAgain:
    def test_the_same_file_adds_nothing(self, take, tmp_path):
        path = write(tmp_path, many(30), "items.csv.gz")
        assert take(path).counts.accepted == 30
        again = take(path).counts
        assert (again.accepted, again.duplicate, again.conflicts) == (0, 30, 0)
        assert Item.objects.count() == 30

    def test_what_differs_is_a_conflict_and_the_first_stays(self, take, tmp_path):
        take(write(tmp_path, ["1,Red bag,,,,,", "2,Key,,,,,"]))
        report = take(write(tmp_path, ["1,Blue bag,,,,,", "2,Key,,,,,", "3,Hat,,,,,"]))
        counts = report.counts
        assert (counts.accepted, counts.duplicate, counts.conflicts) == (1, 1, 1)
        assert Item.objects.get(external_id="1").title == "Red bag"
        assert "2,conflict,external_id,1" in Path(report.rejects_path).read_text()

    def test_one_key_twice_in_a_file(self, take, tmp_path):
        report = take(write(tmp_path, ["1,Red bag,,,,,", "1,Red bag,,,,,", "1,Blue bag,,,,,"]))
        counts = report.counts
        assert (counts.accepted, counts.duplicate, counts.rejected) == (1, 1, 1)
        assert counts.reasons == {"repeated external_id": 1}

    def test_rows_without_a_key_are_known_by_what_they_say(self, take, tmp_path):
        path = write(tmp_path, ["Red bag,a", "Red bag,b"], header="title,description")
        assert take(path).counts.accepted == 2
        assert take(path).counts.duplicate == 2

    def test_two_owners_may_use_one_key(self, take, tmp_path):
        path = write(tmp_path, many(2))
        take(path)
        other = get_user_model().objects.create_user("other")
        import_file(path=path, owner_id=other.pk, mapped=LOST, rejects_path=str(tmp_path / "r"))
        assert Item.objects.count() == 4

    def test_what_came_before_a_break_is_in(self, take, tmp_path, monkeypatch):
        monkeypatch.setattr(importing, "CHUNK_ROWS", 200)
        monkeypatch.setattr(files, "BLOCK_BYTES", 8_192)
        path = Path(write(tmp_path, many(3_000), "items.csv.gz"))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(SourceError, match="damaged gzip"):
            take(path)
        before = Item.objects.count()
        assert 0 < before < 3_000
        path.write_bytes(whole)
        assert take(path).counts.accepted == 3_000 - before

    def test_a_dry_run_writes_nothing(self, take, tmp_path):
        report = take(write(tmp_path, [*many(3), "x,,,,,,"]), dry_run=True)
        assert (report.counts.accepted, report.counts.rejected) == (3, 1)
        assert not Item.objects.exists()

    def test_progress(self, take, tmp_path, monkeypatch):
        monkeypatch.setattr(importing, "CHUNK_ROWS", 200)
        monkeypatch.setattr(files, "BLOCK_BYTES", 8_192)
        path = write(tmp_path, many(1_000))
        seen = []
        take(path, progress=lambda at, size, counts: seen.append((at, size, counts.rows_read)))
        size = Path(path).stat().st_size
        assert len(seen) > 1
        assert seen[-1] == (size, size, 1_000)


class TestCommand:
    def run(self, *args, **options):
        out, err = StringIO(), StringIO()
        call_command("import_items", *args, stdout=out, stderr=err, **options)
        return out.getvalue(), err.getvalue()

    def test_the_report_and_the_read_models(self, owner, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = write(tmp_path, [*many(50), "x,,,,,,"])
        out, _ = self.run(path, "--owner", "importer", "--kind", "lost")
        assert "51 rows in" in out
        assert "rejected              1" in out
        assert "invalid title" in out
        assert "refused rows: items.rejects.csv" in out
        assert "read models: Succeeded" in out
        from matching.models import ItemTerm

        assert ItemTerm.objects.get(kind="lost", term="parrot").items == 50

    def test_an_owner_who_does_not_exist(self, db, tmp_path):
        with pytest.raises(CommandError, match="no user 'nobody'"):
            self.run(write(tmp_path, many(1)), "--owner", "nobody", "--kind", "lost")

    def test_strict(self, owner, tmp_path):
        path = write(tmp_path, ["x,,,,,,"])
        args = (path, "--owner", "importer", "--kind", "lost", "--no-refresh", "--rejects")
        with pytest.raises(CommandError, match="1 rows were refused"):
            self.run(*args, str(tmp_path / "r.csv"), "--strict")

    def test_one_bad_file_of_two(self, owner, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        good, bad = write(tmp_path, many(2)), str(tmp_path / "none.csv")
        with pytest.raises(CommandError, match="1 of 2 files"):
            self.run(bad, good, "--owner", "importer", "--kind", "lost", "--no-refresh")
        assert Item.objects.count() == 2


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_killed_anywhere_the_next_run_completes_it(tmp_path, spawn):
    owner = get_user_model().objects.create_user("importer")
    path = write(tmp_path, many(15_000))
    command = ["import_items", path, "--owner", "importer", "--kind", "lost", "--no-refresh"]
    command += ["--rejects", str(tmp_path / "r.csv")]
    chance = random.Random(5)
    for _ in range(3):
        process, before = spawn(command), Item.objects.count()
        until(lambda n=before: Item.objects.count() > n, "the import", process=process)
        time.sleep(chance.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = spawn(command)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert Item.objects.filter(owner=owner).count() == 15_000
    assert sum(row.detail["items"] for row in AuditLog.objects.all()) == 15_000
    assert "duplicate" in output


@pytest.mark.django_db(transaction=True)
def test_piped_into_the_command(tmp_path, spawn):
    get_user_model().objects.create_user("importer")
    process = spawn(
        ["import_items", "-", "--format", "csv", "--owner", "importer", "--kind", "found",
         "--no-refresh", "--rejects", str(tmp_path / "r.csv")],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    output, errors = process.communicate("\n".join([HEADER, *many(200)]), timeout=60)
    assert process.returncode == 0, errors
    assert "standard input: 200 rows" in output
    assert Item.objects.count() == 200


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the data sets in {DATA}")
def test_real_files(take):
    vancouver = Mapped(
        ["title=breed+color+name", "happened_on=date", "external_id=record_id"],
        kind="lost",
        where=["state=Lost"],
    )
    counts = take(DATA / "vancouver_lost_found_animals_dev.csv.gz", vancouver).counts
    assert (counts.rows_read, counts.rejected, counts.conflicts) == (17_628, 0, 0)
    assert counts.accepted == Item.objects.count() == 8_886
    pairs = ["title=:CV", "description=text", "external_id=cv_id"]
    pages = Mapped(pairs, kind="resume", prefix="cv-")
    assert take(DATA / "vacancy_resume_dev_cvs.csv.gz", pages).counts.accepted == 65
