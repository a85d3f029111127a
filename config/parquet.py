"""Rows of a table as Parquet and back, exactly.

What Parquet knows has its own type there. The rest (jsonb, uuid, point, numbers without a
precision) is PostgreSQL's text, which it reads back to the same value; so is a column that holds
what Parquet cannot say (infinity, NaN, arrays of several dimensions). Imports pyarrow only when
used: it costs every process 0.2 s otherwise.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

FETCH_ROWS = 500
GROUP_ROWS = 50_000
GROUP_BYTES = 16 * 1024 * 1024
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)$")


@dataclass(frozen=True)
class Column:
    """A column of an archived table. `kind`: PostgreSQL's type, as format_type writes it.

    `text`: stored as PostgreSQL's text. `generated`: restored by generation.
    """

    name: str
    kind: str
    generated: bool = False
    text: bool = False


def is_native(kind: str) -> bool:
    """Whether Parquet has a type for it."""
    return _arrow_type(kind) is not None


def special(column: Column) -> sql.Composable | None:
    """An SQL condition that is true for values that the Parquet type cannot hold."""
    name = sql.Identifier(column.name)
    if _NUMERIC.match(column.kind):
        return sql.SQL("{} IN ('NaN', 'Infinity', '-Infinity')").format(name)
    if column.kind == "timestamp with time zone":
        return sql.SQL("{0} < '0001-01-02 UTC' OR {0} >= '9999-12-31 UTC'").format(name)
    if column.kind == "date":
        return sql.SQL("{0} < '0001-01-01' OR {0} > '9999-12-31'").format(name)
    if column.kind == "text[]":
        return sql.SQL("array_ndims({0}) > 1 OR array_lower({0}, 1) <> 1").format(name)
    return None


def selected(columns: list[Column]) -> sql.Composable:
    """The select list under which these columns are written."""
    return sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(column.name))
        if column.text
        else sql.Identifier(column.name)
        for column in columns
    )


def write(file, columns: list[Column], cursor) -> int:
    """Write what an executed server-side cursor gives, in row groups of bounded size. Returns the
    rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            pa.field(
                one.name,
                pa.string() if one.text else _arrow_type(one.kind),
                metadata={"postgresql": one.kind},
            )
            for one in columns
        ]
    )
    total, waiting, size = 0, [], 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := cursor.fetchmany(FETCH_ROWS):
            arrays = [
                pa.array(values, type=field.type)
                for field, values in zip(schema, zip(*rows, strict=True), strict=True)
            ]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            waiting.append(batch)
            total, size = total + len(rows), size + batch.nbytes
            if size >= GROUP_BYTES or sum(map(len, waiting)) >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting, size = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return total


def batches(file, names: list[str]) -> Iterator:
    """Arrow batches of FETCH_ROWS of a Parquet file, of some columns, one row group at a time."""
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file, pre_buffer=False, buffer_size=1024 * 1024)
    yield from opened.iter_batches(FETCH_ROWS, columns=names)


def rows(batch) -> Iterator[tuple]:
    """The rows of a batch as Python values."""
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def faults() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a damaged file."""
    import pyarrow as pa

    return (pa.ArrowException,)


def _arrow_type(kind: str):
    import pyarrow as pa

    if found := _NUMERIC.match(kind):
        precision, scale = map(int, found.groups())
        return pa.decimal128(precision, scale) if precision <= 38 else None
    return {
        "boolean": pa.bool_(),
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "real": pa.float32(),
        "double precision": pa.float64(),
        "text": pa.string(),
        "date": pa.date32(),
        "timestamp with time zone": pa.timestamp("us", tz="UTC"),
        "text[]": pa.list_(pa.string()),
    }.get(kind)
