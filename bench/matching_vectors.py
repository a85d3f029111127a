"""The vector search: recall and time under filters, many searchers, the drain, and deletes."""

import random

from bench import vector_data
from bench.harness import Bench, Figure, figure, say

SAMPLES = 100
GOAL_P95_MS = {100_000: 25, 1_000_000: 60}
DRAINED = 4_000
_HOW = ("independent", "correlated")
CASES = ("all", *[f"{how} {share:g}" for share in vector_data.COUNTRIES for how in _HOW])
_PROBES = "bench.vector_probes"
_WORDS = """
    black white red green blue silver golden brown grey striped old new broken small large leather
    cotton plastic metal wooden wallet purse umbrella key ring phone tablet laptop charger camera
    bicycle helmet scooter dog cat parrot collar bag backpack suitcase jacket coat scarf glove hat
    shoe boot watch bracelet necklace earring glasses passport licence card ticket book notebook
    guitar violin flute racket ball skateboard pram toy bear doll station platform bus tram taxi
    airport harbour market square park bench beach museum library school office cafe restaurant
    morning evening yesterday monday friday scratch sticker initials photograph reward
""".split()  # noqa: SIM905 - a list of a hundred lines says no more


def search_ids(label: str) -> tuple[str, ...]:
    """The ids of what `search` measures."""
    recalls = [f"vector_recall_{label}_{_plain(case)}" for case in CASES]
    times = [f"vector_p95_{label}_{_percent(share)}" for share in (1, *vector_data.COUNTRIES)]
    return (*recalls, f"vector_worst_recall_{label}", f"vector_rows_lacking_{label}", *times)


def search(bench: Bench, database: str, items: int, label: str) -> list[Figure]:
    """Recall@10 and p95 at 100, 10, 1 and 0.1 % selectivity, one client, warm. `label`: 100k, 1m.

    The goal for p95 is that of the next larger size with one.
    """
    found = bench.probe(
        database, "recall", module=_PROBES, items=items, samples=bench.rounds(SAMPLES)
    )
    made = [
        figure(f"vector_recall_{label}_{_plain(case)}", found[case]["recall"], "", ">= 0.99",
               **found[case])
        for case in CASES
    ]  # fmt: skip
    worst = min(found.values(), key=lambda case: case["worst"])
    made.append(figure(f"vector_worst_recall_{label}", worst["worst"], "", ">= 0.8"))
    lacking = sum(case["lacking"] for case in found.values())
    made.append(figure(f"vector_rows_lacking_{label}", lacking, "rows", "<= 0"))
    limit = min((ms for size, ms in GOAL_P95_MS.items() if size >= items), default=60)
    for share in (1, *vector_data.COUNTRIES):
        slowest = max(case["p95"] for case in found.values() if case["share"] == share)
        name = f"vector_p95_{label}_{_percent(share)}"
        made.append(figure(name, slowest * 1000, "ms", f"< {limit}"))
    return made


def crowd(bench: Bench, database: str, items: int) -> list[Figure]:
    """16 searchers at once in two processes, all selectivities mixed."""
    given = {"items": items, "threads": 8, "seconds": bench.seconds(10)}
    answers = bench.probes(database, "crowd", [given] * 2, module=_PROBES)
    rate = sum(each["rate"] for each in answers)
    slowest = max(each["p95"] for each in answers)
    return [
        figure("vector_searchers_rate", rate, "requests/s", ">= 300"),
        figure("vector_searchers_p95", slowest * 1000, "ms", "< 100"),
    ]


def drain(bench: Bench, database: str) -> Figure:
    """New items embedded and written into the live index; they are removed again."""
    chance = random.Random(11)
    with bench.connect(database) as db:
        db.execute(
            "INSERT INTO items (owner_id, kind, category, country, title, description)"
            " SELECT 1, 'found', 'drained', 'XX', title, description"
            " FROM unnest(%s::text[], %s::text[]) AS made (title, description)",
            [
                [_text(chance, 4) for _ in range(DRAINED)],
                [_text(chance, 20) for _ in range(DRAINED)],
            ],
        )
    found = bench.probe(database, "drain", module=_PROBES)
    say(f"drained {found}")
    with bench.connect(database) as db:
        db.execute("DELETE FROM items WHERE category = 'drained'")
    return figure("embedding_drain_rate", found["written"] / found["seconds"], "items/s", ">= 500",
                  **found)  # fmt: skip


def deleted(bench: Bench, database: str, items: int) -> list[Figure]:
    """Recall after three of four items were deleted, before a vacuum. Changes the database."""
    with bench.connect(database) as db:
        db.execute("ALTER TABLE item_embeddings SET (autovacuum_enabled = off)")
        db.execute("UPDATE items SET is_deleted = true WHERE id % 4 <> 0")
        db.execute("ANALYZE item_embeddings")
    found = bench.probe(
        database, "recall", module=_PROBES, items=items, samples=bench.rounds(SAMPLES), keep_every=4
    )
    least = min(each["recall"] for each in found.values())
    worst = min(each["worst"] for each in found.values())
    lacking = sum(each["lacking"] for each in found.values())
    return [
        figure("vector_recall_deleted", least, "", ">= 0.99", worst=worst, lacking=lacking, **found)
    ]


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(words))


def _plain(case: str) -> str:
    how, _, share = case.partition(" ")
    return f"{how}_{_percent(float(share))}" if share else how


def _percent(share: float) -> str:
    return f"{share * 100:g}".replace(".", "_") + "pct"
