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

    The left panel shows the score, the right panel the median latency, both against the size.
    ``floor`` is the lowest allowed score, ``place`` the machine that measured the latencies.
    """
    with _drawn(points, floor, place) as drawn:
        return drawn


@contextmanager
def _drawn(points: Sequence[Point], floor: float | None, place: str) -> Iterator[Any]:
    """Yield the plot while the settings of Matplotlib with which to save it apply."""
    with style.figure(10, 4.2, 1, 2, look=Look(ink=INK)) as (figure, axes):
        left, right = axes[0]
        _scatter(left, [(point, point.score) for point in points])
        _scatter(right, [(point, point.p50_ms) for point in points])
        left.set_ylabel("score")
        for point in points:
            if point.interval_ms is not None:
                right.vlines(point.bytes / 1e3, *point.interval_ms, color=INK, linewidth=1)
        right.set_ylabel(f"median latency on {place} (ms)")
        right.set_ylim(bottom=0)
        if floor is not None:
            left.axhline(floor, color=RED, linestyle="--", linewidth=1)
            transform = left.get_yaxis_transform()
            left.text(
                0.99, floor, "lowest allowed", transform=transform,
                ha="right", va="bottom", color=RED,
            )  # fmt: skip
        handles, labels = left.get_legend_handles_labels()
        by_label = dict(sorted(zip(labels, handles, strict=True), key=lambda pair: pair[0]))
        figure.legend(
            by_label.values(), by_label.keys(), loc="outside lower center", ncols=6,
            frameon=False, fontsize=8,
        )  # fmt: skip
        yield figure


def _scatter(axis: Any, points: Sequence[tuple[Point, float | None]]) -> None:
    for point, value in points:
        if value is None:
            continue
        format, _, rest = point.label.partition(" ")
        scheme = rest.split(",")[0]
        color = COLORS.get(scheme, INK)
        axis.scatter(
            [point.bytes / 1e3],
            [value],
            s=42,
            marker=MARKERS.get(format, "^"),
            facecolors=color if point.passed else "none",
            edgecolors=color,
            label=f"{format} {scheme}" + ("" if point.passed else ", failed"),
            zorder=2,
        )
        if point.chosen:
            axis.scatter(
                [point.bytes / 1e3], [value], s=190, facecolors="none", edgecolors=INK, zorder=1
            )
            axis.annotate(
                "chosen", (point.bytes / 1e3, value), xytext=(0, 11),
                textcoords="offset points", ha="center", fontsize=9,
            )  # fmt: skip
    axis.set_xlabel("size (kB)")
    axis.set_xlim(left=0)
    axis.margins(0.12)
