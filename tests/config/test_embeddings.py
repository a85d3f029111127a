"""The embedder: unit vectors offline, any model behind one interface, errors of one kind."""

import subprocess
import sys

import numpy as np
import pytest

from config.embeddings import (
    DIMENSIONS,
    MAX_CHARACTERS,
    EmbedderError,
    WordLlamaModel,
    embedder,
)


class Narrow:
    """A model with few dimensions, any length, and no vector for an empty text."""

    name = "narrow-1"

    def encode(self, texts):
        return [[len(text), 3.0 * bool(text)] for text in texts]


class Broken:
    name = "broken-1"

    def encode(self, texts):
        raise OSError("the model's server is away")


class Wide:
    name = "wide-1"

    def encode(self, texts):
        return np.ones((len(texts), DIMENSIONS + 1))


class Infinite:
    name = "infinite-1"

    def encode(self, texts):
        return np.full((len(texts), 2), np.nan)


class Unloadable:
    def __init__(self):
        raise OSError("no weights")


def here(name: str) -> str:
    return f"{__name__}.{name}"


def test_vectors_have_length_one_and_384_dimensions():
    vectors = embedder().embed(["a black leather wallet", "Ρύζι", "钱包", "x" * 50_000])
    assert vectors.shape == (4, DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_texts_that_mean_the_same_are_near():
    wallet, purse, tractor = embedder().embed(
        ["lost my brown leather wallet", "found a purse made of leather", "tractor for rent"]
    )
    assert wallet @ purse > wallet @ tractor + 0.1


def test_a_text_without_words_is_all_zeros_and_disturbs_no_other():
    alone = embedder().embed(["a red umbrella"])[0]
    mixed = embedder().embed(["", "a red umbrella", ""])
    assert not mixed[0].any()
    assert not mixed[2].any()
    assert np.allclose(mixed[1], alone, atol=1e-6)
    assert embedder().embed([]).shape == (0, DIMENSIONS)


def test_the_vectors_are_wordllamas_own():
    import wordllama

    folder = wordllama.__file__.rpartition("/")[0]
    original = wordllama.WordLlama.load(dim=256, cache_dir=folder, disable_download=True)
    texts = ["a ring", "a bunch of keys on a blue ring, seen in the park", "dog " * 300]
    assert np.allclose(
        embedder().embed(texts)[:, :256], original.embed(texts, norm=True), atol=1e-5
    )
    assert embedder().name == "wordllama-l2_supercat-256"


def test_many_texts_are_embedded_in_order():
    texts = [f"thing number {number}" for number in range(700)]
    together = embedder().embed(texts)
    for place in (0, 255, 256, 511, 699):
        assert np.allclose(together[place], embedder().embed([texts[place]])[0], atol=1e-6)


def test_what_lies_behind_the_limit_does_not_count():
    start = "keys " * (MAX_CHARACTERS // 5)
    near, far = embedder().embed([start, start + "umbrella " * 1_000])
    assert np.allclose(near, far, atol=1e-6)


def test_it_is_loaded_once(settings):
    assert embedder() is embedder()
    settings.EMBEDDER = here("Narrow")
    assert embedder() is embedder()


def test_another_model_is_padded_and_normalised(settings):
    settings.EMBEDDER = here("Narrow")
    vectors = embedder().embed(["four", ""])
    assert embedder().name == "narrow-1"
    assert vectors[0, :2].tolist() == pytest.approx([0.8, 0.6])
    assert not vectors[0, 2:].any()
    assert not vectors[1].any()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Broken", "server is away"), ("Wide", "385"), ("Infinite", "not finite")],
)
def test_whatever_a_model_does_the_error_is_one(settings, name, reason):
    settings.EMBEDDER = here(name)
    with pytest.raises(EmbedderError, match=reason):
        embedder().embed(["text"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("off", "switched off"),
        ("no.such.Model", "cannot be loaded"),
        ("wordlama", "cannot be loaded"),
        (here("Unloadable"), "no weights"),
    ],
)
def test_no_embedder_says_why(settings, value, reason):
    settings.EMBEDDER = value
    with pytest.raises(EmbedderError, match=reason):
        embedder()


def test_it_works_without_a_network():
    """In a process in which opening any connection raises."""
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('it went to the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from config.embeddings import Embedder, WordLlamaModel\n"
        "print(Embedder(WordLlamaModel()).embed(['a ring']).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 384)", done.stderr


def test_token_vectors_are_summed_without_padding():
    model = WordLlamaModel()
    long, short = model.encode(["keys " * 200, "keys"])
    assert np.linalg.norm(short) == pytest.approx(np.linalg.norm(model.encode(["keys"])[0]))
    assert np.linalg.norm(long) > 100 * np.linalg.norm(short)
