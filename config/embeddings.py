"""The embedder: texts to vectors of unit length, by the setting EMBEDDER.

`wordllama` (the default) comes with its weights, needs no network and embeds about 20,000 short
texts a second on one core. `off` has none. A dotted path names a callable without arguments
that makes a `Model`. Vectors of fewer than 384 dimensions are padded with zeros, which changes no
cosine, so that another model needs no other schema.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from django.conf import settings
from django.utils.module_loading import import_string

DIMENSIONS = 384
MAX_CHARACTERS = 8_000  # of a text; the rest does not count
_WORDLLAMA_DIMENSIONS = 256  # the weights that are in the wheel
_TEXTS_AT_ONCE = 256  # bounds the memory of a batch


class EmbedderError(RuntimeError):
    """No vector: the embedder is off, cannot be loaded, or failed. The text says which."""


class Model(Protocol):
    """What turns texts into vectors."""

    name: str  # with its version: vectors of two names are not compared

    def encode(self, texts: list[str]) -> np.ndarray:
        """One row a text, of at most 384 dimensions and any length; zeros where it has no words."""


class Embedder:
    """A model whose answers were checked, padded to 384 dimensions and brought to unit length."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = model.name

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), 384], rows of length 1, or all zeros for a text without words.

        Only the first 8,000 characters of a text count. Raises EmbedderError.
        """
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = [text[:MAX_CHARACTERS] for text in texts[start : start + _TEXTS_AT_ONCE]]
            encoded = self._encode(part)
            vectors[start : start + len(part), : encoded.shape[1]] = encoded
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=vectors, where=lengths > 0)

    def _encode(self, texts: list[str]) -> np.ndarray:
        try:
            encoded = np.asarray(self._model.encode(texts), np.float32)
        except Exception as error:  # a model of any make: whatever it raises, there is no vector
            raise EmbedderError(f"{self.name}: {type(error).__name__}: {error}") from error
        if encoded.ndim != 2 or len(encoded) != len(texts) or encoded.shape[1] > DIMENSIONS:
            raise EmbedderError(f"{self.name}: {encoded.shape} for {len(texts)} texts")
        if not np.isfinite(encoded).all():
            raise EmbedderError(f"{self.name}: a vector is not finite")
        return encoded


class WordLlamaModel:
    """WordLlama's `l2_supercat` token vectors, averaged over the words of a text."""

    def __init__(self) -> None:
        # Threads of its own would cost more than they gain on short texts, and break a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import wordllama

        folder = Path(wordllama.__file__).parent  # else it looks for the tokenizer on the network
        loaded = wordllama.WordLlama.load(
            dim=_WORDLLAMA_DIMENSIONS, cache_dir=folder, disable_download=True
        )
        self.name = f"wordllama-l2_supercat-{_WORDLLAMA_DIMENSIONS}"
        self._tokenizer = loaded.tokenizer
        self._tokenizer.no_padding()
        self._vectors = loaded.embedding

    def encode(self, texts: list[str]) -> np.ndarray:
        """The sum of the token vectors, which points where WordLlama's mean does.

        Without its padding: that makes every text of a batch as large as the longest.
        """
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        sizes = np.array([len(each.ids) for each in encodings], np.intp)
        vectors = np.zeros((len(texts), self._vectors.shape[1]), np.float32)
        filled = np.flatnonzero(sizes)
        if len(filled):
            tokens = np.concatenate([encodings[place].ids for place in filled]).astype(np.intp)
            starts = np.concatenate([[0], np.cumsum(sizes[filled])[:-1]])
            vectors[filled] = np.add.reduceat(self._vectors[tokens], starts, axis=0)
        return vectors


_BUILT_IN = {"wordllama": WordLlamaModel}
_loaded: dict[str, Embedder] = {}
_loading = threading.Lock()


def embedder() -> Embedder:
    """The embedder of the setting EMBEDDER; loaded when first asked for, once a process.

    Raises EmbedderError where it is off or cannot be loaded.
    """
    return embedder_named(settings.EMBEDDER)


def embedder_named(chosen: str) -> Embedder:
    """The embedder of a value that EMBEDDER may have. Raises EmbedderError."""
    if chosen not in _loaded:
        with _loading:
            if chosen not in _loaded:
                _loaded[chosen] = _load(chosen)
    return _loaded[chosen]


def _load(chosen: str) -> Embedder:
    if chosen == "off":
        raise EmbedderError("the embedder is switched off (EMBEDDER=off)")
    try:
        make = _BUILT_IN.get(chosen) or import_string(chosen)
        return Embedder(make())
    except Exception as error:  # a model of any make
        raise EmbedderError(f"EMBEDDER={chosen} cannot be loaded: {error}") from error
