"""What changes counters: modes, the fold, events of the stream, the comparison with the truth."""

import logging
import time
from collections import Counter as Counted
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from config import prepared, tally
from config.sqlfiles import queries
from config.tally import Count
from counters import declared, statements
from counters.declared import Counter
from counters.models import CounterState

logger = logging.getLogger("spyglass.counters")

FOLD_ROWS = 200_000  # deltas of one transaction: each target is written once in it
VACUUM_ROWS = 200_000  # folded since the last vacuum: the dead lie where the next fold begins
COMPARED_ROWS = 20_000  # targets of one snapshot
SAMPLES = 20

_folded_since_vacuum = 0


class NotSwitched(ValueError):
    """A mode that does not exist, or a counter that has none."""


@dataclass(frozen=True)
class Compared:
    """What a comparison with the source found; `wrong` says it row by row, up to SAMPLES."""

    targets: int
    wrong: int
    divergence: int
    waiting: int
    samples: list[str] = field(default_factory=list)


def sync_counters() -> list[str]:
    """Make `counter_states` equal to the declarations and to COUNTERS_MODE; what changed, in words.

    Runs after every migration, which `manage.py prepare` does at every start: a mode that was
    switched by hand lasts until then.
    """
    changed = []
    for counter in declared.all().values():
        if not isinstance(counter, Counter):
            continue
        mode = configured_mode(counter.name)
        state, made = CounterState.objects.get_or_create(
            counter_key=counter.key, defaults={"name": counter.name, "mode": mode}
        )
        if made:
            changed.append(f"{counter.name}: {mode}")
        elif state.mode != mode:
            set_mode(name=counter.name, mode=mode)
            changed.append(f"{counter.name}: {state.mode} -> {mode}")
    keys = [one.key for one in declared.all().values()]
    gone = CounterState.objects.exclude(counter_key__in=keys)
    changed += [f"{state.name}: gone" for state in gone]
    gone.delete()
    return changed


def configured_mode(name: str) -> str:
    """The mode that the settings name for a counter."""
    return settings.COUNTERS_MODES.get(name, settings.COUNTERS_MODE)


def set_mode(*, name: str, mode: str) -> bool:
    """Switch a counter to `inline` or `deferred`, on a live system; False where it is so already.

    No count changes: triggers look at the mode in every statement, statements under way finish in
    the old one, and in both the value is column + waiting. Deltas that wait are folded as ever.
    Raises UnknownCounter, NotSwitched.
    """
    counter = declared.get(name)
    if not isinstance(counter, Counter):
        raise NotSwitched(f"{name} counts events of the stream and has no mode.")
    if mode not in CounterState.Mode.values:
        raise NotSwitched(f"Unknown mode {mode!r}; known: {', '.join(CounterState.Mode.values)}.")
    changed = (
        CounterState.objects.filter(counter_key=counter.key)
        .exclude(mode=mode)
        .update(mode=mode, switched_at=timezone.now())
    )
    if changed:
        logger.info("%s is kept %s from now on", name, mode)
    return bool(changed)


def fold(*, budget_seconds: float = 30, rows: int = FOLD_ROWS) -> int:
    """Add what waits to the targets' columns, batch by batch; returns how many deltas went.

    A batch is one transaction: killed anywhere, it is folded or waits still. Two folds at once do
    not count twice; the second one finds nothing to do and returns. Must run outside a transaction.
    """
    deadline = time.monotonic() + budget_seconds
    total = after = 0
    while time.monotonic() < deadline:
        # Goes on behind the last batch, whose dead rows it would have to skip: a delta that
        # commits late, with an id from before, is for the next fold.
        folded, after = _fold_batch(after, rows)
        total += folded
        if folded < rows:
            break
    _vacuum(total)
    return total


def _fold_batch(after: int, rows: int) -> tuple[int, int]:
    """(how many deltas went, the id of the last)."""
    known = {counter.key: counter for counter in declared.all().values()}
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(queries("counters")["try_fold"])
        if not cursor.fetchone()[0]:
            return 0, after
        # Of the counters that this code knows: others belong to a newer version beside it.
        asked = {"after": after, "rows": rows, "keys": list(known)}
        cursor.execute(queries("counters")["take_deltas"], asked)
        taken = cursor.fetchall()
        folded = 0
        counts = []
        for key, count, ids, numbers, last in taken:
            folded, after = folded + count, last
            if ids:
                _apply(cursor, known[key], ids, numbers)
            counts.append(Count("counter_folded_total", {"counter": known[key].name}, count))
        tally.add_all(counts)
    return folded, after


def _apply(cursor, counter, ids: Sequence[int], numbers: Sequence[int]) -> None:
    text = statements.apply(counter, "%(ids)s::bigint[]", "%(numbers)s::bigint[]")
    cursor.execute(text, {"ids": prepared.array(ids), "numbers": prepared.array(numbers)})


def _vacuum(folded: int) -> None:
    """Clear away what folds have removed: autovacuum looks once a minute, and a fold begins where
    the dead rows lie."""
    global _folded_since_vacuum  # noqa: PLW0603 -- a fact about this process
    _folded_since_vacuum += folded
    if _folded_since_vacuum >= VACUUM_ROWS and not connection.in_atomic_block:
        _folded_since_vacuum = 0
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (SKIP_LOCKED) counter_deltas")


@dataclass(frozen=True)
class Event:
    """Something that happened to a target: `day` and `event_id` name it, for ever the same."""

    event_id: str
    day: str
    type: str
    target: int


def apply_events(events: Iterable[Event]) -> tuple[int, int]:
    """Count events of the stream, each once; returns (how many counted, how many seen before).

    Ids and counts commit together, in the caller's transaction or in one of its own. All of the
    types must be declared. An event for a target that is gone counts nowhere.
    """
    known = declared.events()
    given = {(one.day, one.event_id): one for one in events}
    if not given:
        return 0, 0
    days, ids = zip(*given, strict=True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            queries("counters")["new_events"],
            {"days": prepared.array(days), "ids": prepared.array(ids)},
        )
        fresh = cursor.fetchall()
        # Summed up here: the planner, who does not know how many are new, joins by nested loops.
        sums = Counted((given[row].type, given[row].target) for row in fresh)
        for kind in sorted({kind for kind, _ in sums}):
            targets = sorted(target for one, target in sums if one == kind)
            _apply(cursor, known[kind], targets, [sums[kind, target] for target in targets])
    return len(fresh), len(given) - len(fresh)


def compare(
    *,
    counter: Counter,
    mend: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    rows: int = COMPARED_ROWS,
) -> Compared:
    """Compare every count of a counter with its source, and mend what is wrong where asked.

    A part of the targets is compared in one snapshot, in which column, waiting deltas and source
    belong together: writers go on, and nothing that they do looks like a difference. It is mended
    by a delta, in the transaction of the comparison; two that mend wait for each other.
    """
    after, found = -(2**63), []
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            if mend:  # before the snapshot of the comparison: it must show the other's deltas
                cursor.execute(queries("counters")["lock_counter"], {"key": counter.key})
            cursor.execute(statements.part_end(counter), {"after": after, "rows": rows})
            until = cursor.fetchone()[0]
            if until is None:
                break
            cursor.execute(
                statements.compare(counter, mend=mend),
                {"after": after, "until": until, "samples": SAMPLES},
            )
            found.append(cursor.fetchone())
        after = until
        progress(f"{counter.name}: {sum(part[0] for part in found):,} targets compared")
    samples = [
        f"{counter.name} of {target}: {stored:,}, right is {right:,}"
        for *_, targets, values, truths in found
        for target, stored, right in zip(targets or (), values or (), truths or (), strict=True)
    ]
    compared = Compared(
        targets=sum(part[0] for part in found),
        wrong=sum(part[1] for part in found),
        divergence=int(sum(part[2] for part in found)),
        waiting=sum(part[3] for part in found),
        samples=samples[:SAMPLES],
    )
    CounterState.objects.filter(counter_key=counter.key).update(
        reconciled_at=timezone.now(),
        compared=compared.targets,
        wrong=0 if mend else compared.wrong,
        divergence=0 if mend else compared.divergence,
    )
    if compared.wrong:
        logger.warning(
            "%s: %d of %d counts were wrong%s",
            counter.name,
            compared.wrong,
            compared.targets,
            ", and were mended" if mend else "",
        )
    return compared
