"""Models with layers that look up values."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

WORDS = ["cat", "dog", "mat"]


def text(name: str = "word") -> Any:
    return keras.Input((1,), dtype="string", name=name)


def number(name: str = "code") -> Any:
    return keras.Input((1,), dtype="int64", name=name)


def words(name: str, **options: Any) -> Any:
    return layers.StringLookup(vocabulary=WORDS, name=name, **options)


def two_lookups() -> Any:
    x = text()
    known, hashed = words("known", output_mode="one_hot"), layers.Hashing(5, name="hashed")
    parts = [known(x), layers.Flatten()(layers.Embedding(5, 2)(hashed(x)))]
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()(parts)))
