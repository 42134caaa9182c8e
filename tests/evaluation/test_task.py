"""The task's statistics on numbers worked by hand, and their decisions."""

import json
import math

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.evaluation import task
from edgeattn.evaluation.task import AMOUNTS, CLASSES, FAIL, INCONCLUSIVE, PASS, YES_NO
from edgeattn.metrics import statistics


def decisions(samples, *, wrong_before=0, lost=0, gained=0):
    """Right or wrong, before and after: the first ones lost, the last ones gained or wrong."""
    before = np.ones(samples, bool)
    before[samples - wrong_before :] = False
    after = before.copy()
    after[:lost] = False
    after[samples - gained :] = True
    return before, after


def judged(*args, retention=0.99, **kwargs):
    """The outcome of two classes, the first of them true; scores move further than leads are."""
    before, after = (np.stack([right, ~right], -1) for right in decisions(*args, **kwargs))
    return task.compare("a", np.zeros(len(before), int), before, 3.0 * after, retention=retention)


# McNemar


def test_mcnemar_by_hand():
    # Of 5 throws none: 2 / 32. Of 4 one: 2 (1 + 4) / 16. As many: more than certain, so 1.
    assert statistics.mcnemar(0, 5) == pytest.approx(2 / 32)
    assert statistics.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert statistics.mcnemar(1, 3) == pytest.approx(10 / 16)
    assert statistics.mcnemar(3, 3) == 1.0
    assert statistics.mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (2, 9), (17, 31), (400, 480), (5000, 5300)])
def test_mcnemar_is_the_exact_binomial_test(lost, gained):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert statistics.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-7)


# The bootstrap


def test_bootstrap_of_decisions_is_as_wide_as_the_normal_distribution_says():
    loss = np.zeros(10_000)
    loss[:300], loss[300:400] = 1, -1
    low, high = statistics.bootstrap(loss)
    # Mean 0.02, variance 0.04 - 0.0004: 1.96 standard errors are 0.0039.
    assert low == pytest.approx(0.02 - 0.0039, abs=2e-4)
    assert high == pytest.approx(0.02 + 0.0039, abs=2e-4)
    assert statistics.bootstrap(loss) == (low, high)


@pytest.mark.parametrize("samples", [300, 50_000])
def test_bootstrap_of_amounts(samples):
    """Whether every sample is a pile of its own or shares one."""
    loss = np.random.default_rng(3).standard_normal(samples) * 2 + 1
    low, high = statistics.bootstrap(loss)
    half = statistics.Z * loss.std() / math.sqrt(samples)
    assert low == pytest.approx(loss.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(loss.mean() + half, abs=0.08 * half)


def test_piles_are_the_same_however_they_come():
    losses = np.random.default_rng(4).standard_normal(9_000)
    whole, parts = statistics.Piles(), statistics.Piles()
    whole.add(losses)
    for part in np.array_split(losses, 7):
        parts.add(part)
    assert parts.sizes.tolist() == whole.sizes.tolist()
    assert set(whole.sizes.tolist()) == {2.0, 3.0}
    np.testing.assert_allclose(parts.sums, whole.sums)
    assert whole.sums.sum() == pytest.approx(losses.sum())
    assert whole.bootstrap(2.0) == pytest.approx(tuple(2 * x for x in whole.bootstrap()))


def test_bootstrap_covers_as_often_as_it_says():
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        loss = generator.choice([-1, 0, 1], p=[0.03, 0.92, 0.05], size=800)
        low, high = statistics.bootstrap(loss)
        held += low <= 0.02 <= high
    assert 180 <= held <= 199


# What was not seen


def test_the_rule_of_three():
    # (1 - p)^n = 0.05: about 3 / n.
    assert statistics.unseen_loss(300) == pytest.approx(0.009936, abs=1e-6)
    assert (1 - statistics.unseen_loss(1000)) ** 1000 == pytest.approx(0.05)


def test_leads_know_more_than_counts():
    lead = statistics.smallest(np.linspace(0.001, 1.0, 1000))
    assert lead.tolist() == pytest.approx([k / 1000 for k in range(1, 11)])
    # Ten leads reach to 0.01, and the error to a tenth of that: (10 + 2 sqrt 10) / 1000 / 10.
    assert statistics.unseen_loss(1000, lead, 1000, 0.001) == pytest.approx(0.001632, abs=1e-6)
    assert statistics.unseen_loss(1000, lead, 1000, 0.0) == 0.0
    # Where the error reaches the leads, or cannot be told, counting is all there is.
    for error in (0.01, 0.5, math.inf, math.nan):
        assert statistics.unseen_loss(1000, lead, 1000, error) == statistics.unseen_loss(1000)
    assert statistics.unseen_loss(12, lead, 12, 0.0) == statistics.unseen_loss(12)


# The interval of a share


def test_wilson_by_hand():
    # z² = 3.8415. Of 10 throws 5: 0.5 ± 1.96 sqrt(0.025 + 0.0096) / 1.384.
    low, high = statistics.wilson(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    # Of all: from n / (n + z²) to 1.
    assert statistics.wilson(100, 100) == pytest.approx((100 / 103.8415, 1.0), abs=1e-6)
    assert statistics.wilson(0, 100) == pytest.approx((0.0, 3.8415 / 103.8415), abs=1e-6)


@pytest.mark.parametrize(("right", "samples"), [(350, 360), (1, 7), (99, 100), (0, 3)])
def test_wilson_is_that_of_another_library(right, samples):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, samples).proportion_ci(method="wilson")
    found = statistics.wilson(right, samples)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-6)


# The decision


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.02, 0.0099), PASS),
        ((-0.02, 0.01), PASS),
        ((0.0, 0.011), INCONCLUSIVE),
        ((0.01, 0.02), INCONCLUSIVE),
        ((0.0101, 0.02), FAIL),
        ((math.nan, math.nan), FAIL),
    ],
)
def test_non_inferiority(interval, verdict):
    assert statistics.non_inferior(interval, 0.01) == verdict


def test_nothing_lost_on_few_samples_is_no_proof():
    few = judged(100)
    assert (few.verdict, few.before, few.after) == (INCONCLUSIVE, 1.0, 1.0)
    # (1 - 0.01)^n = 0.05.
    assert few.needed == 299
    assert judged(few.needed).verdict == PASS
    assert judged(few.needed - 2).verdict == INCONCLUSIVE


def test_what_was_lost_decides():
    assert judged(1000, lost=60).verdict == FAIL
    assert judged(1000, lost=10).verdict == INCONCLUSIVE
    assert judged(1000, lost=2, wrong_before=100).verdict == PASS
    found = judged(1000, wrong_before=100, lost=20, gained=12)
    assert found.before == pytest.approx(0.9)
    assert found.after == pytest.approx(0.892)
    assert found.margin == pytest.approx(0.009)
    assert (found.lost, found.gained) == (20, 12)
    assert found.verdict == INCONCLUSIVE


def test_as_many_samples_as_are_said_to_be_needed_settle_it():
    small = judged(500, wrong_before=50, lost=6, gained=4)
    assert small.verdict == INCONCLUSIVE
    times = math.ceil(small.needed / 500)
    large = judged(500 * times, wrong_before=50 * times, lost=6 * times, gained=4 * times)
    assert large.verdict == PASS
    bad = judged(300, lost=6, gained=0)
    assert bad.verdict == INCONCLUSIVE
    times = math.ceil(bad.needed / 300)
    assert judged(300 * times, lost=6 * times).verdict == FAIL


def test_a_drop_on_the_margin_is_never_settled():
    # One of a hundred was lost: a drop of 0.01, and 0.0995 about it.
    assert statistics.needed_samples(0.01, 0.0995, 100, 0.01) is None
    assert statistics.needed_samples(0.0, 0.0, 50, 0.0) is None
    # 1.96 standard errors of 0.2 / sqrt(n) are 0.01.
    assert statistics.needed_samples(0.0, 0.2, 100, 0.01) == 1537


# Labels


SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])


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
def test_labels_of_classes(labels):
    kind, truth = task.read_labels("answer", labels, SCORES)
    assert kind == CLASSES
    assert truth.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [False, True, True, False]])
def test_labels_of_yes_and_no(labels, shape):
    kind, truth = task.read_labels("answer", np.array(labels), np.zeros(shape))
    assert (kind, truth.shape, truth.ravel().tolist()) == (YES_NO, shape, [0, 1, 1, 0])


def test_labels_that_are_amounts():
    for labels in ([0.5, 1, 2, 3], [3, 1, 4, 1], [1, 1, 1, 1]):
        assert task.read_labels("answer", np.array(labels), np.zeros((4, 1)))[0] == AMOUNTS
    steps = np.zeros((4, 5, 2))
    assert task.read_labels("answer", np.full((4, 5, 2), 0.5), steps)[0] == AMOUNTS
    assert task.read_labels("answer", np.ones((4, 5), int), steps)[0] == CLASSES


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
def test_labels_that_do_not_fit(labels):
    with pytest.raises(SampleError, match="answer"):
        task.read_labels("answer", labels, SCORES)


def test_labels_are_found_by_their_output():
    a, b = np.zeros(3), np.ones(3)
    assert list(task.labels_for({"y": a}, ("one",))) == ["one"]
    assert list(task.labels_for({"y/two": b}, ("one", "two"))) == ["two"]
    assert task.labels_for({}, ("one",)) == {}
    with pytest.raises(SampleError, match="2 outputs"):
        task.labels_for({"y": a}, ("one", "two"))


# From answers to an outcome


def test_classes_by_hand():
    after = SCORES.copy()
    after[1] = [0.5, 0.4, 0.1]  # right becomes wrong
    after[3] = [0.3, 0.5, 0.2]  # wrong becomes right
    found = task.compare("answer", np.array([0, 1, 2, 1]), SCORES, after, retention=0.99)
    assert (found.before, found.after, found.drop) == (0.75, 0.75, 0.0)
    assert (found.lost, found.gained, found.p_value) == (1, 1, 1.0)
    before, changed = found.confusions
    assert before.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert changed.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found.verdict == INCONCLUSIVE
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_yes_and_no_of_probabilities_and_of_logits(scale):
    before = np.array([[0.9], [0.4], [0.2], [0.8]]) * (1 if scale == 1 else scale)
    if scale > 1:
        before -= 20.0
    found = task.compare("answer", np.array([1, 1, 0, 0]), before, before, retention=0.99)
    assert (found.kind, found.before) == (YES_NO, 0.5)
    assert found.confusions[0].tolist() == [[1, 1], [1, 1]]


def test_a_sample_of_several_decisions_counts_once():
    truth = np.zeros((50, 4), int)
    before = np.zeros((50, 4, 3))
    before[..., 0] = 1
    after = before.copy()
    after[:10, 0] = [0, 1, 0]
    found = task.compare("tags", truth, before, after, retention=0.99)
    assert (found.samples, found.lost) == (50, 10)
    assert found.after == pytest.approx(0.95)
    # Ten of fifty samples lost a quarter each.
    assert found.interval[1] == pytest.approx(0.05 + 1.96 * 0.1 / math.sqrt(50), abs=5e-3)


def test_an_answer_that_is_no_number_is_wrong():
    for value in (np.nan, np.inf):
        after = np.repeat(SCORES, 50, 0)
        after[:100] = value
        found = task.compare(
            "answer", np.repeat([0, 1, 2, 0], 50), np.repeat(SCORES, 50, 0), after, retention=0.99
        )
        assert found.after == 0.5
        assert found.verdict == FAIL


def test_amounts_by_hand():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    before = np.array([[1.0], [2.0], [3.0], [3.0]])
    after = np.array([[1.0], [2.0], [3.0], [2.0]])
    found = task.compare("answer", truth, before, after, retention=0.99)
    # Variance 1.25; mean squared errors 0.25 and 1.
    assert (found.kind, found.score) == (AMOUNTS, "r2")
    assert found.before == pytest.approx(0.8)
    assert found.after == pytest.approx(0.2)
    assert found.errors == {"mae": (0.25, 0.5), "rmse": (0.5, 1.0)}
    assert found.margin == pytest.approx(0.008)
    assert found.confusions is None


def test_amounts_that_are_kept_and_lost():
    generator = np.random.default_rng(7)
    truth = generator.standard_normal(5000)
    before = truth + 0.1 * generator.standard_normal(5000)
    noise = generator.standard_normal(5000)
    kept = task.compare("a", truth, before, before + 1e-4 * noise, retention=0.99)
    assert kept.verdict == PASS
    lost = task.compare("a", truth, before, before + 0.5 * noise, retention=0.99)
    assert lost.verdict == FAIL
    broken = task.compare("a", truth, before, before * np.nan, retention=0.99)
    assert broken.verdict == FAIL
    with pytest.raises(SampleError, match="all the same"):
        task.compare("a", np.ones(5), np.zeros(5), np.zeros(5), retention=0.99)
