"""The words of an item: for full-text search, for BM25, and for the embedder.

Words are folded (NFKC in effect, casefold, accents dropped), so that what people write in several
ways is one word. What names a product stays usable: `lds4821ww` is one word, `2.0` one number;
`lm-af30u3` is found by its parts and as `lmaf30u3`; and of a title's words, neighbours with a digit
stand joined as well, because `64 gb` and `64gb`, `iphone 8` and `iphone8` are the same to people.
Scripts that write no spaces (Han, kana) are cut into overlapping pairs of characters, as Lucene's
CJKAnalyzer does.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice, pairwise

TITLE_WORDS = 64
TITLE_JOINS = 32
BODY_WORDS = 512
WORD_LENGTH = 60
BODY_MARK = chr(31)  # between the title's words and the body's

# Characters that are looked at: a description of 20,000 fills BODY_WORDS long before its end.
TEXT_LENGTH = 20_000

# The embedder reads no further: sentence models see 256 word pieces, about 1,000 characters.
EMBEDDED_LENGTH = 1_200

# A run of word characters and what may join them, the result of `_folding`.
_CHUNK = re.compile(r"[^\s\-/.,'+#]+(?:[-/.,'+#]+[^\s\-/.,'+#]+)*(?:\+\+|#)?")
_POSSESSIVE = re.compile(r"'s\b")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_DECIMAL = re.compile(r"(?<=[0-9]),(?=[0-9])")
_JOINTS = re.compile(r"(?:(?<![0-9])\.|\.(?![0-9])|[-/,'+#])+")
_LANGUAGE = re.compile(r"[a-z]{1,2}(?:\+\+|#)")  # c++, c#, f#
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_DIGIT = re.compile(r"\d")

_JOINERS = set("-/.,'+#")
_DASHES = "‐‑‒–−"
_APOSTROPHES = "’‘ʼ`´"

# Letters without a decomposition, as in PostgreSQL's unaccent.rules.
_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŧ": "t",
    "þ": "th", "ŋ": "n",
}  # fmt: skip

# Canonical combining classes of marks that tell letters apart: none, nukta, kana voicing, virama.
_LETTER_MARKS = {0, 7, 8, 9}


def tokens(text: str) -> list[str]:
    """The words of `text` in their order, folded; repeated as often as they occur.

    Each has 1 to WORD_LENGTH characters, none of them a blank or a control character. A compound
    with a digit (`lm-af30u3`) is followed by itself without the joints (`lmaf30u3`).
    """
    words: list[str] = []
    for parts, compound in _words(text):
        words += parts
        if compound:
            words.append(compound)
    return words


def terms(title: str, description: str = "") -> str:
    """What `items.terms` stores: the title's words by spaces, then BODY_MARK and the body's.

    At most TITLE_WORDS words of the title, then at most TITLE_JOINS compounds and neighbours
    written as one; at most BODY_WORDS words of the body. No mark where the body has no word.
    """
    words: list[str] = []
    compounds: list[str] = []
    for parts, compound in _words(title):
        words += parts
        if compound:
            compounds.append(compound)
        if len(words) >= TITLE_WORDS:
            break
    words = words[:TITLE_WORDS]
    joins = dict.fromkeys([*compounds, *_joins(words)])
    words += islice((join for join in joins if join not in set(words)), TITLE_JOINS)
    body = " ".join(tokens(description)[:BODY_WORDS])
    return " ".join(words) + (BODY_MARK + body if body else "")


def split_terms(terms: str) -> tuple[list[str], list[str]]:
    """The words of the title and of the body out of `terms`."""
    title, _, body = terms.partition(BODY_MARK)
    return title.split(), body.split()


def embedded_text(title: str, description: str = "", category: str = "") -> str:
    """What the embedder reads of an item, at most EMBEDDED_LENGTH characters on one line.

    The title, then the category (when the title does not name it), then the description's
    beginning. Not folded: a model's own tokeniser knows best.
    """
    parts = [_one_line(title), _one_line(description)]
    name = _one_line(category)
    if name and name.casefold() not in parts[0].casefold():
        parts.insert(1, name)
    return ". ".join(filter(None, parts))[:EMBEDDED_LENGTH].rstrip()


def folded(text: str) -> str:
    """`text` casefolded without accents; separators are blanks, joints (- / . , ' + #) stay."""
    text = text[:TEXT_LENGTH]
    if text.isascii():
        return text.lower().translate(_ascii)
    decomposed = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", decomposed.translate(_folding))


def _one_line(text: str) -> str:
    # What a database or a tokeniser would choke on goes: NUL, lone surrogates.
    text = text[:EMBEDDED_LENGTH].replace(chr(0), " ").encode("utf-8", "ignore").decode()
    return " ".join(text.split())


def _words(text: str) -> Iterator[tuple[list[str], str]]:
    """The parts of each chunk of `text`, and the chunk without its joints where it has a digit."""
    for match in _CHUNK.finditer(_POSSESSIVE.sub("s", folded(text))):
        chunk = match[0]
        if chunk.isalnum() and chunk.isascii():
            yield [chunk[:WORD_LENGTH]], ""
            continue
        parts = _parts(chunk)
        compound = "".join(parts) if len(parts) > 1 and _DIGIT.search(chunk) else ""
        if _UNSPACED.search(chunk):
            parts = [word for part in parts for word in _unspaced(part)]
        yield [part[:WORD_LENGTH] for part in parts], compound[:WORD_LENGTH]


def _parts(chunk: str) -> list[str]:
    """A chunk cut at its joints, but for the point of a number: `4,3-inch` → 4.3, inch."""
    if _LANGUAGE.fullmatch(chunk):
        return [chunk]
    if "," in chunk:
        chunk = _DECIMAL.sub(".", _THOUSANDS.sub("", chunk))
    return [part for part in _JOINTS.split(chunk) if part]


def _joins(words: list[str]) -> Iterator[str]:
    """Neighbours written as one word, where a digit is among them."""
    for left, right in pairwise(words):
        joined = left + right
        if len(joined) <= WORD_LENGTH and _DIGIT.search(joined):
            yield joined


def _unspaced(word: str) -> Iterator[str]:
    """Overlapping pairs of the characters that need no spaces; the rest as it is."""
    at = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > at:
            yield word[at : run.start()]
        characters = run[0]
        if len(characters) == 1:
            yield characters
        yield from map("".join, pairwise(characters))
        at = run.end()
    if at < len(word):
        yield word[at:]


class _Folding(dict):
    """What one character of a decomposed text folds to; filled as characters are met.

    Letters and digits → their folded form; joints → one of _JOINERS; separators → a space; accents
    and what shows nothing → "".
    """

    def __missing__(self, code: int) -> str:
        if unicodedata.category(chr(code)) == "Mn" and not _is_letter_mark(chr(code)):
            result = ""  # before casefold: it would turn the iota subscript into a letter
        else:
            casefolded = unicodedata.normalize("NFKD", chr(code).casefold())
            result = "".join(map(_fold, casefolded))
        self[code] = result
        return result


def _fold(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cf", "Me") or (category == "Mn" and not _is_letter_mark(char)):
        return ""
    if char.isalnum() or category in ("Mn", "Mc"):
        return _LETTERS.get(char, char)
    if char in _JOINERS:
        return char
    if char in _DASHES:
        return "-"
    return "'" if char in _APOSTROPHES else " "


def _is_letter_mark(char: str) -> bool:
    return unicodedata.combining(char) in _LETTER_MARKS


_folding = _Folding()
_ascii = {code: _folding[code] for code in range(128)}
