"""The parts that pictures are put together from, drawn on an axis of matplotlib's."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeattn.plots import style
from edgeattn.plots.style import RED
from edgeattn.tensors import Array


def bars(axis: Any, values: Array, color: str, end: float) -> None:
    """A bar for each step from 1 on, or one outline where there are too many for that.

    What is no number gets a bar to ``end`` in vermilion, hatched.
    """
    steps = np.arange(len(values)) + 1
    finite = np.where(np.isfinite(values), values, 0.0)
    if len(values) <= style.MOST_BARS:
        axis.bar(steps, finite, width=0.85, color=color)
    else:
        edges = np.arange(len(values) + 1) + 0.5
        axis.stairs(finite, edges, fill=True, color=color)
        axis.stairs(finite, edges, color=color, linewidth=0.8)  # so that no peak is too thin
    lost = ~np.isfinite(values)
    if lost.any():
        axis.bar(steps[lost], end, width=0.85, facecolor="none", edgecolor=RED, hatch="////")
        axis.text(0.01, 0.9, "//// no number", transform=axis.transAxes, color=RED, fontsize=9)
    axis.set_xlim(0.4, len(values) + 0.6)


def image(axis: Any, values: Array, colors: str, low: float, high: float) -> Any:
    """``(rows, steps)``, counted from 1; what is no number is vermilion."""
    from matplotlib import colormaps

    shown = colormaps[colors].with_extremes(bad=RED)
    extent = (0.5, values.shape[1] + 0.5, values.shape[0] + 0.5, 0.5)
    finite = np.where(np.isfinite(values), values, np.nan)
    return axis.imshow(
        style.brightest(finite),
        cmap=shown,
        vmin=low,
        vmax=high,
        aspect="auto",
        extent=extent,
        interpolation="nearest",
    )


def ticks(axis: Any, length: int, names: list[str] | None, room: float = 6.0) -> None:
    """Whole steps, counted from 1, or their names where there is ``room``, in inches, for them."""
    if names is None or length > min(style.MOST_LABELS, room / 0.14):
        from matplotlib.ticker import MaxNLocator

        most = max(2, min(10, int(room / 0.45)))
        axis.set_major_locator(MaxNLocator(nbins=most, integer=True, steps=[1, 2, 5, 10]))
        return
    turned = axis.axis_name == "x" and 0.085 * max(map(len, names)) + 0.1 > room / length
    axis.set_ticks(
        range(1, length + 1), names, parse_math=False, rotation=90 if turned else 0, fontsize=9
    )


def titled(made: Any, title: str | None) -> None:
    if title:
        made.suptitle(title, fontsize=11, parse_math=False)
