"""Feeds: reads, deliveries, famous authors, many followees. `script/bench feeds`.

100,000 people: the GitHub graph of mutual follows where it is at hand (289,003 edges), and others
who follow its people as these are followed. `--rows N` makes fewer people: the goals are meant for
all.
"""

import csv
import gzip
import io
import random
import time
from collections.abc import Callable, Iterator

from bench.harness import MANAGE, SHARED_DATA, Bench, Figure, figure, percentile, say

ROWS = 100_000
QUICK_ROWS = 5_000
LEAST_ROWS = 5_000
CLIENTS = 4
_GRAPH = SHARED_DATA / "social" / "github_mutual_follow_dev.csv.gz"
_PROBES = "bench.feeds_probes"
_DATABASE = "feeds"
_FOLLOWED = 8  # by one of those who are made up, on average
_POSTS = 3  # of one person, on average

_PEOPLE = """
INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser,
    is_staff, is_active, date_joined)
SELECT n, 'person-' || n, '!', '', '', '', FALSE, FALSE, TRUE, now()
FROM generate_series(1, %(people)s + 3) AS n;
INSERT INTO profiles (user_id, handle) SELECT id, username FROM auth_user;
"""
# Posts of the last month; whoever is followed more posts more.
_POSTED = """
INSERT INTO posts (author_id, text, created_at)
SELECT author, 'What ' || author || ' says, number ' || n, now() - random() * interval '30 days'
FROM (
    SELECT user_id AS author,
        1 + floor(2 * %(posts)s * random() * least(20, 1 + ln(1 + followers_count))) AS count
    FROM profiles WHERE user_id <= %(people)s
) AS one CROSS JOIN LATERAL generate_series(1, count::integer) AS n;
"""


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """Each measurement with the ids of its figures."""
    made: list[dict] = []

    def data() -> dict:
        if not made:
            made.append(_make(bench))
        return made[0]

    yield ("feed_p50", "feed_p99"), lambda: _reads(bench, data())
    yield ("last_of_10000", "deliveries_rate"), lambda: _deliveries(bench, data())
    yield ("hybrid_rows", "hybrid_read_p99"), lambda: _famous(bench, data())
    yield ("followees_growth",), lambda: _growth(bench, data())
    yield ("modes_differ",), lambda: _modes(bench, data())


def _make(bench: Bench) -> dict:
    people = bench.rows
    say(f"making {people:,} people, whom they follow, and what they post")
    bench.create_database(_DATABASE)
    bench.manage(_DATABASE, "migrate", "-v0")
    with bench.connect(_DATABASE) as db:
        db.execute("SET synchronous_commit = off")
        for statement in filter(str.strip, _PEOPLE.split(";")):
            db.execute(statement, {"people": people})
        edges = list(_edges(people))
        text = io.StringIO()
        csv.writer(text).writerows((one, other, "t") for one, other in edges)
        copy = "COPY follows (follower_id, followee_id, is_filled) FROM STDIN (FORMAT csv)"
        with db.cursor().copy(copy) as target:
            target.write(text.getvalue())
        db.execute(_POSTED, {"people": people, "posts": _POSTS})
        db.execute("TRUNCATE post_events, counter_deltas")
        db.execute("VACUUM (ANALYZE)")
        hub, followers = db.execute(
            "SELECT followee_id, count(*) FROM follows GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
        ).fetchone()
    bench.manage(_DATABASE, "reconcile", "counters", "--fix", "-v0")
    readers = min(20_000, people // 2)
    found = bench.probe(_DATABASE, "build", module=_PROBES, hub=hub, readers=readers)
    say(f"{len(edges):,} follows, {followers:,} of the hub; {found['built']:,} timelines kept")
    return {"people": people, "hub": hub, "followers": followers}


def _edges(people: int) -> Iterator[tuple[int, int]]:
    """(follower, followee), each pair once."""
    chance = random.Random(11)
    pairs: set[tuple[int, int]] = set()
    if _GRAPH.exists():
        with gzip.open(_GRAPH, "rt", newline="") as lines:
            for row in csv.DictReader(lines):
                one, other = int(row["user_a"]) + 1, int(row["user_b"]) + 1
                if one <= people and other <= people:
                    pairs |= {(one, other), (other, one)}
    else:
        say("the graph of shared/data is not at hand: all follows are made up")
    known = max((one for one, _ in pairs), default=0)
    ends = [followee for _, followee in pairs] or list(range(1, 101))
    for follower in range(known + 1, people + 1):
        for _ in range(chance.randint(1, 2 * _FOLLOWED)):
            followee = chance.choice(ends)
            if followee != follower:
                pairs.add((follower, followee))
    yield from sorted(pairs)


def _reads(bench: Bench, data: dict) -> list[Figure]:
    """Pages of 20 by four clients, of people with a timeline: half of them follow the hub."""
    found = _clients(bench, "reads", seconds=bench.seconds(10), hub=data["hub"])
    detail = {"reads": len(found), "p95": percentile(found, 0.95) * 1000, **data}
    return [
        figure("feed_p50", percentile(found, 0.5) * 1000, "ms", "< 7", **detail),
        figure("feed_p99", percentile(found, 0.99) * 1000, "ms", "< 18", **detail),
    ]


def _clients(bench: Bench, probe: str, **given: object) -> list[float]:
    """The latencies that CLIENTS processes saw at once, in seconds."""
    parameters = [{"seed": number, **given} for number in range(CLIENTS)]
    answers = bench.probes(_DATABASE, probe, parameters, module=_PROBES)
    return [each for answer in answers for each in answer["times"]]


def _deliveries(bench: Bench, data: dict) -> list[Figure]:
    """From the commit of a post to its last row, for 10,000 followers, by a real feed worker."""
    followers = min(10_000, data["people"] // 2)
    bench.probe(_DATABASE, "follow", module=_PROBES, author=data["people"] + 1, followers=followers)
    modes = {"PROCESS_ROLE": "worker", "FEEDS_MODE": "push"}
    worker = bench.start(_DATABASE, [*MANAGE, "feed_worker"], **modes)
    try:
        time.sleep(4)  # it loads the embedder, and indexes what waits
        found = bench.probe(
            _DATABASE, "deliver", module=_PROBES, author=data["people"] + 1, posts=10, burst=20
        )
    finally:
        worker.terminate()
        worker.wait()
    say(f"{followers:,} followers: {found['seconds']}")
    return [
        figure("last_of_10000", percentile(found["seconds"], 0.5) * 1000, "ms", "< 400", **found),
        figure("deliveries_rate", found["rate"], "rows/s", ">= 50000"),
    ]


def _famous(bench: Bench, data: dict) -> list[Figure]:
    """A post by somebody whom all follow, delivered and looked up, and what followers wait then."""
    author = data["people"] + 2
    bench.probe(_DATABASE, "follow", module=_PROBES, author=author, followers=data["people"])
    rows, p99 = {}, {}
    for mode in ("push", "hybrid"):
        found = bench.probe(_DATABASE, "famous", module=_PROBES, author=author, mode=mode)
        rows[mode] = found["rows"]
        times = _clients(bench, "reads", seconds=bench.seconds(6), hub=author)
        p99[mode] = percentile(times, 0.99)
    say(f"rows {rows}, p99 {p99}")
    fewer = rows["push"] / max(1, rows["hybrid"])
    return [
        figure("hybrid_rows", fewer, "x fewer", ">= 100", **rows),
        figure("hybrid_read_p99", p99["hybrid"] / p99["push"], "x", "<= 1.3", **p99),
    ]


def _growth(bench: Bench, data: dict) -> Figure:
    """Reads of kept timelines with 10 followees against 5,000."""
    most = min(5_000, data["people"] // 4)
    found = bench.probe(
        _DATABASE, "growth", module=_PROBES, reader=data["people"] + 3, few=10, many=most
    )
    say(f"10 followees {found['few']:.2f} ms, {most:,} {found['many']:.2f} ms")
    return figure("followees_growth", found["many"] / found["few"], "x", "<= 2", **found)


def _modes(bench: Bench, data: dict) -> Figure:
    """Timelines of which the three modes show something else, of 300 people."""
    people = min(300, data["people"])
    found = bench.probe(_DATABASE, "modes", module=_PROBES, people=people)
    return figure("modes_differ", found["differ"], "timelines", "<= 0", **found)
