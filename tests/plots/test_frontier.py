"""The plot of the candidates of ``edgeattn tune``."""

import pytest

pytest.importorskip("matplotlib")
from edgeattn.report import frontier
from edgeattn.report.frontier import Point

POINTS = [
    Point("tflite float32", 9000, 0.95, 0.4, True),
    Point("onnx int8", 3000, 0.94, 0.3, True, chosen=True, interval_ms=(0.2, 0.35)),
    Point("tflite int4, lstm in int8", 2000, 0.8, 0.1, False),
    Point("onnx float16", 5000, 0.93, 0.2, True),
]


def test_the_frontier_is_what_no_smaller_one_beats():
    pairs = [(9, 0.4), (3, 0.3), (5, 0.2), (4, 0.35), (9, 0.1), (3, 0.5), (6, 0.2)]
    assert frontier.best_by_size(pairs) == [(3, 0.3), (5, 0.2), (9, 0.1)]
    assert frontier.best_by_size([]) == []


def lines(axis):
    """The steps of the frontier, as ``(x, y)`` of its corners."""
    return [
        list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in axis.lines
        if line.get_drawstyle() == "steps-post"
    ]


def test_lines_connect_candidates_that_pass():
    left, right = frontier.figure(POINTS, floor=0.9).axes
    # The failing candidate is smaller, but not part of it.
    ((*score, (end, last)),) = lines(left)
    assert score == [(3, 0.94), (9, 0.95)]
    assert (end, last) == (pytest.approx(1.05 * 9), 0.95)
    ((*latency, _),) = lines(right)
    assert latency == [(3, 0.3), (5, 0.2)]
    assert left.get_xlim() == right.get_xlim()
    low, high = left.get_ylim()
    assert low < 0.8
    assert 0.95 < high < 1


def test_the_legend_has_schemes_formats_and_what_fails():
    (legend,) = frontier.figure(POINTS).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        *("float32", "float16", "int8", "int4", "tflite", "onnx"),
        *("does not pass", "best up to this size"),
    ]
    (legend,) = frontier.figure(POINTS[:2]).legends
    assert "does not pass" not in [text.get_text() for text in legend.get_texts()]


def test_equal_scores_have_a_narrow_scale():
    points = [Point("onnx int8", 3000, 1.0, None, True), Point("onnx int4", 2000, 1.0, None, True)]
    left, right = frontier.figure(points, floor=0.98).axes
    low, high = left.get_ylim()
    assert (low, high) == (pytest.approx(0.977), pytest.approx(1.003))
    assert [text.get_text() for text in right.texts] == ["not measured"]


def test_nothing_passes():
    left, right = frontier.figure(POINTS[2:3]).axes
    assert lines(left) == lines(right) == []
