"""Signatures of SavedModels for a fixed number of samples, as functions of a single sample.

The files of devices compute one sample at a time. A signature for several computes the same for a
sample if its results do not depend on the other ones, which is measured before it is used.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.graphs.one_sample import OneSample
from edgeattn_converters.graphs.signatures import keywords_of
from edgeattn_converters.graphs.static_shapes import replay
from edgeattn_converters.loading.output_differences import unknown_outputs

# Rows of one batch that are computed as single samples, too.
_ROWS = 8
_SEED = 0
# Limits of random inputs, None for normal numbers, in the order in which they are tried while
# outputs are NaN.
LIMITS = (None, (0.0, 1.0), (1.0, 100.0))


@dataclass(frozen=True)
class SingleSample:
    """A function of one sample that computes what a signature for several does for each.

    ``is_repeated`` says that it computes the signature for copies of the sample.
    """

    function: Any
    is_repeated: bool


def single_sample(
    function: Any, count: int, axes_of: Callable[[str, Any], list[int]]
) -> SingleSample | None:
    """The signature ``function`` for ``count`` samples as a function of one.

    ``axes_of`` returns the sizes of an input, by its name and spec. None if a sample has other
    results beside other samples. Raises what TensorFlow does if it cannot compute random inputs,
    and :class:`ValueError` if outputs are not numbers for any of them.
    """
    import tensorflow as tf

    _, specs = function.structured_input_signature
    inputs, expected = _defined(function, specs, count, axes_of)
    for is_repeated, compute in ((False, _cut), (True, _repeated)):
        try:
            one = _traced(functools.partial(compute, function, count), specs)
            same = all(
                _is_same(expected, row, call_signature(one, _row(inputs, row)))
                for row in range(min(count, _ROWS))
            )
        except (ValueError, TypeError, tf.errors.OpError):
            if is_repeated:
                raise
            continue  # sizes of the graph that are not recognized
        if same:
            return SingleSample(one, is_repeated)
    return None


def _defined(
    function: Any, specs: Mapping[str, Any], count: int, axes_of: Callable[[str, Any], list[int]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random inputs for which a signature computes numbers, and these."""
    for limits in LIMITS:
        inputs = random_inputs(specs, count, axes_of, limits)
        outputs = call_signature(function, inputs)
        unknown = undefined(outputs)
        if unknown is None:
            break
    else:
        raise ValueError(f"output {unknown!r} has values that are NaN or infinite for all of them")
    return inputs, outputs


def undefined(outputs: Mapping[str, Any]) -> str | None:
    """The name of an output whose values, or some of each sample, are not numbers in any row."""
    for name, value in outputs.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and unknown_outputs([[array]]):
            return name
    return None


def call_signature(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a signature by name."""
    keywords = keywords_of(function)
    results = function(**{keywords[name]: value for name, value in inputs.items()})
    return dict(results)


def _cut(function: Any, count: int, feeds: dict[str, Any]) -> dict[str, Any]:
    return replay(function, feeds, OneSample(count))


def _repeated(function: Any, count: int, feeds: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    copies = {name: tf.repeat(value, count, axis=0) for name, value in feeds.items()}
    return {name: value[:1] for name, value in call_signature(function, copies).items()}


def _traced(compute: Callable[[dict[str, Any]], dict[str, Any]], specs: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    feeds = {
        name: tf.TensorSpec([1, *spec.shape[1:]], spec.dtype, spec.name)
        for name, spec in specs.items()
    }
    traced = tf.function(lambda **inputs: compute(inputs), autograph=False)
    return traced.get_concrete_function(**feeds)


def random_inputs(
    specs: Mapping[str, Any],
    count: int,
    axes_of: Callable[[str, Any], list[int]],
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Rows of different sizes: what is computed of all of them depends on the largest.

    Numbers are normal, or uniform between ``limits``.
    """
    import tensorflow as tf

    generator = np.random.default_rng(_SEED)
    inputs = {}
    for name, spec in specs.items():
        shape = [count, *axes_of(name, spec)]
        sizes = np.geomspace(0.5, 5, count).reshape(-1, *[1] * (len(shape) - 1))
        if limits is None:
            values = generator.normal(size=shape) * sizes
        else:
            low, high = limits
            values = low + generator.uniform(size=shape) * sizes / 5 * (high - low)
        if not spec.dtype.is_floating:  # tokens and truth values
            values = np.sign(np.maximum(values, 0))
        inputs[name] = tf.cast(values, spec.dtype)
    return inputs


def _row(inputs: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: value[row : row + 1] for name, value in inputs.items()}


def _is_same(expected: Mapping[str, Any], row: int, actual: Mapping[str, Any]) -> bool:
    rows = {name: np.asarray(value)[row : row + 1] for name, value in expected.items()}
    return all(is_close(value, np.asarray(actual[name])) for name, value in rows.items())


def is_close(expected: Array, actual: Array) -> bool:
    """Whether an output is the same but for rounding."""
    return expected.shape == actual.shape and (
        expected.dtype.kind not in "fiub"
        or np.allclose(expected, actual, rtol=1e-3, atol=1e-4, equal_nan=True)
    )
