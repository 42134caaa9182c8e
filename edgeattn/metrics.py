"""Pure comparisons: ``(expected, actual) -> number``, in float64.

``expected`` is what Keras computed, ``actual`` what an artifact did, of one shape with the sample
axis first, unless a docstring says otherwise. A NaN in either of them is a NaN in what comes out.
"""

from __future__ import annotations

import math

import numpy as np

from edgeattn.tensors import Array

# Two scores closer than this share of their range are a tie: rounding may decide between them.
NEAR_TIE = 1e-3


def max_abs_error(expected: Array, actual: Array) -> float:
    """The largest ``|actual - expected|``; NaN where either holds one."""
    return float(np.max(_difference(expected, actual), initial=0.0))


def mean_abs_error(expected: Array, actual: Array) -> float:
    return float(np.mean(_difference(expected, actual))) if expected.size else 0.0


def tolerance_ratio(expected: Array, actual: Array, *, atol: float, rtol: float) -> float:
    """The largest ``|actual - expected| / (atol + rtol |expected|)``: numpy's allclose is <= 1."""
    allowed = atol + rtol * np.abs(_f64(expected))
    with np.errstate(invalid="ignore"):
        ratio = _difference(expected, actual) / allowed
    return float(np.max(ratio, initial=0.0))


def snr_db(expected: Array, actual: Array) -> float:
    """Signal-to-noise ratio in decibels, ``10 log10(sum e^2 / sum (a - e)^2)``; inf where equal."""
    wide = _f64(expected)
    noise = float(np.sum(_difference(expected, actual) ** 2))
    signal = float(np.sum(wide**2))
    if math.isnan(noise) or math.isnan(signal):
        return math.nan
    if noise == 0.0:
        return math.inf
    if math.isinf(noise) or signal == 0.0:
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def top1_agreement(expected: Array, actual: Array, *, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose largest score has the same index, over the last axis.

    A row in which the expected two largest lie closer than ``near_tie`` times the row's range is
    left out: either answer is right. 1.0 where every row is.
    """
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    if expected.shape[-1] < 2:
        return 1.0
    rows = _f64(expected).reshape(-1, expected.shape[-1])  # (rows, classes)
    ordered = np.sort(rows, axis=-1)
    clear = ordered[:, -1] - ordered[:, -2] > near_tie * (ordered[:, -1] - ordered[:, 0])
    if not clear.any():
        return 1.0
    same = np.argmax(rows, -1) == np.argmax(_f64(actual).reshape(rows.shape), -1)
    return float(np.mean(same[clear]))


def row_sum_error(weights: Array) -> float:
    """The largest ``|sum over keys - 1|`` of an attention map; keys are the last axis."""
    return float(np.max(np.abs(_f64(weights).sum(-1) - 1.0), initial=0.0))


def jensen_shannon(expected: Array, actual: Array) -> float:
    """Mean Jensen-Shannon divergence of attention rows, in nats; keys are the last axis.

    ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2`` (Lin 1991, "Divergence measures
    based on the Shannon entropy"); from 0 for equal rows to ln 2 for disjoint ones. Rows are
    normalised first: a map that has lost mass is caught by :func:`row_sum_error`.
    """
    p, q = _normalised(expected), _normalised(actual)
    m = (p + q) / 2
    divergence = (_xlogx(p, m) + _xlogx(q, m)).sum(-1) / 2
    return float(np.mean(np.maximum(divergence, 0.0))) if divergence.size else 0.0


def _normalised(weights: Array) -> Array:
    wide = np.maximum(_f64(weights), 0.0)
    total = wide.sum(-1, keepdims=True)
    uniform = 1.0 / max(1, wide.shape[-1])
    with np.errstate(invalid="ignore"):
        return np.where(total == 0.0, uniform, wide / np.where(total == 0.0, 1.0, total))


def _xlogx(p: Array, m: Array) -> Array:
    """``p log(p / m)``, 0 where ``p`` is."""
    none = p == 0.0
    return np.where(none, 0.0, p * np.log(np.where(none, 1.0, p) / np.where(none, 1.0, m)))


def _difference(expected: Array, actual: Array) -> Array:
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and is told as that
        difference: Array = np.abs(_f64(actual) - _f64(expected))
    return difference


def _f64(array: Array) -> Array:
    return np.asarray(array, np.float64)
