"""Bars, images and ticks on a Matplotlib axis."""

from typing import Any

import numpy as np

from edgeattn.plots import style
from edgeattn.plots.style import RED, Labels
from edgeattn.tensors import Array


def bars(axis: Any, values: Array, color: str, end: float) -> None:
    """Draw bars over steps from 1, or an outline of many; NaN and infinity are hatched up to
    ``end``."""
    steps = np.arange(len(values)) + 1
    finite = np.where(np.isfinite(values), values, 0.0)
    if len(values) <= style.MAX_BARS:
        axis.bar(steps, finite, width=0.85, color=color)
    else:
        edges = np.arange(len(values) + 1) + 0.5
        axis.stairs(finite, edges, fill=True, color=color)
        axis.stairs(finite, edges, color=color, linewidth=0.8)  # keeps narrow peaks visible
    invalid = ~np.isfinite(values)
    if invalid.any():
        axis.bar(steps[invalid], end, width=0.85, facecolor="none", edgecolor=RED, hatch="////")
        label = "//// NaN or infinity"
        axis.text(0.01, 0.9, label, transform=axis.transAxes, color=RED, fontsize=9)
    axis.set_xlim(0.4, len(values) + 0.6)


def image(axis: Any, values: Array, colors: str, low: float, high: float) -> Any:
    """Draw ``(rows, steps)`` as an image, counted from 1; NaN and infinity are vermilion."""
    from matplotlib import colormaps

    finite = np.where(np.isfinite(values), values, np.nan)
    return axis.imshow(
        style.reduce_cells(finite),
        cmap=colormaps[colors].with_extremes(bad=RED),
        vmin=low,
        vmax=high,
        aspect="auto",
        extent=(0.5, values.shape[1] + 0.5, values.shape[0] + 0.5, 0.5),
        interpolation="nearest",
    )


def ticks(axis: Any, length: int, names: Labels, room: float = 6.0) -> None:
    """Label steps from 1 with ``names`` if they fit into ``room`` inches, else with numbers."""
    if names is None or length > min(style.MAX_LABELS, room / 0.14):
        from matplotlib.ticker import MaxNLocator

        bins = max(2, min(10, int(room / 0.45)))
        axis.set_major_locator(MaxNLocator(nbins=bins, integer=True, steps=[1, 2, 5, 10]))
        return
    rotate = axis.axis_name == "x" and 0.085 * max(map(len, names)) + 0.1 > room / length
    axis.set_ticks(
        range(1, length + 1), names, parse_math=False, rotation=90 if rotate else 0, fontsize=9
    )


def set_title(figure: Any, title: str | None) -> None:
    """Set the title of a figure as plain text, if there is one."""
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
