"""Pure comparisons: ``(expected, actual) -> number``, in float64.

``expected`` is what Keras computed, ``actual`` what an artifact did, of one shape with the sample
axis first, unless a docstring says otherwise. A NaN in either of them is a NaN in what comes out.
"""

from __future__ import annotations

import math

import numpy as np

from edgeattn.tensors import Array

# Two scores closer than this share of the largest are a tie: rounding may decide between them.
NEAR_TIE = 1e-3
# The keys of a row that are looked at most, as a person would name them.
TOP_KEYS = 3


def max_abs_error(expected: Array, actual: Array) -> float:
    """The largest ``|actual - expected|``; NaN where either holds one."""
    return float(np.max(_difference(expected, actual), initial=0.0))


def mean_abs_error(expected: Array, actual: Array) -> float:
    return float(np.mean(_difference(expected, actual))) if expected.size else 0.0


def tolerance_ratio(expected: Array, actual: Array, *, atol: float, rtol: float) -> float:
    """The largest ``|actual - expected| / (atol + rtol |expected|)``: numpy's allclose is <= 1."""
    allowed = atol + rtol * np.abs(_f64(expected))
    difference = _difference(expected, actual)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Where nothing differs nothing is needed, not even a tolerance of zero.
        ratio = np.where(difference == 0.0, 0.0, difference / allowed)
    return float(np.max(ratio, initial=0.0))


def snr_db(expected: Array, actual: Array) -> float:
    """Signal-to-noise ratio in decibels, ``10 log10(sum e^2 / sum (a - e)^2)``; inf where equal."""
    return decibels(*energies(expected, actual))


def energies(expected: Array, actual: Array) -> tuple[float, float]:
    """Signal and noise of :func:`snr_db`: ``sum e^2`` and ``sum (a - e)^2``. Parts add up."""
    with np.errstate(invalid="ignore"):
        signal = float(np.sum(_f64(expected) ** 2))
        return signal, float(np.sum(_difference(expected, actual) ** 2))


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``: inf without noise, -inf with nothing else."""
    if math.isnan(noise) or math.isnan(signal):
        return math.nan
    if noise == 0.0:
        return math.inf
    if math.isinf(noise) or signal == 0.0:
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def minimal_atol(expected: Array, actual: Array, *, rtol: float) -> float:
    """The smallest ``atol`` with which numpy's allclose holds at this ``rtol``: the tightest test.

    ``max(|a - e| - rtol |e|)``, and 0 where that is less.
    """
    with np.errstate(invalid="ignore"):
        beyond = _difference(expected, actual) - rtol * np.abs(_f64(expected))
    return float(np.max(beyond, initial=0.0))


def cosine(expected: Array, actual: Array) -> float:
    """``sum(e a) / sqrt(sum(e^2) sum(a^2))`` over all numbers: 1 where one is the other, scaled.

    1 where both are all zeros, 0 where one is.
    """
    product, other = products(expected, actual)
    return cosine_of(product, energies(expected, actual)[0], other)


def products(expected: Array, actual: Array) -> tuple[float, float]:
    """``sum(e a)`` and ``sum(a^2)`` of :func:`cosine`. Parts add up."""
    one, other = _f64(expected).ravel(), _f64(actual).ravel()
    with np.errstate(invalid="ignore"):
        return float(one @ other), float(other @ other)


def cosine_of(product: float, first: float, second: float) -> float:
    """``product / sqrt(first second)``, the latter two being sums of squares."""
    if 0.0 in (first, second):
        # A NaN on the other side is a NaN in its sum.
        return math.nan if math.isnan(first + second) else float(first == second)
    # One root for each: their product may be more than a float holds.
    return float(np.clip(product / math.sqrt(first) / math.sqrt(second), -1.0, 1.0))


def top1_agreement(expected: Array, actual: Array, *, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose largest score has the same index, over the last axis.

    A row whose expected two largest lie closer than ``near_tie`` times the row's largest magnitude,
    to which rounding is proportional, is left out: either answer is right. 1.0 where every row is.
    """
    return topk_agreement(expected, actual, k=1, near_tie=near_tie)


def topk_agreement(expected: Array, actual: Array, *, k: int, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose ``k`` largest scores have the same indices, in any order.

    Left out are rows in which the last that is in and the first that is out nearly tie, as in
    :func:`top1_agreement`; a row of ``k`` scores or fewer leaves nothing out.
    """
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    agreed, clear = topk_counts(expected, actual, k=k, near_tie=near_tie)
    return agreed / clear if clear else 1.0


def topk_counts(
    expected: Array, actual: Array, *, k: int, near_tie: float = NEAR_TIE
) -> tuple[int, int]:
    """Rows that agree, and rows that count, of :func:`topk_agreement`. Parts add up."""
    width = expected.shape[-1]
    if width <= k or not expected.size:
        return 0, 0
    rows = _f64(expected).reshape(-1, width)  # (rows, classes)
    ordered = np.sort(rows, axis=-1)
    lead = ordered[:, -k] - ordered[:, -k - 1]
    clear = lead > near_tie * np.abs(rows).max(-1)
    same = _top(rows, k) == _top(_f64(actual).reshape(rows.shape), k)  # (rows, classes)
    return int(same.all(-1)[clear].sum()), int(clear.sum())


def row_sum_error(expected: Array, actual: Array) -> float:
    """The largest difference between the sums of an attention row; keys are the last axis.

    ``|sum a - sum e|``, which is ``|sum a - 1|`` where the original's rows sum to one: a row that
    sees nothing but padding may sum to zero.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(_f64(actual).sum(-1) - _f64(expected).sum(-1))
    return float(np.max(difference, initial=0.0))


def masked_mass(expected: Array, actual: Array) -> float:
    """The most that a row gives to keys whose expected weight is exactly 0: those that are masked.

    ``max over rows of sum(|a| where e = 0)``; a softmax gives an exact zero to masked keys only,
    or to keys so far below the rest that nothing is lost by treating them as such.
    """
    masked = _f64(expected) == 0.0
    mass = np.where(masked, np.abs(_f64(actual)), 0.0).sum(-1)
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    return float(np.max(mass, initial=0.0))


def topk_overlap(
    expected: Array, actual: Array, *, k: int = TOP_KEYS, near_tie: float = NEAR_TIE
) -> float:
    """Mean share of a row's ``k`` most attended keys that are among the original's.

    A key counts that is nearly as large as the original's ``k``-th: in a row of equals every key is
    among the largest.
    """
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    width = expected.shape[-1]
    if not expected.size:
        return 1.0
    k = min(k, width)
    rows = _f64(expected).reshape(-1, width)  # (rows, keys)
    least = np.sort(rows, axis=-1)[:, -k, None] - near_tie * np.abs(rows).max(-1, keepdims=True)
    chosen = _top(_f64(actual).reshape(rows.shape), k)
    return float(np.mean((chosen & (rows >= least)).sum(-1) / k))


def argmax_stability(expected: Array, actual: Array, *, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose most attended key is the original's, or nearly ties with it."""
    return topk_overlap(expected, actual, k=1, near_tie=near_tie)


def entropy_shift(expected: Array, actual: Array) -> float:
    """The largest change of a row's entropy, in nats: how much wider or narrower it looks.

    ``|H(q) - H(p)|`` with ``H(p) = -sum p ln p`` (Shannon 1948) of rows that are normalised first.
    """
    p, q = _normalised(expected), _normalised(actual)
    shift = np.abs(_entropy(p) - _entropy(q))
    return float(np.max(shift, initial=0.0))


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


def _top(rows: Array, k: int) -> Array:
    """Where the ``k`` largest of each row are, ``(rows, width)`` of booleans, the first of ties."""
    order = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
    chosen = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen


def _entropy(p: Array) -> Array:
    none = p == 0.0
    entropy: Array = -np.where(none, 0.0, p * np.log(np.where(none, 1.0, p))).sum(-1)
    return entropy


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


# How many of the largest scores are told to agree.
TOP = 3


def is_distribution(scores: Array) -> bool:
    """Whether rows are class probabilities: two columns or more, none negative, sums of one."""
    return (
        scores.ndim >= 2
        and scores.shape[-1] > 1
        and bool((scores >= 0).all())
        and bool(np.allclose(scores.sum(-1), 1.0, atol=1e-3))
    )


def new_non_finite(expected: Array, actual: Array) -> float:
    return float(np.sum(~np.isfinite(actual) & np.isfinite(expected)))


def without_agreed(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Both, with 0 where they hold the same infinity or NaN: that is no difference."""
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    agreed = ~np.isfinite(expected) & same
    if not agreed.any():
        return expected, actual
    return np.where(agreed, 0.0, expected), np.where(agreed, 0.0, actual)
