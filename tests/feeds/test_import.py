"""Graphs and interactions from files: made-up ones, broken ones, killed ones, and the real ones."""

import csv
import gzip
import random
import signal
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from config import files
from config.files import SourceError
from counters import actions, declared
from feeds import importing
from feeds.importing import Follows, Interactions, import_file
from feeds.models import Comment, Follow, Like, Post, Profile
from tests.feeds.people import profile
from tests.processes import until

pytestmark = pytest.mark.django_db

SOCIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "social"
GRAPH = SOCIAL / "github_mutual_follow_dev.csv.gz"
ACTS = SOCIAL / "mathoverflow_interactions_dev.csv.gz"
EDGES = "user_a,user_b\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Rejects files go there."""
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def edges(path: str, *, mutual: bool = False, **options) -> importing.Report:
    return import_file(path=path, lines=Follows("gh-", mutual=mutual), **options)


def refused(path: str) -> list[tuple[str, ...]]:
    """(line, reason, field, detail) of a rejects file."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [tuple(row)[:4] for row in csv.reader(file)][1:]


def test_edges_both_ways_and_again(tmp_path, capsys):
    path = write(tmp_path / "graph.csv", EDGES + "1,2\n2,3\n3,3\n")
    call_command("import_graph", path)
    said = capsys.readouterr().out
    assert "3 rows in" in said
    for line in ("people                3", "added                 4", "skipped               1"):
        assert line in said
    assert "counters: Succeeded" in said
    call_command("import_graph", path, verbosity=0)
    assert capsys.readouterr() == ("", "")
    assert (Profile.objects.count(), Follow.objects.count()) == (3, 4)
    two = Profile.objects.get(handle="gh-2")
    assert (two.followers_count, two.following_count) == (2, 2)
    assert not two.user.has_usable_password()


def test_one_way_with_other_columns(tmp_path):
    path = write(tmp_path / "graph.csv.gz", gzip.compress(b"from,to\nann,bob\n"))
    call_command("import_graph", path, columns="from,to", one_way=True, prefix="x-")
    path = write(tmp_path / "graph.csv", "who;whom\nann;cid\n")
    mapped = ["user_a=who", "user_b=whom"]
    call_command("import_graph", path, map=mapped, one_way=True, prefix="x-")
    path = write(tmp_path / "graph.ndjson", '{"user_a": "ann", "user_b": 7}\n')
    call_command("import_graph", path, one_way=True, prefix="x-")
    pairs = Follow.objects.order_by("followee__handle").values_list(
        "follower__handle", "followee__handle"
    )
    assert list(pairs) == [("x-ann", "x-7"), ("x-ann", "x-bob"), ("x-ann", "x-cid")]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    report = edges(write(tmp_path / "graph.csv", b"\xef\xbb\xbfuser_a,user_b\r\n1,2\r\n"))
    assert (report.counts.accepted, report.added, report.rejects_path) == (1, 1, "")


def test_bad_lines_are_told_and_the_rest_goes_in(tmp_path, capsys):
    long = "x" * 50
    lines = [
        b"1,2",
        b",4",
        b"5,a b",
        b"6",
        b"7,\xff",
        b"jos\xc3\xa9,2",
        long.encode() + b",2",
        b"6,7",
    ]
    path = write(tmp_path / "graph.csv", EDGES.encode() + b"\n".join(lines))
    call_command("import_graph", path)
    said = capsys.readouterr().out
    assert "rejected              6" in said
    assert "name_invalid user_b: behind the prefix it makes no handle" in said
    assert "refused rows: graph.rejects.csv" in said
    assert refused("graph.rejects.csv") == [
        ("3", "name_invalid", "user_a", ""),
        ("4", "name_invalid", "user_b", "a b"),
        ("5", "columns_wrong", "", "1 columns, the header has 2"),
        ("6", "encoding", "", "byte 3 of the line"),
        ("7", "name_invalid", "user_a", "jos\u00e9"),
        ("8", "name_invalid", "user_a", long[:40]),
    ]
    assert Follow.objects.count() == 4
    with pytest.raises(CommandError, match="6 rows were refused"):
        call_command("import_graph", path, strict=True)


def test_a_handle_that_is_somebody_elses(tmp_path):
    other = profile("gh-bob")
    other.user.username = "other"
    other.user.save()
    report = edges(write(tmp_path / "graph.csv", EDGES + "bob,2\n3,bob\n3,2\n,1\n"))
    assert (report.counts.accepted, report.counts.rejected, report.added) == (1, 3, 1)
    assert refused(report.rejects_path) == [
        ("2", "handle_taken", "user_a", "bob"),
        ("3", "handle_taken", "user_b", "bob"),
        ("5", "name_invalid", "user_a", ""),
    ]


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    path = write(tmp_path / "graph.csv", EDGES + "1,2\n,4\n")
    call_command("import_graph", path, dry_run=True)
    assert "valid                 1" in capsys.readouterr().out
    assert not Profile.objects.exists()


def test_files_that_are_none(tmp_path, capsys):
    write(tmp_path / "other.csv", "a,b\n1,2\n")
    good = write(tmp_path / "good.csv", EDGES + "1,2\n")
    with pytest.raises(CommandError, match="2 of 3 files could not be imported"):
        call_command("import_graph", "nothing.csv", "other.csv", good)
    said = capsys.readouterr().err
    assert "nothing.csv: No such file" in said
    assert "other.csv: no column for user_a, user_b; it has a, b. Name them with --map" in said
    assert Follow.objects.count() == 2
    with pytest.raises(CommandError, match="two names"):
        call_command("import_graph", good, columns="a")
    with pytest.raises(CommandError, match="no field 'user_a'; fields: unix_ts, kind"):
        call_command("import_graph", good, columns="a,b", interactions=True)


def test_what_came_before_a_break_is_in(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "CHUNK_ROWS", 2_000)
    monkeypatch.setattr(files, "BLOCK_BYTES", 8_192)
    chance = random.Random(1)
    text = "".join(f"{chance.randrange(900)},{chance.randrange(900)}\n" for _ in range(20_000))
    whole = gzip.compress((EDGES + text).encode())
    path = write(tmp_path / "graph.csv.gz", whole[: len(whole) // 2])
    seen = []
    with pytest.raises(SourceError, match="damaged gzip after line"):
        edges(path, progress=lambda position, size, counts: seen.append(counts.rows_read))
    assert 0 < seen[-1] < 20_000
    before = Follow.objects.count()
    pairs = {tuple(line.split(",")) for line in text.splitlines()}
    expected = {(f"gh-{one}", f"gh-{other}") for one, other in pairs if one != other}
    report = edges(write(tmp_path / "graph.csv.gz", whole))
    assert (report.counts.rows_read, report.added) == (20_000, len(expected) - before)
    found = Follow.objects.values_list("follower__handle", "followee__handle")
    assert set(found) == expected


@pytest.mark.django_db(transaction=True)
def test_a_lost_deadlock_is_tried_again(tmp_path, monkeypatch):
    """Raised by PostgreSQL itself, in the first attempt."""
    real, attempts = importing._record, []

    def deadlocked(*args):
        attempts.append(args)
        done = real(*args)
        if len(attempts) == 1:
            with connection.cursor() as cursor:
                cursor.execute("DO $$BEGIN RAISE SQLSTATE '40P01'; END$$")
        return done

    monkeypatch.setattr(importing, "_record", deadlocked)
    report = edges(write(tmp_path / "graph.csv", EDGES + "1,2\n"))
    assert (report.people, report.added, len(attempts)) == (2, 1, 2)


def test_interactions_become_likes_and_comments(tmp_path):
    path = write(
        tmp_path / "acts.csv",
        "unix_ts,kind,actor,target\n"
        "1254192988,answer,1,4\n"
        "1254192989,comment_on_answer,2,4\n"
        "1254192990,comment_on_question,2,4\n"
        "1259192990,answer,2,4\n"
        "1259192990,answer,4,4\n",
    )
    for added in (4, 0):
        report = import_file(path=path, lines=Interactions("mo-"))
        assert (report.counts.accepted, report.counts.skipped, report.added) == (4, 1, added)
    assert (Post.objects.count(), Like.objects.count(), Comment.objects.count()) == (2, 2, 2)
    first = Post.objects.order_by("created_at")[0]
    assert (first.likes_count, first.comments_count) == (1, 2)
    assert first.created_at.isoformat() == "2009-09-01T00:00:00+00:00"
    bad = "unix_ts,kind,actor,target\nx,answer,1,2\n1,poke,1,2\n9e9,answer,1,2\n1,answer,1,\n"
    bad += "4102444800,answer,5,6\n"
    report = import_file(path=write(tmp_path / "bad.csv", bad), lines=Interactions("mo-"))
    assert refused(report.rejects_path) == [
        ("2", "time_invalid", "unix_ts", "x"),
        ("3", "kind_unknown", "kind", "poke"),
        ("4", "time_invalid", "unix_ts", "9e9"),
        ("5", "name_invalid", "target", ""),
        ("6", "time_future", "unix_ts", "2100-01-01T00:00:00+00:00"),
    ]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_refuses_is_one_sentence(tmp_path, capsys):
    pairs = "\n".join(f"{one},{one + 1}" for one in range(5_000))
    path = write(tmp_path / "graph.csv", EDGES + pairs)
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 1")
    with pytest.raises(CommandError, match="1 of 1 files could not be imported"):
        call_command("import_graph", path, "--prefix", "t-")
    assert "statement timeout); what it has committed stays" in capsys.readouterr().err
    call_command("import_graph", path, "--prefix", "t-", "-v", "0")  # on another connection
    assert Follow.objects.count() == 10_000


@pytest.mark.django_db(transaction=True)
def test_killed_anywhere_the_next_run_completes_it(tmp_path, spawn):
    chance = random.Random(4)
    lines = [f"{chance.randrange(3_000)},{chance.randrange(3_000)}" for _ in range(100_000)]
    path = write(tmp_path / "graph.csv", EDGES + "\n".join(lines))
    command = ["import_graph", path, "--one-way", "--rejects", tmp_path / "r.csv"]
    process = spawn(command)
    until(Follow.objects.exists, "the first chunk", seconds=30, process=process)
    time.sleep(chance.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    expected = len({tuple(line.split(",")) for line in lines if len(set(line.split(","))) == 2})
    left = expected - Follow.objects.count()
    assert 0 < left < expected
    process = spawn(command)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"added      {left:>12,}" in output
    assert Follow.objects.count() == expected
    for name in ("profiles.followers_count", "profiles.following_count"):
        assert actions.compare(counter=declared.get(name)).wrong == 0


@pytest.mark.skipif(not GRAPH.exists(), reason=f"no {GRAPH.name} in ../shared/data")
def test_the_real_graph(tmp_path):
    """Its first 40,000 edges: the counts are those of the file."""
    with gzip.open(GRAPH, "rt") as lines:
        part = [next(lines) for _ in range(40_001)]
    path = write(tmp_path / "part.csv", "".join(part))
    counts = edges(path, mutual=True).counts
    assert (counts.rows_read, counts.rejected) == (40_000, 0)
    degrees: dict[str, set[str]] = {}
    for line in part[1:]:
        one, other = line.strip().split(",")
        if one != other:
            degrees.setdefault(one, set()).add(other)
            degrees.setdefault(other, set()).add(one)
    expected = {f"gh-{name}": len(others) for name, others in degrees.items()}
    assert dict(Profile.objects.values_list("handle", "followers_count")) == expected
    for name in ("profiles.followers_count", "profiles.following_count"):
        assert actions.compare(counter=declared.get(name)).wrong == 0


@pytest.mark.skipif(not ACTS.exists(), reason=f"no {ACTS.name} in ../shared/data")
def test_the_real_interactions(tmp_path):
    with gzip.open(ACTS, "rt") as lines:
        path = write(tmp_path / "part.csv", "".join(next(lines) for _ in range(20_001)))
    counts = import_file(path=path, lines=Interactions("mo-")).counts
    assert (counts.rows_read, counts.rejected) == (20_000, 0)
    assert Comment.objects.count() > 5_000
    for name in ("posts.likes_count", "posts.comments_count"):
        assert actions.compare(counter=declared.get(name)).wrong == 0
