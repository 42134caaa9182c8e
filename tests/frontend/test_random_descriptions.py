"""Descriptions and values at random: each is accepted, or refused with an error of ours."""

import json
import random

import keras_cases
import numpy as np
import pytest

from edgeattn.errors import SampleError, UsageError
from edgeattn.frontend.description import from_bytes

VALUES = (
    *(None, True, 0, 1, -1, 3, 2**31, -(2**63), 10**30, 0.5, -2.5, 1e39, 1e-320, 1e308, "", "a"),
    *("none", "int", "\u2028", "\ud800", [], [0], [1, 2, 3], ["a", ""], [[1]], {}, {"step": "log"}),
)
SAMPLES = (
    *("", "The cat!", "\ud800", ["a", "b"], [], 0, -1, 2.5, 1e39, [1, 2, 3], [[1, 2], [3, 4]]),
    *([1e38] * 40, [10**30], [None], list(range(100)), [[0.5] * 3] * 40, {"a": 1}, [[]], True),
)


def changed(table, generator):
    """``table`` with up to three values replaced, and sometimes a key added or removed."""
    table = dict(table)
    for _ in range(generator.randint(0, 3)):
        key = generator.choice([*table, "axis", "mode"])
        if generator.random() < 0.2:
            table.pop(key, None)
        else:
            table[key] = generator.choice(VALUES)
    return table


@pytest.mark.parametrize("seed", range(4))
def test_random_descriptions(seed):
    generator = random.Random(seed)
    accepted = prepared = 0
    for _ in range(400):
        tables = [changed(generator.choice(keras_cases.CASES)[1], generator) for _ in range(2)]
        document = {"version": 1, "inputs": {"x": tables[: generator.randint(1, 2)]}}
        if generator.random() < 0.3:
            document["window"] = changed(
                {"length": 3, "hop": 2, "normalization": "range"}, generator
            )
        if generator.random() < 0.3:
            document["answer"] = changed({"labels": ["a", "b"], "top": 1}, generator)
        try:
            front_end = from_bytes(json.dumps(document).encode())
        except UsageError:
            continue
        accepted += 1
        assert from_bytes(front_end.to_bytes()) == front_end
        for sample in SAMPLES:
            try:
                value = front_end.prepare("x", sample)
            except SampleError:
                continue
            assert isinstance(value, np.ndarray)
            prepared += 1
    assert accepted > 20
    assert prepared > 100
