"""Counters: a hot row, many targets, bulk, the fold, the stream. `script/bench counters`.

Writers are pgbench's, in statements as an application sends them. What the triggers are held
against is the plain row trigger of every textbook, on tables of the same shape, in the same run.
`--rows N`: likes of the one large statement, of which the other sizes are made.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator

from bench import stressing
from bench.harness import MANAGE, Bench, CannotRunError, Figure, figure, median, say
from config.servers import postgres_binary

ROWS = 100_000
QUICK_ROWS = 5_000
LEAST_ROWS = 1_000
SECONDS = 8  # of a run of pgbench
ROUNDS = 3
HOT_WRITERS = 16
SPREAD_WRITERS = 8
WORKERS = 2
STRESS_SECONDS = 60
_PROBES = "bench.counters_probes"
_DATABASE = "counters"

_PEOPLE = """
INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff,
    is_active, date_joined)
SELECT 'person-' || n, '!', '', '', '', FALSE, FALSE, TRUE, now()
FROM generate_series(1, %(people)s) AS n;
INSERT INTO profiles (user_id, handle) SELECT id, username FROM auth_user;
INSERT INTO posts (author_id, text)
SELECT (SELECT min(user_id) FROM profiles) + n %% 100, 'post ' || n
FROM generate_series(1, %(posts)s) AS n;
"""
# The same tables with the trigger that everybody writes first.
_NAIVE = """
CREATE TABLE naive_posts (id bigint PRIMARY KEY, likes_count bigint NOT NULL DEFAULT 0)
    WITH (fillfactor = 70);
CREATE TABLE naive_likes (
    post_id bigint NOT NULL REFERENCES naive_posts (id) ON DELETE CASCADE,
    user_id integer NOT NULL REFERENCES profiles (user_id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (post_id, user_id)
);
CREATE INDEX ON naive_likes (user_id, post_id);
CREATE FUNCTION naive_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE naive_posts SET likes_count = likes_count + 1 WHERE id = NEW.post_id;
    RETURN NULL;
END $$;
CREATE TRIGGER naive_count AFTER INSERT ON naive_likes
    FOR EACH ROW EXECUTE FUNCTION naive_count();
INSERT INTO naive_posts (id) SELECT id FROM posts;
CREATE SEQUENCE likers;
"""
_HOT = """
INSERT INTO {likes} (post_id, user_id)
SELECT {post}, {first} + nextval('likers') %% {people} ON CONFLICT DO NOTHING;
"""
_SPREAD = """
INSERT INTO {likes} (post_id, user_id)
SELECT p, u FROM (SELECT {first} + nextval('likers') %% {people} AS u) AS one,
    (SELECT id AS p FROM {posts} WHERE id < {post} + 60 ORDER BY random() LIMIT 20) AS picked
ON CONFLICT DO NOTHING;
"""
_DONE = re.compile(r"number of transactions actually processed: (\d+)")
_FAILED = re.compile(r"number of failed transactions: (\d+)")


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """Each measurement with the ids of its figures."""
    made: list[dict] = []

    def data() -> dict:
        if not made:
            made.append(_make(bench))
        return made[0]

    yield ("hot_post",), lambda: _hot(bench, data())
    yield ("spread_deadlocks", "spread_speedup"), lambda: _spread(bench, data())
    yield ("bulk_inline", "bulk_deferred"), lambda: _bulk(bench, data())
    yield ("fold_rate",), lambda: _fold(bench, data())
    yield (
        ("stream_rate", "stream_lost", "stream_twice"),
        lambda: _stream(bench, data()),
    )
    yield (
        ("stress_divergence", "stress_deadlocks", "stress_negatives"),
        lambda: _stress(bench),
    )


def _make(bench: Bench) -> dict:
    people, posts = max(2_000, bench.rows), max(1_000, bench.rows // 10)
    say(f"making {people:,} people and {posts:,} posts")
    bench.create_database(_DATABASE)
    bench.manage(_DATABASE, "migrate", "-v0")
    with bench.connect(_DATABASE) as db:
        db.execute("SET synchronous_commit = off")
        for statement in filter(str.strip, _PEOPLE.split(";")):
            db.execute(statement, {"people": people, "posts": posts})
        db.execute(_NAIVE)
        db.execute("TRUNCATE post_events")
        db.execute("VACUUM (ANALYZE)")
        [first, post] = db.execute(
            "SELECT (SELECT min(user_id) FROM profiles), (SELECT min(id) FROM posts)"
        ).fetchone()
    return {"first": first, "post": post, "people": people, "posts": posts}


def _hot(bench: Bench, data: dict) -> Figure:
    """Likes a second of one post, one like a statement, deferred against the plain row trigger."""
    _mode(bench, "deferred")
    rates: dict[str, list[float]] = {"likes": [], "naive_likes": []}
    for _ in range(bench.rounds(ROUNDS)):
        for likes, seen in rates.items():
            _clear(bench)
            script = _HOT.format(likes=likes, **data).replace("%%", "%")
            seen.append(_pgbench(bench, script, HOT_WRITERS)["done"] / bench.seconds(SECONDS))
    ours, naive = (median(seen) for seen in rates.values())
    say(f"likes of one post: {ours:,.0f}/s deferred, {naive:,.0f}/s by the row trigger")
    _assert_exact(bench)
    return figure("hot_post", ours / naive, "x", ">= 4", deferred=ours, naive=naive)


def _spread(bench: Bench, data: dict) -> list[Figure]:
    """Statements a second of 20 likes each over 60 posts, inline, and who stood in whose way."""
    _mode(bench, "inline")
    found: dict[str, dict] = {}
    for likes, posts in (("likes", "posts"), ("naive_likes", "naive_posts")):
        _clear(bench)
        script = _SPREAD.format(likes=likes, **(data | {"posts": posts})).replace("%%", "%")
        before = _deadlocks(bench)
        found[likes] = _pgbench(bench, script, SPREAD_WRITERS)
        found[likes]["deadlocks"] = _deadlocks(bench) - before
    ours, naive = found["likes"], found["naive_likes"]
    say(f"20 likes over 60 posts: {ours}, by the row trigger {naive}")
    _assert_exact(bench)
    speedup = ours["done"] / max(1, naive["done"])
    return [
        figure("spread_deadlocks", ours["deadlocks"] + ours["failed"], "deadlocks", "<= 0"),
        figure("spread_speedup", speedup, "x", ">= 50", ours=ours, naive=naive),
    ]


def _bulk(bench: Bench, data: dict) -> list[Figure]:
    """One statement of many likes over as many posts as there are, with the trigger and without."""
    statement = (
        "INSERT INTO likes (post_id, user_id)"
        f" SELECT {data['post']} + n % {data['posts']}, {data['first']} + n / {data['posts']}"
        f" FROM generate_series(0, {bench.rows - 1}) AS n"
    )
    times: dict[str, list[float]] = {"none": [], "inline": [], "deferred": []}
    for _ in range(bench.rounds(ROUNDS)):
        for how, seen in times.items():
            _clear(bench)
            if how != "none":
                _mode(bench, how)
            with bench.connect(_DATABASE) as db:
                db.execute("CHECKPOINT")
                db.execute(
                    f"ALTER TABLE likes {'DISABLE' if how == 'none' else 'ENABLE'} TRIGGER USER"
                )
                started = time.perf_counter()
                db.execute(statement)
                seen.append(time.perf_counter() - started)
                db.execute("ALTER TABLE likes ENABLE TRIGGER USER")
            if how != "none":
                _assert_exact(bench)
    base, inline, deferred = (median(seen) for seen in times.values())
    say(
        f"{bench.rows:,} likes: {base:.2f} s bare, {inline:.2f} s inline, {deferred:.2f} s deferred"
    )
    detail = {"bare": base, "posts": data["posts"]}
    return [
        figure("bulk_inline", inline / base, "x", "<= 1.25", seconds=inline, **detail),
        figure("bulk_deferred", deferred / base, "x", "<= 1.25", seconds=deferred, **detail),
    ]


def _fold(bench: Bench, data: dict) -> Figure:
    """Deltas a second that the fold adds: ten times the likes, over all posts, skewed."""
    _clear(bench)
    events = bench.rows * 10
    with bench.connect(_DATABASE) as db:
        key = db.execute(
            "SELECT counter_key FROM counter_states WHERE name = 'posts.likes_count'"
        ).fetchone()[0]
        db.execute(
            "INSERT INTO counter_deltas (counter_key, target_id, delta)"
            " SELECT %s, %s + floor(%s * random() ^ 3), 1 FROM generate_series(1, %s)",
            [key, data["post"], data["posts"], events],
        )
        db.execute("VACUUM (ANALYZE) counter_deltas")
        db.execute("CHECKPOINT")
    found = bench.probe(_DATABASE, "fold", module=_PROBES)
    if found["folded"] != events or found["left"]:
        raise CannotRunError(f"folded {found} of {events:,}")
    return figure("fold_rate", events / found["seconds"], "events/s", ">= 200000", **found)


def _stream(bench: Bench, data: dict) -> list[Figure]:
    """Events a second that two workers count, one of which is killed three times meanwhile."""
    _clear(bench)
    events = bench.rows * 15
    made = bench.probe(
        _DATABASE, "offer", module=_PROBES, events=events, first=data["post"], posts=data["posts"]
    )
    say(f"{events:,} events and {made['again']:,} repetitions wait in the stream")
    workers = [_worker(bench) for _ in range(WORKERS)]
    started = time.perf_counter()
    try:
        found = _drain(bench, workers, made, started)
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    result = bench.probe(_DATABASE, "counted", module=_PROBES, events=events)
    rate = events / found["seconds"]
    return [
        figure("stream_rate", rate, "events/s", ">= 20000", **found),
        figure("stream_lost", result["lost"], "events", "<= 0", **result),
        figure("stream_twice", result["twice"], "events", "<= 0"),
    ]


def _stress(bench: Bench) -> list[Figure]:
    """A minute of eight writers, with folds, comparisons, switches of mode and kills."""
    bench.create_database("stress")
    bench.manage("stress", "migrate", "-v0")
    found = stressing.run(
        bench.url("stress"), bench.environment("stress"), bench.seconds(STRESS_SECONDS)
    )
    if found["died"]:
        raise CannotRunError(f"{found['died']} writers died")
    say(f"{found['statements']:,} statements, {found['kills']} kills")
    left = bench.probe("stress", "divergence", module=_PROBES)
    divergence = left["divergence"] + len(found["false_drift"])
    return [
        figure("stress_divergence", divergence, "counts", "<= 0", **found),
        figure("stress_deadlocks", found["deadlocks"], "deadlocks", "<= 0"),
        figure("stress_negatives", found["negatives"] + left["negative"], "counts", "<= 0"),
    ]


def _drain(bench: Bench, workers: list[subprocess.Popen], made: dict, started: float) -> dict:
    kills, kill_at = 0, [made["entries"] * share // 10 for share in (9, 8, 7)]
    while True:
        left = bench.probe(_DATABASE, "left", module=_PROBES)["entries"]
        took = time.perf_counter() - started
        if not left:
            return {"seconds": took, "kills": kills, "entries": made["entries"]}
        if took > 600:
            raise CannotRunError(f"{left:,} entries are left after {took:.0f} s")
        if kills < len(kill_at) and left <= kill_at[kills]:
            kills += 1
            victim = workers.pop(0)
            victim.kill()
            victim.wait()
            workers.append(_worker(bench))
            say(f"killed a worker with {left:,} entries left")


def _worker(bench: Bench) -> subprocess.Popen:
    return bench.start(_DATABASE, [*MANAGE, "counter_worker"], PROCESS_ROLE="worker")


def _mode(bench: Bench, mode: str) -> None:
    with bench.connect(_DATABASE) as db:
        db.execute("UPDATE counter_states SET mode = %s", [mode])


def _clear(bench: Bench) -> None:
    with bench.connect(_DATABASE) as db:
        db.execute("TRUNCATE likes, naive_likes, counter_deltas, post_events, counter_events")
        db.execute("UPDATE posts SET likes_count = 0, views_count = 0")
        db.execute("UPDATE naive_posts SET likes_count = 0")
        db.execute("TRUNCATE counter_deltas, post_events")
        db.execute("VACUUM posts, naive_posts, counter_deltas")


def _deadlocks(bench: Bench) -> int:
    with bench.connect(_DATABASE) as db:
        db.execute("SELECT pg_stat_clear_snapshot()")
        return db.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()[0]


def _assert_exact(bench: Bench) -> None:
    """Column and waiting together are what the likes are. Raises CannotRunError."""
    with bench.connect(_DATABASE) as db:
        wrong = db.execute(
            "SELECT count(*) FROM posts AS p WHERE p.likes_count + coalesce((SELECT sum(delta)"
            " FROM counter_deltas WHERE target_id = p.id AND counter_key = (SELECT counter_key"
            " FROM counter_states WHERE name = 'posts.likes_count')), 0)"
            " <> (SELECT count(*) FROM likes WHERE post_id = p.id)"
        ).fetchone()[0]
    if wrong:
        raise CannotRunError(f"{wrong:,} counts are wrong")


def _pgbench(bench: Bench, script: str, clients: int) -> dict:
    path = bench.folder / "script.sql"
    path.write_text(" ".join(script.split()) + "\n", encoding="utf-8")
    done = subprocess.run(
        [
            str(postgres_binary("pgbench")),
            *("-n", "-M", "prepared", "-c", str(clients), "-j", "2"),
            *("-T", str(bench.seconds(SECONDS)), "-f", str(path), bench.url(_DATABASE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not (found := _DONE.search(done.stdout)):
        raise CannotRunError(f"pgbench: {done.stderr.strip()[-500:]}")
    failed = _FAILED.search(done.stdout)
    # A client whose statement fails is given up: its errors are on standard error.
    errors = done.stderr.count("ERROR:")
    return {"done": int(found[1]), "failed": (int(failed[1]) if failed else 0) + errors}
