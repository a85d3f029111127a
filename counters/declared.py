"""What is counted. An app declares it in its `counters.py`:

    Counter("posts.likes_count", source=Like, target=Post, title="Likes of a post")
    Counter("posts.comments_count", source=Comment, target=Post, where="NOT is_deleted", ...)
    StreamCounter("posts.views_count", event="post_view", target=Post, ...)

A counter is the column of that name in the target's table. What counts a `Counter` is rows of its
source; it needs no code beside its declaration: the triggers on the source (see `statements.py`)
are registered here, and `makemigrations` writes them down. What a `StreamCounter` counts has no
rows: see `stream.py`.

The value of a counter is its column plus what waits for it in `counter_deltas`, in both modes.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import pgtrigger
from django.apps import apps
from django.db.models import ForeignKey, Model
from django.utils.module_loading import autodiscover_modules

from counters import statements


class UnknownCounter(KeyError):
    """No counter of that name is declared."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, kw_only=True)
class _Declared:
    """What both kinds have: a name (`table.column`), a target, a title for people."""

    name: str
    target: type[Model]
    title: str

    def __post_init__(self) -> None:
        table, _, column = self.name.partition(".")
        names = {field.column for field in self.target._meta.concrete_fields}
        if table != self.target._meta.db_table or column not in names:
            raise ValueError(
                f"counter {self.name!r}: is not table.column of {self.target._meta.label},"
                f" whose table is {self.target._meta.db_table!r}"
            )
        for other in _counters.values():
            if other.key == self.key and other.name != self.name:
                raise ValueError(f"counters {self.name!r} and {other.name!r} have one key: rename")

    @property
    def column(self) -> str:
        """The column of the target that holds what was folded."""
        return self.name.partition(".")[2]

    @property
    def table(self) -> str:
        """The target's table."""
        return self.target._meta.db_table

    @property
    def primary_key(self) -> str:
        """The column that names a target."""
        return self.target._meta.pk.column

    @property
    def key(self) -> int:
        """What names the counter in `counter_deltas`: the CRC-32 of its name, as a signed int4."""
        return (zlib.crc32(self.name.encode()) ^ 0x80000000) - 0x80000000


class _ByName(type):
    """Lets the name come first, without its keyword."""

    def __call__(cls, name: str, **given):
        counter = super().__call__(name=name, **given)
        known = _counters.get(name)
        if known is not None and known != counter:
            raise ValueError(f"counter {name!r} is declared twice")
        counter.declare()
        _counters[name] = counter
        return counter


@dataclass(frozen=True, kw_only=True)
class Counter(_Declared, metaclass=_ByName):
    """Counts the rows of `source` that point to a target and fulfil `where`.

    `key_field`: the foreign key of the source to the target; needed where there are several.
    `where`: SQL over the source's columns. Raises ValueError for a declaration that cannot count.
    """

    source: type[Model]
    key_field: str = ""
    where: str = "TRUE"

    @cached_property
    def source_column(self) -> str:
        """The column of the source that names the target."""
        keys = [
            field
            for field in self.source._meta.concrete_fields
            if isinstance(field, ForeignKey) and field.related_model is self.target
        ]
        if self.key_field:
            keys = [field for field in keys if field.name == self.key_field]
        if len(keys) != 1:
            raise ValueError(
                f"counter {self.name!r}: {self.source._meta.label} has {len(keys)} foreign keys"
                f" to {self.target._meta.label} that fit; name one by key_field"
            )
        return keys[0].column

    def declare(self) -> None:
        """Register the triggers on the source."""
        for trigger in self.triggers():
            if trigger not in getattr(self.source._meta, "triggers", []):
                pgtrigger.register(trigger)(self.source)

    def triggers(self) -> Iterable[pgtrigger.Trigger]:
        """One trigger an operation: a trigger of several cannot have transition tables.

        TRUNCATE shows no rows afterwards, so it is counted before.
        """
        name = self.name.replace(".", "_")
        references = {
            "insert": (pgtrigger.Insert, pgtrigger.Referencing(new="new_rows")),
            "update": (
                pgtrigger.Update,
                pgtrigger.Referencing(old="old_rows", new="new_rows"),
            ),
            "delete": (pgtrigger.Delete, pgtrigger.Referencing(old="old_rows")),
            "truncate": (pgtrigger.Truncate, None),
        }
        for word, (operation, referencing) in references.items():
            yield pgtrigger.Trigger(
                name=f"{name}_{word}",
                level=pgtrigger.Statement,
                when=pgtrigger.Before if word == "truncate" else pgtrigger.After,
                operation=operation,
                referencing=referencing,
                declare=[("ids", "bigint[]"), ("numbers", "bigint[]"), ("how", "text")],
                func=statements.trigger(self, word),
            )


@dataclass(frozen=True, kw_only=True)
class StreamCounter(_Declared, metaclass=_ByName):
    """Counts events of the type `event`, which come by the stream and leave no row."""

    event: str

    def declare(self) -> None:
        """Raises ValueError where another counter counts the same events."""
        for other in _counters.values():
            if isinstance(other, StreamCounter) and other != self and other.event == self.event:
                raise ValueError(f"{self.name!r} and {other.name!r} count one event, {self.event}")


_counters: dict[str, Counter | StreamCounter] = {}


def all() -> dict[str, Counter | StreamCounter]:
    """Every declared counter by name."""
    _discover()
    return dict(sorted(_counters.items()))


def get(name: str) -> Counter | StreamCounter:
    """The counter `name`; raises UnknownCounter."""
    known = all()
    if name not in known:
        raise UnknownCounter(f"no counter {name!r}; known: {', '.join(known) or 'none'}")
    return known[name]


def events() -> dict[str, StreamCounter]:
    """The counters of the stream by their type of event."""
    return {one.event: one for one in all().values() if isinstance(one, StreamCounter)}


@cache
def _discover() -> None:
    """Import every app's `counters.py`, once: looking for them costs 10 ms."""
    apps.check_models_ready()
    autodiscover_modules("counters")
