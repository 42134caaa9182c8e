"""The metrics, on numbers worked by hand."""

import math

import numpy as np
import pytest

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS

NAN, INF = math.nan, math.inf
ALL = [
    metrics.max_abs_error,
    metrics.mean_abs_error,
    metrics.snr_db,
    metrics.top1_agreement,
    metrics.jensen_shannon,
    metrics.cosine,
    metrics.row_sum_error,
    metrics.masked_mass,
    metrics.topk_overlap,
    metrics.argmax_stability,
    metrics.entropy_shift,
    lambda expected, actual: metrics.topk_agreement(expected, actual, k=1),
    lambda expected, actual: metrics.minimal_atol(expected, actual, rtol=1e-4),
    lambda expected, actual: metrics.tolerance_ratio(expected, actual, atol=1e-5, rtol=1e-4),
]


def array(*rows, dtype=np.float32):
    return np.array(rows, dtype)


def test_max_and_mean_abs_error():
    expected, actual = array([1, 2, 3], [4, 5, 6]), array([1, 2.5, 3], [4, 3, 6])
    assert metrics.max_abs_error(expected, actual) == 2.0
    assert metrics.max_abs_error(actual, expected) == 2.0
    assert metrics.mean_abs_error(expected, actual) == 2.5 / 6


def test_errors_do_not_wrap_or_cancel():
    # 255 - 0 is -1 in int8, and True - False no subtraction that numpy does.
    assert metrics.max_abs_error(array([0], dtype="u1"), array([255], dtype="u1")) == 255
    assert metrics.max_abs_error(array([255], dtype="u1"), array([0], dtype="u1")) == 255
    assert metrics.max_abs_error(array([-128], dtype="i1"), array([127], dtype="i1")) == 255
    assert metrics.max_abs_error(array([True]), array([False])) == 1
    assert metrics.mean_abs_error(array([1, -1]), array([-1, 1])) == 2
    assert metrics.max_abs_error(array([6e4], dtype="f2"), array([-6e4], dtype="f2")) == 120_000


def test_tolerance_ratio_by_hand():
    # |10 - 8| / (0.5 + 0.25 * 8) = 0.8, |1 - 0| / 0.5 = 2; it is the expected that scales.
    assert metrics.tolerance_ratio(array([8]), array([10]), atol=0.5, rtol=0.25) == 0.8
    assert metrics.tolerance_ratio(array([8, 0]), array([10, 1]), atol=0.5, rtol=0.25) == 2.0


def test_tolerance_ratio_is_numpys_allclose():
    generator = np.random.default_rng(5)
    for _ in range(50):
        expected = generator.standard_normal((3, 5))
        actual = expected + 3e-5 * generator.standard_normal((3, 5))
        close = np.allclose(actual, expected, atol=1e-5, rtol=1e-4)
        ratio = metrics.tolerance_ratio(expected, actual, atol=1e-5, rtol=1e-4)
        assert (ratio <= 1) == close


def test_snr_by_hand():
    # Signal 9 + 16 = 25, noise 0.25: 10 log10(100) = 20 dB.
    assert metrics.snr_db(array([3, 4]), array([3.5, 4])) == pytest.approx(20.0)
    assert metrics.snr_db(array([3, 4]), array([3, 4])) == INF
    assert metrics.snr_db(array([0, 0]), array([0, 0])) == INF
    assert metrics.snr_db(array([0, 0]), array([0, 1e-9])) == -INF
    assert metrics.snr_db(array([3, 4]), array([INF, 4])) == -INF
    assert metrics.snr_db(array([3, 4]), array([-3, -4])) == pytest.approx(10 * math.log10(1 / 4))


def test_parts_of_a_metric_add_up():
    """Sums of two halves are those of the whole: 9 + 16, 0.25 + 0; 3*3.5 + 4*4; 3.5² + 4²."""
    expected, actual = array([3, 4]), array([3.5, 4])
    assert metrics.energies(expected, actual) == (25.0, 0.25)
    halves = [metrics.energies(expected[:, k : k + 1], actual[:, k : k + 1]) for k in (0, 1)]
    assert halves == [(9.0, 0.25), (16.0, 0.0)]
    assert metrics.decibels(25.0, 0.25) == metrics.snr_db(expected, actual)
    assert metrics.products(expected, actual) == (26.5, 28.25)
    assert metrics.cosine_of(24.0, 25.0, 25.0) == pytest.approx(24 / 25)
    assert metrics.cosine_of(1e300, 1e300, 1e300) == 1.0
    rows = array([0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.5, 0.0])
    other = array([0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.0, 0.5, 0.5])
    # One agrees, one does not, and the tie counts for nothing.
    assert metrics.topk_counts(rows, other, k=1) == (1, 2)


def test_top1_by_hand():
    expected = array([0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2])
    actual = array([0.4, 0.3, 0.3], [0.2, 0.1, 0.7], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2])
    assert metrics.top1_agreement(expected, actual) == 0.75
    assert metrics.top1_agreement(expected, expected) == 1.0


def test_top1_leaves_near_ties_out():
    # A lead of 0.0003 is less than a thousandth of the range 0.4; one of 0.01 is more.
    tie, lead = [0.4003, 0.4, 0.0], [0.41, 0.4, 0.0]
    assert metrics.top1_agreement(array(tie), array([0.4, 0.4003, 0.0])) == 1.0
    assert metrics.top1_agreement(array(lead), array([0.4, 0.41, 0.0])) == 0.0
    assert metrics.top1_agreement(array(tie, lead), array([0, 1, 0], [0, 1, 0])) == 0.0
    assert metrics.top1_agreement(array([0.5, 0.5]), array([0, 1])) == 1.0


def test_near_ties_are_measured_by_the_largest_of_the_row():
    # Of 400, a thousandth is 0.4: a lead of 0.3 is a tie, one of 0.5 is none.
    assert metrics.top1_agreement(array([400.3, 400, 0.3]), array([0, 1, 0])) == 1.0
    assert metrics.top1_agreement(array([400.5, 400, 0.5]), array([0, 1, 0])) == 0.0
    # Two classes are no further apart than their lead: what decides is how large they are.
    assert metrics.top1_agreement(array([0.5001, 0.4999]), array([0, 1])) == 1.0
    assert metrics.top1_agreement(array([0.55, 0.45]), array([0, 1])) == 0.0
    assert metrics.top1_agreement(array([0.55, 0.45]), array([0, 1]), near_tie=0.2) == 1.0


@pytest.mark.parametrize(
    ("scheme", "tie", "lead"),
    [
        # 10 ** (-20 / 20) = 0.1, 10 ** (-30 / 20) = 0.032 and so on; float32 has a thousandth.
        ("int8", 0.09, 0.11),
        ("dynamic_int8", 0.03, 0.033),
        ("int16x8", 0.009, 0.011),
        ("float16", 0.003, 0.0033),
        ("float32", 0.0009, 0.0011),
    ],
)
def test_near_ties_of_a_scheme_are_within_its_noise(scheme, tie, lead):
    near_tie = LIMITS[scheme].near_tie
    for difference, agreement in ((tie, 1.0), (lead, 0.0)):
        scores = array([1.0, 1.0 - difference], dtype=np.float64)
        assert metrics.top1_agreement(scores, array([0, 1]), near_tie=near_tie) == agreement
    # One of two samples whose lead is clear changes its class, whatever the near ties do.
    rows = array([1.0, 1.0 - tie], [1.0, 1.0 - lead], [0.0, 1.0], dtype=np.float64)
    answers = array([0.4, 0.6], [0.4, 0.6], [0.4, 0.6])
    assert metrics.top1_agreement(rows, answers, near_tie=near_tie) == 0.5


def test_topk_by_hand():
    expected = array([4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2.999, 1], dtype=np.float64)
    actual = array([3, 4, 2, 1], [4, 2, 3, 1], [4, 2, 3, 1], dtype=np.float64)
    # Two largest: the same in another order, one of them wrong, and a tie that is left out.
    assert metrics.topk_agreement(expected, actual, k=2) == 0.5
    assert metrics.topk_agreement(expected, actual, k=3) == 1.0
    assert metrics.topk_agreement(expected, actual, k=4) == 1.0
    assert metrics.topk_agreement(expected, actual, k=9) == 1.0


def test_cosine_by_hand():
    # [3, 4] . [4, 3] = 24, of norms 5 and 5.
    assert metrics.cosine(array([3, 4]), array([4, 3])) == pytest.approx(24 / 25)
    assert metrics.cosine(array([3, 4]), array([30, 40])) == pytest.approx(1)
    assert metrics.cosine(array([3, 4]), array([-3, -4])) == pytest.approx(-1)
    assert metrics.cosine(array([0, 0]), array([0, 0])) == 1.0
    assert metrics.cosine(array([0, 0]), array([0, 1])) == 0.0
    assert metrics.cosine(array([3, 4]), array([0, 0])) == 0.0
    assert math.isnan(metrics.cosine(array([0, 0]), array([0, NAN])))


def test_minimal_atol_by_hand():
    # |10 - 8| - 0.125 * 8 = 1, |0.5 - 0| - 0 = 0.5.
    assert metrics.minimal_atol(array([8, 0]), array([10, 0.5]), rtol=0.125) == 1.0
    assert metrics.minimal_atol(array([8]), array([8.5]), rtol=0.125) == 0.0


def test_top1_over_the_last_axis():
    expected = np.zeros((2, 3, 5))
    expected[..., 4] = 1.0
    actual = expected.copy()
    actual[1, 2] = [1, 0, 0, 0, 0]
    assert metrics.top1_agreement(expected, actual) == 5 / 6
    assert metrics.top1_agreement(expected[..., :1], actual[..., 1:2]) == 1.0


def test_row_sum_error():
    whole = array([0.5, 0.5], [0.5, 0.5])
    assert metrics.row_sum_error(whole, array([0.5, 0.5], [0.5, 0.25])) == 0.25
    assert metrics.row_sum_error(whole, array([0.75, 0.75], [1, 0])) == 0.5
    # A row of padding only sums to zero, and is to stay so.
    assert metrics.row_sum_error(array([0, 0]), array([0, 0])) == 0.0
    assert metrics.row_sum_error(array([0, 0]), array([0.5, 0.5])) == 1.0


def test_masked_mass_is_what_stands_on_exact_zeros():
    expected = array([0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0])
    assert metrics.masked_mass(expected, expected) == 0.0
    assert metrics.masked_mass(expected, array([0.5, 0.25, 0.25, 0], [0.25, 0.75, 0, 0])) == 0.25
    assert metrics.masked_mass(expected, array([1, 1, 0.25, -0.25], [1, 1, 0, 0])) == 0.5
    assert metrics.masked_mass(array([0.5, 1e-30]), array([0.5, 0.5])) == 0.0


def test_topk_overlap_by_hand():
    expected = array([0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25])
    actual = array([0.1, 0.4, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4])
    # Of the keys 0 and 1 it has 1, and 3 instead of 0; among equals every key is right.
    assert metrics.topk_overlap(expected, actual, k=2) == 0.75
    assert metrics.topk_overlap(expected[:1], actual[:1], k=3) == pytest.approx(2 / 3)
    assert metrics.topk_overlap(expected[:1], actual[:1], k=7) == 1.0
    assert metrics.argmax_stability(expected, actual) == 0.5
    assert metrics.argmax_stability(array([0.5, 0.4999, 0]), array([0, 1, 0])) == 1.0


def test_entropy_shift_by_hand():
    # From one key, of entropy 0, to four equal ones, of ln 4; and back.
    one, four = array([1, 0, 0, 0]), array([0.25, 0.25, 0.25, 0.25])
    assert metrics.entropy_shift(one, four) == pytest.approx(math.log(4))
    assert metrics.entropy_shift(four, one) == pytest.approx(math.log(4))
    assert metrics.entropy_shift(four, 3 * four) == 0.0
    two = array([0.5, 0.5, 0, 0])
    both = metrics.entropy_shift(np.concatenate([four, one]), np.concatenate([two, one]))
    assert both == pytest.approx(math.log(2))


def test_jensen_shannon_by_hand():
    # Equal: 0. Disjoint: ln 2. [1, 0] against [1/2, 1/2], whose mean is [3/4, 1/4]:
    # (ln(4/3) + (ln(2/3) + ln 2) / 2) / 2.
    assert metrics.jensen_shannon(array([0.25, 0.75]), array([0.25, 0.75])) == 0.0
    assert metrics.jensen_shannon(array([1, 0]), array([0, 1])) == pytest.approx(math.log(2))
    by_hand = (math.log(4 / 3) + (math.log(2 / 3) + math.log(2)) / 2) / 2
    divergence = metrics.jensen_shannon(array([1, 0]), array([0.5, 0.5]))
    assert divergence == pytest.approx(by_hand, rel=1e-7)
    assert divergence == metrics.jensen_shannon(array([0.5, 0.5]), array([1, 0]))
    pair = metrics.jensen_shannon(array([1, 0], [1, 0]), array([0, 1], [1, 0]))
    assert pair == pytest.approx(math.log(2) / 2)


def test_jensen_shannon_of_rows_that_lost_mass():
    assert metrics.jensen_shannon(array([0.2, 0.6]), array([0.1, 0.3])) == pytest.approx(
        0, abs=1e-9
    )
    # A row that lost all of it looks nowhere in particular: as a uniform one.
    assert metrics.jensen_shannon(array([0.5, 0.5]), array([0, 0])) == 0.0
    assert metrics.jensen_shannon(array([1, 0]), array([0, 0])) > 0.2


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)])
def test_nan_stays_nan(metric, sides):
    # The other rows are equal, and what would stand for the row of NaNs, uniform, is expected.
    pair = [array([0.5, 0.5], [0.25, 0.75]), array([0.5, 0.5], [0.25, 0.75])]
    for broken in ([NAN, NAN], [NAN, 0.5], [0.5, NAN]):
        for side in sides:
            pair[side][0] = broken
        assert math.isnan(metric(*pair))


@pytest.mark.parametrize(
    "metric", [metrics.max_abs_error, metrics.mean_abs_error, ALL[-1], ALL[-2]]
)
def test_infinity_is_an_error_and_no_warning(metric):
    assert metric(array([1.0]), array([INF])) == INF
    assert math.isnan(metric(array([INF]), array([INF])))
    assert not metric(array([INF]), array([1.0])) <= 1


@pytest.mark.parametrize("metric", ALL)
def test_nothing_to_compare(metric):
    empty = np.zeros((0, 3))
    assert metric(empty, empty) in (0.0, 1.0, INF)
