"""Match quality on labelled sets: is what belongs together found, and how near the top.

`script/bench match-quality`: each left record of the test split is posted as wanted among all right
records, which are offered, and matched by `engine.match` with the default weights, as a match job
does. `--rows N`: about that many queries in all, instead of 2,600.

`python -m bench.match_quality` fits the default weights again on the train splits and prints them.
"""

import json
import sys
from collections.abc import Callable, Iterator

from bench import harness, labelled_sets
from bench.harness import Bench, Figure, figure, percentile, say

ROWS = 2_600
QUICK_ROWS = 200
LEAST_ROWS = 100
_FITTED = 300  # queries of each set that a fit looks at
_PROBES = "bench.match_quality_probes"
_SINGLE = ("bm25", "vector")
_QUERIES = {"abt_buy": 0.08, "edinburgh": 0.38, "pittsburgh": 0.17, "pricerunner": 0.37}

# By set: the metrics with a goal of their own. On every set the MRR must beat the single signals'.
_GOALS: dict[str, dict[str, str]] = {
    "abt_buy": {"mrr": ">= 0.86"},
    "edinburgh": {"r1": ">= 0.98", "r10": ">= 0.999"},
    "pittsburgh": {"r1": ">= 0.98", "r10": ">= 0.999"},
    "pricerunner": {"recall10": ">= 0.6"},
}


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """For each set its metrics, by the words that the table shows."""
    for name, goals in _GOALS.items():
        queries = max(20, round(bench.rows * _QUERIES[name]))
        ids = (*(f"{name}_{metric}" for metric in goals), f"{name}_mrr_gain")
        yield ids, lambda name=name, queries=queries: _quality(bench, name, queries)


def _quality(bench: Bench, name: str, queries: int) -> list[Figure]:
    chosen = labelled_sets.load(name)
    asked = labelled_sets.sample(chosen.queries["test"], queries)
    _fill(bench, chosen, asked)
    path = _write(bench, name, asked)
    found = bench.probe(name, "ranks", module=_PROBES, path=path, same_records=chosen.same_records)
    bench.drop_database(name)
    metrics = {method: _metrics(ranks) for method, ranks in found["ranks"].items()}
    for method, values in metrics.items():
        say(f"{name} {method}: " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    ours, single = metrics["spyglass"], max(metrics[method]["mrr"] for method in _SINGLE)
    detail = {
        "queries": len(asked),
        "methods": metrics,
        "match_p50_ms": round(percentile(found["seconds"], 0.5) * 1000, 1),
    }
    made = [
        figure(f"{name}_{metric}", ours[metric], "", goal, **detail)
        for metric, goal in _GOALS[name].items()
    ]
    gain = ours["mrr"] - single
    return [*made, figure(f"{name}_mrr_gain", gain, "", ">= 0.0001", **detail)]


def _fill(bench: Bench, chosen: labelled_sets.LabelledSet, asked: list) -> None:
    """The database of a set: its items, imported, the read models and the vectors."""
    name = chosen.name
    bench.create_database(name)
    bench.manage(name, "migrate", "--verbosity=0")
    with bench.connect(name) as db:
        db.execute(
            "INSERT INTO auth_user (password, is_superuser, username, first_name, last_name,"
            " email, is_staff, is_active, date_joined)"
            " SELECT '', false, side, '', '', '', false, true, now()"
            " FROM unnest(ARRAY['wanted', 'offered']) AS side"
        )
    say(f"importing {name}")
    paths = chosen.write(bench.folder, wanted={left_id for left_id, _ in asked})
    options = [part for each in chosen.mapping for part in ("--map", each)]
    for kind, path in paths.items():
        bench.manage(name, "import_items", path, "--kind", kind, "--owner", kind, *options)
    bench.probe(name, "drain", module=_PROBES)
    with bench.connect(name) as db:
        db.execute("VACUUM ANALYZE")


def _write(bench: Bench, name: str, asked: list) -> str:
    path = bench.folder / f"{name}_queries.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    return str(path)


def _metrics(queries: list[list[int]]) -> dict[str, float]:
    """Of the ranks of what is relevant, per query: the share with one at the top and among ten, the
    mean reciprocal rank of the first, and the share of all that is among ten.
    """
    firsts = [ranks[0] for ranks in queries]
    among = [sum(0 < rank <= 10 for rank in ranks) / len(ranks) for ranks in queries]
    return {
        "r1": round(sum(rank == 1 for rank in firsts) / len(firsts), 4),
        "r10": round(sum(0 < rank <= 10 for rank in firsts) / len(firsts), 4),
        "mrr": round(sum(1 / rank for rank in firsts if rank) / len(firsts), 4),
        "recall10": round(sum(among) / len(among), 4),
    }


def fit() -> dict:
    """Weights and curve for wanted ↔ offered, out of the train splits of all sets."""
    with harness.servers(ROWS) as bench:
        paths = []
        for name in _GOALS:
            chosen = labelled_sets.load(name)
            asked = labelled_sets.sample(chosen.queries["train"], _FITTED)
            _fill(bench, chosen, asked)
            paths.append(str(bench.folder / f"{name}.npz"))
            bench.probe(
                name,
                "judge",
                module=_PROBES,
                path=_write(bench, name, asked),
                same_records=chosen.same_records,
                to=paths[-1],
            )
        return bench.probe(name, "fit_weights", module=_PROBES, paths=paths)


if __name__ == "__main__":
    json.dump(fit(), sys.stdout, indent=2)
    print()
