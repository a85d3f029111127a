"""The statements that keep a counter, composed from its declaration.

All of them end in the same step, `apply`: add what changed to the targets' columns. It locks the
targets in the order of their ids, and only those that nobody else holds: what cannot be added
now, because somebody holds the row or because the column would fall below zero (what makes up for
that waits still), goes to `counter_deltas`, and the next fold adds it. So no writer waits for
another one's count, no two of them can deadlock over their targets, whatever order they come in,
and column + waiting is exact at every moment. What belongs to a target that is gone is dropped.

Names in the text come from models and declarations, never from a request.
"""

from typing import TYPE_CHECKING

from psycopg.sql import SQL, Composable, Identifier

if TYPE_CHECKING:
    from counters.declared import Counter, _Declared

# Above it the arrays are planned for by their length: with the plan for a few, joins are nested.
FEW_TARGETS = 200


_APPLY = SQL("""
WITH change AS MATERIALIZED (
    SELECT id, n FROM unnest({ids}, {numbers}) AS given (id, n)
), free AS MATERIALIZED (
    SELECT t.{primary_key} AS id
    FROM {target} AS t JOIN change ON t.{primary_key} = change.id
    ORDER BY t.{primary_key}
    FOR NO KEY UPDATE OF t SKIP LOCKED
), done AS (
    UPDATE {target} AS t SET {column} = t.{column} + change.n
    FROM change JOIN free USING (id)
    WHERE t.{primary_key} = change.id AND t.{column} + change.n >= 0
    RETURNING t.{primary_key} AS id
)
INSERT INTO counter_deltas (counter_key, target_id, delta)
SELECT {counter}, change.id, change.n FROM change
WHERE NOT EXISTS (SELECT FROM done WHERE done.id = change.id)
    AND EXISTS (SELECT FROM {target} AS t WHERE t.{primary_key} = change.id)""")

_COUNTED = SQL("SELECT {key} AS id, {sign} AS n FROM {rows} WHERE ({where}) AND {key} IS NOT NULL")

_CHANGE = SQL("(SELECT id, sum(n) AS n FROM ({rows}) AS one GROUP BY id HAVING sum(n) <> 0)")

_TRIGGER = SQL("""
SELECT mode INTO how FROM counter_states WHERE counter_key = {counter};
IF how = 'deferred' THEN
    INSERT INTO counter_deltas (counter_key, target_id, delta)
    SELECT {counter}, id, n FROM {change} AS change;
    RETURN NULL;
END IF;
SELECT array_agg(id ORDER BY id), array_agg(n ORDER BY id) INTO ids, numbers
FROM {change} AS change;
IF cardinality(ids) <= {few} THEN{apply_variables};
ELSIF ids IS NOT NULL THEN
    EXECUTE $apply${apply_arguments}$apply$ USING ids, numbers;
END IF;
RETURN NULL;""")

_MENDED = SQL("""
, mended AS (
    INSERT INTO counter_deltas (counter_key, target_id, delta)
    SELECT {counter}, id, truth - value FROM wrong
)""")

_COMPARE = SQL("""
WITH truth AS (
    SELECT {key} AS id, count(*) AS n FROM {source}
    WHERE {key} > %(after)s AND {key} <= %(until)s AND ({where})
    GROUP BY {key}
), waiting AS (
    SELECT target_id AS id, sum(delta) AS n FROM counter_deltas
    WHERE counter_key = {counter} AND target_id > %(after)s AND target_id <= %(until)s
    GROUP BY target_id
), compared AS (
    SELECT t.{primary_key} AS id, coalesce(truth.n, 0) AS truth,
        t.{column} + coalesce(waiting.n, 0) AS value, waiting.n IS NOT NULL AS waits
    FROM {target} AS t
    LEFT JOIN truth ON truth.id = t.{primary_key}
    LEFT JOIN waiting ON waiting.id = t.{primary_key}
    WHERE t.{primary_key} > %(after)s AND t.{primary_key} <= %(until)s
), wrong AS MATERIALIZED (
    SELECT id, truth, value FROM compared WHERE truth <> value
){mended}
SELECT (SELECT count(*) FROM compared), count(*), coalesce(sum(abs(truth - value)), 0),
    (SELECT count(*) FROM compared WHERE waits),
    (array_agg(id ORDER BY id))[:%(samples)s], (array_agg(value ORDER BY id))[:%(samples)s],
    (array_agg(truth ORDER BY id))[:%(samples)s]
FROM wrong""")

_PART_END = SQL(
    "SELECT max(id) FROM (SELECT {primary_key} AS id FROM {target}"
    " WHERE {primary_key} > %(after)s ORDER BY 1 LIMIT %(rows)s) AS part"
)

_EXACT = SQL("""
SELECT t.{primary_key}, t.{column} + coalesce((
    SELECT sum(d.delta) FROM counter_deltas AS d
    WHERE d.counter_key = {counter} AND d.target_id = t.{primary_key}), 0)::bigint
FROM {target} AS t WHERE t.{primary_key} = ANY (%(ids)s)""")


def apply(counter: "_Declared", ids: str, numbers: str) -> str:
    """Adds `numbers` to the targets `ids`; both are SQL for arrays of bigint, each target once."""
    return _apply(counter, ids, numbers).as_string()


def trigger(counter: "Counter", operation: str) -> str:
    """The body of the trigger on the counter's source; variables ids, numbers, how."""
    names = _names_with_source(counter)
    inserted = _COUNTED.format(**names, sign=SQL("1"), rows=SQL("new_rows"))
    deleted = _COUNTED.format(**names, sign=SQL("-1"), rows=SQL("old_rows"))
    rows = {
        "insert": inserted,
        "delete": deleted,
        "update": SQL(" UNION ALL ").join([inserted, deleted]),
        "truncate": _COUNTED.format(**names, sign=SQL("-1"), rows=names["source"]),
    }[operation]
    return _TRIGGER.format(
        **names,
        change=_CHANGE.format(rows=rows),
        few=_number(FEW_TARGETS),
        apply_variables=_apply(counter, "ids", "numbers"),
        apply_arguments=_apply(counter, "$1", "$2"),
    ).as_string()


def compare(counter: "Counter", *, mend: bool) -> str:
    """Compares a part of the targets with the source, in one snapshot; writes no target.

    Parameters: after, until (ids; the part is what lies between), samples. One row: compared,
    wrong, the sum of what is wrong, waiting, samples as arrays (ids, stored, right). With `mend`
    what is missing is appended as a delta: it stays right whatever is written meanwhile.
    """
    names = _names_with_source(counter)
    mended = _MENDED.format(**names) if mend else SQL("")
    return _COMPARE.format(**names, mended=mended).as_string()


def part_end(counter: "Counter") -> str:
    """The last id of the next part of the targets. Parameters: after, rows."""
    return _PART_END.format(**_names(counter)).as_string()


def exact(counter: "_Declared") -> str:
    """Column and waiting of some targets, in one snapshot: (id, value). Parameter: ids."""
    return _EXACT.format(**_names(counter)).as_string()


def _apply(counter: "_Declared", ids: str, numbers: str) -> Composable:
    return _APPLY.format(**_names(counter), ids=SQL(ids), numbers=SQL(numbers))


def _names(counter: "_Declared") -> dict[str, Composable]:
    """What stands for the counter and its target."""
    return {
        "counter": _number(counter.key),
        "target": Identifier(counter.table),
        "column": Identifier(counter.column),
        "primary_key": Identifier(counter.primary_key),
    }


def _names_with_source(counter: "Counter") -> dict[str, Composable]:
    return _names(counter) | {
        "source": Identifier(counter.source._meta.db_table),
        "key": Identifier(counter.source_column),
        "where": SQL(counter.where),
    }


def _number(number: int) -> Composable:
    """As released migrations have it: a Literal puts a space before what is negative."""
    return SQL(str(number))
