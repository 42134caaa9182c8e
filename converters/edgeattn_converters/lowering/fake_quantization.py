"""Rounding to a range's integers, as models trained for quantization contain it.

TFLite's operator rounds some values to the next integer, and tf2onnx supports only 8 bits. The
steps are those of TensorFlow's kernel (``fake_quant_ops_functor.h``), whose numbers are float32,
so that a value between two integers is rounded to the same one.
"""

from collections.abc import Mapping
from typing import Any


def of_arguments(x: Any, *, attributes: Mapping[str, Any]) -> Any:
    """``FakeQuantWithMinMaxArgs``: the range is constant."""
    import tensorflow as tf

    low, high = (tf.constant(attributes[name].f, tf.float32) for name in ("min", "max"))
    return of_tensors(x, low, high, attributes=attributes)


def of_tensors(x: Any, low: Any, high: Any, *, attributes: Mapping[str, Any]) -> Any:
    """``FakeQuantWithMinMaxVars``, and that with a range for each value of the last axis."""
    import tensorflow as tf

    first = 1.0 if attributes["narrow_range"].b else 0.0
    last = 2.0 ** attributes["num_bits"].i - 1
    scale = (high - low) / (last - first)
    per_unit = (last - first) / (high - low)
    # The integer that stands for 0, so that 0 is exact.
    zero = tf.floor(tf.clip_by_value(first - low / scale, first, last) + 0.5)
    lowest, highest = (first - zero) * scale, (last - zero) * scale
    shifted = tf.maximum(tf.minimum(x, highest), lowest) - lowest
    zero_step = tf.floor(-lowest * per_unit + 0.5)
    return tf.floor(shifted * per_unit - zero_step + 0.5) * scale
