"""Figures as SVG text, drawn by matplotlib; ink takes the colour of the page, dark or light.

Colours are those of :mod:`edgeattn.plots`, which people with any of the common colour deficiencies
tell apart.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.plots import style
from edgeattn.plots.axes import bars, image, ticks
from edgeattn.plots.style import BLUE, DIFFERENCES, ORANGE, RED, WEIGHTS, Look
from edgeattn.report import frontier
from edgeattn.tensors import Array

# Replaced by the text's colour once the figure is text itself.
INK = "#010203"
# In front of the names of a figure's parts, until the page numbers its figures.
NUMBER = "figure_number_"
# A panel, in inches: three beside each other, or below each other where the screen is narrow.
WIDTH, HEIGHT = 3.1, 2.2
# Of so few steps each has its number, or its word.
FEW = 16


@dataclass(frozen=True)
class Drop:
    """What an artifact loses, in shares: measured, its interval, and what may be lost."""

    label: str
    drop: float
    low: float
    high: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class Speed:
    """An artifact's size in bytes and its median latency in milliseconds."""

    label: str
    bytes: int
    p50_ms: float
    verdict: str


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    style.require("matplotlib", extra="report")
    with style.figure(width, height, look=Look(INK, "none")) as (made, axes):
        yield made, axes[0, 0]


def _svg(figure: Any, title: str) -> str:
    """The figure as an ``<svg>`` with a name that screen readers read."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=80)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Half of what matplotlib writes are line breaks, and digits of places that no screen shows.
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r' (d|x|y)="[^"]*"', lambda place: _rounded(place.group()), text)
    # Every figure counts its parts from one: on one page they need names of their own.
    prefix = NUMBER
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', text)
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _rounded(places: str) -> str:
    """Coordinates to the hundredth of a point; never what is written beside an axis."""
    return re.sub(r"(\d\.\d{2})\d+", r"\1", places)


def histogram(errors: Array, title: str) -> str:
    """How large the errors are, on a logarithmic axis."""
    sizes = np.abs(errors[np.isfinite(errors)]).ravel()
    shown = sizes[sizes > 0]
    with _figure(4.4, 2.1) as (figure, axis):
        if len(shown):
            low = math.floor(math.log10(max(float(shown.min()), 1e-12)))
            high = max(math.ceil(math.log10(float(shown.max()))), low + 1)
            counts, edges = np.histogram(shown, bins=np.logspace(low, high, 40))
            axis.stairs(counts, edges, fill=True, color=BLUE)
            axis.set_xscale("log")
        axis.set_xlabel("absolute error")
        axis.set_ylabel("values")
        axis.set_ylim(bottom=0)
        return _svg(figure, title)


def maps(
    expected: Array, actual: Array, title: str, names: list[str] | None = None, first: int = 0
) -> list[str]:
    """One head's attention to one sample: Keras', the artifact's, and their difference.

    ``(keys,)`` gives bars over the steps, ``(queries, keys)`` images. ``names`` stand at the keys.
    ``first`` is the number of the first key that is shown, where padding is left out.
    """
    difference = actual - expected
    end = style.top(expected, actual)
    most = style.top(np.abs(difference))
    power = math.floor(math.log10(most))
    told = f"difference, in 1e{power:+03d}"
    both = (("Keras, weights", expected, BLUE), ("artifact, weights", actual, ORANGE))
    panels = (*both, (told, None, RED))
    length = expected.shape[-1]
    # Words that would not be drawn leave the axis to the numbers of the steps.
    words = names is not None and length <= FEW
    if not words:
        names = [str(first + k + 1) for k in range(length)] if length <= FEW else None
    figures = []
    for name, weights, color in panels:
        with _figure(WIDTH, HEIGHT if expected.ndim == 1 else HEIGHT + 0.5) as (figure, axis):
            if expected.ndim == 1:
                if not words:
                    # Laid out by hand: matplotlib's own way takes half as long again.
                    figure.set_layout_engine("none")
                    axis.set_position((0.17, 0.22, 0.8, 0.66))
                _bars(axis, difference if weights is None else weights, color, end, most, weights)
                if weights is None:
                    axis.yaxis.set_major_formatter(_in(power))
            elif weights is None:
                drawn = image(axis, difference, DIFFERENCES, -most, most)
                _colorbar(figure, drawn, axis, _in(power))
            else:
                drawn = image(axis, weights, WEIGHTS, 0, end)
                _colorbar(figure, drawn, axis)
            axis.set_title(name)
            axis.set_xlabel("" if words else "step")
            ticks(axis.xaxis, length, names, room=WIDTH - 0.6)
            if first and names is None:
                axis.xaxis.set_major_formatter(_counted_from(first))
            if expected.ndim == 2:
                axis.set_ylabel("asking step")
                square = expected.shape[0] == expected.shape[1]
                ticks(axis.yaxis, expected.shape[0], names if square else None, room=HEIGHT - 0.5)
                if square and first and names is None:
                    axis.yaxis.set_major_formatter(_counted_from(first))
            figures.append(_svg(figure, f"{name}: {title}"))
    return figures


def _bars(axis: Any, values: Array, color: str, end: float, most: float, given: Any) -> None:
    bars(axis, values, color, most if given is None else end)
    if given is None:
        axis.set_ylim(-1.05 * most, 1.05 * most)
        axis.axhline(0, color=INK, linewidth=0.8)
    else:
        axis.set_ylim(0, 1.05 * end)


def _colorbar(figure: Any, drawn: Any, axis: Any, format: Any = None) -> None:
    figure.colorbar(drawn, ax=axis, aspect=25, pad=0.02, format=format)


def _in(power: int) -> Any:
    """Numbers as so many of a power of ten, which the title tells."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value / 10.0**power:g}")


def _counted_from(first: int) -> Any:
    """Numbers of steps as in the whole sequence, of which the beginning is not shown."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda step, _: f"{step + first:.0f}")


def drops(rows: Sequence[Drop], title: str) -> str:
    """Each artifact's drop in points with its interval; the mark is what may be lost."""
    colors = {"pass": BLUE, "fail": RED, "inconclusive": ORANGE}
    with _figure(4.6, 0.36 * len(rows) + 0.9) as (figure, axis):
        for place, row in enumerate(rows):
            color = colors.get(row.verdict, INK)
            axis.plot([100 * row.low, 100 * row.high], [place, place], color=color, linewidth=2.5)
            axis.plot([100 * row.drop], [place], "o", color=color)
            axis.plot([100 * row.margin], [place], marker="|", color=INK, markersize=14, mew=2)
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.set_yticks(range(len(rows)), [row.label for row in rows], parse_math=False)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel("points lost: measured ●, 95% interval, allowed |")
        return _svg(figure, title)


def speeds(points: Sequence[Speed], title: str) -> str:
    """Size against latency; what does not pass is hollow."""
    with _figure(4.6, 3.6) as (figure, axis):
        for point in points:
            format, _, scheme = point.label.partition(" ")
            # Black is the ink of a page that may be dark.
            color = INK if scheme == "float32" else frontier.COLORS.get(scheme, INK)
            axis.plot(
                [point.bytes / 1e3],
                [point.p50_ms],
                frontier.MARKERS.get(format, "^"),
                color=color,
                markerfacecolor=color if point.verdict == "pass" else "none",
                markersize=7,
                linestyle="none",
                label=point.label,
            )
        axis.set_xlabel("size, kB")
        axis.set_ylabel("median latency, ms")
        axis.set_xlim(0, 1.1 * max(point.bytes for point in points) / 1e3)
        axis.set_ylim(0, 1.2 * max(point.p50_ms for point in points))
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return _svg(figure, title)
