"""Windows over a stream: the readings in each, whatever the blocks in which they arrive."""

import numpy as np
import pytest

from edgeattn.errors import SampleError, UsageError
from edgeattn.frontend.fields import parse_table
from edgeattn.frontend.windows import Window, WindowBuffer

READINGS = np.arange(40, dtype="float64").reshape(20, 2)


def windows(window, *blocks):
    buffer = WindowBuffer(window)
    items = [item for block in blocks for _, item in buffer.extend(np.asarray(block, "float64"))]
    return [item if isinstance(item, SampleError) else window.normalized(item) for item in items]


@pytest.mark.parametrize("hop", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("block", [1, 2, 5, 20])
def test_windows_start_a_hop_apart(hop, block):
    parts = [READINGS[start : start + block] for start in range(0, 20, block)]
    expected = [READINGS[start : start + 3] for start in range(0, 18, hop)]
    actual = windows(Window(3, hop=hop), *parts)
    np.testing.assert_array_equal(actual, expected)


def test_the_buffer_does_not_grow():
    buffer = WindowBuffer(Window(3, hop=5))
    for reading in np.tile(READINGS, (50, 1)):
        list(buffer.extend(reading[None]))
        assert len(buffer._memory) == 6


def test_the_ends_of_windows_and_errors_in_a_block():
    blocks = [[0, 1, 2, 3], [4, np.nan, 6, 7, 8]]
    buffer = WindowBuffer(Window(3, hop=2))
    ends = [[end for end, _ in buffer.extend(np.float64(block))] for block in blocks]
    # Windows 0 to 2 and 2 to 4, the reading that is missing, and 6 to 8.
    assert ends == [[3], [1, 2, 5]]


def test_normalization():
    (mean,) = windows(Window(3, normalization="mean"), [[1, 5], [2, 5], [6, 5]])
    np.testing.assert_array_equal(mean, [[-2, 0], [-1, 0], [3, 0]])
    (scaled,) = windows(Window(3, normalization="range"), [[1, 5], [2, 5], [6, 5]])
    np.testing.assert_allclose(scaled, [[0, 0], [0.2, 0], [1, 0]], rtol=1e-6)
    (standard,) = windows(Window(2, normalization="standard"), [[1, 5], [5, 5]])
    np.testing.assert_array_equal(standard, [[-1, 0], [1, 0]])


def test_a_missing_reading_restarts_the_window():
    first, error, second = windows(Window(2), [1, 2, 3, np.nan, 4, 5])
    np.testing.assert_array_equal([first, second], [[1, 2], [4, 5]])
    assert isinstance(error, SampleError)
    assert "not finite numbers" in error.message


def test_a_missing_reading_repeats_the_previous_one():
    held = Window(2, hop=1, missing="previous")
    actual = windows(held, [[1, 10]], [[np.nan, 20]], [[np.nan, np.inf]], [[4, 40]])
    np.testing.assert_array_equal(
        actual, [[[1, 10], [1, 20]], [[1, 20], [1, 20]], [[1, 20], [4, 40]]]
    )


def test_a_first_reading_that_is_missing_is_an_error():
    error, window = windows(Window(2, missing="previous"), [np.nan, 1, 2])
    assert isinstance(error, SampleError)
    np.testing.assert_array_equal(window, [1, 2])


def test_readings_of_another_width():
    window = Window(2, columns=3)
    np.testing.assert_array_equal(window.block(np.ones(3)), np.ones((1, 3)))
    for values in (np.ones(2), np.ones((2, 2)), np.float64(1)):
        with pytest.raises(SampleError, match="A reading has 3 values"):
            window.block(values)


@pytest.mark.parametrize("key", ["length", "hop", "columns", "sampling_rate"])
def test_impossible_sizes(key):
    with pytest.raises(UsageError, match=f"{key} is 0"):
        parse_table(Window, {"length": 3, key: 0}, "window")
