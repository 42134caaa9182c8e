"""A text with every word on a ground that is the darker, the more it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.plots import style
from edgeattn.plots.style import PAPER, RED, Look

# From paper to Okabe and Ito's orange: lightness alone tells it, and black is read on all of it.
GROUND = ("#ffffff", "#FFE9B8", "#E69F00")
SIZE = 10  # points
LINE = 17  # points from one line to the next
GAP = 4  # points between words


def words(
    tokens: Sequence[object],
    weights: ArrayLike,
    *,
    title: str | None = None,
    width: float = 7.0,
    look: Look = PAPER,
) -> Any:
    """A text, wrapped, with the attention of each word behind it; any length.

    Args:
        tokens: the words, one for each weight; empty ones, as for padding, are left out.
        weights: ``(steps,)``.
        title: above the text.
        width: of the figure, in inches.
        look: the colours of what is not data; the words are black on their ground.

    Returns:
        :class:`matplotlib.figure.Figure`, as high as the text needs.

    Raises:
        UsageError: shapes that do not fit, no word at all, or matplotlib is missing.
    """
    array = style.checked(weights, "weights", {1: "(steps,)"})
    told = style.labels(tokens, len(array)) or []
    shown = [(text, value) for text, value in zip(told, array, strict=True) if text]
    if not shown:
        raise UsageError("tokens should hold at least one word. Received: empty ones only.")
    with style.figure(width, 1.0, look=look) as (made, axes):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        made.set_layout_engine("none")
        canvas = FigureCanvasAgg(made)
        across = [_width(canvas, text) for text, _ in shown]  # points
        places, lines = _wrapped(across, 72 * width - 24)
        above, below = (26 if title else 10), 46  # points, below for the scale
        height = above + lines * LINE + below
        made.set_size_inches(width, height / 72)
        axis = axes[0, 0]
        axis.set_position((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set_xlim(0, 72 * width)
        axis.set_ylim(height, 0)
        _write(axis, shown, places, across, above, style.top(array))
        if title:
            axis.text(12, 12, title, fontsize=11, va="center", parse_math=False)
        _scale(made, style.top(array), height, width)
        return made


def _width(canvas: Any, text: str) -> float:
    """Points that ``text`` is wide."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=SIZE)
    wide, _, _ = canvas.get_renderer().get_text_width_height_descent(text, font, False)
    return float(wide) * 72 / float(canvas.figure.dpi)


def _wrapped(across: Sequence[float], room: float) -> tuple[list[tuple[float, int]], int]:
    """Where each word stands, ``(points from the left, line)``, and how many lines there are."""
    places, x, line = [], 0.0, 0
    for wide in across:
        if x and x + wide > room:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += wide + GAP
    return places, line + 1


def _colors() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ground", GROUND).with_extremes(bad=RED)


def _write(
    axis: Any,
    shown: Sequence[tuple[str, float]],
    places: Sequence[tuple[float, int]],
    across: Sequence[float],
    above: float,
    end: float,
) -> None:
    from matplotlib.patches import Rectangle

    colors = _colors()
    for (text, value), (x, line), wide in zip(shown, places, across, strict=True):
        middle = above + (line + 0.5) * LINE
        box = (12 + x - GAP / 2, middle - LINE / 2 + 1)
        ground = colors(value / end)
        axis.add_patch(Rectangle(box, wide + GAP, LINE - 2, facecolor=ground, linewidth=0))
        axis.text(
            12 + x,
            middle,
            text,
            fontsize=SIZE,
            va="center_baseline",
            color="black",
            parse_math=False,
        )


def _scale(made: Any, end: float, height: float, width: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    place = (12 / (72 * width), 32 / height, 1.6 / width, 7 / height)
    axis = made.add_axes(place)
    bar = made.colorbar(
        ScalarMappable(Normalize(0, end), _colors()), cax=axis, orientation="horizontal"
    )
    bar.set_ticks([0, end], labels=["0", f"{end:.2g}"])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.ax.text(1.08, 0.5, "attention weight", transform=bar.ax.transAxes, va="center", fontsize=8)
