"""Pictures of attention: what is drawn is what was given, and what cannot be drawn is said."""

import numpy as np
import pytest

from edgeattn import plots
from edgeattn.errors import OutputError, UsageError
from edgeattn.plots import style

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def softmax(values):
    powers = np.exp(values)
    return powers / powers.sum(-1, keepdims=True)


def weights(*shape):
    return softmax(2 * np.random.default_rng(5).standard_normal(shape))


def images(figure):
    """Every image of a figure as an array, NaN where it is masked."""
    return [image.get_array().filled(np.nan) for axis in figure.axes for image in axis.images]


def heights(axis):
    return [bar.get_height() for bar in axis.patches]


def test_bars_are_the_weights_and_marks_the_truth():
    given = np.array([0.1, 0.7, 0.2])
    figure = plots.attention(given, tokens=["a", "$b", "c"], truth=[1], title="T")
    (axis,) = figure.axes
    assert heights(axis) == pytest.approx(given)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches] == pytest.approx([1, 2, 3])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "$b", "c"]
    assert list(axis.lines[0].get_xdata()) == [2]
    assert axis.get_ylabel() == "attention weight"


def test_five_hundred_steps_lose_no_peak():
    given = np.full(500, 1e-3)
    given[123] = 0.5
    (axis,) = plots.attention(given).axes
    assert axis.patches[0].get_data().values == pytest.approx(given)
    square = np.zeros((500, 500))
    square[123, 321] = 0.5
    (shown,) = images(plots.attention(square))
    assert max(shown.shape) <= style.MOST_CELLS
    assert shown.max() == 0.5  # an average over neighbours would be 0.05


def test_neighbours_are_told_by_the_one_farthest_from_zero():
    assert style.brightest(np.array([[1.0, -3.0, 0.5, 0.0]]), 2).tolist() == [[-3.0, 0.5]]
    assert np.isnan(style.brightest(np.array([[1.0, np.nan, 0.5, 0.0]]), 2)[0, 0])


@pytest.mark.parametrize(("heads", "keys"), [(1, 5), (3, 5), (8, 5), (8, 300)])
def test_heads_share_one_scale(heads, keys):
    given = weights(heads, keys, keys)
    figure = plots.attention(given)
    shown = [image for axis in figure.axes for image in axis.images][:heads]
    assert len(shown) == heads
    assert {image.get_clim() for image in shown} == {(0, given.max())}
    if keys == 5:
        for image, head in zip(shown, given, strict=True):
            np.testing.assert_array_equal(image.get_array(), head)


def test_heads_of_one_query_share_an_image():
    given = weights(8, 1, 7)
    figure = plots.attention(given)
    np.testing.assert_array_equal(images(figure)[0], given[:, 0])
    assert figure.axes[0].get_ylabel() == "head"


def test_comparison_of_rows_shows_both_and_the_difference():
    want, got = np.array([0.2, 0.8]), np.array([0.25, 0.75])
    left, middle, right = plots.comparison(want, got, names=("Keras", "int8")).axes
    assert heights(left) == pytest.approx(want)
    assert heights(middle) == pytest.approx(got)
    assert heights(right) == pytest.approx([0.05, -0.05])
    assert [axis.get_title(loc="left") for axis in (left, middle, right)] == [
        *("Keras", "int8", "difference")
    ]
    assert left.get_ylim() == middle.get_ylim()


def test_comparison_of_heads_has_a_row_each():
    want = weights(3, 5, 7)
    got = want.copy()
    got[1, 2, 3] += 0.01
    shown = images(plots.comparison(want, got))
    assert len(shown) == 9
    np.testing.assert_allclose(shown[5], got[1] - want[1])
    assert np.abs(shown[2]).max() == 0


def test_what_is_no_number_is_not_drawn_as_zero():
    want = weights(5, 7)
    got = want.copy()
    got[2, 3] = np.nan
    shown = images(plots.comparison(want, got))
    assert np.isnan(shown[1][2, 3])
    assert np.isnan(shown[2][2, 3])
    middle = plots.comparison(want[0], got[2]).axes[1]
    assert any(text.get_text() == "//// no number" for text in middle.texts)


def test_panels_are_the_maps_side_by_side():
    given = weights(11, 7)
    largest = np.eye(7)[given.argmax(1)]
    figure = plots.panels({"attention": given, "largest": largest})
    for shown, expected in zip(images(figure), (given, largest), strict=True):
        np.testing.assert_array_equal(shown, expected)


def test_words_are_written_once_each_within_the_page():
    tokens = ["it", "is", "", "$5", "dark", *["word"] * 200]
    figure = plots.words(tokens, np.full(205, 1 / 205), title="A text")
    axis = figure.axes[0]
    written = [text.get_text() for text in axis.texts]
    assert written == [token for token in tokens if token] + ["A text"]
    left, right = axis.get_xlim()
    figure.draw_without_rendering()
    for text in axis.texts:
        box = text.get_window_extent().transformed(axis.transData.inverted())
        assert left <= box.x0 <= box.x1 <= right


def test_epochs_and_losses():
    given = weights(4, 7)
    above, below = plots.over_epochs(given, [3.0, 2.0, 1.0]).axes[:2]
    np.testing.assert_array_equal(above.images[0].get_array(), given.T)
    assert above.images[0].get_extent()[:2] == [-0.5, 3.5]
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [np.nan, 3.0, 2.0, 1.0])


def test_a_frame_shows_its_epoch_and_the_loss_until_then():
    given = weights(4, 3, 7)
    figure = plots.epoch(given, [3.0, 2.0, 1.0], number=2, truth=given[3], title="T")
    seen, truth, loss = figure.axes
    np.testing.assert_array_equal(seen.images[0].get_array(), given[2])
    np.testing.assert_array_equal(truth.images[0].get_array(), given[3])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [np.nan, 3.0, 2.0])
    assert figure.get_suptitle() == "T: epoch 2 of 3"


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 7), (4, 2, 7, 7)])
def test_the_animation_has_a_frame_for_each_epoch(shape, tmp_path):
    path = plots.animation(tmp_path / "a.gif", weights(*shape), [3.0, 2.0, 1.0], seconds=0.1)
    with Image.open(path) as made:
        assert made.n_frames == 4
        assert made.info["loop"] == 0
        durations = []
        for frame in range(4):
            made.seek(frame)
            durations.append(made.info["duration"])
            assert made.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert durations == [100, 100, 100, 2500]
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: plots.attention(np.zeros((2, 3, 4, 5))), r"\(keys,\) or .*\(2, 3, 4, 5\)"),
        (lambda: plots.attention([]), r"Received: \(0,\)"),
        (lambda: plots.attention([[1, 2], [3]]), "rows differ"),
        (lambda: plots.attention("text"), "not a str"),
        (lambda: plots.attention(weights(5), tokens=["a"]), "tokens should be 5.*Received: 1"),
        (lambda: plots.attention(weights(5), truth=[5]), r"0 to 4. Received: \[5\]"),
        (lambda: plots.attention(weights(2, 5), truth=[1]), "these have queries"),
        (lambda: plots.attention(weights(17, 5, 5)), "At most 16 heads.*Received: 17"),
        (lambda: plots.comparison(weights(5), weights(6)), r"\(5,\) and \(6,\)"),
        (lambda: plots.panels({}), "no map"),
        (lambda: plots.panels({"a": weights(2, 3), "b": weights(3, 3)}), r"b \(3, 3\)"),
        (lambda: plots.words(["", ""], [0.5, 0.5]), "at least one word"),
        (lambda: plots.over_epochs(weights(4, 5), [1.0]), "losses should be 4.*or 3"),
        (lambda: plots.epoch(weights(4, 2, 5), truth=weights(3, 5)), r"\(2, 5\).*\(3, 5\)"),
        (lambda: plots.epoch(weights(4, 5, 3, 3)), "At most 4 heads"),
        (lambda: plots.animation("a.gif", weights(5)), r"\(epochs, steps\) or"),
    ],
)
def test_what_does_not_fit_is_said(draw, told):
    with pytest.raises(UsageError, match=told):
        draw()


def test_saving_says_what_is_wrong(tmp_path):
    figure = plots.attention(weights(5))
    with pytest.raises(OutputError, match="ends in its format"):
        plots.save(figure, tmp_path / "picture")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        plots.save(figure, tmp_path / "file" / "a.png")
    assert plots.save(figure, str(tmp_path / "new" / "a.svg")).read_bytes().startswith(b"<?xml")


def test_names_are_there_without_keras():
    assert set(plots.__all__) - {"AttentionOverEpochs"} <= set(vars(plots))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        plots.nothing  # noqa: B018
