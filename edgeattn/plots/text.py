"""A text whose tokens are shaded by their attention weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.plots import style
from edgeattn.plots.style import PAPER, RED, Look

# White to the orange of Okabe and Ito: lightness alone shows the weight, and black text stays
# readable on every shade.
SHADES = ("#ffffff", "#FFE9B8", "#E69F00")
# In points.
FONT_SIZE, LINE_HEIGHT, WORD_GAP, MARGIN = 10, 17, 4, 12


@dataclass(frozen=True)
class _Word:
    """A token with its weight, its position from the left and width in points, and its line."""

    text: str
    weight: float
    x: float
    width: float
    line: int


def words(
    tokens: Sequence[object],
    weights: ArrayLike,
    *,
    title: str | None = None,
    width: float = 7.0,
    look: Look = PAPER,
) -> Any:
    """Draw a text of any length, wrapped, with every token shaded by its attention weight.

    ``weights`` are ``(steps,)``, with a token for each; empty tokens, such as padding, are skipped.
    The figure is ``width`` inches wide and as high as the text needs. Tokens are black in every
    ``look``. Raises :class:`UsageError` if the number of tokens is wrong or all are empty.
    """
    array = style.as_array(weights, "weights", {1: "(steps,)"})
    texts = style.labels(tokens, len(array)) or []
    pairs = [(text, value) for text, value in zip(texts, array, strict=True) if text]
    if not pairs:
        raise UsageError("tokens should have at least one element that is not empty.")
    end = style.top(array)
    with style.figure(width, 1.0, look=look) as (figure, axes):
        figure.set_layout_engine("none")
        wrapped = _wrap(figure, pairs, 72 * width - 2 * MARGIN)
        above, below = (26 if title else 10), 46  # points; the color scale is below
        height = above + (wrapped[-1].line + 1) * LINE_HEIGHT + below
        figure.set_size_inches(width, height / 72)
        axis = axes[0, 0]
        axis.set_position((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_xlim(0, 72 * width)
        axis.set_ylim(height, 0)
        _draw_words(axis, wrapped, above, end)
        if title:
            axis.text(MARGIN, 12, title, fontsize=11, va="center", parse_math=False)
        _draw_scale(figure, end, height, width)
        return figure


def _wrap(figure: Any, pairs: Sequence[tuple[str, float]], room: float) -> list[_Word]:
    """Break the tokens into lines of at most ``room`` points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    renderer = FigureCanvasAgg(figure).get_renderer()
    font = FontProperties(size=FONT_SIZE)
    wrapped, x, line = [], 0.0, 0
    for text, weight in pairs:
        pixels, _, _ = renderer.get_text_width_height_descent(text, font, False)
        width = float(pixels) * 72 / float(figure.dpi)
        if x and x + width > room:
            x, line = 0.0, line + 1
        wrapped.append(_Word(text, weight, MARGIN + x, width, line))
        x += width + WORD_GAP
    return wrapped


def _colors() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", SHADES).with_extremes(bad=RED)


def _draw_words(axis: Any, wrapped: Sequence[_Word], above: float, end: float) -> None:
    from matplotlib.patches import Rectangle

    colors = _colors()
    for word in wrapped:
        middle = above + (word.line + 0.5) * LINE_HEIGHT
        corner = (word.x - WORD_GAP / 2, middle - LINE_HEIGHT / 2 + 1)
        size = (word.width + WORD_GAP, LINE_HEIGHT - 2)
        axis.add_patch(Rectangle(corner, *size, facecolor=colors(word.weight / end), linewidth=0))
        axis.text(
            word.x, middle, word.text, fontsize=FONT_SIZE, va="center_baseline", color="black",
            parse_math=False,
        )  # fmt: skip


def _draw_scale(figure: Any, end: float, height: float, width: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axis = figure.add_axes((MARGIN / (72 * width), 32 / height, 1.6 / width, 7 / height))
    colors = ScalarMappable(Normalize(0, end), _colors())
    bar = figure.colorbar(colors, cax=axis, orientation="horizontal")
    bar.set_ticks([0, end], labels=["0", f"{end:.2g}"])
    axis.tick_params(labelsize=8, length=2)
    axis.text(1.08, 0.5, "attention weight", transform=axis.transAxes, va="center", fontsize=8)
