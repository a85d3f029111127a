"""Items with vectors in clusters, seeded: what the figures of the vector search stand on.

Every cluster is a random direction; its members lie around it with a cosine of about 0.89 to it and
0.8 to one another, equally spread (the hard case: nothing inside a cluster parts the near from the
far). A category is a set of clusters, so it correlates with the vectors; countries are drawn at
random, so they do not.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import psycopg

from bench.harness import Bench, say

DIMENSIONS = 384
SPREAD = 0.5  # length of a member's deviation from the centre of its cluster, which has length 1
CHUNK = 20_000
MODEL = "wordllama-l2_supercat-256"  # as if the default embedder had made them
# Share of the items -> category (whole clusters, or a part of one) and country (at random).
CATEGORIES = {0.1: "tenth", 0.01: "hundredth", 0.001: "thousandth"}
COUNTRIES = {0.1: "TE", 0.01: "HU", 0.001: "TH"}
REST = 20  # categories of what is left


@dataclass(frozen=True)
class Shape:
    """`items` vectors in `clusters` clusters."""

    items: int
    clusters: int = 200
    seed: int = 7

    def centres(self) -> np.ndarray:
        """float32 [clusters, 384], rows of length 1."""
        chance = np.random.default_rng(self.seed)
        return _unit(chance.standard_normal((self.clusters, DIMENSIONS)).astype(np.float32))


@dataclass(frozen=True)
class Chunk:
    """Items of consecutive ids from `first_id`. `vectors`: float16 [n, 384]."""

    first_id: int
    vectors: np.ndarray
    categories: np.ndarray
    countries: np.ndarray


def chunks(shape: Shape) -> Iterator[Chunk]:
    """All items, in the order of their ids from 1; the same ones each time."""
    centres = shape.centres()
    bounds = np.cumsum(list(CATEGORIES))  # shares of the clusters, one after the other
    for number, start in enumerate(range(0, shape.items, CHUNK)):
        chance = np.random.default_rng([shape.seed, number])
        size = min(CHUNK, shape.items - start)
        cluster = chance.integers(0, shape.clusters, size)
        vectors = _around(centres[cluster], chance)
        # A place on the line of all clusters: whole clusters, and inside one any members.
        place = (cluster + chance.random(size)) / shape.clusters
        names = [*CATEGORIES.values(), *[f"rest {part}" for part in range(REST)]]
        rest = len(CATEGORIES) + cluster % REST
        category = np.where(place < bounds[-1], np.searchsorted(bounds, place, "right"), rest)
        drawn = np.searchsorted(np.cumsum(list(COUNTRIES)), chance.random(size), "right")
        yield Chunk(
            start + 1,
            vectors.astype(np.float16),
            np.array(names)[category],
            np.array([*COUNTRIES.values(), "XX"])[drawn],
        )


def searches(shape: Shape, count: int, *, share: float | None = None) -> np.ndarray:
    """`count` vectors to search for, float32: members of random clusters. With the `share` of a
    category, every second one comes out of the clusters of that category."""
    chance = np.random.default_rng([shape.seed, 1_000_000])
    cluster = chance.integers(0, shape.clusters, count)
    if share is not None:
        shares = list(CATEGORIES)
        start = sum(shares[: shares.index(share)])
        inside = (start + share * chance.random(count)) * shape.clusters
        cluster = np.where(np.arange(count) % 2, inside.astype(int), cluster)
    return _around(shape.centres()[cluster], chance)


def make(
    bench: Bench,
    database: str,
    shape: Shape,
    fill: Callable[[psycopg.Connection, Shape], None],
) -> None:
    """A database with `shape.items` items of kind `found` and their vectors, indexes built.

    `fill` writes the rows of `items` for the vectors that stand.
    """
    say(f"making {shape.items:,} items with vectors: {database}")
    bench.drop_database(database)
    bench.create_database(database)
    bench.manage(database, "migrate", "-v0")
    with bench.connect(database) as db:
        db.execute("SET synchronous_commit = off")
        # Foreign keys and triggers would see to what is loaded here side by side.
        db.execute("SET session_replication_role = replica")
        db.execute(
            "INSERT INTO auth_user (id, password, is_superuser, username, first_name, last_name,"
            " email, is_staff, is_active, date_joined)"
            " VALUES (1, '', false, 'bench', '', '', '', false, true, now())"
        )
        graphs = db.execute(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE tablename = 'item_embeddings' AND indexname <> 'item_embeddings_pkey'"
        ).fetchall()
        for name, _ in graphs:
            db.execute(f"DROP INDEX {name}")
        with db.cursor().copy(
            "COPY item_embeddings (item_id, model, kind, category, country, content_hash,"
            " text_embedding) FROM STDIN (FORMAT binary)"
        ) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
            for chunk in chunks(shape):
                copy.write(_rows(chunk))
            copy.write(b"\xff\xff")
        db.execute("INSERT INTO item_embedding_serving (model) VALUES (%s)", [MODEL])
        fill(db, shape)
        db.execute("SELECT setval(pg_get_serial_sequence('items', 'id'), max(id)) FROM items")
        say("building the indexes of the vectors")
        db.execute("SET maintenance_work_mem = '3GB'")
        db.execute("SET max_parallel_maintenance_workers = 2")
        for _, definition in graphs:
            db.execute(definition)
        db.execute("VACUUM (ANALYZE) item_embeddings")
        db.execute("VACUUM (ANALYZE) items, item_buckets, item_terms")
        bench.manage(database, "run_job", "train_vector_lists")
        db.execute("CHECKPOINT")


def _rows(chunk: Chunk) -> bytes:
    """Rows in COPY's binary format; a halfvec is its dimensions, a zero, and big-endian numbers."""
    vectors = chunk.vectors.astype(">f2")
    rows = []
    for place, (category, country) in enumerate(
        zip(chunk.categories.tolist(), chunk.countries.tolist(), strict=True)
    ):
        fields = (
            struct.pack(">q", chunk.first_id + place),
            MODEL.encode(),
            b"found",
            category.encode(),
            country.encode(),
            bytes(16),
            struct.pack(">hh", DIMENSIONS, 0) + vectors[place].tobytes(),
        )
        rows.append(struct.pack(">h", len(fields)))
        rows += [struct.pack(">i", len(field)) + field for field in fields]
    return b"".join(rows)


def _around(centres: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    noise = chance.standard_normal(centres.shape).astype(np.float32)
    return _unit(centres + SPREAD / np.sqrt(DIMENSIONS) * noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
