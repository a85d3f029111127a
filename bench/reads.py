"""Reads without a cache: a product's history, and suggestions over 200,000 names."""

import random

from bench import dataset
from bench.harness import Bench, Figure, figure, say
from catalog import demo_names
from catalog.slugs import slug

PRODUCTS = 1_000
TYPED = 2_000
NAMES = 200_000

_NAMED = """
COPY product_price_snapshots (
    scraped_at, seller, product_name_normalized, product_name_original, price, currency)
FROM STDIN
"""


def product(bench: Bench, database: str) -> list[Figure]:
    """`products/{slug}` uncached against its bare SQL, and what the planner does."""
    found = bench.probe(database, "product", samples=PRODUCTS)
    scans = found["plan"].get("Seq Scan", 0)
    return [
        figure(
            "product_p95",
            found["ours"][0] / found["bare"][0],
            "x",
            "<= 3",
            measured="the whole WSGI application, called in its process without a socket",
            ours_ms=[round(each * 1000, 2) for each in found["ours"]],
            bare_ms=[round(each * 1000, 2) for each in found["bare"]],
            columns=["p95", "median"],
            products=PRODUCTS,
        ),
        figure("product_seq_scans", scans, "scans", "<= 0", nodes=found["plan"]),
    ]


def suggest(bench: Bench, database: str, names: int) -> list[Figure]:
    """Suggestions in the query layer: by the beginning of a name, and with a typo."""
    _fill_names(bench, database, names)
    found = bench.probe(database, "suggest", samples=min(TYPED, names // 4))
    bench.drop_database(database)
    return [
        figure(
            f"suggest_p95_{kind}",
            found[kind]["p95"] * 1000,
            "ms",
            goal,
            median_ms=round(found[kind]["median"] * 1000, 2),
            worst_ms=round(found[kind]["worst"] * 1000, 2),
            found=round(found[kind]["found"], 3),
            examples=found[kind]["examples"],
            names=found["names"],
        )
        for kind, goal in (("prefix", "< 2"), ("typo", "< 10"))
    ]


def _fill_names(bench: Bench, database: str, names: int) -> None:
    say(f"{database}: {names:,} names")
    bench.create_database(database)
    bench.manage(database, "migrate", "--verbosity=0")
    dataset.ensure_partitions(bench, database, dataset.LAST_DAY, dataset.LAST_DAY)
    with bench.connect(database) as db:
        db.execute("ALTER TABLE product_price_snapshots DISABLE TRIGGER USER")
        with db.cursor() as cursor, cursor.copy(_NAMED) as copy:
            for number, (key, name) in enumerate(_names(names).items()):
                seller = dataset.SELLERS[number % len(dataset.SELLERS)]
                price = 1 + number % 9_000 / 100
                copy.write_row((f"{dataset.LAST_DAY} 06:00+00", seller, key, name, price, "EUR"))
        db.execute("ALTER TABLE product_price_snapshots ENABLE TRIGGER USER")
        db.execute("ANALYZE product_price_snapshots")
    bench.manage(database, "refresh", "--full")
    with bench.connect(database) as db:
        db.execute("VACUUM ANALYZE")


def _names(number: int) -> dict[str, str]:
    """{slug: name}: the demo's names with a volume, as serials and spare parts have."""
    chance, found = random.Random(2), {}
    while len(found) < number:
        name = demo_names.make(chance.randrange(3), chance).name
        if chance.random() < 0.9:
            name += (
                f" {chance.choice(('Vol.', 'Set', 'Teil', 'Σειρά', 'No.'))} {chance.randrange(999)}"
            )
        found[slug(name)] = name
    return found
