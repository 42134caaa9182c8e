"""Attention in numpy, on numbers calculated by hand."""

import subprocess
import sys

import numpy as np
import pytest

from edgeattn.numpy_attention import attention_output, attention_weights

E = np.e
# One feature and the kernel [[1]]: the Luong score of a step is its state times the query's state.
ONE = np.array([[1.0]])


def states(*rows):
    """One feature per step: the rows as ``(batch, time, 1)`` in float64."""
    return np.array(rows, np.float64)[..., None]


def test_luong_by_hand():
    # The query is 1, so the scores are the states, 0 and 1: softmax gives [1, e] / (1 + e).
    weights = attention_weights(states([0, 1]), luong_w=ONE)
    np.testing.assert_allclose(weights, [[1 / (1 + E), E / (1 + E)]], rtol=1e-15)


def test_luong_applies_the_kernel_to_the_states_not_to_the_query():
    # h_1 = [0, 1], query h_2 = [1, 0]; h @ W maps [0, 1] to [1, 0] and [1, 0] to [0, 0], so the
    # scores are 1 and 0. With the roles exchanged both would be 0.
    hidden = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    w = np.array([[0.0, 0.0], [1.0, 0.0]])
    weights = attention_weights(hidden, luong_w=w)
    np.testing.assert_allclose(weights, [[E / (1 + E), 1 / (1 + E)]], rtol=1e-15)


def test_bahdanau_by_hand():
    # W1 = 0 and W2 = 1: tanh of the states 0 and atanh(1/2) is 0 and 1/2; v = 2 makes it 0 and 1.
    weights = attention_weights(
        states([0, np.arctanh(0.5)]),
        score="bahdanau",
        bahdanau_v=[[2.0]],
        bahdanau_w1=[[0.0]],
        bahdanau_w2=ONE,
    )
    np.testing.assert_allclose(weights, [[1 / (1 + E), E / (1 + E)]], rtol=1e-15)


def test_bahdanau_adds_the_query_to_every_step():
    # W1 h_T = -1 and W2 h_s = 1, 0, 1: the energies are tanh(0), tanh(-1), tanh(0).
    v = -1 / np.tanh(1)  # so that the scores are 0, 1, 0
    weights = attention_weights(
        states([1, 0, 1]),
        score="bahdanau",
        bahdanau_v=[[v]],
        bahdanau_w1=[[-1.0]],
        bahdanau_w2=ONE,
    )
    np.testing.assert_allclose(weights, [[1 / (2 + E), E / (2 + E), 1 / (2 + E)]], rtol=1e-15)


def test_output_by_hand():
    # c = 1/4 * 2 + 3/4 * 4 = 3.5, the query is 4: tanh(0.2 * 3.5 - 0.1 * 4) and tanh(4).
    output = attention_output(states([2, 4]), [[0.25, 0.75]], [[0.2, 0.0], [-0.1, 1.0]])
    np.testing.assert_allclose(output, [[np.tanh(0.3), np.tanh(4)]], rtol=1e-15)


@pytest.mark.parametrize(
    ("row", "mask", "expected"),
    [
        ([0, 1, 9], [1, 1, 0], [1 / (1 + E), E / (1 + E), 0]),  # right padding: the query is 1
        ([9, 0, 1], [0, 1, 1], [0, 1 / (1 + E), E / (1 + E)]),
        ([0, 9, 1], [1, 0, 1], [1 / (1 + E), 0, E / (1 + E)]),
        ([0, 1, np.nan], [1, 1, 0], [1 / (1 + E), E / (1 + E), 0]),  # padding is never read
        ([7, 9, 9], [1, 0, 0], [1, 0, 0]),
        ([7, 9, 9], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_masked_weights_by_hand(row, mask, expected):
    weights = attention_weights(states(row), luong_w=ONE, mask=np.array([mask], bool))
    np.testing.assert_allclose(weights, [expected], rtol=1e-15, atol=0)


def test_masked_output_uses_the_last_unmasked_state():
    mask = np.array([[True, True, False], [False, False, False]])
    hidden = states([2, 4, np.nan], [2, 4, 8])
    weights = [[0.25, 0.75, 0], [0, 0, 0]]
    output = attention_output(hidden, weights, [[0.2], [-0.1]], mask)
    np.testing.assert_allclose(output, [[np.tanh(0.3)], [0]], rtol=1e-15)


def test_large_scores_do_not_overflow():
    weights = attention_weights(states([999, 1000], [-1000, -999]), luong_w=ONE)
    np.testing.assert_array_equal(weights, [[0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_computes_in_the_dtype_of_the_states(dtype):
    hidden = states([0, 1]).astype(dtype)
    weights = attention_weights(hidden, luong_w=ONE, mask=np.array([[True, True]]))
    output = attention_output(hidden, weights, np.ones((2, 3)))
    assert weights.dtype == output.dtype == dtype
    np.testing.assert_allclose(weights, [[1 / (1 + E), E / (1 + E)]], rtol=2 * np.finfo(dtype).eps)


def test_arguments_are_not_changed():
    hidden, mask = states([0, 1, 9]), np.array([[True, True, False]])
    before = hidden.copy()
    attention_output(
        hidden, attention_weights(hidden, luong_w=ONE, mask=mask), [[1.0], [1.0]], mask
    )
    np.testing.assert_array_equal(hidden, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": np.zeros((2, 3))}, r"\(batch, time, features\).*Received: shape=\(2, 3\)"),
        ({"hidden": np.zeros((2, 0, 1))}, "at least one step"),
        ({"hidden": np.zeros((2, 3, 1), int)}, "floating dtype. Received: dtype=int64"),
        ({"score": "dot"}, "'luong' or 'bahdanau'. Received: score='dot'"),
        ({"luong_w": None}, r"requires luong_w, of the shape \(1, 1\)"),
        ({"luong_w": np.zeros((1, 2))}, r"luong_w should have the shape \(1, 1\)"),
        ({"score": "bahdanau"}, "requires bahdanau_v"),
        ({"mask": np.ones((2, 3))}, "bool.*Received: dtype=float64"),
        ({"mask": np.ones((3, 2), bool)}, r"\(2, 3\). Received: dtype=bool, shape=\(3, 2\)"),
    ],
)
def test_wrong_arguments_of_weights_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention_weights(**{"hidden": np.zeros((2, 3, 1)), "luong_w": ONE} | arguments)


@pytest.mark.parametrize(
    ("weights", "kernel", "message"),
    [
        (np.zeros((3, 2)), np.zeros((2, 5)), r"weights should have .*\(2, 3\).*shape=\(3, 2\)"),
        (np.zeros((2, 3)), np.zeros((1, 5)), r"vector_kernel should have .*Received: shape=\(1, 5"),
    ],
)
def test_wrong_arguments_of_output_are_errors(weights, kernel, message):
    with pytest.raises(ValueError, match=message):
        attention_output(np.zeros((2, 3, 1)), weights, kernel)


def test_keras_is_not_imported():
    heavy = "{'keras', 'tensorflow', 'jax'}"
    code = f"import sys, edgeattn.numpy_attention; print({heavy} & {{*sys.modules}})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"
