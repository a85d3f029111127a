"""Matching: jobs, searches, vectors under filters, import and embedding. `script/bench matching`.

Everything is measured at 100,000 items, and what grows with them at 1,000,000 too; the large data
set takes most of the time. `--rows N` makes both smaller: the goals are meant for the whole.
"""

from collections.abc import Callable, Iterator

from bench import matching_items, matching_jobs, matching_vectors
from bench.harness import Bench

ROWS = 1_000_000
QUICK_ROWS = 20_000
_SMALL = 100_000


class _Data:
    """The databases, each made when the first figure asks for it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        share = min(1.0, bench.rows / ROWS)
        self.items = {"100k": max(5_000, round(_SMALL * share)), "1m": round(ROWS * share)}
        self._made: set[str] = set()

    def of(self, label: str) -> str:
        name = f"items_{label}"
        if label not in self._made:
            self._made.add(label)
            matching_items.make(self.bench, name, self.items[label])
        return name


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """Each measurement with the ids of its figures. Reads come before what changes the data."""
    data = _Data(bench)
    for label in ("100k", "1m"):
        items = data.items[label]
        yield (
            matching_vectors.search_ids(label),
            lambda label=label, items=items: matching_vectors.search(
                bench, data.of(label), items, label
            ),
        )
        yield (
            matching_jobs.job_ids(label),
            lambda label=label: matching_jobs.jobs(bench, data.of(label), label),
        )
    small, items = data.of, data.items["100k"]
    yield ("match_post_p95",), lambda: matching_jobs.post(bench, small("100k"))
    yield (
        ("vector_searchers_rate", "vector_searchers_p95"),
        lambda: matching_vectors.crowd(bench, small("100k"), items),
    )
    yield (
        ("searchers_rate", "searchers_p95"),
        lambda: matching_jobs.searchers(bench, small("100k")),
    )
    yield ("embedding_drain_rate",), lambda: matching_vectors.drain(bench, small("100k"))
    yield (
        ("vector_recall_deleted",),
        lambda: matching_vectors.deleted(bench, small("100k"), items),
    )
    yield (
        ("import_rate",),
        lambda: matching_jobs.imported(bench, small("100k"), min(30_000, items)),
    )
