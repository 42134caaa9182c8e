"""Figures of attention show the values of their arguments; wrong arguments are errors."""

import io

import numpy as np
import pytest

from edgeattn import plots
from edgeattn.errors import OutputError, UsageError
from edgeattn.plots import style
from edgeattn.report import frontier

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
    values = np.array([0.1, 0.7, 0.2])
    figure = plots.attention(values, tokens=["a", "$b", "c"], truth=[1], title="T")
    (axis,) = figure.axes
    assert heights(axis) == pytest.approx(values)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches] == pytest.approx([1, 2, 3])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "$b", "c"]
    assert list(axis.lines[0].get_xdata()) == [2]
    assert axis.get_ylabel() == "attention weight"


def test_five_hundred_steps_keep_their_peak():
    values = np.full(500, 1e-3)
    values[123] = 0.5
    (axis,) = plots.attention(values).axes
    assert axis.patches[0].get_data().values == pytest.approx(values)
    square = np.zeros((500, 500))
    square[123, 321] = 0.5
    (drawn,) = images(plots.attention(square))
    assert max(drawn.shape) <= style.MAX_CELLS
    assert drawn.max() == 0.5  # the mean over neighbors would be 0.05


def test_of_neighboring_cells_the_one_farthest_from_zero_remains():
    assert style.reduce_cells(np.array([[1.0, -3.0, 0.5, 0.0]]), 2).tolist() == [[-3.0, 0.5]]
    assert np.isnan(style.reduce_cells(np.array([[1.0, np.nan, 0.5, 0.0]]), 2)[0, 0])


@pytest.mark.parametrize(("heads", "keys"), [(1, 5), (3, 5), (8, 5), (8, 300)])
def test_heads_share_one_scale(heads, keys):
    values = weights(heads, keys, keys)
    figure = plots.attention(values)
    drawn = [image for axis in figure.axes for image in axis.images][:heads]
    assert len(drawn) == heads
    assert {image.get_clim() for image in drawn} == {(0, values.max())}
    if keys == 5:
        for image, head in zip(drawn, values, strict=True):
            np.testing.assert_array_equal(image.get_array(), head)


def test_heads_of_one_query_share_an_image():
    values = weights(8, 1, 7)
    figure = plots.attention(values)
    np.testing.assert_array_equal(images(figure)[0], values[:, 0])
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
    drawn = images(plots.comparison(want, got))
    assert len(drawn) == 9
    np.testing.assert_allclose(drawn[5], got[1] - want[1])
    assert np.abs(drawn[2]).max() == 0


def test_nan_is_not_drawn_as_zero():
    want = weights(5, 7)
    got = want.copy()
    got[2, 3] = np.nan
    drawn = images(plots.comparison(want, got))
    assert np.isnan(drawn[1][2, 3])
    assert np.isnan(drawn[2][2, 3])
    middle = plots.comparison(want[0], got[2]).axes[1]
    assert any(text.get_text() == "//// NaN or infinity" for text in middle.texts)


def test_panels_are_the_maps_side_by_side():
    values = weights(11, 7)
    largest = np.eye(7)[values.argmax(1)]
    figure = plots.panels({"attention": values, "largest": largest})
    for drawn, expected in zip(images(figure), (values, largest), strict=True):
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("shared_scale", [False, True])
def test_panels_have_color_bars_and_no_value_beyond_their_scales(shared_scale):
    first, second = weights(4, 5), 8 * weights(4, 5) - 2
    figure = plots.panels({"a": first, "b": second}, shared_scale=shared_scale)
    limits = [axis.images[0].get_clim() for axis in figure.axes[:2]]
    own = [(0.0, first.max()), (second.min(), second.max())]
    common = (second.min(), second.max())
    np.testing.assert_allclose(limits, [common, common] if shared_scale else own)
    assert len(figure.axes) == 2 + (1 if shared_scale else 2)


def test_every_word_is_drawn_once_within_the_figure():
    tokens = ["it", "is", "", "$5", "dark", *["word"] * 200]
    figure = plots.words(tokens, np.full(205, 1 / 205), title="A text")
    axis = figure.axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts == [token for token in tokens if token] + ["A text"]
    left, right = axis.get_xlim()
    figure.draw_without_rendering()
    for text in axis.texts:
        box = text.get_window_extent().transformed(axis.transData.inverted())
        assert left <= box.x0 <= box.x1 <= right


def test_epochs_and_losses():
    values = weights(4, 7)
    above, below = plots.over_epochs(values, [3.0, 2.0, 1.0]).axes[:2]
    np.testing.assert_array_equal(above.images[0].get_array(), values.T)
    assert above.images[0].get_extent()[:2] == [-0.5, 3.5]
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [np.nan, 3.0, 2.0, 1.0])


def test_a_frame_shows_its_epoch_and_the_loss_until_then():
    values = weights(4, 3, 7)
    figure = plots.epoch(values, [3.0, 2.0, 1.0], number=2, truth=values[3], title="T")
    attention, truth, loss = figure.axes
    np.testing.assert_array_equal(attention.images[0].get_array(), values[2])
    np.testing.assert_array_equal(truth.images[0].get_array(), values[3])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [np.nan, 3.0, 2.0])
    assert figure.get_suptitle() == "T: epoch 2 of 3"


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 7), (4, 2, 7, 7)])
def test_the_animation_has_a_frame_for_each_epoch(shape, tmp_path):
    path = plots.animation(tmp_path / "a.gif", weights(*shape), [3.0, 2.0, 1.0], seconds=0.1)
    with Image.open(path) as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0
        durations = []
        for frame in range(4):
            gif.seek(frame)
            durations.append(gif.info["duration"])
            assert gif.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert durations == [100, 100, 100, 2500]
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.attention(np.zeros((2, 3, 4, 5))), r"\(keys,\).* or .*\(2, 3, 4, 5\)"),
        (lambda: plots.attention([]), r"Received: \(0,\)"),
        (lambda: plots.attention([[1, 2], [3]]), "rows of different length"),
        (lambda: plots.attention("text"), "Received: str"),
        (
            lambda: plots.attention(weights(5), tokens=["a"]),
            "tokens should have 5 elements.*Received: 1",
        ),
        (lambda: plots.attention(weights(5), truth=[5]), r"0 to 4. Received: \[5\]"),
        (lambda: plots.attention(weights(2, 5), truth=[1]), r"shape \(keys,\). Received: \(2, 5\)"),
        (lambda: plots.attention(weights(17, 5, 5)), "room for 16 heads. Received: 17"),
        (lambda: plots.comparison(weights(5), weights(6)), r"\(5,\) and \(6,\)"),
        (lambda: plots.panels({}), "no map"),
        (lambda: plots.panels({"a": weights(2, 3), "b": weights(3, 3)}), r"b \(3, 3\)"),
        (lambda: plots.words(["", ""], [0.5, 0.5]), "at least one element"),
        (lambda: plots.over_epochs(weights(4, 5), [1.0]), "each of the 4 epochs.*or 3"),
        (lambda: plots.epoch(weights(4, 2, 5), truth=weights(3, 5)), r"\(2, 5\).*\(3, 5\)"),
        (lambda: plots.epoch(weights(4, 5, 3, 3)), "room for 4 heads"),
        (lambda: plots.animation("a.gif", weights(5)), r"\(epochs, steps\).* or "),
    ],
)
def test_wrong_arguments_are_errors(draw, message):
    with pytest.raises(UsageError, match=message):
        draw()


def test_saving_to_a_wrong_path_is_an_error(tmp_path):
    figure = plots.attention(weights(5))
    with pytest.raises(OutputError, match="not a supported figure format"):
        plots.save(figure, tmp_path / "picture")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        plots.save(figure, tmp_path / "file" / "a.png")
    assert plots.save(figure, str(tmp_path / "new" / "a.svg")).read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    "figure",
    [
        plots.attention(weights(5)),
        plots.attention(weights(2, 5, 5)),
        plots.comparison(weights(5), weights(5)),
        plots.panels({"a": weights(4, 5), "b": weights(4, 5)}),
        plots.words(["a", "b"], weights(2)),
        frontier.figure([frontier.Point("tflite int8", 1000, 0.9, 0.1, True, True)]),
    ],
    ids=["bars", "heads", "comparison", "panels", "words", "frontier"],
)
def test_notebooks_get_the_saved_picture(figure, tmp_path):
    """Without pyplot, IPython shows only what an object's own method returns."""
    shown = Image.open(io.BytesIO(figure._repr_png_()))
    saved = Image.open(plots.save(figure, tmp_path / "saved.png", dpi=100))
    assert shown.size == saved.size
    # Each layout of a figure moves some axes by a pixel.
    assert np.abs(np.asarray(shown, float) - np.asarray(saved, float)).mean() < 5


def test_public_names_do_not_need_keras():
    assert set(plots.__all__) - {"AttentionOverEpochs"} <= set(vars(plots))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        plots.nothing  # noqa: B018
