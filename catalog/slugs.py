"""The canonical slug of a product name, and the same folding for search text.

The rule, version 1 (`SLUG_VERSION`; stored slugs depend on it, so a change needs a new version and
a migration of what is stored):

1. HTML entities that end in a semicolon are decoded, repeatedly, at most `ENTITY_PASSES` times
   (`&amp;amp;` happens). Without the semicolon they stay text: `H&notebook` is no `H¬ebook`.
2. NFKC in effect (full-width, ligatures, superscripts become plain), then casefold: `ß` → `ss`,
   `ς` → `σ`. Accents are dropped, other letters stay what they are: `Ρύζι` → `ρυζι`. Latin
   letters that Unicode does not decompose (`ø`, `ł`, `æ`, `ı` …) fold as PostgreSQL's unaccent
   folds them. Marks that are letters rather than accents stay: vowel signs, viramas, nuktas and
   the kana voicing marks.
3. Invisible characters (soft hyphen, joiners, variation selectors) vanish.
4. Every run of anything but letters, digits and their marks becomes one `-`; none at the ends.
5. Over `SLUG_LENGTH` characters: cut, plus `-` and 8 hexadecimal digits of a hash of the whole,
   so that two long names with one beginning stay apart.
6. Nothing left (emoji, punctuation): `n-` and 8 hexadecimal digits of a hash of the name. Nothing
   but blanks, invisible characters and loose accents: `""`, which ingest rejects as `empty_name`.
"""

import html
import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b

SLUG_VERSION = 1
SLUG_LENGTH = 200
ENTITY_PASSES = 5

# Names up to this length are kept in the cache; it bounds the cache's memory, not the names.
_CACHED_LENGTH = 300

_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_ASCII_SEPARATORS = re.compile(r"[^a-z0-9]+")

# Letters without a decomposition, as in PostgreSQL's unaccent.rules.
_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t",
    "þ": "th", "ŋ": "n", "ĸ": "q", "ƶ": "z", "ɨ": "i", "ʉ": "u", "ƀ": "b", "ɇ": "e", "ǥ": "g",
}  # fmt: skip

# Letters and marks that show nothing (Unicode: Default_Ignorable_Code_Point) outside category Cf.
_INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_INVISIBLE.update(range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))

# Canonical combining classes of marks that tell letters apart: none, nukta, kana voicing, virama.
_LETTER_MARKS = {0, 7, 8, 9}


def slug(name: str) -> str:
    """The canonical slug of `name`: at most 200 characters, `""` where the name is empty.

    Idempotent, deterministic, the same for NFC and NFD and for any letter case.
    """
    if len(name) <= _CACHED_LENGTH:
        return _cached_slug(name)
    return _slug(name)


def fold(text: str) -> str:
    """`text` folded as a slug is, with single spaces for what the slug has dashes: for search.

    Not bounded, and `""` where no letter or digit is left.
    """
    if text.isascii() and "&" not in text:
        return _ASCII_SEPARATORS.sub(" ", text.lower()).strip()
    decomposed = unicodedata.normalize("NFKD", decode_entities(text))
    return unicodedata.normalize("NFC", " ".join(decomposed.translate(_folding).split()))


def decode_entities(text: str) -> str:
    """`text` with its HTML entities decoded, also where they were encoded several times."""
    for _ in range(ENTITY_PASSES):
        if "&" not in text:
            break
        decoded = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        if decoded == text:
            break
        text = decoded
    return text


def _slug(name: str) -> str:
    folded = fold(name).replace(" ", "-")
    if not folded:
        visible = _visible(name)
        return f"n-{_digest(visible)}" if visible else ""
    if len(folded) > SLUG_LENGTH:
        return f"{folded[: SLUG_LENGTH - 9].rstrip('-')}-{_digest(folded)}"
    return folded


# A day's listings of all sellers come round in the same order every day: a cache smaller than
# that would never hit. 65,536 names take about 20 MB.
_cached_slug = lru_cache(maxsize=65_536)(_slug)


def _visible(name: str) -> str:
    """What is left of a name without letters or digits once blanks and the unseen are out."""
    decomposed = unicodedata.normalize("NFKD", decode_entities(name))
    return "".join(c for c in decomposed if _folding[ord(c)] and not _is_blank(c))


def _is_blank(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in ("Cc", "Cs")


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


class _Folding(dict):
    """What one character of a decomposed text folds to; filled as characters are met.

    Letters and digits → their folded form; separators → a space; what vanishes → "".
    """

    def __missing__(self, code: int) -> str:
        folded = self[code] = "".join(map(_fold_char, _decomposed_casefold(chr(code))))
        return folded


_folding = _Folding()


def _decomposed_casefold(char: str) -> str:
    if _vanishes(char):  # before casefold: it would turn the iota subscript into a letter
        return ""
    return unicodedata.normalize("NFKD", char.casefold())


def _fold_char(char: str) -> str:
    if _vanishes(char):
        return ""
    if char.isalnum() or unicodedata.category(char) in ("Mn", "Mc"):
        return _LETTERS.get(char, char)
    return " "


def _vanishes(char: str) -> bool:
    category = unicodedata.category(char)
    if category in ("Cf", "Me") or ord(char) in _INVISIBLE:
        return True
    return category == "Mn" and unicodedata.combining(char) not in _LETTER_MARKS
