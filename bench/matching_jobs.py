"""Match jobs, POST match, searches by words and place, and the import of items."""

import csv
import random
import re

from bench.harness import Bench, Figure, figure, median, say

SAMPLES = 200
ROUNDS = 3
_PROBES = "bench.matching_probes"
_RATE = re.compile(r"\(([\d,]+) rows/s\)")
GOAL_MS = {"100k": 300, "1m": 2_000}


def job_ids(label: str) -> tuple[str, ...]:
    """The ids of what `jobs` measures: a ratio to a look at all items says something only where
    there are many."""
    p95 = f"match_job_p95_{label}"
    return (p95, "match_job_speedup") if label == "1m" else (p95,)


def jobs(bench: Bench, database: str, label: str) -> list[Figure]:
    """From claim to stored result, one worker; and against one statement over all items."""
    found = bench.probe(database, "jobs", module=_PROBES, samples=bench.rounds(SAMPLES), exact=5)
    say(f"match jobs: p95 {found['p95']:.3f} s, one statement {found['exact']:.2f} s")
    speedup = found["exact"] / found["p50"]
    made = {
        f"match_job_p95_{label}": (found["p95"] * 1000, "ms", f"< {GOAL_MS[label]}"),
        "match_job_speedup": (speedup, "x", ">= 60"),
    }
    return [figure(name, *made[name], **found) for name in job_ids(label)]


def post(bench: Bench, database: str) -> Figure:
    """The answer 202 of `POST match`, the whole application in one process."""
    found = bench.probe(database, "post", module=_PROBES, samples=bench.rounds(SAMPLES))
    return figure("match_post_p95", found["p95"] * 1000, "ms", "< 50", **found)


def searchers(bench: Bench, database: str) -> list[Figure]:
    """16 people at once in two processes who search by words, half of them around a place."""
    given = {"threads": 8, "seconds": bench.seconds(10)}
    answers = bench.probes(database, "searchers", [given] * 2, module=_PROBES)
    rate = sum(each["rate"] for each in answers)
    slowest = max(each["p95"] for each in answers)
    return [
        figure("searchers_rate", rate, "requests/s", ">= 300"),
        figure("searchers_p95", slowest * 1000, "ms", "< 100"),
    ]


def imported(bench: Bench, database: str, rows: int) -> Figure:
    """`import_items` of new items into a database that holds the data set, as it reports it: until
    the last of them is committed, and so found by words and place."""
    rates = []
    for turn in range(bench.rounds(ROUNDS)):
        path = bench.folder / f"items-{turn}.csv"
        _write(path, rows, turn)
        options = ("--kind", "found", "--owner", "seeker", "--no-refresh")
        used = bench.manage(database, "import_items", path, *options)
        rates.append(float(_RATE.search(used.output)[1].replace(",", "")))
        say(f"import: {rates[-1]:,.0f} items/s; the whole process {rows / used.seconds:,.0f}")
    return figure("import_rate", median(rates), "items/s", ">= 3000", rows=rows)


def _write(path, rows: int, turn: int) -> None:
    chance = random.Random(turn)
    colours = ("black", "red", "brown", "white", "grey", "blue")
    things = ("wallet", "umbrella", "dog", "phone", "key ring", "bag", "scarf", "cat", "bicycle")
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(("external_id", "title", "description", "category", "latitude", "longitude"))
        for number in range(rows):
            thing = chance.choice(things)
            out.writerow(
                (
                    f"{turn}-{number}",
                    f"{chance.choice(colours)} {thing} {chance.randrange(5_000)}",
                    f"Near platform {chance.randrange(40)} of the station, a scratch on the left.",
                    thing,
                    round(chance.uniform(-55, 65), 5),
                    round(chance.uniform(-180, 180), 5),
                )
            )
