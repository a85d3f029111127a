"""Files → raw values: line numbers, broken lines, broken files, bounded memory."""

import csv
import gzip
import io
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.readers import FieldMap, Source, SourceError, parse_map
from catalog.rows import FIELDS, REASONS, Rejection
from config import files

HEADER = "product_name,product_code,seller,price,currency,scraped_at"
ROW = "Rice,1,acme,1.50,EUR,2025-10-01T06:00:00Z"


def write(folder, text, name="data.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def records(path, **options):
    with Source(path, **options) as source:
        return [record for block in source.blocks() for record in block]


def summary(path, **options):
    """(line, reason or product name) of each record."""
    return [
        (line, values.reason if isinstance(values, Rejection) else values[0])
        for line, _, values in records(path, **options)
    ]


def csv_lines(*lines):
    return "\n".join([HEADER, *lines]) + "\n"


def test_plain_and_gzip_are_told_by_content(tmp_path):
    text = csv_lines(ROW, ROW)
    plain = records(write(tmp_path, text))
    packed = records(write(tmp_path, gzip.compress(text.encode()), "b.csv"))
    assert plain == packed
    assert plain[0] == (
        2,
        ROW,
        ("Rice", "1", "acme", "1.50", "EUR", "2025-10-01T06:00:00Z", *[""] * 6),
    )


def test_a_bom_crlf_blank_lines_and_a_missing_last_line_end(tmp_path):
    text = f"\ufeff\r\n{HEADER}\r\n\r\n{ROW}\r\n\r\n{ROW}"
    assert summary(write(tmp_path, text)) == [(4, "Rice"), (6, "Rice")]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(tmp_path, delimiter):
    text = csv_lines(ROW).replace(",", delimiter)
    assert records(write(tmp_path, text))[0][2][3] == "1.50"


def test_quotes(tmp_path):
    lines = [
        '"Rice, ""brown""",1,acme,1,EUR,2025-10-01',
        'Case 28",1,acme,1,EUR,2025-10-01',
        '"Two\nlines",1,acme,1,EUR,2025-10-01',
        ROW,
    ]
    assert summary(write(tmp_path, csv_lines(*lines))) == [
        (2, 'Rice, "brown"'),
        (3, 'Case 28"'),
        (4, "Two\nlines"),
        (6, "Rice"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        '"Open,1,acme,1,EUR,2025-10-01',
        'Open,1,acme,1,EUR,"2025-10-01',
        'Open,1,"acme,1,EUR,2025-10-01',
    ],
)
@pytest.mark.parametrize("good_lines", [1, 3, 150, 4_000])
def test_an_unclosed_quote_costs_one_line(tmp_path, broken, good_lines):
    path = write(tmp_path, csv_lines(ROW, broken, *[ROW] * good_lines, broken, ROW))
    got = summary(path)
    assert [each for each in got if each[1] != "Rice"] == [
        (3, "csv_unclosed_quote"),
        (4 + good_lines, "csv_unclosed_quote"),
    ]
    assert len(got) == good_lines + 4


def test_an_unclosed_quote_at_the_end(tmp_path):
    got = summary(write(tmp_path, csv_lines(ROW, '"Open,1,acme,1,EUR,2025', "x")))
    assert got == [(2, "Rice"), (3, "csv_unclosed_quote"), (4, "columns_wrong")]


def test_a_record_over_the_edge_of_a_block(tmp_path, monkeypatch):
    text = csv_lines(ROW, '"A\nB\nC\nD",1,acme,1,EUR,2025-10-01', ROW)
    expected = [(2, "Rice"), (3, "A\nB\nC\nD"), (7, "Rice")]
    for size in range(1, len(text) + 2):
        monkeypatch.setattr(files, "BLOCK_BYTES", size)
        assert summary(write(tmp_path, text)) == expected


def test_lines_that_cannot_be_read_cost_themselves(tmp_path):
    text = b"\n".join(
        [
            HEADER.encode(),
            ROW.encode(),
            ROW.replace("Rice", "Ρύζι").encode("iso8859-7"),
            b"Rice,1,acme",
            b'"Rice" x,1,acme,1,EUR,2025-10-01',
            b"Ri\rce,1,acme,1,EUR,2025-10-01",
            b"",
            ROW.encode(),
        ]
    )
    assert summary(write(tmp_path, text)) == [
        (2, "Rice"),
        (3, "encoding"),
        (4, "columns_wrong"),
        (5, "csv_malformed"),
        (6, "csv_malformed"),
        (8, "Rice"),
    ]


def test_a_line_without_end_is_not_held_in_memory(tmp_path):
    long = "x" * (3 * files.LINE_BYTES)
    got = records(write(tmp_path, csv_lines(ROW, long, ROW)))
    assert [(line, len(raw)) for line, raw, _ in got] == [(2, len(ROW)), (3, 1000), (4, len(ROW))]
    assert got[1][2].reason == "line_too_long"


def test_missing_columns_are_named_before_anything_is_read(tmp_path):
    path = write(tmp_path, "product_name,price,when\nRice,1,2025-10-01\n")
    with pytest.raises(SourceError, match="for seller, currency, scraped_at; it has prod"):
        Source(path)
    with pytest.raises(SourceError, match=r"scraped_at \(as nope\)"):
        Source(path, field_map=parse_map(["scraped_at=nope", "seller=:a", "currency=:EUR"]))


def test_the_map_and_aliases(tmp_path):
    path = write(tmp_path, "when,name,seller,cost,sku\n2025-10-01,Rice,acme,2,77\n")
    field_map = parse_map(["price=cost", "scraped_at=when", "currency=:USD"])
    assert dict(zip(FIELDS, records(path, field_map=field_map)[0][2], strict=True)) == {
        **dict.fromkeys(FIELDS, ""),
        "product_name": "Rice",
        "product_code": "77",
        "seller": "acme",
        "price": "2",
        "currency": "USD",
        "scraped_at": "2025-10-01",
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["price"], "write field=column"),
        (["price="], "write field=column"),
        (["price=:"], "write field=column"),
        (["prise=cost"], "no field 'prise'"),
        (["price=a", "price=:1"], "mapped twice"),
    ],
)
def test_a_wrong_map(pairs, message):
    with pytest.raises(SourceError, match=message):
        parse_map(pairs)


def test_a_header_with_a_name_twice(tmp_path):
    with pytest.raises(SourceError, match="names price twice"):
        Source(write(tmp_path, f"{HEADER},price\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
    ],
)
def test_files_that_are_no_use(tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        Source(write(tmp_path, content))


def test_paths_that_are_no_use(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        Source(str(tmp_path / "none.csv"))
    with pytest.raises(SourceError, match="directory"):
        records(str(tmp_path), file_format="csv")
    with pytest.raises(SourceError, match="say --format"):
        Source(write(tmp_path, "a", "data.txt"))
    with pytest.raises(SourceError, match="say --format"):
        Source("-")


def test_a_gzip_that_breaks_off_gives_its_lines_first(tmp_path):
    lines = [ROW.replace("Rice", f"Rice {n * 7919 % 100_003}") for n in range(40_000)]
    packed = gzip.compress(csv_lines(*lines).encode())
    seen = []
    with Source(write(tmp_path, packed[: len(packed) * 3 // 4], "a.csv.gz")) as source:
        with pytest.raises(SourceError, match=r"damaged gzip after line [\d,]+"):
            seen.extend(record for block in source.blocks() for record in block)
        assert source.size == len(packed) * 3 // 4
    assert [line for line, _, _ in seen] == list(range(2, len(seen) + 2))
    assert len(seen) > 10_000


def test_position_and_digest(tmp_path):
    path = write(tmp_path, csv_lines(*[ROW] * 10))
    with Source(path) as source:
        list(source.blocks())
        assert source.position == source.size
        assert len(source.digest) == 64


def test_standard_input(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(csv_lines(ROW).encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert summary("-", file_format="csv") == [(2, "Rice")]
    assert not Stdin.buffer.closed


def test_ndjson(tmp_path):
    lines = [
        '{"name": "Rice", "seller": "acme", "cost": 1.5, "tags": ["a", "b"], "extra": {}}',
        "",
        '{"name": "Rice"',
        "[1]",
        '{"price": NaN}',
        "null",
    ]
    path = write(tmp_path, "\n".join(lines), "data.jsonl")
    got = records(path, field_map=FieldMap({"price": "cost"}, {"currency": "EUR"}))
    assert got[0][2] == [
        "Rice", None, "acme", 1.5, "EUR", None, None, None, None, ["a", "b"], None, None
    ]  # fmt: skip
    assert [(line, values.reason) for line, _, values in got[1:]] == [
        (3, "json_invalid"),
        (4, "json_not_object"),
        (5, "json_invalid"),
        (6, "json_not_object"),
    ]


def test_a_json_array_is_no_ndjson(tmp_path):
    with pytest.raises(SourceError, match="one object a line"):
        records(write(tmp_path, '[{"name": "Rice"}]', "data.ndjson"))


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(CELL, min_size=6, max_size=6), max_size=20), st.integers(1, 400))
def test_what_the_csv_module_writes_is_read_back(tmp_path, rows, block):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER.split(","))
    writer.writerows(rows)
    path = write(tmp_path, text.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block)
        got = records(path)
    assert [list(values[:6]) for _, _, values in got] == rows
    assert [line for line, _, _ in got] == list(range(2, len(rows) + 2))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from([ROW, '"', '""', ',"', "x", '",', "\xff", "\r", ""]), max_size=30))
def test_any_lines_get_an_answer_and_good_ones_survive(tmp_path, lines):
    text = csv_lines(*lines).encode("latin-1")
    got = records(write(tmp_path, text))
    assert all(values.reason in REASONS for _, _, values in got if isinstance(values, Rejection))
    assert [line for line, _, _ in got] == sorted({line for line, _, _ in got})
    swallowed = sum(raw.count(ROW) for _, raw, _ in got if raw != ROW)
    assert sum(raw == ROW for _, raw, _ in got) + swallowed >= lines.count(ROW)


def test_a_header_of_a_million_columns_is_not_repeated_whole(tmp_path):
    with pytest.raises(SourceError, match=r"\(400,001 columns\)") as caught:
        Source(write(tmp_path, "a," * 400_000 + "\n"))
    assert len(str(caught.value)) < 2_000
