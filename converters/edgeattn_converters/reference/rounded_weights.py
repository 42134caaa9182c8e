"""Weights changed in their last digit, to find rows on which rounding decides what Keras computes.

A change of the inputs cannot find them if all inputs are tokens.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn_converters.reference.edge_cases import SEED

_DTYPES = ("float32", "float64")


@contextlib.contextmanager
def rounded_weights(model: Any, precisions: int, seed: int) -> Iterator[None]:
    """Within the context, weights of ``model`` differ by ``precisions`` times their precision."""
    generator = np.random.default_rng((SEED, seed))
    changed = [weight for weight in model.weights if weight.dtype in _DTYPES]
    before = [weight.numpy() for weight in changed]
    try:
        for weight, value in zip(changed, before, strict=True):
            step = precisions * np.finfo(value.dtype).eps
            weight.assign(value * (1 + step * generator.choice((-1, 1), value.shape)))
        yield
    finally:
        for weight, value in zip(changed, before, strict=True):
            weight.assign(value)
