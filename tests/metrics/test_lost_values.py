"""Values and heads of which an artifact knows no more than a constant, worked out by hand."""

import numpy as np
import pytest

from edgeattn.metrics.limits import LIMITS, checks_of
from edgeattn.metrics.lost_values import MOST_SUMS, ConstantHeads, LostValues, negligible_values

LIMIT = LIMITS["int8"]
ROWS = np.random.default_rng(3).standard_normal((60, 4))


def lost(expected, actual, parts=1, kind=LostValues):
    """The lost values, added in several batches."""
    values = kind(LIMIT)
    for pair in zip(np.array_split(expected, parts), np.array_split(actual, parts), strict=True):
        values.add(*pair)
    return values.lost


def rounded(array, step):
    return np.rint(array / step) * step


@pytest.mark.parametrize(
    ("scale", "counted"),
    [
        ([1e-1, 1e3, 1e-1, 1e3], (0, 2)),
        ([1, 1, 1, 1], ()),
        ([0, 1e3, 0, 1e3], ()),  # constant in the reference too
        ([1e-6, 1e3, 1e-6, 1e3], ()),  # within the tolerance of float32
    ],
)
@pytest.mark.parametrize("parts", [1, 7])
def test_values_that_one_scale_for_all_loses(scale, counted, parts):
    expected = ROWS * scale
    actual = rounded(expected, np.abs(expected).max() / 127)
    assert lost(expected, actual, parts).counted == counted
    steps = [np.stack([array, -array], axis=1) for array in (expected, actual)]  # two positions
    assert lost(*steps, parts).counted == counted
    assert lost(expected[:, 0], actual[:, 0]).counted == ((0,) if 0 in counted else ())


@pytest.mark.parametrize(("error", "counted"), [(0.98, ()), (1.02, (0,))])
def test_errors_as_large_as_the_changes(error, counted):
    """0, 2, 0, 2 have a mean of 1, which is off by 1. Errors of 0.98 are smaller."""
    expected = np.array([[0.0], [2.0], [0.0], [2.0]]) + 500
    actual = expected + error * np.array([[1], [1], [-1], [-1]])
    assert lost(expected, actual).counted == counted


def test_a_large_offset_does_not_hide_the_changes():
    """Around 1e6, float64 squares have 1e12, and the changes of 1e-3 only 1e-6."""
    expected = 1e6 + np.array([[0.0], [4e3], [0.0], [4e3]])
    assert lost(expected, expected + 1e3).counted == ()
    assert lost(expected, np.full((4, 1), 1e6 + 2e3)).counted == (0,)


def test_rounding_in_the_reference_is_no_change():
    """The sum of a softmax is 1 but for rounding; that of a float16 file may be 0.9995."""
    expected = 1 + 4e-6 * ROWS
    assert lost(expected, np.full_like(expected, 0.9995)).counted == ()
    assert lost(1 + 1e-3 * ROWS, np.full_like(expected, 0.9995)).counted == (0, 1, 2, 3)


def test_values_that_move_between_two_steps_are_lost():
    """The artifact is not constant: one sample is 8 steps off, which no sample of Keras is."""
    expected = ROWS * [1e-2, 1e3, 1e3, 1e3]
    actual = rounded(expected, 8)
    actual[17, 0] = 8.0
    assert lost(expected, actual).counted == (0,)


def test_classes_that_the_reference_never_predicts_may_vanish():
    scores = np.exp(ROWS * [1, 1, 1, 0.1] - [0, 0, 0, 15])
    expected = scores / scores.sum(-1, keepdims=True)
    assert np.array_equal(np.unique(expected.argmax(-1)), [0, 1, 2])
    result = lost(expected, rounded(expected, 1 / 256))
    assert (result.counted, result.negligible, result.classes) == ((), (3,), True)
    assert list(negligible_values("y", "onnx int8", "s.npz", 60, result)) == []


def test_classes_that_it_sometimes_predicts_count():
    """One of 60 samples: the signal-to-noise ratio is 17 dB, the agreement 98.3%."""
    expected = np.tile([0.9, 0.1, 0.0], (60, 1))
    expected[::2] = [0.1, 0.9, 0.0]
    expected[7] = [0.1, 0.2, 0.7]
    actual = np.array(expected)
    actual[7] = [0.3, 0.7, 0.0]
    assert lost(expected, actual).counted == (2,)
    # One-hot rows are equal or not: the limit of the agreement has to decide.
    one_hot = [np.eye(3)[array.argmax(-1)] for array in (expected, actual)]
    assert lost(*one_hot).count == 0


def test_the_only_class_that_it_predicts_may_be_constant():
    p = 0.97 + 0.01 * np.sin(np.arange(60.0))
    expected = np.stack([p, 1 - p], axis=-1)
    assert lost(expected, np.tile([0.97, 0.03], (60, 1))).counted == ()


@pytest.mark.parametrize(("change", "counted"), [(2 / 256, ()), (2.1 / 256, (1,))])
def test_small_changes_between_0_and_1(change, counted):
    """A tag that never occurs may have no more than the probability 0; its rows sum to any."""
    expected = np.stack([np.linspace(0, 1, 60), np.linspace(0, change, 60)], axis=-1)
    actual = expected * [1, 0]
    result = lost(expected, actual)
    assert result.counted == counted
    assert result.negligible == (() if counted else (1,))
    texts = list(negligible_values("tags", "onnx int8", "s.npz", 60, result))
    assert texts == (
        []
        if counted
        else [
            "1 value of output 'tags' of onnx int8 (index 1) never changed on 60 samples (s.npz); "
            "the changes in the reference are too small for a limit"
        ]
    )
    # In any other range, the size of a value says nothing.
    assert lost(expected - 1, actual - 1).counted == (1,)


def test_many_values():
    """Of a vocabulary, for which sums would take too much memory, constant values are found."""
    expected = np.arange(6.0)[:, None] * np.ones(MOST_SUMS + 1) + 3
    actual = np.array(expected)
    actual[:, [5, 1000]] = 3
    assert lost(expected, actual).counted == (5, 1000)


def test_what_has_no_values_that_could_be_lost():
    assert LostValues(LIMIT).lost.count == 0
    assert lost(np.arange(6), np.zeros(6, np.int64)).count == 0
    assert lost(np.ones((1, 3)), np.zeros((1, 3))).counted == ()
    nan = np.full((6, 2), np.nan)
    assert lost(ROWS[:6, :2], nan).counted == ()
    assert lost(nan, nan).counted == ()


def maps(change):
    """Two heads of 60 samples, 3 queries and 4 keys; the second changes by ``change``."""
    weights = np.random.default_rng(4).dirichlet(np.ones(4), (60, 2, 3))
    weights[:, 1] = 0.25
    weights[:, 1, 0, 0] += np.linspace(0, change, 60)
    weights[:, 1, 0, 1] -= np.linspace(0, change, 60)
    return weights


@pytest.mark.parametrize(("change", "counted"), [(2 / 256, ()), (2.1 / 256, (1,))])
def test_heads_that_are_the_same_for_every_sample(change, counted):
    expected = maps(change)
    actual = rounded(expected, 1 / 32)  # all weights of the second head are 1/4
    actual[:, 1] = 0.25
    result = lost(expected, actual, 5, ConstantHeads)
    assert (result.count, result.counted) == (2, counted)
    assert lost(expected, expected, 5, ConstantHeads).counted == ()
    # Without heads.
    single = lost(expected[:, 1], actual[:, 1], 5, ConstantHeads)
    assert (single.count, single.counted) == (1, (0,) if counted else ())


def test_the_check():
    values = LostValues(LIMIT)
    expected = ROWS * [1e-1, 1e3, 1e-1, 1e3]
    values.add(expected, rounded(expected, 8))
    (check,) = values.checks(checks_of("onnx int8", "numbers", "y"))
    assert check.comparison == (
        "lost_values of y is 2 (limit <= 0): index 0, 2 of 4, no better than a constant, but "
        "changing in the reference"
    )
    heads = ConstantHeads(LIMIT)
    heads.add(maps(0.1), np.full((60, 2, 3, 4), 0.25))
    (check,) = heads.checks(checks_of("onnx int8", "attention", "attention/a"))
    assert check.comparison.endswith(
        "head 0, 1 of 2, no better than a constant, but changing in the reference"
    )
