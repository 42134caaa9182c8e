"""Special functions that a format lacks, as Chebyshev interpolants.

Their values come from the standard library and from numpy.
"""

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from edgeattn.tensors import Array

_DEGREE = 40
# Coefficients that are smaller than this share of the largest have no effect in float32.
_NEGLIGIBLE = 1e-9


def erf(x: Any) -> Any:
    """``x p(x²)`` up to 4, beyond which it is 1 in float32."""
    import tensorflow as tf

    clipped = tf.clip_by_value(x, -_ERF_RANGE, _ERF_RANGE)
    return clipped * _evaluate(clipped * clipped * (2 / _ERF_RANGE**2) - 1, _erf_coefficients())


def erfc(x: Any) -> Any:
    """``exp(-x²) p(2 / (2 + |x|))`` up to 10, beyond which it is 0 in float32.

    ``1 - erf(x)`` has no correct digit from 4 on.
    """
    import tensorflow as tf

    size = tf.minimum(tf.abs(x), _ERFC_RANGE)
    scaled = (2 / (2 + size) - _ERFC_LEAST) * (2 / (1 - _ERFC_LEAST)) - 1
    positive = tf.exp(-size * size) * _evaluate(scaled, _erfc_coefficients())
    return tf.where(x < 0, 2 - positive, positive)


def erfinv(x: Any) -> Any:
    """``x p(sqrt(w))`` for ``w = -log(1 - x²)``, which is 17 for the float32 number below 1."""
    import tensorflow as tf

    # 1 - x² loses the digits of a small x, whose quotient is that of 0.
    w = tf.minimum(-tf.math.log(tf.maximum((1 - x) * (1 + x), 1e-9)), _ERFINV_RANGE)
    scaled = tf.sqrt(tf.maximum(w, 0.0)) * (2 / math.sqrt(_ERFINV_RANGE)) - 1
    inside = x * _evaluate(scaled, _erfinv_coefficients())
    # Infinite at 1 and NaN beyond.
    return tf.where(tf.abs(x) < 1, inside, x / tf.sqrt((1 - x) * (1 + x)))


def bessel_i0(x: Any) -> Any:
    """``exp(|x|) p(x)`` up to 8, ``exp(|x|) / sqrt(|x|) q(8 / |x|)`` beyond."""
    import tensorflow as tf

    size = tf.abs(x)
    near = tf.minimum(size, _BESSEL_LIMIT)
    far = tf.maximum(size, _BESSEL_LIMIT)
    small = _evaluate(near * (2 / _BESSEL_LIMIT) - 1, _bessel_coefficients(near=True))
    scaled = 2 * _BESSEL_LIMIT / far - 1
    large = _evaluate(scaled, _bessel_coefficients(near=False)) / tf.sqrt(far)
    # exp(|x|) overflows before the result does.
    root = tf.exp(size / 2)
    return root * (root * tf.where(size < _BESSEL_LIMIT, small, large))


def _evaluate(scaled: Any, coefficients: Sequence[float]) -> Any:
    """A Chebyshev series of values from -1 to 1, by Clenshaw's recurrence."""
    import tensorflow as tf

    twice = 2 * scaled
    later, last = tf.zeros_like(scaled), tf.zeros_like(scaled)
    for coefficient in coefficients[:0:-1]:
        later, last = twice * later - last + coefficient, later
    return scaled * later - last + coefficients[0]


def _interpolated(function: Callable[[Array], Array]) -> list[float]:
    """Coefficients of the Chebyshev interpolant of a function of values from -1 to 1."""
    series = np.polynomial.chebyshev.Chebyshev.interpolate(function, _DEGREE).coef
    limit = _NEGLIGIBLE * np.abs(series).max()
    return [float(c) for c in series[: int(np.flatnonzero(np.abs(series) > limit)[-1]) + 1]]


_ERF_RANGE = 4.0


@functools.cache
def _erf_coefficients() -> list[float]:
    """Of ``erf(x) / x`` over x²."""

    def quotient(scaled: Array) -> Array:
        x = _ERF_RANGE * np.sqrt((scaled + 1) / 2)
        return np.array([math.erf(v) / v if v else 2 / math.sqrt(math.pi) for v in x])

    return _interpolated(quotient)


_ERFC_RANGE = 10.0
# 2 / (2 + x) at the end of the range; it is 1 at 0.
_ERFC_LEAST = 2 / (2 + _ERFC_RANGE)


@functools.cache
def _erfc_coefficients() -> list[float]:
    """Of ``exp(x²) erfc(x)`` over 2 / (2 + x)."""

    def product(scaled: Array) -> Array:
        x = 2 / (_ERFC_LEAST + (1 - _ERFC_LEAST) * (scaled + 1) / 2) - 2
        return np.array([math.exp(v * v) * math.erfc(v) for v in x])

    return _interpolated(product)


_ERFINV_RANGE = 17.5


@functools.cache
def _erfinv_coefficients() -> list[float]:
    """Of ``erfinv(x) / x`` over ``sqrt(-log(1 - x²))``."""

    def quotient(scaled: Array) -> Array:
        w = _ERFINV_RANGE * ((scaled + 1) / 2) ** 2
        x = np.sqrt(-np.expm1(-w))
        # 1 - x without the rounding of x
        below = np.exp(-w) / (1 + x)
        inverse = [-NormalDist().inv_cdf(b / 2) / math.sqrt(2) for b in below]
        return np.where(x > 1e-6, inverse / np.maximum(x, 1e-6), math.sqrt(math.pi) / 2)

    return _interpolated(quotient)


_BESSEL_LIMIT = 8.0
# From here on, four terms of the asymptotic series are exact to ten digits.
_BESSEL_ASYMPTOTIC = 400.0


@functools.cache
def _bessel_coefficients(*, near: bool) -> list[float]:
    """Of ``exp(-x) I0(x)`` over x up to the limit, or of ``sqrt(x) exp(-x) I0(x)`` over 1 / x."""

    def quotient(scaled: Array) -> Array:
        if near:
            x = _BESSEL_LIMIT * (scaled + 1) / 2
            return np.exp(-x) * np.i0(x)
        inverse = (scaled + 1) / (2 * _BESSEL_LIMIT)
        x = 1 / np.maximum(inverse, 1 / _BESSEL_ASYMPTOTIC)
        asymptotic = 1 + inverse / 8 + 9 * inverse**2 / 128 + 75 * inverse**3 / 1024
        values = np.sqrt(x) * np.exp(-x) * np.i0(x)
        return np.where(
            inverse * _BESSEL_ASYMPTOTIC > 1, values, asymptotic / math.sqrt(2 * math.pi)
        )

    return _interpolated(quotient)
