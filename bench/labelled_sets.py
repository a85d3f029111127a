"""The labelled sets of `../shared/data/matching`, as items to import and pairs to find again.

Left records are wanted, right ones offered. Each right record that is labelled as the same thing,
in whichever split, is relevant to its left one; the split says which queries are asked.
"""

import csv
import gzip
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from bench.harness import SHARED_DATA, CannotRunError

FOLDER = SHARED_DATA / "matching"
FIELDS = (
    "external_id", "title", "description", "latitude", "longitude", "price", "postcode",
)  # fmt: skip


@dataclass(frozen=True)
class LabelledSet:
    """Records by side, each a dict of FIELDS, and by split the queries: (left id, right ids)."""

    name: str
    wanted: list[dict[str, str]]
    offered: list[dict[str, str]]
    queries: dict[str, list[tuple[str, list[str]]]]
    same_records: bool = False  # both sides are one: a record is not found by itself

    def write(self, folder: Path, *, wanted: set[str]) -> dict[str, Path]:
        """CSV files for `import_items`, by kind; of the wanted ones those that are asked."""
        asked = [each for each in self.wanted if each["external_id"] in wanted]
        paths = {}
        for kind, records in (("wanted", asked), ("offered", self.offered)):
            paths[kind] = folder / f"{self.name}_{kind}.csv"
            with paths[kind].open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, FIELDS, restval="")
                writer.writeheader()
                writer.writerows(records)
        return paths

    @property
    def mapping(self) -> list[str]:
        """The `--map` options of `import_items`."""
        return ["attributes.price=price", "attributes.postcode=postcode"]


def load(name: str) -> LabelledSet:
    """A set by its name in SETS. Raises CannotRunError where the data is not there."""
    if not FOLDER.is_dir():
        raise CannotRunError(f"the labelled sets are not here: {FOLDER}")
    return SETS[name]()


def sample(queries: list[tuple[str, list[str]]], at_most: int) -> list[tuple[str, list[str]]]:
    """The same `at_most` queries each time, in an order that says nothing."""
    shuffled = sorted(queries)
    random.Random(7).shuffle(shuffled)
    return shuffled[:at_most]


def _rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _pairs(name: str, stem: str, left: str, record: Callable[[dict], dict]) -> LabelledSet:
    records = list(_rows(f"{stem}_dev_records.csv.gz"))
    relevant: dict[str, list[str]] = defaultdict(list)
    split_of: dict[str, dict[str, None]] = {"train": {}, "valid": {}, "test": {}}
    for pair in _rows(f"{stem}_dev_pairs.csv.gz"):
        if pair["label"] == "1":
            relevant[pair["left_id"]].append(pair["right_id"])
            split_of[pair["split"]][pair["left_id"]] = None
    return LabelledSet(
        name=name,
        wanted=[record(row) for row in records if row["source"] == left],
        offered=[record(row) for row in records if row["source"] != left],
        queries={
            split: [(left_id, sorted(set(relevant[left_id]))) for left_id in ids]
            for split, ids in split_of.items()
        },
    )


def _product(row: dict) -> dict:
    return {
        "external_id": row["record_id"],
        "title": row["name"],
        "description": row["description"],
        "price": row["price"],
    }


def _place(row: dict) -> dict:
    return {
        "external_id": row["record_id"],
        "title": row["name"],
        "description": row["address"],
        "latitude": row["latitude"],
        "longitude": row["longitude"],
        "postcode": row["postalCode"],
    }


def _pricerunner() -> LabelledSet:
    """Offers of one product are relevant to each other; a product is in one split, by hash."""
    rows = list(_rows("pricerunner_dev_offers.csv.gz"))
    clusters: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        clusters[row["cluster_id"]].append(row["product_id"])
    queries: dict[str, list[tuple[str, list[str]]]] = {"train": [], "test": []}
    for cluster, members in clusters.items():
        split = "train" if blake2b(cluster.encode(), digest_size=1).digest()[0] % 2 else "test"
        if len(members) > 1:
            queries[split] += [(one, [each for each in members if each != one]) for one in members]
    records = [{"external_id": row["product_id"], "title": row["product_title"]} for row in rows]
    return LabelledSet("pricerunner", records, records, queries, same_records=True)


SETS: dict[str, Callable[[], LabelledSet]] = {
    "abt_buy": lambda: _pairs("abt_buy", "abt_buy", "abt", _product),
    "edinburgh": lambda: _pairs("edinburgh", "geo_osm_fsq_edi", "osm", _place),
    "pittsburgh": lambda: _pairs("pittsburgh", "geo_osm_fsq_pit", "osm", _place),
    "pricerunner": _pricerunner,
}
