"""Scores of the reference and of an artifact on the same labels: hand-computed results."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.evaluation.accumulators import TaskAccumulator
from edgeattn.evaluation.score_comparison import compare_scores
from edgeattn.metrics.bounded_mean import mean_limits
from edgeattn.metrics.limits import CHANGED, LIMITS
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn.samples.labels import BINARY, REGRESSION, LabelSummary

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])


def score_limits(max_drop=0.01, **changes):
    """Limits with which the score decides."""
    return replace(LIMITS["int8"], max_drop=max_drop, **changes)


ONE_POINT = score_limits()


def two_class_result(samples, *, wrong=0, lost=0, gained=0, limits=ONE_POINT):
    """The result for samples of class 0, of which the reference predicts the last ``wrong`` wrong.

    The artifact loses the first ``lost`` of them and gains the last ``gained``.
    """
    right_before = np.ones(samples, bool)
    right_before[samples - wrong :] = False
    right_after = right_before.copy()
    right_after[:lost] = False
    right_after[samples - gained :] = True
    expected, actual = (np.stack([right, ~right], -1) for right in (right_before, right_after))
    labels = np.zeros(samples, int)
    return compare_scores("a", labels, expected, 3.0 * actual, limits=limits)


# The verdict


@pytest.mark.parametrize("scheme", ["float32", "float16", "int16x8", "dynamic_int8", "int8"])
def test_an_ordinary_test_set_without_a_change_passes(scheme):
    result = two_class_result(500, wrong=25, limits=LIMITS[scheme])
    assert (result.verdict, result.margin, result.changed) == (PASS, 0.02, 0.0)
    assert result.question == ("score" if scheme.endswith("_int8") or scheme == "int8" else CHANGED)


def test_few_samples_without_a_change_are_inconclusive():
    few = two_class_result(100, limits=LIMITS["float16"])
    assert (few.verdict, few.reference_score, few.artifact_score) == (INCONCLUSIVE, 1.0, 1.0)
    # (1 - 0.02)^n = 2.5%.
    assert few.needed_samples == 183
    assert two_class_result(183, limits=LIMITS["float16"]).verdict == PASS
    assert two_class_result(182, limits=LIMITS["float16"]).verdict == INCONCLUSIVE


def test_changed_answers_decide_about_float16_and_the_score_about_int8():
    """40 of 1,000 answers changed, and the score is the same."""
    changes = {"wrong": 100, "lost": 20, "gained": 20}
    float16 = two_class_result(1000, **changes, limits=LIMITS["float16"])
    assert (float16.changed, float16.drop) == (0.04, 0.0)
    # The exact 95% interval of 40 of 1,000.
    assert float16.decisive_interval == pytest.approx((0.02872, 0.05407), abs=1e-4)
    assert float16.verdict == FAIL
    # 0.02 of 0.9 are 2.23%.
    assert "--limit a:retention=0.9777." in float16.remedy
    kept = replace(LIMITS["float16"], retention=0.9777)
    assert two_class_result(1000, **changes, limits=kept).verdict == PASS
    assert two_class_result(1000, lost=100, limits=LIMITS["float16"]).remedy == ""
    int8 = two_class_result(1000, **changes, limits=LIMITS["int8"])
    assert (int8.changed, int8.verdict) == (0.04, PASS)
    assert int8.decisive_interval == int8.interval
    # A limit of the score makes the score decide.
    kept = replace(LIMITS["float16"], retention=0.97)
    score = two_class_result(1000, **changes, limits=kept)
    assert (score.question, score.verdict) == ("score", PASS)
    assert score.margin == pytest.approx(0.03 * 0.9)


@pytest.mark.parametrize("scheme", ["float16", "int8"])
def test_an_inconclusive_result_names_the_max_drop_that_passes(scheme):
    limits = replace(LIMITS[scheme], max_drop=0.003)
    result = two_class_result(700, wrong=70, lost=3, gained=2, limits=limits)
    assert result.verdict == INCONCLUSIVE
    assert f"--max-drop {result.passing_max_drop:g}" in result.remedy
    assert f"{result.needed_samples:,} samples" in result.remedy
    for change, verdict in ((0.0, PASS), (-1e-4, INCONCLUSIVE)):
        limits = replace(limits, max_drop=result.passing_max_drop + change)
        assert two_class_result(700, wrong=70, lost=3, gained=2, limits=limits).verdict == verdict


def test_an_inconclusive_retention_names_the_retention_that_passes():
    result = two_class_result(500, wrong=100, lost=1, limits=score_limits(retention=0.999))
    assert result.verdict == INCONCLUSIVE
    option, _, share = re.search(r"--limit (a:retention)(=)([\d.]+);", result.remedy).groups()
    assert option == "a:retention"
    limits = score_limits(retention=float(share))
    assert two_class_result(500, wrong=100, lost=1, limits=limits).verdict == PASS


def test_lost_decisions():
    assert two_class_result(1000, lost=60).verdict == FAIL
    assert two_class_result(1000, lost=10).verdict == INCONCLUSIVE
    assert two_class_result(1000, lost=2, wrong=100).verdict == PASS
    result = two_class_result(1000, wrong=100, lost=20, gained=12)
    assert result.reference_score == pytest.approx(0.9)
    assert result.artifact_score == pytest.approx(0.892)
    assert result.margin == 0.01
    assert (result.lost, result.gained) == (20, 12)
    assert result.verdict == INCONCLUSIVE


def test_ten_times_the_needed_number_of_samples_gives_a_verdict():
    small = two_class_result(500, wrong=50, lost=6, gained=4)
    assert small.verdict == INCONCLUSIVE
    times = 10 * math.ceil(small.needed_samples / 500)
    large = two_class_result(500 * times, wrong=50 * times, lost=6 * times, gained=4 * times)
    assert large.verdict == PASS
    bad = two_class_result(300, lost=6, gained=0)
    assert bad.verdict == INCONCLUSIVE
    times = 10 * math.ceil(bad.needed_samples / 300)
    assert two_class_result(300 * times, lost=6 * times).verdict == FAIL


# Classes


def test_classes_by_hand():
    actual = SCORES.copy()
    actual[1] = [0.5, 0.4, 0.1]  # right becomes wrong
    actual[3] = [0.3, 0.5, 0.2]  # wrong becomes right
    result = compare_scores("answer", np.array([0, 1, 2, 1]), SCORES, actual, limits=score_limits())
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
    result = compare_scores("answer", np.array([1, 1, 0, 0]), scores, scores, limits=score_limits())
    assert (result.kind, result.reference_score) == (BINARY, 0.5)
    assert result.confusions[0].tolist() == [[1, 1], [1, 1]]


def test_a_sample_with_several_decisions_counts_once():
    truth = np.zeros((50, 4), int)
    expected = np.zeros((50, 4, 3))
    expected[..., 0] = 1
    actual = expected.copy()
    actual[:10, 0] = [0, 1, 0]
    result = compare_scores("tags", truth, expected, actual, limits=score_limits())
    assert (result.samples, result.lost) == (50, 10)
    assert result.artifact_score == pytest.approx(0.95)
    # Ten of fifty samples lost a quarter each.
    assert result.changed == pytest.approx(0.05)
    values, counts = np.array([0.0, 0.25]), np.array([40, 10])
    assert result.interval == mean_limits(values, counts)
    assert result.changed_interval == (0.0, result.interval[1])


def test_mcnemar_counts_samples_not_decisions():
    """Ten samples lose all four of their decisions: ten losses, not forty."""
    expected = np.zeros((50, 4, 2))
    expected[..., 0] = 1
    actual = expected.copy()
    actual[:10] = actual[:10, :, ::-1]
    result = compare_scores("a", np.zeros((50, 4), int), expected, actual, limits=score_limits())
    assert result.lost == 40
    assert result.p_value == pytest.approx(2 / 2**10)


def test_non_finite_scores_are_wrong():
    labels, expected = np.repeat([0, 1, 2, 0], 50), np.repeat(SCORES, 50, 0)
    for value in (np.nan, np.inf):
        actual = expected.copy()
        actual[:100] = value
        result = compare_scores("answer", labels, expected, actual, limits=score_limits())
        assert result.artifact_score == 0.5
        assert result.verdict == FAIL


# Amounts


def test_amounts_by_hand():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    expected = np.array([[1.0], [2.0], [3.0], [3.0]])
    actual = np.array([[1.0], [2.0], [3.0], [2.0]])
    result = compare_scores("answer", truth, expected, actual, limits=score_limits())
    # Variance 1.25; mean squared errors 0.25 and 1.
    assert (result.kind, result.metric) == (REGRESSION, "r2")
    assert result.reference_score == pytest.approx(0.8)
    assert result.artifact_score == pytest.approx(0.2)
    assert result.errors == {"mae": (0.25, 0.5), "rmse": (0.5, 1.0)}
    assert result.margin == 0.01
    assert (result.question, result.changed, result.confusions) == ("score", None, None)


def test_verdicts_on_amounts():
    generator = np.random.default_rng(7)
    truth = generator.random(5000)
    expected = truth + 0.01 * generator.standard_normal(5000)
    noise = generator.standard_normal(5000)

    def verdict(actual, scheme="int8"):
        return compare_scores("a", truth, expected, actual, limits=LIMITS[scheme]).verdict

    assert verdict(expected + 1e-4 * noise) == PASS
    assert verdict(expected + 1e-4 * noise, "float16") == PASS
    assert verdict(expected + 0.1 * noise) == FAIL
    assert verdict(expected * np.nan) == FAIL
    with pytest.raises(SampleError, match="all the same"):
        compare_scores("a", np.ones(5), np.zeros(5), np.zeros(5))


def test_few_amounts_without_a_change_are_inconclusive():
    """About ln(80) range² / (variance margin) samples are needed: 4.38 x 12 / 0.02."""
    truth = np.linspace(0, 1, 500)
    result = compare_scores("a", truth, truth, truth)
    assert (result.verdict, result.drop) == (INCONCLUSIVE, 0.0)
    assert result.needed_samples == pytest.approx(4.38 * 12 / 0.02, rel=0.05)
    enough = np.linspace(0, 1, math.ceil(1.02 * result.needed_samples))
    assert compare_scores("a", enough, enough, enough).verdict == PASS
    loose = replace(LIMITS["int8"], max_drop=result.passing_max_drop)
    assert compare_scores("a", truth, truth, truth, limits=loose).verdict == PASS


def test_a_rare_large_error_that_exceeds_the_labels_is_never_a_pass():
    truth = np.linspace(0, 1, 100_000)
    actual = truth.copy()
    actual[5] += 1.5
    result = compare_scores("a", truth, truth, actual)
    assert (result.verdict, result.interval[1]) == (INCONCLUSIVE, math.inf)
    assert "exceeds the range of the labels" in result.remedy
    json.dumps(result.to_json(), allow_nan=False)
    # The reference exceeds them: the artifact is better, which is no reason to fail.
    assert compare_scores("a", truth, actual, truth).verdict == PASS


def test_columns_of_different_size_have_ranges_of_their_own():
    """The limit of the squared error is the mean of both ranges squared: (1 + 100²) / 2."""
    truth = np.stack([np.linspace(0, 1, 2000), np.linspace(1e4, 1e4 + 100, 2000)], -1)
    result = compare_scores("a", truth, truth, truth)
    one = compare_scores("a", truth[:, 1:], truth[:, 1:], truth[:, 1:])
    assert result.interval == pytest.approx(one.interval, rel=0.05)


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
    whole = compare_scores("a", labels, expected, actual, limits=LIMITS["int8"])
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
    result = accumulator.result(LIMITS["int8"])
    assert result.kind == {"logits": "yes or no", "steps": "classes"}.get(kind, kind)
    assert result.reference_score == pytest.approx(whole.reference_score)
    assert result.interval == pytest.approx(whole.interval)
    assert (result.verdict, result.needed_samples) == (whole.verdict, whole.needed_samples)
    assert (result.lost, result.gained) == (whole.lost, whole.gained)
    assert result.p_value == whole.p_value
    if result.confusions is not None:
        np.testing.assert_array_equal(result.confusions, whole.confusions)
