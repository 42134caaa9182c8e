"""Fingerprints of samples, compared with hashlib."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgeattn.samples.fingerprints import hashes_of, row_fingerprints, row_hashes
from edgeattn.tensors import TensorSpec


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_fingerprint_is_the_hash_of_the_inputs_of_a_sample(order: str) -> None:
    """In the order of the specs, without states."""
    specs = (
        TensorSpec("b", (None, 3, 2), "float32"),
        TensorSpec("a", (None, 5), "int64"),
        TensorSpec("c", (None,), "bool"),
        TensorSpec("h", (None, 4), "float32", state="h_out"),
    )
    generator = np.random.default_rng(0)
    inputs = {
        "a": np.asarray(generator.integers(0, 9, (7, 5)), order=order),
        "b": np.asarray(generator.normal(size=(7, 3, 2)).astype("float32"), order=order),
        "c": generator.random(7) < 0.5,
        "h": np.zeros((7, 4), "float32"),
    }
    expected = [
        hashlib.sha256(b"".join(inputs[name][row].tobytes() for name in "bac")).hexdigest()[:16]
        for row in range(7)
    ]
    assert row_fingerprints(inputs, specs) == expected
    assert row_hashes(inputs, specs).tolist() == [int(text, 16) for text in expected]
    assert hashes_of(expected).tolist() == sorted(int(text, 16) for text in expected)


def test_samples_without_values() -> None:
    specs = (TensorSpec("a", (None, 0), "float32"),)
    empty = hashlib.sha256().hexdigest()[:16]
    assert row_fingerprints({"a": np.zeros((2, 0), "float32")}, specs) == [empty] * 2


def test_texts_that_are_no_fingerprints_equal_none() -> None:
    """They come from a manifest."""
    texts = ["", "12", "g" * 16, "0" * 15 + "\u0663", "-" + "1" * 15, "0" * 17, "F" * 16]
    assert hashes_of([*texts, "00000000000000ff"]).tolist() == [255]
