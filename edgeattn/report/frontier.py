"""A plot of the candidates of ``edgeattn tune``: score and latency against size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.plots import style
from edgeattn.plots.style import RED, Look

INK = "#333333"
# The palette of Okabe and Ito, which people with color vision deficiencies can tell apart.
COLORS = {
    "float32": "#000000",
    "float16": "#56B4E9",
    "dynamic_int8": "#0072B2",
    "int8": "#E69F00",
    "int16x8": "#009E73",
    "int4": "#CC79A7",
}
HERE = "this machine"
MARKERS = {"tflite": "o", "onnx": "s"}


@dataclass(frozen=True)
class Point:
    """A candidate: size in bytes, score, and median latency in milliseconds if measured.

    ``interval_ms`` is the 95% interval of the latency.
    """

    label: str
    bytes: int
    score: float | None
    p50_ms: float | None
    passed: bool
    chosen: bool = False
    interval_ms: tuple[float, float] | None = None


def draw(
    points: Sequence[Point], path: Path, *, floor: float | None = None, place: str = HERE
) -> None:
    """Write the plot of :func:`figure` to ``path``, an ``.svg`` or ``.png`` file.

    Raises :class:`OutputError` if the file cannot be written.
    """
    with _drawn(points, floor, place) as figure:
        style.save(figure, path)


def figure(points: Sequence[Point], floor: float | None = None, place: str = HERE) -> Any:
    """The plot as a figure of Matplotlib.

    The left panel shows the score, the right panel the median latency, both against the size. A
    line connects the candidates that pass and that no smaller one beats.
    ``floor`` is the lowest allowed score, ``place`` the machine that measured the latencies.
    """
    with _drawn(points, floor, place) as drawn:
        return drawn


def best_by_size(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of pairs ``(size, cost)``, those that cost less than all smaller ones, by size."""
    frontier: list[tuple[float, float]] = []
    for size, cost in sorted(points):
        if not frontier or cost < frontier[-1][1]:
            frontier.append((size, cost))
    return frontier


@contextmanager
def _drawn(points: Sequence[Point], floor: float | None, place: str) -> Iterator[Any]:
    """Yield the plot while the settings of Matplotlib with which to save it apply."""
    with style.figure(10, 4.4, 1, 2, look=Look(ink=INK)) as (figure, axes):
        left, right = axes[0]
        scored = [(point, point.score) for point in points if point.score is not None]
        timed = [(point, point.p50_ms) for point in points if point.p50_ms is not None]
        _scatter(left, scored)
        _scatter(right, timed)
        for axis in (left, right):
            axis.set_xlim(0, 1.05 * max((point.bytes / 1e3 for point in points), default=1.0))
        _draw_frontier(left, [(point, -score) for point, score in scored], sign=-1)
        _draw_frontier(right, timed, sign=1)
        left.set_title("higher and further left is better", loc="left")
        right.set_title(f"lower and further left is better; measured on {place}", loc="left")
        left.set_ylabel("score")
        for point, _ in timed:
            if point.interval_ms is not None:
                right.vlines(point.bytes / 1e3, *point.interval_ms, color=INK, linewidth=1)
        right.set_ylabel("median latency (ms)")
        if timed:
            right.set_ylim(bottom=0)
        else:
            right.text(0.5, 0.5, "not measured", transform=right.transAxes, ha="center")
        if floor is not None:
            left.axhline(floor, color=RED, linestyle="--", linewidth=1)
            transform = left.get_yaxis_transform()
            left.text(
                0.99, floor, "lowest allowed", transform=transform,
                ha="right", va="bottom", color=RED,
            )  # fmt: skip
        if scored:
            values = [score for _, score in scored] + ([] if floor is None else [floor])
            margin = 0.15 * (max(values) - min(values)) or 0.01
            left.set_ylim(min(values) - margin, max(values) + margin)
        _add_legend(figure, points)
        yield figure


def _scatter(axis: Any, points: Sequence[tuple[Point, float]]) -> None:
    for point, value in points:
        color = COLORS.get(_scheme(point), INK)
        axis.scatter(
            [point.bytes / 1e3],
            [value],
            s=42,
            marker=MARKERS.get(_format(point), "^"),
            facecolors=color if point.passed else "none",
            edgecolors=color,
            zorder=3,
        )
        if point.chosen:
            axis.scatter(
                [point.bytes / 1e3], [value], s=190, facecolors="none", edgecolors=INK, zorder=2
            )
            axis.annotate(
                "chosen", (point.bytes / 1e3, value), xytext=(-11, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9,
            )  # fmt: skip
    axis.set_xlabel("size (kB)")


def _draw_frontier(axis: Any, points: Sequence[tuple[Point, float]], sign: int) -> None:
    """A line of steps through the points that pass and that no smaller one beats."""
    passed = [(point.bytes / 1e3, cost) for point, cost in points if point.passed]
    if not passed:
        return
    sizes, costs = zip(*best_by_size(passed), strict=True)
    end = axis.get_xlim()[1]
    axis.step(
        [*sizes, end], [*(sign * cost for cost in costs), sign * costs[-1]],
        where="post", color=INK, linewidth=1, alpha=0.6, zorder=1,
    )  # fmt: skip


def _add_legend(figure: Any, points: Sequence[Point]) -> None:
    """Colors are schemes, shapes are formats."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, color: str, fill: str | None = None) -> Any:
        face = color if fill is None else fill
        return Line2D(
            [], [], marker=marker, color=color, markerfacecolor=face, linestyle="none", label=label
        )

    schemes = [scheme for scheme in COLORS if any(_scheme(point) == scheme for point in points)]
    formats = sorted({_format(point) for point in points})
    handles = [entry(scheme, "o", COLORS[scheme]) for scheme in schemes]
    handles += [entry(name, MARKERS.get(name, "^"), "gray") for name in formats[::-1]]
    if not all(point.passed for point in points):
        handles.append(entry("does not pass", "o", "gray", "none"))
    handles.append(Line2D([], [], color=INK, linewidth=1, alpha=0.6, label="best up to this size"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9,
        handletextpad=0.3,
    )  # fmt: skip


def _format(point: Point) -> str:
    return point.label.partition(" ")[0]


def _scheme(point: Point) -> str:
    """The scheme; that of most layers for a mixture, such as ``onnx int4, lstm in int8``."""
    return point.label.partition(" ")[2].split(",")[0]
