"""Files of rows that were made to do harm."""

import gzip

import pytest

from config import files

LAYOUT = files.Layout(fields=("name",), required=("name",))


def rows(path) -> int:
    with files.Source(str(path), LAYOUT) as source:
        return sum(len(block) for block in source.blocks())


def test_a_gzip_file_out_of_all_proportion_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "GZIP_FREE_BYTES", 1024 * 1024)
    bomb = tmp_path / "rows.csv.gz"
    bomb.write_bytes(gzip.compress(b"name\n" + b"a\n" * 4_000_000))
    with pytest.raises(files.SourceError, match="200 times its size"):
        rows(bomb)


def test_a_small_one_may_shrink_as_it_likes(tmp_path):
    small = tmp_path / "rows.csv.gz"
    small.write_bytes(gzip.compress(b"name\n" + b"a\n" * 1_000_000))
    assert rows(small) == 1_000_000


def test_a_line_that_fills_the_memory_is_skipped(tmp_path):
    file = tmp_path / "rows.csv.gz"
    file.write_bytes(gzip.compress(b"name\n" + b"x" * (20 * files.LINE_BYTES) + b"\nb\n"))
    with files.Source(str(file), LAYOUT) as source:
        found = [values for block in source.blocks() for _, _, values in block]
    assert found[0].reason == "line_too_long"
    assert len(found) == 2


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"BZh", b"\xfd7zXZ"])
def test_other_archives_are_not_opened(tmp_path, start):
    file = tmp_path / "rows.csv"
    file.write_bytes(start + b"0" * 100)
    with pytest.raises(files.SourceError):
        rows(file)
