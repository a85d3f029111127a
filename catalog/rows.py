"""One observation, checked: raw values in, a typed `Row` or a `Rejection` out. No database.

What each field accepts stands at its function below; what a rejection means, in `REASONS`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple
from urllib.parse import urlsplit

from catalog.slugs import decode_entities, slug
from config import files
from config.files import Rejection

FIELDS = (
    "product_name",
    "product_code",
    "seller",
    "price",
    "currency",
    "scraped_at",
    "availability",
    "is_available",
    "is_preorder",
    "category_tags",
    "hero_image_url",
    "description",
)
REQUIRED_FIELDS = ("product_name", "seller", "price", "currency", "scraped_at")

# Other names under which a field is recognised; the field's own name wins where both stand.
ALIASES = {
    "product_name_original": "product_name",
    "name": "product_name",
    "code": "product_code",
    "sku": "product_code",
    "categories": "category_tags",
    "tags": "category_tags",
    "image_url": "hero_image_url",
}

REASONS = files.REASONS | {
    "availability_contradiction": "availability and the is_… flags disagree",
    "availability_unknown": "availability is not available, preorder or unavailable",
    "code_too_long": "product_code has more than 200 characters",
    "currency_missing": "currency is empty",
    "currency_unknown": "currency is not an ISO 4217 code",
    "description_too_long": "description has more than 10,000 characters",
    "empty_name": "product_name is empty, or nothing in it is visible",
    "flag_unknown": "a flag is not true or false",
    "name_too_long": "product_name has more than 2,000 characters",
    "nul_byte": "the text holds a NUL byte, which PostgreSQL cannot store",
    "price_missing": "no price, and the row does not say unavailable",
    "price_not_positive": "price is zero or below",
    "price_precision": "price has more than 4 decimals",
    "price_too_large": "price is 10,000,000,000 or more",
    "price_unparsable": "price is not a plain number",
    "seller_missing": "seller is empty",
    "seller_too_long": "seller has more than 100 characters",
    "tag_too_long": "a category tag has more than 100 characters",
    "tags_too_many": "more than 50 category tags",
    "time_future": "scraped_at is more than 24 hours ahead",
    "time_missing": "scraped_at is empty",
    "time_past": "scraped_at is before 2000-01-01",
    "time_unparsable": "scraped_at is not an ISO 8601 time",
    "unknown_field": "the object has a field that does not exist",
    "url_invalid": "hero_image_url is not an absolute http or https address",
    "url_too_long": "hero_image_url has more than 2,000 characters",
    "wrong_type": "the value has another type than the field",
}

NAME_LENGTH = 2_000
CODE_LENGTH = 200
SELLER_LENGTH = 100
DESCRIPTION_LENGTH = 10_000
URL_LENGTH = 2_000
TAGS = 50
TAG_LENGTH = 100
PRICE_LIMIT = Decimal(10) ** 10
_FINEST_PRICE = Decimal("0.0001")
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST_AHEAD = timedelta(hours=24)

# ISO 4217:2015 list one (SIX Financial Information, as of amendment 179, 2025), without the X
# codes that are no money (metals, testing, none).
_ACTIVE = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN
BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD
FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS
KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR
SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH
UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XDR XOF XPF XSU XUA YER ZAR ZMW ZWG
"""
# ISO 4217 list three: withdrawn since 2000, the earliest year a snapshot can carry.
_WITHDRAWN = """
ADP AFA ANG ATS AZM BEF BYR CSD CUC CYP DEM EEK ESP FIM FRF GHC GRD GWP HRK IEP ITL LTL LUF LVL
MGF MRO MTL MZM NLG PTE ROL SDD SIT SKK SLL SRG STD TMM TPE TRL UYP VEB VEF YUM ZMK ZWD ZWL ZWR
"""
CURRENCIES = frozenset(f"{_ACTIVE} {_WITHDRAWN}".split())

_PLAIN_PRICE = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,4})?")
_COMMA_DECIMAL = re.compile(r"[0-9.\s]*[0-9],[0-9]+")
_DAY_OR_TIME = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:[T ].+)?", re.DOTALL)
_FLAGS = {
    "true": True, "t": True, "yes": True, "y": True, "1": True,
    "false": False, "f": False, "no": False, "n": False, "0": False,
}  # fmt: skip
# What each word says about (is_available, is_preorder).
_AVAILABILITY = {
    "available": (True, False),
    "preorder": (False, True),
    "unavailable": (False, False),
}
_NOTHING = (None, "")

# What a check has seen is kept by its text, because files repeat themselves; a text longer than
# this or a memory fuller than that is not kept, so that no input grows the process.
_REMEMBERED_LENGTH = 300
_REMEMBERED = 65_536


class Row(NamedTuple):
    """One valid observation. `scraped_at` is aware, in UTC; `price` in units of `currency`."""

    name: str
    slug: str
    code: str
    seller: str
    price: Decimal | None
    currency: str
    scraped_at: datetime
    is_available: bool
    is_preorder: bool
    tags: tuple[str, ...]
    hero_image_url: str
    description: str


class _FieldError(Exception):
    """A field's check says no; the arguments are those of `Rejection`. `check` catches it."""


class Seen(dict):
    """Remembers what `check` made of a text; forgets everything once it is full."""

    def __init__(self, check):
        super().__init__()
        self.check = check

    def __missing__(self, value):
        checked = self.check(value)
        if len(value) <= _REMEMBERED_LENGTH:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[value] = checked
        return checked


class Validator:
    """Checks observations, remembering what it has seen. One a file or request; not shared.

    `clock` returns the present, aware: the future starts 24 hours after it.
    """

    def __init__(self, *, clock=lambda: datetime.now(UTC)):
        self._names = Seen(lambda value: check_name(_storable("product_name", value)))
        self._codes = Seen(lambda value: check_code(_storable("product_code", value)))
        self._sellers = Seen(lambda value: check_seller(_storable("seller", value)))
        self._prices = Seen(lambda value: check_price(_storable("price", value)))
        self._currencies = Seen(lambda value: check_currency(_storable("currency", value)))
        self._times = Seen(lambda value: check_time(_storable("scraped_at", value), now=clock()))
        self._tags = Seen(lambda value: check_tags(_storable("category_tags", value)))
        self._urls = Seen(lambda value: check_url(_storable("hero_image_url", value)))

    def check(self, values: Sequence) -> Row | Rejection:
        """A row out of raw values in the order of `FIELDS`; None or "" where a value is missing."""
        name, code, seller, price, currency, moment = values[:6]
        availability, available, preorder, tags, url, description = values[6:]
        try:
            # `type(…) is str`, each time: this is the inner loop of every ingest.
            name, key = self._names[name if type(name) is str else _text("product_name", name)]
            if availability or available not in _NOTHING or preorder not in _NOTHING:
                is_available, is_preorder = check_availability(availability, available, preorder)
            else:
                is_available, is_preorder = True, False
            amount = self._prices[price if type(price) is str else _price_text(price)]
            if amount is None and (is_available or is_preorder):
                raise _FieldError("price_missing", "price")
            return Row(
                name,
                key,
                self._codes[code if type(code) is str else _text("product_code", code)],
                self._sellers[seller if type(seller) is str else _text("seller", seller)],
                amount,
                self._currencies[
                    currency if type(currency) is str else _text("currency", currency)
                ],
                self._times[moment if type(moment) is str else _text("scraped_at", moment)],
                is_available,
                is_preorder,
                self._tags[_tags_text(tags)] if tags else (),
                self._urls[_text("hero_image_url", url)] if url else "",
                _description(description) if description else "",
            )
        except _FieldError as error:
            return Rejection(*error.args)

    def check_mapping(self, values: Mapping) -> Row | Rejection:
        """`check` for an object with the fields' names or aliases as keys, and no others."""
        found = {}
        for key, value in values.items():
            field = key if key in FIELDS else ALIASES.get(key)
            if field is None:
                return Rejection("unknown_field", str(key)[:100])
            if field == key or field not in values:
                found[field] = value
        return self.check([found.get(field) for field in FIELDS])


def check_name(value: str) -> tuple[str, str]:
    """The name as shown (entities decoded, trimmed, otherwise as it came) and its slug."""
    name = decode_entities(value).strip()
    if len(name) > NAME_LENGTH:
        raise _FieldError("name_too_long", "product_name", f"{len(name):,} characters")
    key = slug(name)
    if not key:
        raise _FieldError("empty_name", "product_name")
    return name, key


def check_code(value: str) -> str:
    """The seller's own code, trimmed; may be empty."""
    return _bounded("code_too_long", "product_code", value.strip(), CODE_LENGTH)


def check_seller(value: str) -> str:
    """The seller, trimmed, in the case it came in; never empty."""
    seller = value.strip()
    if not seller:
        raise _FieldError("seller_missing", "seller")
    return _bounded("seller_too_long", "seller", seller, SELLER_LENGTH)


def check_price(value: str) -> Decimal | None:
    """A plain number above 0 and below 10¹⁰, at most 4 decimals; None where it is empty.

    Trailing zeros do not count as decimals. Nothing is rounded and no comma is guessed at:
    `1,25` may be one and a quarter or a thousand and a quarter.
    """
    text = value.strip()
    if not text:
        return None
    price = Decimal(text) if _PLAIN_PRICE.fullmatch(text) else _unusual_price(text)
    if price <= 0:
        raise _FieldError("price_not_positive", "price", text[:40])
    return price


def check_currency(value: str) -> str:
    """An ISO 4217 code, in any letter case."""
    code = value.strip().upper()
    if not code:
        raise _FieldError("currency_missing", "currency")
    if code not in CURRENCIES:
        raise _FieldError("currency_unknown", "currency", code[:40])
    return code


def check_time(value: str, *, now: datetime) -> datetime:
    """An ISO 8601 day or time. Without an offset it is UTC, and a day is its midnight."""
    text = value.strip()
    if not text:
        raise _FieldError("time_missing", "scraped_at")
    try:
        if not _DAY_OR_TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        detail = f"{text[:40]!r} is not like 2025-10-01T06:00:00Z"
        raise _FieldError("time_unparsable", "scraped_at", detail) from None
    if moment > now + LATEST_AHEAD:
        raise _FieldError("time_future", "scraped_at", moment.isoformat())
    if moment < EARLIEST:
        raise _FieldError("time_past", "scraped_at", moment.isoformat())
    return moment


def check_availability(availability, available, preorder) -> tuple[bool, bool]:
    """(is_available, is_preorder) out of the word, the flags, or both where they agree.

    Without any of them a row is available; a pre-order is not available yet.
    """
    flags = _flag("is_available", available), _flag("is_preorder", preorder)
    word = _storable("availability", _text("availability", availability)).strip().lower()
    if not word:
        is_preorder = bool(flags[1])
        is_available = not is_preorder if flags[0] is None else flags[0]
        return is_available, is_preorder
    if word not in _AVAILABILITY:
        raise _FieldError("availability_unknown", "availability", word[:40])
    said = _AVAILABILITY[word]
    if any(flag is not None and flag != meant for flag, meant in zip(flags, said, strict=True)):
        raise _FieldError("availability_contradiction", "availability", word)
    return said


def check_tags(value: str) -> tuple[str, ...]:
    """Category tags as slugs, each once, in order; separated by `|`, or by `,` where none is."""
    tags = {}
    for part in value.split("|" if "|" in value else ","):
        if len(part.strip()) > TAG_LENGTH:
            raise _FieldError("tag_too_long", "category_tags", part.strip()[:40])
        if tag := slug(part):
            tags[tag] = None
    if len(tags) > TAGS:
        raise _FieldError("tags_too_many", "category_tags", f"{len(tags)} tags")
    return tuple(tags)


def check_url(value: str) -> str:
    """An absolute http or https address; may be empty."""
    url = value.strip()
    _bounded("url_too_long", "hero_image_url", url, URL_LENGTH)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        valid = False
    if url and (not valid or any(c.isspace() or c < " " for c in url)):
        raise _FieldError("url_invalid", "hero_image_url", url[:100])
    return url


def check_description(value: str) -> str:
    """Free text, trimmed; may be empty."""
    return _bounded("description_too_long", "description", value.strip(), DESCRIPTION_LENGTH)


def _unusual_price(text: str) -> Decimal:
    try:
        if "_" in text or not text.isascii():  # Decimal takes 1_000 and Arabic digits
            raise InvalidOperation
        price = Decimal(text)
    except InvalidOperation:
        hint = ": write the decimals after a point" if _COMMA_DECIMAL.fullmatch(text) else ""
        raise _FieldError("price_unparsable", "price", f"{text[:40]!r}{hint}") from None
    if not price.is_finite():
        raise _FieldError("price_unparsable", "price", f"{text[:40]!r}")
    if price >= PRICE_LIMIT:
        raise _FieldError("price_too_large", "price", text[:40])
    if price > 0 and price != price.quantize(_FINEST_PRICE):
        raise _FieldError("price_precision", "price", text[:40])
    return price


def _bounded(reason: str, field: str, text: str, limit: int) -> str:
    if len(text) > limit:
        raise _FieldError(reason, field, f"{len(text):,} characters")
    return text


def _text(field: str, value) -> str:
    """`value` as text: a whole number becomes its digits, None the empty text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _FieldError("wrong_type", field, f"{type(value).__name__}, not text")
    return str(value)


def _storable(field: str, text: str) -> str:
    """`text`, which PostgreSQL can store."""
    if "\0" in text:
        raise _FieldError("nul_byte", field)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _FieldError("encoding", field, "half a surrogate pair") from None
    return text


def _description(value) -> str:
    return check_description(_storable("description", _text("description", value)))


def _price_text(value) -> str:
    if isinstance(value, (float, Decimal)):
        return str(value)
    return _text("price", value)


def _tags_text(value) -> str:
    if isinstance(value, list | tuple):
        # A tag in a list may hold a comma; `|` at the end says that it is no separator here.
        return "|".join(_text("category_tags", tag) for tag in value) + "|"
    return _text("category_tags", value)


def _flag(field: str, value) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = _storable(field, _text(field, value)).strip().lower()
    if not text:
        return None
    if text not in _FLAGS:
        raise _FieldError("flag_unknown", field, text[:40])
    return _FLAGS[text]
