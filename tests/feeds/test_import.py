"""Graphs and interactions from files: made-up ones, broken ones, and the real ones."""

import gzip
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from counters import actions, declared
from feeds import importing
from feeds.models import Comment, Follow, Like, Post, Profile

pytestmark = pytest.mark.django_db

SOCIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "social"
GRAPH = SOCIAL / "github_mutual_follow_dev.csv.gz"
ACTS = SOCIAL / "mathoverflow_interactions_dev.csv.gz"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_edges_both_ways_and_again(tmp_path, capsys):
    path = write(tmp_path / "graph.csv", "user_a,user_b\n1,2\n2,3\n3,3\n")
    call_command("import_graph", path)
    assert "3 lines: 3 people and 4 rows added, 0 lines rejected" in capsys.readouterr().out
    call_command("import_graph", path)
    assert "0 people and 0 rows added" in capsys.readouterr().out
    two = Profile.objects.get(handle="gh-2")
    assert (two.followers_count, two.following_count) == (2, 2)
    assert not two.user.has_usable_password()


def test_one_way_with_other_columns(tmp_path):
    path = tmp_path / "graph.csv.gz"
    path.write_bytes(gzip.compress(b"from,to\nann,bob\n"))
    call_command("import_graph", path, columns="from,to", one_way=True, prefix="x-")
    pairs = Follow.objects.values_list("follower__handle", "followee__handle")
    assert list(pairs) == [("x-ann", "x-bob")]


def test_bad_lines_are_told_and_the_rest_goes_in(tmp_path, capsys):
    path = write(tmp_path / "graph.csv", "user_a,user_b\n1,2\n,4\n5,a b\n6,7\n")
    with pytest.raises(SystemExit):
        call_command("import_graph", path)
    said = capsys.readouterr()
    assert "line 3: '' cannot be anybody's name" in said.err
    assert "line 4: 'a b' cannot be anybody's name" in said.err
    assert "2 lines rejected" in said.out
    assert Follow.objects.count() == 4


def test_names_that_are_no_handles_or_somebodys(tmp_path):
    from tests.feeds.people import profile

    other = profile("gh-bob")
    other.user.username = "other"
    other.user.save()
    long = "x" * 50
    path = write(tmp_path / "graph.csv", f"user_a,user_b\njos\u00e9,2\n{long},2\nbob,2\n3,2\n")
    report = importing.import_follows(
        path, prefix="gh-", columns=("user_a", "user_b"), mutual=False
    )
    assert (report.rejected, report.added) == (3, 1)
    assert report.errors[2] == "'bob': that handle is somebody else's"


def test_files_that_are_none(tmp_path):
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_graph", tmp_path / "nothing.csv")
    path = write(tmp_path / "other.csv", "a,b\n1,2\n")
    with pytest.raises(CommandError, match="has no column user_a, user_b; it has: a, b"):
        call_command("import_graph", path)
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(b"user_a,user_b\n" + b"1,2\n" * 10_000)[:-20])
    with pytest.raises(CommandError, match=r"broken.csv.gz, near line"):
        call_command("import_graph", broken)
    with pytest.raises(CommandError, match="two names"):
        call_command("import_graph", path, columns="a")


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
    for _ in range(2):
        report = importing.import_interactions(path, prefix="mo-")
        assert report.rejected == 0
    assert (Post.objects.count(), Like.objects.count(), Comment.objects.count()) == (2, 2, 2)
    first = Post.objects.order_by("created_at")[0]
    assert (first.likes_count, first.comments_count) == (1, 2)
    assert first.created_at.isoformat() == "2009-09-01T00:00:00+00:00"
    bad = write(tmp_path / "bad.csv", "unix_ts,kind,actor,target\nx,answer,1,2\n1,poke,1,2\n")
    report = importing.import_interactions(bad, prefix="mo-")
    assert report.errors == [
        "line 2: unix_ts: 'x' is no time",
        "line 3: kind: 'poke' is none of answer, comment_on_answer, comment_on_question",
    ]


@pytest.mark.skipif(not GRAPH.exists(), reason=f"no {GRAPH.name} in ../shared/data")
def test_the_real_graph(tmp_path):
    """Its first 40,000 edges: the counts are those of the file."""
    with gzip.open(GRAPH, "rt") as lines:
        part = [next(lines) for _ in range(40_001)]
    path = write(tmp_path / "part.csv", "".join(part))
    report = importing.import_follows(path, prefix="gh-", columns=("user_a", "user_b"), mutual=True)
    assert (report.read, report.rejected) == (40_000, 0)
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
    report = importing.import_interactions(path, prefix="mo-")
    assert (report.read, report.rejected) == (20_000, 0)
    assert Comment.objects.count() > 5_000
    for name in ("posts.likes_count", "posts.comments_count"):
        assert actions.compare(counter=declared.get(name)).wrong == 0
