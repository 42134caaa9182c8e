"""Many-to-one attention over the states of a sequence, in numpy.

Two pure functions with the formulas of the papers, as the reference of the layer's tests:
:func:`attention_weights` and :func:`attention_output`. Both compute in the floating dtype of
``hidden``; float64 is more accurate than any runtime.

The query is the last state, h_T. With a mask it is the last unmasked state; the weight of a masked
step is exactly zero, and its state, NaN included, is never read. The weights and the output of a
fully masked row are zero.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Score: TypeAlias = Literal["luong", "bahdanau"]
Floats: TypeAlias = NDArray[np.floating[Any]]


def attention_weights(
    hidden: ArrayLike,
    *,
    score: Score = "luong",
    mask: ArrayLike | None = None,
    luong_w: ArrayLike | None = None,
    bahdanau_v: ArrayLike | None = None,
    bahdanau_w1: ArrayLike | None = None,
    bahdanau_w2: ArrayLike | None = None,
) -> Floats:
    """Return the attention weights of the last state, which sum to one over the steps.

    The weights are softmax(score), with

    - ``luong``: score_s = h_T · (W h_s), the *general* score of Luong et al., arXiv 1508.04025,
      equation 8;
    - ``bahdanau``: score_s = v · tanh(W1 h_T + W2 h_s), the alignment model of Bahdanau et al.,
      arXiv 1409.0473, appendix A.1.2.

    ``hidden`` are the states h_1 .. h_T, ``(batch, time, features)``, of a floating dtype, and
    ``mask`` is bool ``(batch, time)``, true for unmasked steps; ``None`` if no step is masked.
    ``luong`` requires W, ``bahdanau`` requires v of shape ``(features, 1)``, W1 and W2; W, W1 and
    W2 are ``(features, features)``. Kernels have the layout of Keras: W h is computed as
    ``h @ kernel``. Returns ``(batch, time)``. Raises :class:`ValueError` if the score is unknown, a
    kernel is missing, or a shape or dtype is wrong.
    """
    states = _states(hidden)
    unmasked = _mask(mask, states)
    query = _query(states, unmasked)  # (batch, features)
    keys = np.where(unmasked[..., None], states, 0)  # (batch, time, features)
    features = states.shape[-1]

    if score == "luong":
        w = _kernel("luong_w", luong_w, (features, features), states.dtype)
        scores = np.einsum("bf,btf->bt", query, keys @ w)  # (batch, time)
    elif score == "bahdanau":
        v = _kernel("bahdanau_v", bahdanau_v, (features, 1), states.dtype)
        w1 = _kernel("bahdanau_w1", bahdanau_w1, (features, features), states.dtype)
        w2 = _kernel("bahdanau_w2", bahdanau_w2, (features, features), states.dtype)
        energy = np.tanh((query @ w1)[:, None, :] + keys @ w2)  # (batch, time, features)
        scores = (energy @ v)[..., 0]  # (batch, time)
    else:
        raise ValueError(f"score should be 'luong' or 'bahdanau'. Received: score={score!r}")
    return _softmax(scores, unmasked)


def attention_output(
    hidden: ArrayLike, weights: ArrayLike, vector_kernel: ArrayLike, mask: ArrayLike | None = None
) -> Floats:
    """Return the attentional vector tanh(Wc [c; h_T]) with the context c = sum_s a_s h_s.

    Luong et al., arXiv 1508.04025, equation 5. ``hidden`` and ``mask`` are those of
    :func:`attention_weights`, ``weights`` its result a, ``(batch, time)``, and ``vector_kernel`` is
    Wc, ``(2 * features, units)``. Returns ``(batch, units)``. Raises :class:`ValueError` if a shape
    or dtype is wrong.
    """
    states = _states(hidden)
    unmasked = _mask(mask, states)
    a = np.asarray(weights, states.dtype)
    if a.shape != unmasked.shape:
        raise ValueError(
            f"weights should have the shape (batch, time) = {unmasked.shape}. "
            f"Received: shape={a.shape}"
        )
    w_c = _kernel("vector_kernel", vector_kernel, (2 * states.shape[-1], None), states.dtype)

    values = np.where(unmasked[..., None], states, 0)  # (batch, time, features)
    context = np.einsum("bt,btf->bf", a, values)  # (batch, features)
    query = _query(states, unmasked)  # (batch, features)
    output: Floats = np.tanh(np.concatenate([context, query], axis=-1) @ w_c)  # (batch, units)
    return output


def _states(hidden: ArrayLike) -> Floats:
    states = np.asarray(hidden)
    if not np.issubdtype(states.dtype, np.floating):
        raise ValueError(f"hidden should be of a floating dtype. Received: dtype={states.dtype}")
    if states.ndim != 3 or 0 in states.shape[1:]:
        raise ValueError(
            "hidden should have the shape (batch, time, features) with at least one step and one "
            f"feature. Received: shape={states.shape}"
        )
    return states


def _mask(mask: ArrayLike | None, states: Floats) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(states.shape[:2], dtype=np.bool_)
    unmasked = np.asarray(mask)
    if unmasked.dtype != np.bool_ or unmasked.shape != states.shape[:2]:
        raise ValueError(
            f"mask should be bool of the shape (batch, time) = {states.shape[:2]}. "
            f"Received: dtype={unmasked.dtype}, shape={unmasked.shape}"
        )
    return unmasked


def _kernel(
    name: str, kernel: ArrayLike | None, shape: tuple[int, int | None], dtype: np.dtype[Any]
) -> Floats:
    if kernel is None:
        raise ValueError(f"this score requires {name}, of the shape {shape}. Received: {name}=None")
    array = np.asarray(kernel, dtype)
    if array.ndim != 2 or array.shape[0] != shape[0] or shape[1] not in (None, array.shape[1]):
        raise ValueError(f"{name} should have the shape {shape}. Received: shape={array.shape}")
    return array


def _query(states: Floats, unmasked: NDArray[np.bool_]) -> Floats:
    """The last unmasked state of every row, ``(batch, features)``, or zero if there is none."""
    last = unmasked.shape[1] - 1 - np.argmax(unmasked[:, ::-1], axis=1)  # (batch,)
    query = np.take_along_axis(states, last[:, None, None], axis=1)[:, 0]  # (batch, features)
    return np.where(unmasked.any(axis=1, keepdims=True), query, np.zeros_like(query))


def _softmax(scores: Floats, unmasked: NDArray[np.bool_]) -> Floats:
    """Softmax over the unmasked steps, ``(batch, time)``; zeros for a fully masked row."""
    masked = np.where(unmasked, scores, -np.inf)
    top = masked.max(axis=1, keepdims=True)  # (batch, 1)
    powers = np.exp(masked - np.where(np.isneginf(top), 0, top))  # (batch, time)
    total = powers.sum(axis=1, keepdims=True)  # (batch, 1)
    weights: Floats = (powers / np.where(total == 0, 1, total)).astype(scores.dtype)
    return weights
