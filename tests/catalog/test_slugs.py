"""The canonical slug: its examples, and its laws by property."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.slugs import SLUG_LENGTH, decode_entities, fold, slug

# Everything Unicode has, with more of what folding trips over.
TRICKY = st.sampled_from(
    list("ßẞςΣİıIÅåǅﬁ½²①Ⅷ㎏ｶﾞがバक्षिที่ ﷺᾳᾼŉ℡Ⓐ🅰❤\ufe0f\u200d\u00ad\u0301\u0345&;#-_")
)
NAMES = st.text(st.one_of(st.characters(), TRICKY), max_size=60)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Uncle Ben's Ρύζι Parboiled 10λεπτο 500gr", "uncle-ben-s-ρυζι-parboiled-10λεπτο-500gr"),
        ("Ρύζι", "ρυζι"),
        ("ΡΎΖΙ", "ρυζι"),
        ("Άσπρος Καφές", "ασπροσ-καφεσ"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("Crème Brûlée", "creme-brulee"),
        ("Smørrebrød Æble Łódź", "smorrebrod-aeble-lodz"),
        ("İstanbul", "istanbul"),
        ("Black &amp; White", "black-white"),
        ("Black &amp;amp;amp; White", "black-white"),
        ("H&notebook", "h-notebook"),
        ("&Eacute;t&eacute;", "ete"),
        ("  --Catan!! ", "catan"),
        ("Ｆｕｌｌ ﬁt ②", "full-fit-2"),
        ("Йогурт «Живой»", "иогурт-живои"),
        ("スーパーマリオ", "スーパーマリオ"),
        ("हिन्दी चाय", "हिन्दी-चाय"),
        ("co\u00adop\u200b", "coop"),
        ("n-slug-already", "n-slug-already"),
    ],
)
def test_examples(name, expected):
    assert slug(name) == expected


@pytest.mark.parametrize("name", ["", "   ", "\t\n", "\u200d", "\u0301", "&nbsp;", "\x00"])
def test_nothing_visible_is_empty(name):
    assert slug(name) == ""


@pytest.mark.parametrize("name", ["🎲", "!!!", "—", "&amp;", "❤"])
def test_nothing_but_symbols_is_a_hash(name):
    assert slug(name).startswith("n-")
    assert len(slug(name)) == 10
    assert slug(f" {name}\ufe0f ") == slug(name)


def test_symbols_stay_apart():
    assert len({slug(name) for name in ("🎲", "🎮", "!!!", "!!", "—")}) == 5


def test_long_names_are_cut_and_stay_apart():
    one, other = slug("x" * 2_000 + "1"), slug("x" * 2_000 + "2")
    assert len(one) == len(other) == SLUG_LENGTH
    assert one != other
    assert one[:150] == other[:150]
    assert len(slug("a" * 200)) == 200
    assert slug("a" * 200) == "a" * 200


def test_a_cut_never_leaves_two_dashes():
    assert "--" not in slug("a" * 190 + " " + "b" * 100)


@given(NAMES)
@example("\u0345\u0301")
@example("ﷺ" * 40)
def test_idempotent(name):
    assert slug(slug(name)) == slug(name)


@given(NAMES)
def test_alphabet_and_length(name):
    result = slug(name)
    assert len(result) <= SLUG_LENGTH
    assert all(
        c == "-" or c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") for c in result
    ), ascii(result)
    assert not result.startswith("-")
    assert not result.endswith("-")
    assert "--" not in result
    assert result == unicodedata.normalize("NFC", result)


@given(NAMES)
def test_the_same_for_every_normal_form(name):
    name = decode_entities(name)
    assert slug(unicodedata.normalize("NFC", name)) == slug(name)
    assert slug(unicodedata.normalize("NFD", name)) == slug(name)


@given(NAMES)
def test_letter_case_does_not_matter(name):
    name = decode_entities(name).replace("&", " ")
    assert slug(name.casefold()) == slug(name)


@given(st.text("abcdeεζηαοςüéñäβγ ŠščřŽÅ", max_size=40))
def test_upper_lower_and_title_are_one(name):
    assert slug(name.upper()) == slug(name.lower()) == slug(name.title()) == slug(name)


@given(st.text("abcdefgzxαεηιουω 019", max_size=40), st.sampled_from("\u0301\u0308\u0300\u0327"))
def test_accents_do_not_matter(name, accent):
    accented = "".join(c + accent if c.isalpha() else c for c in name)
    assert slug(unicodedata.normalize("NFC", accented)) == slug(name)


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_the_short_cut_for_ascii_agrees_with_the_long_way(name):
    assert fold(name + " é") == f"{fold(name)} e".strip()


@given(NAMES)
def test_fold_is_the_slug_with_spaces(name):
    folded = fold(name)
    assert fold(folded) == folded
    if folded and len(folded) <= SLUG_LENGTH:
        assert folded.replace(" ", "-") == slug(name)
