"""The words of an item: examples, and what holds for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching.text import (
    BODY_MARK,
    BODY_WORDS,
    EMBEDDED_LENGTH,
    TITLE_JOINS,
    TITLE_WORDS,
    WORD_LENGTH,
    embedded_text,
    split_terms,
    terms,
    tokens,
)

TRICKY = st.sampled_from(list("ßİıﬁ½①Ⅷ２がバक्षिที่猫東\u0301\u0345\u200b\x00\x1f\ud800-/.,'’+#_ 09a"))
TEXTS = st.text(st.one_of(st.characters(), TRICKY), max_size=200)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LG LDS4821WW dishwasher, 2.0 cu.ft.", "lg lds4821ww dishwasher 2.0 cu ft"),
        ("Panasonic LM-AF30U3", "panasonic lm af30u3 lmaf30u3"),
        ("VAIO AW110J/H", "vaio aw110j h aw110jh"),
        ("1,299.50 or 4,3-inch", "1299.50 or 4.3 inch 4.3inch"),
        ("multi-level", "multi level"),
        ("Gardner's crescent, O’Neill", "gardners crescent o neill"),
        ("Café Åsa Łódź Straße", "cafe asa lodz strasse"),
        ("C++ and C#, .NET", "c++ and c# net"),
        ("Full–size ２ Ⅷ", "full size 2 viii"),
        ("हिन्दी", "हिन्दी"),
        ("東京の猫", "東京 京の の猫"),
        ("nul\0bell\x1fend", "nul bell end"),
        ("♥ … --", ""),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert tokens(text) == expected.split()


def test_what_people_write_as_one_word_or_two_is_one_in_a_title():
    spaced = split_terms(terms("Kodak 64 GB card"))[0]
    assert "64gb" in spaced
    assert "64gb" in split_terms(terms("Kodak 64GB card"))[0]
    assert "kodakcard" not in spaced
    assert "iphone8" in split_terms(terms("iPhone 8 plus"))[0]
    assert split_terms(terms("x", "64 GB"))[1] == ["64", "gb"]  # bodies would get too long


@given(TEXTS)
def test_words_are_clean_and_fold_to_themselves(text):
    for word in tokens(text):
        assert 1 <= len(word) <= WORD_LENGTH
        assert word.split() == [word]
        assert all(ord(character) > 31 for character in word)
        assert word in tokens(word)


@given(TEXTS)
def test_letter_case_changes_no_word(text):
    assert tokens(text.upper().lower()) == tokens(text.upper().lower().casefold())


@given(TEXTS, TEXTS)
def test_terms_come_apart_again(title, body):
    stored = terms(title, body)
    words, body_words = split_terms(stored)
    plain = [word for word in tokens(title) if word in words]
    assert set(plain) <= set(words)
    assert body_words == tokens(body)[:BODY_WORDS]
    assert stored.count(BODY_MARK) == (1 if body_words else 0)
    assert "\0" not in stored
    stored.encode()


def test_terms_are_bounded():
    words, body = split_terms(terms("a1-b2 " * 500, "word " * 20_000))
    assert len(words) <= TITLE_WORDS + TITLE_JOINS
    assert len(body) <= BODY_WORDS
    assert len(terms("x" * 20_000, "y" * 10_000_000)) <= 2 * WORD_LENGTH + 1


def test_the_embedder_reads_title_category_and_beginning():
    assert (
        embedded_text("Red  phone", "Lost\nin town", "Phones") == "Red phone. Phones. Lost in town"
    )
    assert embedded_text("Red phones", "", "Phones") == "Red phones"
    assert embedded_text("", "") == ""


@given(TEXTS, TEXTS, TEXTS)
def test_the_embedder_reads_one_clean_line(title, description, category):
    text = embedded_text(title * 20, description * 20, category)
    assert len(text) <= EMBEDDED_LENGTH
    assert "\0" not in text
    assert "\n" not in text
    text.encode()
