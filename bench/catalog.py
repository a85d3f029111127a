"""The catalog: refresh, ingest, reads and load. `script/bench catalog [--rows N]`.

The data set has the requirements' scale: 2.09 M snapshots of 11,059 slugs at 3 sellers. `--rows`
makes everything smaller in proportion; the goals are meant for the whole.
"""

from collections.abc import Callable, Iterator

from bench import dataset, ingest, reads, refresh, web
from bench.harness import Bench, Figure

ROWS = dataset.ROWS
QUICK_ROWS = 100_000
_INGEST_ROWS = 500_000


class _Data:
    """The databases, each made when the first figure asks for it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.shape = dataset.shape(bench.rows)
        self._made: set[str] = set()

    def share(self, rows: int) -> int:
        """`rows` in proportion to `--rows`."""
        return max(5_000, round(rows * min(1.0, self.bench.rows / ROWS)))

    def long(self) -> str:
        """The whole data set."""
        return self._make("long", self.shape)

    def short(self) -> str:
        """The same lines with a tenth of the history."""
        return self._make("short", dataset.Shape(self.shape.slugs, max(1, self.shape.days // 10)))

    def _make(self, name: str, shape: dataset.Shape) -> str:
        if name not in self._made:
            self._made.add(name)
            dataset.make(self.bench, name, shape)
        return name


def figures(bench: Bench) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    """Each measurement with the ids of its figures. Reads come before what changes the data."""
    data = _Data(bench)
    slugs = data.shape.slugs

    def of(*ids: str, run: Callable[[], Figure | list[Figure]]):
        return ids, run

    yield of("product_p95", "product_seq_scans", run=lambda: reads.product(bench, data.long()))
    yield of("cached_catalog_rps", run=lambda: web.cached_page(bench, data.long()))
    yield of(
        "concurrent_1000_errors",
        "concurrent_1000_p95",
        run=lambda: web.crowd(bench, data.long()),
    )
    yield of(
        "refresh_history_growth",
        run=lambda: refresh.history_growth(bench, data.short(), data.long(), slugs),
    )
    yield of("refresh_speedup", run=lambda: refresh.speedup(bench, data.long(), slugs))
    yield of(
        "suggest_p95_prefix",
        "suggest_p95_typo",
        run=lambda: reads.suggest(bench, "names", data.share(reads.NAMES)),
    )
    yield of("ingest_rate", run=lambda: ingest.rate(bench, "rate", data.share(_INGEST_ROWS)))
    yield of(
        "ingest_memory",
        "ingest_memory_growth",
        run=lambda: ingest.memory(bench, "memory", data.share(ingest.GREEK_ROWS)),
    )
