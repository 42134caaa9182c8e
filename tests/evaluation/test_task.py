"""Scores of the reference and of an artifact on the same labels: hand-computed results."""

import json
import math

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.evaluation.accumulators import TaskAccumulator
from edgeattn.evaluation.task import compare_scores
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn.samples.labels import BINARY, REGRESSION, LabelSummary

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])


def two_class_result(samples, *, wrong=0, lost=0, gained=0, retention=0.99):
    """The result for samples of class 0, of which the reference predicts the last ``wrong`` wrong.

    The artifact loses the first ``lost`` of them and gains the last ``gained``. Its scores change
    by more than the leads of the reference, so that the counts alone decide.
    """
    right_before = np.ones(samples, bool)
    right_before[samples - wrong :] = False
    right_after = right_before.copy()
    right_after[:lost] = False
    right_after[samples - gained :] = True
    expected, actual = (np.stack([right, ~right], -1) for right in (right_before, right_after))
    labels = np.zeros(samples, int)
    return compare_scores("a", labels, expected, 3.0 * actual, retention=retention)


# The verdict


def test_few_samples_without_a_loss_are_inconclusive():
    few = two_class_result(100)
    assert (few.verdict, few.reference_score, few.artifact_score) == (INCONCLUSIVE, 1.0, 1.0)
    # (1 - 0.01)^n = 0.05.
    assert few.needed_samples == 299
    assert two_class_result(few.needed_samples).verdict == PASS
    assert two_class_result(few.needed_samples - 2).verdict == INCONCLUSIVE


def test_lost_decisions():
    assert two_class_result(1000, lost=60).verdict == FAIL
    assert two_class_result(1000, lost=10).verdict == INCONCLUSIVE
    assert two_class_result(1000, lost=2, wrong=100).verdict == PASS
    result = two_class_result(1000, wrong=100, lost=20, gained=12)
    assert result.reference_score == pytest.approx(0.9)
    assert result.artifact_score == pytest.approx(0.892)
    assert result.margin == pytest.approx(0.009)
    assert (result.lost, result.gained) == (20, 12)
    assert result.verdict == INCONCLUSIVE


def test_the_needed_number_of_samples_gives_a_verdict():
    small = two_class_result(500, wrong=50, lost=6, gained=4)
    assert small.verdict == INCONCLUSIVE
    times = math.ceil(small.needed_samples / 500)
    large = two_class_result(500 * times, wrong=50 * times, lost=6 * times, gained=4 * times)
    assert large.verdict == PASS
    bad = two_class_result(300, lost=6, gained=0)
    assert bad.verdict == INCONCLUSIVE
    times = math.ceil(bad.needed_samples / 300)
    assert two_class_result(300 * times, lost=6 * times).verdict == FAIL


# Classes


def test_classes_by_hand():
    actual = SCORES.copy()
    actual[1] = [0.5, 0.4, 0.1]  # right becomes wrong
    actual[3] = [0.3, 0.5, 0.2]  # wrong becomes right
    result = compare_scores("answer", np.array([0, 1, 2, 1]), SCORES, actual, retention=0.99)
    assert (result.reference_score, result.artifact_score, result.drop) == (0.75, 0.75, 0.0)
    assert (result.lost, result.gained, result.p_value) == (1, 1, 1.0)
    of_reference, of_artifact = result.confusions
    assert of_reference.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert of_artifact.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert result.verdict == INCONCLUSIVE
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_binary_probabilities_and_logits(scale):
    scores = np.array([[0.9], [0.4], [0.2], [0.8]]) * (1 if scale == 1 else scale)
    if scale > 1:
        scores -= 20.0
    result = compare_scores("answer", np.array([1, 1, 0, 0]), scores, scores, retention=0.99)
    assert (result.kind, result.reference_score) == (BINARY, 0.5)
    assert result.confusions[0].tolist() == [[1, 1], [1, 1]]


def test_a_sample_with_several_decisions_counts_once():
    truth = np.zeros((50, 4), int)
    expected = np.zeros((50, 4, 3))
    expected[..., 0] = 1
    actual = expected.copy()
    actual[:10, 0] = [0, 1, 0]
    result = compare_scores("tags", truth, expected, actual, retention=0.99)
    assert (result.samples, result.lost) == (50, 10)
    assert result.artifact_score == pytest.approx(0.95)
    # Ten of fifty samples lost a quarter each.
    assert result.interval[1] == pytest.approx(0.05 + 1.96 * 0.1 / math.sqrt(50), abs=5e-3)


def test_mcnemar_counts_samples_not_decisions():
    """Ten samples lose all four of their decisions: ten losses, not forty."""
    expected = np.zeros((50, 4, 2))
    expected[..., 0] = 1
    actual = expected.copy()
    actual[:10] = actual[:10, :, ::-1]
    result = compare_scores("a", np.zeros((50, 4), int), expected, actual, retention=0.99)
    assert result.lost == 40
    assert result.p_value == pytest.approx(2 / 2**10)


def test_non_finite_scores_are_wrong():
    labels, expected = np.repeat([0, 1, 2, 0], 50), np.repeat(SCORES, 50, 0)
    for value in (np.nan, np.inf):
        actual = expected.copy()
        actual[:100] = value
        result = compare_scores("answer", labels, expected, actual, retention=0.99)
        assert result.artifact_score == 0.5
        assert result.verdict == FAIL


# Amounts


def test_amounts_by_hand():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    expected = np.array([[1.0], [2.0], [3.0], [3.0]])
    actual = np.array([[1.0], [2.0], [3.0], [2.0]])
    result = compare_scores("answer", truth, expected, actual, retention=0.99)
    # Variance 1.25; mean squared errors 0.25 and 1.
    assert (result.kind, result.metric) == (REGRESSION, "r2")
    assert result.reference_score == pytest.approx(0.8)
    assert result.artifact_score == pytest.approx(0.2)
    assert result.errors == {"mae": (0.25, 0.5), "rmse": (0.5, 1.0)}
    assert result.margin == pytest.approx(0.008)
    assert result.confusions is None


def test_verdicts_on_amounts():
    generator = np.random.default_rng(7)
    truth = generator.standard_normal(5000)
    expected = truth + 0.1 * generator.standard_normal(5000)
    noise = generator.standard_normal(5000)

    def verdict(actual):
        return compare_scores("a", truth, expected, actual, retention=0.99).verdict

    assert verdict(expected + 1e-4 * noise) == PASS
    assert verdict(expected + 0.5 * noise) == FAIL
    assert verdict(expected * np.nan) == FAIL
    with pytest.raises(SampleError, match="all the same"):
        compare_scores("a", np.ones(5), np.zeros(5), np.zeros(5), retention=0.99)


# Batches


@pytest.mark.parametrize("kind", ["classes", "yes or no", "logits", "amounts", "steps"])
def test_batches_give_the_result_of_the_whole(kind):
    generator = np.random.default_rng(6)
    shapes = {"classes": (900, 5), "steps": (900, 7, 3)}
    expected = generator.standard_normal(shapes.get(kind, (900, 1)))
    if kind == "yes or no":
        expected = 1 / (1 + np.exp(-expected))
    actual = expected + 0.1 * generator.standard_normal(expected.shape)
    if kind in shapes:
        labels = (expected + generator.standard_normal(expected.shape)).argmax(-1)
    elif kind == "amounts":
        labels = expected + 0.1 * generator.standard_normal(expected.shape)
    else:
        labels = (expected > np.median(expected)).astype(int)
    whole = compare_scores("a", labels, expected, actual, retention=0.9)
    facts = LabelSummary.of(labels[:1])
    for row in range(1, 900):
        facts |= LabelSummary.of(labels[row : row + 1])
    assert facts == LabelSummary.of(labels)
    accumulator = TaskAccumulator("a", facts)
    for part in np.array_split(np.arange(900), 7):
        restored = TaskAccumulator("a", facts)
        restored.state = accumulator.state
        accumulator = restored
        accumulator.add(labels[part], expected[part], actual[part])
    result = accumulator.result(0.9)
    assert result.kind == {"logits": "yes or no", "steps": "classes"}.get(kind, kind)
    assert result.reference_score == pytest.approx(whole.reference_score)
    assert result.interval == pytest.approx(whole.interval)
    assert (result.verdict, result.needed_samples) == (whole.verdict, whole.needed_samples)
    assert (result.lost, result.gained) == (whole.lost, whole.gained)
    assert result.p_value == whole.p_value
    if result.confusions is not None:
        np.testing.assert_array_equal(result.confusions, whole.confusions)
