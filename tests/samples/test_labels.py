"""Labels: the kind of task that they define for an output."""

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.evaluation.score_comparison import compare_scores
from edgeattn.samples.labels import (
    BINARY,
    CLASSIFICATION,
    REGRESSION,
    LabelSummary,
    check_labels,
    label_arrays,
    task_kind,
    true_values,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])


def kind_and_truth(labels, outputs):
    kind = task_kind("answer", LabelSummary.of(labels), outputs.shape[1:])
    return kind, true_values(kind, labels, outputs.shape[1:])


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2, 0]),
        np.array([0.0, 1.0, 2.0, 0.0]),
        np.array([[0], [1], [2], [0]]),
        np.eye(3)[[0, 1, 2, 0]],
        np.eye(3, dtype=bool)[[0, 1, 2, 0]],
    ],
)
def test_classes(labels):
    kind, truth = kind_and_truth(labels, SCORES)
    assert kind == CLASSIFICATION
    assert truth.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [False, True, True, False]])
def test_binary_decisions(labels, shape):
    kind, truth = kind_and_truth(np.array(labels), np.zeros(shape))
    assert (kind, truth.shape, truth.ravel().tolist()) == (BINARY, shape, [0, 1, 1, 0])


def test_amounts():
    for labels in ([0.5, 1, 2, 3], [3, 1, 4, 1], [1, 1, 1, 1]):
        assert kind_and_truth(np.array(labels), np.zeros((4, 1)))[0] == REGRESSION
    steps = np.zeros((4, 5, 2))
    assert kind_and_truth(np.full((4, 5, 2), 0.5), steps)[0] == REGRESSION
    assert kind_and_truth(np.ones((4, 5), int), steps)[0] == CLASSIFICATION


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2, 3]),
        np.array([0, 1, -1, 2]),
        np.array([0.5, 1, 2, 0]),
        np.array([0, 1, 2]),
        np.array(["a", "b", "c", "d"]),
        np.array([0, 1, np.nan, 2]),
        np.zeros((4, 7)),
    ],
)
def test_labels_that_do_not_fit_the_output(labels):
    with pytest.raises(SampleError, match="answer"):
        compare_scores("answer", labels, SCORES, SCORES)


@pytest.mark.parametrize(
    ("names", "outputs", "expected"),
    [
        (("y",), ("one",), {"one": "y"}),
        (("one",), ("one",), {"one": "one"}),
        (("y/two",), ("one", "two"), {"two": "y/two"}),
        (("one", "y/two"), ("one", "two"), {"one": "one", "two": "y/two"}),
        (("y",), ("y", "two"), {"y": "y"}),
        ((), ("one",), {}),
    ],
)
def test_labels_by_output(names, outputs, expected):
    assert label_arrays(names, outputs) == expected


@pytest.mark.parametrize(
    ("names", "outputs", "message"),
    [
        (("y",), ("one", "two"), "2 outputs"),
        (("y", "y/one"), ("one", "two"), "nothing uses: 'y'"),
        (("y/one", "y/three"), ("one", "two"), "nothing uses: 'y/three'.* one, two"),
        (("labels", "ids"), ("one",), "nothing uses: 'labels', 'ids'"),
        (("y/one", "one"), ("one",), "two arrays of labels: y/one and one"),
    ],
)
def test_arrays_that_are_no_labels(names, outputs, message):
    with pytest.raises(SampleError, match=message):
        label_arrays(names, outputs)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["a", "b", "c"]), "not numbers"),
        (np.array([1.0, np.nan, 0.0]), "NaN"),
        (np.array([0, 1, 3]), "from 0 to 3"),
        (np.zeros((3, 2)), "shape"),
    ],
)
def test_labels_are_checked_before_anything_runs(labels, message):
    with pytest.raises(SampleError, match=message):
        check_labels("answer", LabelSummary.of(labels), (3,))


def test_equal_amounts_have_no_r2():
    check_labels("answer", LabelSummary.of(np.array([0.5, 2.0])), (1,))
    with pytest.raises(SampleError, match="all the same"):
        check_labels("answer", LabelSummary.of(np.array([2.0, 2.0])), (1,))
