"""Figures of the report as SVG text, drawn by Matplotlib, in the page's own text color."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeattn.plots import style
from edgeattn.plots.style import BLUE, ORANGE, RED, Look
from edgeattn.report import frontier

# Placeholder color, replaced by "currentColor" in the SVG: the report may be light or dark.
INK = "#010203"
# Placeholder in front of all ids of a figure, replaced by a number that is unique on the page.
ID_PREFIX = "figure_number_"


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
        axis.set_xlabel("changed answers (%) or drop (points)")
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
