"""Figures of the report as SVG text, drawn by Matplotlib, in the page's own text color."""

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

# Placeholder color, replaced by "currentColor" in the SVG: the report may be light or dark.
INK = "#010203"
# Placeholder in front of all ids of a figure, replaced by a number that is unique on the page.
ID_PREFIX = "figure_number_"
# Size of a panel in inches; three stand side by side, or in a column on a narrow screen.
WIDTH, HEIGHT = 3.1, 2.2
# Up to this many steps, every step has its own tick label.
MAX_LABELLED_STEPS = 16


@dataclass(frozen=True)
class Figure:
    """An SVG element and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Drop:
    """The drop of an artifact's score with its interval and the allowed drop, as shares."""

    label: str
    drop: float
    low: float
    high: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class LatencyPoint:
    """An artifact's size in bytes and its median latency in milliseconds."""

    label: str
    bytes: int
    p50_ms: float
    verdict: str


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    with style.figure(width, height, look=Look(INK, "none")) as (figure, axes):
        yield figure, axes[0, 0]


def _svg(figure: Any, title: str) -> str:
    """The figure as an ``<svg>`` element with ``title`` as its accessible name."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=80)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Line breaks and invisible digits are half of what Matplotlib writes.
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(r' (d|x|y)="[^"]*"', lambda match: _rounded(match.group()), text)
    # Matplotlib counts ids from one in every figure; on one page they must differ.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{ID_PREFIX}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{ID_PREFIX}\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{ID_PREFIX}\1"', text)
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _rounded(coordinates: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"(\d\.\d{2})\d+", r"\1", coordinates)


def histogram(errors: Array, title: str) -> str:
    """A histogram of the absolute errors on a logarithmic axis, as SVG."""
    sizes = np.abs(errors[np.isfinite(errors)]).ravel()
    nonzero = sizes[sizes > 0]
    with _figure(4.4, 2.1) as (figure, axis):
        if len(nonzero):
            low = math.floor(math.log10(max(float(nonzero.min()), 1e-12)))
            high = max(math.ceil(math.log10(float(nonzero.max()))), low + 1)
            counts, edges = np.histogram(nonzero, bins=np.logspace(low, high, 40))
            axis.stairs(counts, edges, fill=True, color=BLUE)
            axis.set_xscale("log")
        axis.set_xlabel("absolute error")
        axis.set_ylabel("values")
        axis.set_ylim(bottom=0)
        return _svg(figure, title)


def map_panels(
    expected: Array, actual: Array, title: str, names: list[str] | None = None, first: int = 0
) -> list[str]:
    """One head's attention on one sample in Keras, in the artifact, and the difference, as SVG.

    The weights are ``(keys,)`` for bars or ``(queries, keys)`` for images. ``title`` is the
    accessible name of the panels, ``names`` label the keys, and ``first`` is the index of the first
    key, if padding before it is cut off.
    """
    difference = actual - expected
    end, largest = style.top(expected, actual), style.top(np.abs(difference))
    power = math.floor(math.log10(largest))
    length = expected.shape[-1]
    tokens = names is not None and length <= MAX_LABELLED_STEPS
    if not tokens:
        numbers = [str(first + step + 1) for step in range(length)]
        names = numbers if length <= MAX_LABELLED_STEPS else None
    panels = []
    for name, values, color in (
        ("Keras, weights", expected, BLUE),
        ("artifact, weights", actual, ORANGE),
        (f"difference, in 1e{power:+03d}", difference, RED),
    ):
        low, high = (-largest, largest) if values is difference else (0, end)
        format = _in_powers(power) if values is difference else None
        with _figure(WIDTH, HEIGHT if expected.ndim == 1 else HEIGHT + 0.5) as (figure, axis):
            if expected.ndim == 1:
                if not tokens:
                    # A fixed layout: Matplotlib's constrained layout takes 50% more time.
                    figure.set_layout_engine("none")
                    axis.set_position((0.17, 0.22, 0.8, 0.66))
                bars(axis, values, color, high)
                axis.set_ylim(1.05 * low, 1.05 * high)
                if format is not None:
                    axis.axhline(0, color=INK, linewidth=0.8)
                    axis.yaxis.set_major_formatter(format)
            else:
                colors = DIFFERENCES if values is difference else WEIGHTS
                drawn = image(axis, values, colors, low, high)
                figure.colorbar(drawn, ax=axis, aspect=25, pad=0.02, format=format)
                _label_queries(axis, expected.shape, names, first)
            axis.set_title(name)
            axis.set_xlabel("" if tokens else "step")
            ticks(axis.xaxis, length, names, room=WIDTH - 0.6)
            if first and names is None:
                axis.xaxis.set_major_formatter(_counted_from(first))
            panels.append(_svg(figure, f"{name}: {title}"))
    return panels


def _label_queries(axis: Any, shape: tuple[int, ...], names: list[str] | None, first: int) -> None:
    """Label the query axis of a map, like the key axis if the map is square."""
    queries, keys = shape
    axis.set_ylabel("query step")
    ticks(axis.yaxis, queries, names if queries == keys else None, room=HEIGHT - 0.5)
    if queries == keys and first and names is None:
        axis.yaxis.set_major_formatter(_counted_from(first))


def _in_powers(power: int) -> Any:
    """A tick formatter for multiples of 10 to the ``power``."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value / 10.0**power:g}")


def _counted_from(first: int) -> Any:
    """A tick formatter for steps of a sequence whose first ``first`` steps are cut off."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda step, _: f"{step + first:.0f}")


def drop_plot(rows: Sequence[Drop], title: str) -> str:
    """Each artifact's drop in points with its interval and the allowed drop, as SVG."""
    colors = {"pass": BLUE, "fail": RED, "inconclusive": ORANGE}
    with _figure(4.6, 0.36 * len(rows) + 0.9) as (figure, axis):
        for y, row in enumerate(rows):
            color = colors.get(row.verdict, INK)
            axis.plot([100 * row.low, 100 * row.high], [y, y], color=color, linewidth=2.5)
            axis.plot([100 * row.drop], [y], "o", color=color)
            axis.plot([100 * row.margin], [y], marker="|", color=INK, markersize=14, mew=2)
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.set_yticks(range(len(rows)), [row.label for row in rows], parse_math=False)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel("changed answers (%) or drop (points): ● with 95% interval, | allowed")
        return _svg(figure, title)


def latency_plot(points: Sequence[LatencyPoint], title: str) -> str:
    """Median latency against size, as SVG; markers are hollow unless the verdict is pass."""
    with _figure(4.6, 3.6) as (figure, axis):
        for point in points:
            format, _, scheme = point.label.partition(" ")
            # Black would not show on a dark page.
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
        axis.set_xlabel("size (kB)")
        axis.set_ylabel("median latency (ms)")
        axis.set_xlim(0, 1.1 * max(point.bytes for point in points) / 1e3)
        axis.set_ylim(0, 1.2 * max(point.p50_ms for point in points))
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return _svg(figure, title)
