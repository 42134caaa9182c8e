"""Attention over the states of a sequence, in numpy: the reading that everything else is held to.

Two pure functions, written from the papers: :func:`attention_weights` says where a sequence is
looked at, :func:`attention_output` what is made of it. Both compute in the floating dtype of
``hidden``; pass ``hidden`` as float64 for a reference that is better than any runtime's float32.

The query is the last state, h_T. With a mask it is the last *real* state, padding gets a weight of
exactly zero, and what stands in the padding, NaN included, is never read. A row without any real
step has nothing to look at: its weights are all zero, and so is its output.
"""

from __future__ import annotations

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
    """Where the last state looks: one weight for every step, each row summing to one.

    ``luong``, the *general* score of Luong et al., arXiv 1508.04025, equation 8:
    score_s = h_T · (W h_s). ``bahdanau``, the alignment model of Bahdanau et al., arXiv 1409.0473,
    appendix A.1.2: score_s = v · tanh(W1 h_T + W2 h_s). In both, the weights are softmax(score).

    Kernels are stored as Keras stores them, so that W h is computed as ``h @ kernel``.

    Args:
        hidden: the states h_1 .. h_T, ``(batch, time, features)``, of a floating dtype.
        score: ``"luong"`` or ``"bahdanau"``.
        mask: bool ``(batch, time)``, true where a step is real; ``None`` where all are.
        luong_w: W, ``(features, features)``; needed by ``luong``.
        bahdanau_v: v, ``(features, 1)``; needed by ``bahdanau``, as are the next two.
        bahdanau_w1: W1, ``(features, features)``, applied to the query.
        bahdanau_w2: W2, ``(features, features)``, applied to every state.

    Returns:
        ``(batch, time)``. Padding is exactly zero; a row without a real step is all zeros.

    Raises:
        ValueError: an unknown score, a kernel it needs that is missing, or a shape or dtype that
            does not fit.
    """
    states = _states(hidden)
    real = _mask(mask, states)
    query = _query(states, real)  # (batch, features)
    keys = np.where(real[..., None], states, 0)  # (batch, time, features)
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
    return _softmax(scores, real)


def attention_output(
    hidden: ArrayLike, weights: ArrayLike, vector_kernel: ArrayLike, mask: ArrayLike | None = None
) -> Floats:
    """What is made of the weighted states: tanh(Wc [c; h_T]) with c = sum_s a_s h_s.

    The attentional vector of Luong et al., arXiv 1508.04025, equation 5.

    Args:
        hidden: the states h_1 .. h_T, ``(batch, time, features)``, of a floating dtype.
        weights: a, ``(batch, time)``, as :func:`attention_weights` gives them.
        vector_kernel: Wc, ``(2 * features, units)``.
        mask: bool ``(batch, time)``, the one the weights were made with.

    Returns:
        ``(batch, units)``; zero for a row without a real step.

    Raises:
        ValueError: a shape or dtype that does not fit.
    """
    states = _states(hidden)
    real = _mask(mask, states)
    a = np.asarray(weights, states.dtype)
    if a.shape != real.shape:
        raise ValueError(
            f"weights should have the shape (batch, time) = {real.shape}. Received: shape={a.shape}"
        )
    w_c = _kernel("vector_kernel", vector_kernel, (2 * states.shape[-1], None), states.dtype)

    values = np.where(real[..., None], states, 0)  # (batch, time, features)
    context = np.einsum("bt,btf->bf", a, values)  # (batch, features)
    query = _query(states, real)  # (batch, features)
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
    real = np.asarray(mask)
    if real.dtype != np.bool_ or real.shape != states.shape[:2]:
        raise ValueError(
            f"mask should be bool of the shape (batch, time) = {states.shape[:2]}. "
            f"Received: dtype={real.dtype}, shape={real.shape}"
        )
    return real


def _kernel(
    name: str, kernel: ArrayLike | None, shape: tuple[int, int | None], dtype: np.dtype[Any]
) -> Floats:
    if kernel is None:
        raise ValueError(f"this score needs {name}, of the shape {shape}. Received: {name}=None")
    array = np.asarray(kernel, dtype)
    if array.ndim != 2 or array.shape[0] != shape[0] or shape[1] not in (None, array.shape[1]):
        raise ValueError(f"{name} should have the shape {shape}. Received: shape={array.shape}")
    return array


def _query(states: Floats, real: NDArray[np.bool_]) -> Floats:
    """The last real state of every row, ``(batch, features)``; zero where there is none."""
    last = real.shape[1] - 1 - np.argmax(real[:, ::-1], axis=1)  # (batch,)
    query = np.take_along_axis(states, last[:, None, None], axis=1)[:, 0]  # (batch, features)
    return np.where(real.any(axis=1, keepdims=True), query, np.zeros_like(query))


def _softmax(scores: Floats, real: NDArray[np.bool_]) -> Floats:
    """Softmax over the real steps, ``(batch, time)``; zeros for a row that has none."""
    shown = np.where(real, scores, -np.inf)
    top = shown.max(axis=1, keepdims=True)  # (batch, 1)
    powers = np.exp(shown - np.where(np.isneginf(top), 0, top))  # (batch, time)
    total = powers.sum(axis=1, keepdims=True)  # (batch, 1)
    weights: Floats = (powers / np.where(total == 0, 1, total)).astype(scores.dtype)
    return weights
