"""Writers that do to counters what may be done to them: `python -m bench.stress`.

Reads {"url": …, "seconds": …, "seed": …} from standard input and writes until the time is over:
likes one by one and in bulk, takes back, comments, moves and deletes comments, deletes posts with
all that hangs on them, deletes people. Prints what happened, as JSON; a deadlock or a count below
zero is counted, not hidden.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import psycopg
from psycopg import errors

PEOPLE = 60
POSTS = 30
_EXPECTED = (errors.ForeignKeyViolation, errors.UniqueViolation, errors.NotNullViolation)


class Writer:
    """One connection that writes at random."""

    def __init__(self, url: str, seed: int) -> None:
        self._db = psycopg.connect(url, autocommit=True)
        self._chance = random.Random(seed)
        self._seed = seed
        self.done: Counter[str] = Counter()

    def write(self, seconds: float) -> None:
        """Do something, again and again."""
        weighted = [step for step, weight in self._steps() for _ in range(weight)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            step = self._chance.choice(weighted)
            try:
                step()
                self.done[step.__name__] += 1
            except _EXPECTED:
                self.done["refused"] += 1  # somebody else was quicker
            except errors.DeadlockDetected:
                self.done["deadlocks"] += 1
            except errors.CheckViolation:
                self.done["negatives"] += 1

    def _steps(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.like, 30),
            (self.unlike, 15),
            (self.like_many, 8),
            (self.comment, 12),
            (self.hide_comment, 6),
            (self.move_comment, 6),
            (self.post, 4),
            (self.hide_post, 2),
            (self.delete_post, 2),
            (self.follow, 8),
            (self.unfollow, 4),
            (self.delete_person, 1),
        ]

    def like(self) -> None:
        self._run(
            "INSERT INTO likes (post_id, user_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            self._post(),
            self._person(),
        )

    def unlike(self) -> None:
        self._run(
            "DELETE FROM likes WHERE post_id = %s AND user_id = %s", self._post(), self._person()
        )

    def like_many(self) -> None:
        """In the order of the posts: their foreign keys lock them in the order of the rows."""
        self._run(
            "INSERT INTO likes (post_id, user_id) SELECT id, %s FROM ("
            " SELECT id FROM posts ORDER BY random() LIMIT 10) AS picked ORDER BY id"
            " ON CONFLICT DO NOTHING",
            self._person(),
        )

    def comment(self) -> None:
        self._run(
            "INSERT INTO comments (post_id, author_id, text) VALUES (%s, %s, 'x')",
            self._post(),
            self._person(),
        )

    def hide_comment(self) -> None:
        self._run(
            "UPDATE comments SET is_deleted = NOT is_deleted WHERE id = ("
            " SELECT id FROM comments WHERE post_id = %s ORDER BY random() LIMIT 1)",
            self._post(),
        )

    def move_comment(self) -> None:
        """With a lock on both posts first: who deletes one of them deletes its comments, too."""
        posts = sorted((self._post() or 0, self._post() or 0))
        with self._db.transaction():
            self._run("SELECT FROM posts WHERE id = ANY (%s) ORDER BY id FOR KEY SHARE", posts)
            self._run(
                "UPDATE comments SET post_id = %s WHERE id = ("
                " SELECT id FROM comments WHERE post_id = %s ORDER BY random() LIMIT 1)",
                *self._chance.sample(posts, 2),
            )

    def post(self) -> None:
        self._run("INSERT INTO posts (author_id, text) VALUES (%s, 'x')", self._person())

    def hide_post(self) -> None:
        self._run("UPDATE posts SET is_deleted = NOT is_deleted WHERE id = %s", self._post())

    def delete_post(self) -> None:
        if self._value("SELECT count(*) FROM posts") > POSTS // 2:
            self._run("DELETE FROM posts WHERE id = %s", self._post())

    def follow(self) -> None:
        self._run(
            "INSERT INTO follows (follower_id, followee_id) SELECT %s, user_id FROM profiles"
            " WHERE user_id <> %s ORDER BY random() LIMIT 1 ON CONFLICT DO NOTHING",
            *[self._person()] * 2,
        )

    def unfollow(self) -> None:
        self._run("DELETE FROM follows WHERE follower_id = %s", self._person())

    def delete_person(self) -> None:
        """Step by step, as `feeds.actions.delete_account` does; and somebody new comes."""
        person = self._person()
        for post in self._values("SELECT id FROM posts WHERE author_id = %s", person):
            self._run("DELETE FROM posts WHERE id = %s", post)
        for table, column in (("likes", "user_id"), ("comments", "author_id")):
            for post in self._values(f"SELECT post_id FROM {table} WHERE {column} = %s", person):
                self._run(f"DELETE FROM {table} WHERE {column} = %s AND post_id = %s", person, post)
        self._run("DELETE FROM auth_user WHERE id = %s", person)
        make_person(self._db, f"new-{self._seed}-{time.monotonic_ns()}")

    def _post(self) -> int | None:
        return self._value("SELECT id FROM posts ORDER BY random() LIMIT 1")

    def _person(self) -> int | None:
        return self._value("SELECT user_id FROM profiles ORDER BY random() LIMIT 1")

    def _value(self, statement: str, *parameters: object):
        return self._db.execute(statement, parameters).fetchone()[0]

    def _values(self, statement: str, *parameters: object) -> list:
        return [value for (value,) in self._db.execute(statement, parameters)]

    def _run(self, statement: str, *parameters: object) -> None:
        self._db.execute(statement, parameters)


def make_person(db: psycopg.Connection, name: str) -> None:
    """A user with a profile and two posts."""
    db.execute(
        "WITH made AS (INSERT INTO auth_user (username, password, first_name, last_name, email,"
        " is_superuser, is_staff, is_active, date_joined)"
        " VALUES (%s, '!', '', '', '', FALSE, FALSE, TRUE, now()) RETURNING id)"
        " INSERT INTO profiles (user_id, handle) SELECT id, %s FROM made",
        [name, name],
    )
    db.execute(
        "INSERT INTO posts (author_id, text) SELECT user_id, 'x' FROM profiles,"
        " generate_series(1, 2) WHERE handle = %s",
        [name],
    )


def populate(url: str) -> None:
    """People and posts to begin with."""
    with psycopg.connect(url, autocommit=True) as db:
        for number in range(PEOPLE):
            make_person(db, f"person-{number}")
        db.execute(
            "DELETE FROM posts WHERE id NOT IN (SELECT id FROM posts ORDER BY id LIMIT %s)",
            [POSTS],
        )


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    writer = Writer(plan["url"], plan["seed"])
    writer.write(plan["seconds"])
    print(json.dumps(writer.done))
