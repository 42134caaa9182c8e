"""Metrics of two arrays, ``(expected, actual) -> float``, computed in float64.

``expected`` are the values of Keras, ``actual`` those of an artifact. Both have the same shape and
the sample axis first, unless a docstring states otherwise. If either contains NaN, the result is
NaN.
"""

import math

import numpy as np

from edgeattn.tensors import Array

# Two scores tie if they differ by less than this share of the largest: rounding may swap them.
NEAR_TIE = 1e-3
# The number of most attended keys, and of highest class scores, whose agreement is reported.
TOP_KEYS = 3
TOP_CLASSES = 3


def max_abs_error(expected: Array, actual: Array) -> float:
    """``max |actual - expected|``, in the unit of the arrays."""
    return float(np.max(_difference(expected, actual), initial=0.0))


def mean_abs_error(expected: Array, actual: Array) -> float:
    """``mean |actual - expected|``, in the unit of the arrays; 0 for empty arrays."""
    return float(np.mean(_difference(expected, actual))) if expected.size else 0.0


def tolerance_ratio(expected: Array, actual: Array, *, atol: float, rtol: float) -> float:
    """``max |actual - expected| / (atol + rtol |expected|)``.

    The result is at most 1 exactly if ``numpy.allclose`` is true for these tolerances.
    """
    allowed = atol + rtol * np.abs(_f64(expected))
    difference = _difference(expected, actual)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Equal values need no tolerance, so that 0 / 0 counts as 0.
        ratio = np.where(difference == 0.0, 0.0, difference / allowed)
    return float(np.max(ratio, initial=0.0))


def snr_db(expected: Array, actual: Array) -> float:
    """Signal-to-noise ratio in dB, ``10 log10(sum e^2 / sum (a - e)^2)``; inf for equal arrays."""
    return decibels(*energies(expected, actual))


def worst_sample_db(expected: Array, actual: Array) -> float:
    """The smallest :func:`snr_db` of a sample; inf if none has a signal.

    Samples without a signal have no ratio.
    """
    e = _f64(expected).reshape(len(expected), -1)
    difference = _difference(expected, actual).reshape(len(expected), -1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        signal, noise = np.sum(e**2, axis=1), np.sum(difference**2, axis=1)
        ratios = 10.0 * np.log10(signal / noise)
    return float(np.min(ratios[signal != 0.0], initial=np.inf))


def energies(expected: Array, actual: Array) -> tuple[float, float]:
    """Signal and noise of :func:`snr_db`: ``sum e^2`` and ``sum (a - e)^2``.

    The energies of batches add up to those of the whole.
    """
    with np.errstate(invalid="ignore"):
        signal = float(np.sum(_f64(expected) ** 2))
        return signal, float(np.sum(_difference(expected, actual) ** 2))


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``: inf without noise, -inf without signal."""
    if math.isnan(noise) or math.isnan(signal):
        return math.nan
    if noise == 0.0:
        return math.inf
    if math.isinf(noise) or signal == 0.0:
        return -math.inf
    return 10.0 * math.log10(signal / noise)


def minimal_atol(expected: Array, actual: Array, *, rtol: float) -> float:
    """The smallest ``atol`` for which ``numpy.allclose`` is true at this ``rtol``.

    ``max(0, max(|a - e| - rtol |e|))``
    """
    with np.errstate(invalid="ignore"):
        beyond = _difference(expected, actual) - rtol * np.abs(_f64(expected))
    return float(np.max(beyond, initial=0.0))


def cosine(expected: Array, actual: Array) -> float:
    """Cosine similarity ``sum(e a) / sqrt(sum(e^2) sum(a^2))`` over all values.

    1 if both arrays are all zeros, 0 if only one is.
    """
    product, squares = products(expected, actual)
    return cosine_of(product, energies(expected, actual)[0], squares)


def products(expected: Array, actual: Array) -> tuple[float, float]:
    """``sum(e a)`` and ``sum(a^2)`` of :func:`cosine`; those of batches add up."""
    e, a = _f64(expected), _f64(actual)
    with np.errstate(invalid="ignore"):
        # Not `e @ a`: its result depends on the number of threads.
        return float(np.sum(e * a)), float(np.sum(a**2))


def cosine_of(product: float, first: float, second: float) -> float:
    """``product / sqrt(first second)``, with ``first`` and ``second`` sums of squares."""
    if 0.0 in (first, second):
        # A NaN in either array makes its sum of squares NaN.
        return math.nan if math.isnan(first + second) else float(first == second)
    # Two roots, because the product of both sums may overflow.
    return float(np.clip(product / math.sqrt(first) / math.sqrt(second), -1.0, 1.0))


def top1_agreement(expected: Array, actual: Array, *, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose largest score has the same index; classes are the last axis.

    A row is left out if its two largest expected scores differ by less than ``near_tie`` times the
    row's largest magnitude, because rounding may swap them. 1.0 if every row is left out.
    """
    return topk_agreement(expected, actual, k=1, near_tie=near_tie)


def topk_agreement(expected: Array, actual: Array, *, k: int, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose ``k`` largest scores have the same indices, in any order.

    A row is left out if its expected scores of rank ``k`` and ``k + 1`` nearly tie, as in
    :func:`top1_agreement`. 1.0 if rows have at most ``k`` scores.
    """
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    agreeing, counted = topk_counts(expected, actual, k=k, near_tie=near_tie)
    return agreeing / counted if counted else 1.0


def are_classes(values: Array) -> bool:
    """Whether values are integers or booleans, such as an argmax: they are equal or not."""
    return np.asarray(values).dtype.kind in "iub"


def equal_values(expected: Array, actual: Array) -> float:
    """Share of equal values; 1.0 for empty arrays."""
    return float(np.mean(expected == actual)) if expected.size else 1.0


def topk_counts(
    expected: Array, actual: Array, *, k: int, near_tie: float = NEAR_TIE
) -> tuple[int, int]:
    """The numbers of agreeing and of counted rows of :func:`topk_agreement`; batches add up."""
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
    """``max |sum a - sum e|`` over attention rows; keys are the last axis.

    The expected sum is used instead of 1, because a row with only masked keys may sum to 0.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(_f64(actual).sum(-1) - _f64(expected).sum(-1))
    return float(np.max(difference, initial=0.0))


def masked_mass(expected: Array, actual: Array) -> float:
    """The largest weight that an attention row gives to masked keys, ``max sum(|a| [e = 0])``.

    A key counts as masked if its expected weight is exactly 0. The softmax also underflows to 0 for
    scores far below the maximum; such keys carry no weight either.
    """
    masked = _f64(expected) == 0.0
    mass = np.where(masked, np.abs(_f64(actual)), 0.0).sum(-1)
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    return float(np.max(mass, initial=0.0))


def topk_overlap(
    expected: Array, actual: Array, *, k: int = TOP_KEYS, near_tie: float = NEAR_TIE
) -> float:
    """Mean share of a row's ``k`` most attended keys that are among those expected.

    Keys whose expected weight nearly ties with the ``k``-th largest count as expected too.
    """
    if np.isnan(_f64(expected)).any() or np.isnan(_f64(actual)).any():
        return math.nan
    width = expected.shape[-1]
    if not expected.size:
        return 1.0
    k = min(k, width)
    rows = _f64(expected).reshape(-1, width)  # (rows, keys)
    lowest = np.sort(rows, axis=-1)[:, -k, None] - near_tie * np.abs(rows).max(-1, keepdims=True)
    top = _top(_f64(actual).reshape(rows.shape), k)
    return float(np.mean((top & (rows >= lowest)).sum(-1) / k))


def argmax_stability(expected: Array, actual: Array, *, near_tie: float = NEAR_TIE) -> float:
    """Share of rows whose most attended key is the expected one, or nearly ties with it."""
    return topk_overlap(expected, actual, k=1, near_tie=near_tie)


def entropy_shift(expected: Array, actual: Array) -> float:
    """The largest change of a row's entropy, in nats: ``max |H(q) - H(p)|``.

    ``H(p) = -sum p ln p`` (Shannon 1948) of the normalised row.
    """
    p, q = _normalised(expected), _normalised(actual)
    shift = np.abs(_entropy(p) - _entropy(q))
    return float(np.max(shift, initial=0.0))


def jensen_shannon(expected: Array, actual: Array) -> float:
    """Mean Jensen-Shannon divergence of attention rows, in nats; keys are the last axis.

    ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2`` (Lin 1991, "Divergence measures
    based on the Shannon entropy"), from 0 for equal rows to ln 2 for disjoint ones. Rows are
    normalised first; :func:`row_sum_error` detects lost mass.
    """
    divergences = row_divergences(expected, actual)
    return float(np.mean(divergences)) if divergences.size else 0.0


def row_divergences(expected: Array, actual: Array) -> Array:
    """The divergence of each attention row, as in :func:`jensen_shannon`, without the key axis."""
    p, q = _normalised(expected), _normalised(actual)
    m = (p + q) / 2
    divergence: Array = (_xlogx(p, m) + _xlogx(q, m)).sum(-1) / 2
    return np.maximum(divergence, 0.0)


def _top(rows: Array, k: int) -> Array:
    """A mask ``(rows, width)`` of the ``k`` largest values of each row; of ties, the first."""
    order = np.argsort(-rows, axis=-1, kind="stable")[:, :k]
    mask = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def _entropy(p: Array) -> Array:
    entropy: Array = -_xlogx(p, np.ones_like(p)).sum(-1)
    return entropy


def _normalised(weights: Array) -> Array:
    """Rows scaled to a sum of 1; a row of zeros becomes uniform."""
    positive = np.maximum(_f64(weights), 0.0)
    total = positive.sum(-1, keepdims=True)
    uniform = 1.0 / max(1, positive.shape[-1])
    with np.errstate(invalid="ignore"):
        return np.where(total == 0.0, uniform, positive / np.where(total == 0.0, 1.0, total))


def _xlogx(p: Array, m: Array) -> Array:
    """``p ln(p / m)``, and 0 for ``p = 0``."""
    zero = p == 0.0
    return np.where(zero, 0.0, p * np.log(np.where(zero, 1.0, p) / np.where(zero, 1.0, m)))


def _difference(expected: Array, actual: Array) -> Array:
    with np.errstate(invalid="ignore"):  # inf - inf is NaN
        difference: Array = np.abs(_f64(actual) - _f64(expected))
    return difference


def _f64(array: Array) -> Array:
    return np.asarray(array, np.float64)


def is_distribution(scores: Array) -> bool:
    """Whether rows are class probabilities: 2 or more columns, none negative, sum 1 ± 1e-3."""
    return (
        scores.ndim >= 2
        and scores.shape[-1] > 1
        and bool((scores >= 0).all())
        and bool(np.allclose(scores.sum(-1), 1.0, atol=1e-3))
    )


def is_one_hot(scores: Array) -> bool:
    """Whether every row is a class as a distribution, such as a decoded tag: a 1 and zeros."""
    return is_distribution(scores) and bool(np.isin(scores, (0, 1)).all())


def samples_beyond(expected: Array, actual: Array, *, atol: float, rtol: float = 0.0) -> int:
    """The number of samples with a value that is off by more than ``atol + rtol |expected|``."""
    allowed = atol + rtol * np.abs(_f64(expected)) if rtol else atol
    within = _difference(expected, actual) <= allowed
    return int((~within).reshape(len(within), -1).any(-1).sum())


def new_non_finite(expected: Array, actual: Array) -> float:
    """The number of values that are finite in ``expected`` and NaN or infinite in ``actual``."""
    return float(np.sum(~np.isfinite(actual) & np.isfinite(expected)))


def mask_equal_non_finite(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Both arrays, with 0 in place of values that are NaN, or the same infinity, in both."""
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    agreed = ~np.isfinite(expected) & same
    if not agreed.any():
        return expected, actual
    return np.where(agreed, 0.0, expected), np.where(agreed, 0.0, actual)
