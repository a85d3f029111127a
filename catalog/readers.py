"""Files of observations: `config.files` with the catalog's fields."""

from collections.abc import Iterable

from catalog.rows import ALIASES, FIELDS, REQUIRED_FIELDS
from config import files
from config.files import FieldMap, Layout, SourceError

__all__ = ["FieldMap", "Source", "SourceError", "parse_map"]

LAYOUT = Layout(FIELDS, REQUIRED_FIELDS, ALIASES)


class Source(files.Source):
    """One open file of observations; see `config.files.Source`."""

    def __init__(self, path: str, *, file_format: str = "", field_map: FieldMap | None = None):
        super().__init__(path, LAYOUT, file_format=file_format, field_map=field_map)


def parse_map(pairs: Iterable[str]) -> FieldMap:
    """A FieldMap out of `field=column` and `field=:constant`. Raises SourceError."""
    return files.parse_map(pairs, FIELDS)
