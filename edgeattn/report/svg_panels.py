"""Panels of attention maps and histograms of errors, written as SVG without Matplotlib's layout.

A report has dozens of them, and Matplotlib lays out and draws one in about 0.1 s of CPU time, many
times what the validation takes. Matplotlib only chooses ticks and colors here.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from edgeattn.plots import style
from edgeattn.plots.style import BLUE, DIFFERENCES, ORANGE, RED, WEIGHTS
from edgeattn.tensors import Array

# NaN and infinity in images; vermilion would look like large differences.
NOT_FINITE = "#FF00FF"
# Up to this many steps, every step has its own tick label.
MAX_LABELLED_STEPS = 16
# Sizes in units of the SVG; a character of a label is about CHARACTER wide.
WIDTH, LEFT, TOP, BOTTOM, CHARACTER = 300, 44, 22, 34, 6
BARS_HEIGHT, IMAGE_HEIGHT = 200, 250
# Space on the right: a margin, or a color bar with its labels.
MARGIN, COLOR_BAR = 8, 50
MAX_LABEL = 18


@dataclass(frozen=True)
class Axis:
    """A name, and labels at positions from 0 to 1 along the axis."""

    name: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Frame:
    """A rectangle for data in a panel; positions in it are from 0 to 1, up and to the right."""

    height: float
    right: float = MARGIN
    bottom: float = BOTTOM

    def x(self, position: float) -> str:
        return f"{LEFT + position * (WIDTH - LEFT - self.right):.1f}"

    def y(self, position: float) -> str:
        return f"{TOP + (1 - position) * (self.height - TOP - self.bottom):.1f}"


@dataclass(frozen=True)
class KeyLabels:
    """Labels of the keys: ``names``, or numbers from ``first + 1`` if padding before is cut off.

    With ``grid``, weights are ``(rows, columns)`` of the patches of an image. ``for_queries`` is
    whether queries have the same labels.
    """

    names: Sequence[str] | None = None
    first: int = 0
    grid: bool = False
    for_queries: bool = False


def map_panels(
    expected: Array, actual: Array, title: str, labels: KeyLabels = KeyLabels()
) -> list[str]:
    """One head's attention on one sample in Keras, in the artifact, and the difference, as SVG.

    The weights are ``(keys,)`` for bars or ``(queries, keys)`` for images. ``title`` is the
    accessible name of the panels.
    """
    difference = actual - expected
    end, largest = style.top(expected, actual), style.top(np.abs(difference))
    power = math.floor(math.log10(largest))
    title_of_keys = "column" if labels.grid else "step"
    room = WIDTH - LEFT - (MARGIN if expected.ndim == 1 else COLOR_BAR)
    keys = step_axis(expected.shape[-1], labels.names, labels.first, title_of_keys, room)
    panels = []
    for name, values, color in (
        ("Keras, weights", expected, BLUE),
        ("artifact, weights", actual, ORANGE),
        (f"difference, in 1e{power:+03d}", difference, RED),
    ):
        signed = values is difference
        low, high, unit = (-largest, largest, 10.0**power) if signed else (0.0, end, 1.0)
        if expected.ndim == 1:
            frame = Frame(BARS_HEIGHT, bottom=label_room(keys))
            shapes = _bars(frame, values, color, 1.05 * low, 1.05 * high)
            scale = Axis("", number_ticks(1.05 * low, 1.05 * high, unit))
        else:
            queries, length = expected.shape
            frame = Frame(IMAGE_HEIGHT, COLOR_BAR, label_room(keys))
            if not np.isfinite(values).all():
                name += " (magenta: not finite)"
            colors = DIFFERENCES if signed else WEIGHTS
            shapes = image_shapes(frame, values, colors, low, high, unit)
            same = labels.for_queries and queries == length
            rows = step_axis(queries, labels.names if same else None, labels.first if same else 0)
            axis_name = "row" if labels.grid else f"query {rows.name}"
            scale = Axis(axis_name, [(1 - at, text) for at, text in rows.ticks])
        panels.append(svg_element(frame, f"{name}: {title}", name, shapes, keys, scale))
    return panels


def histogram(errors: Array, title: str) -> str:
    """A histogram of the absolute errors on a logarithmic axis, as SVG."""
    sizes = np.abs(errors[np.isfinite(errors)]).ravel()
    nonzero = sizes[sizes > 0]
    frame = Frame(150)
    if not len(nonzero):
        return svg_element(frame, title, "values", [], Axis("absolute error", []), Axis("", []))
    low = math.floor(math.log10(max(float(nonzero.min()), 1e-12)))
    high = max(math.ceil(math.log10(float(nonzero.max()))), low + 1)
    counts, _ = np.histogram(nonzero, bins=np.logspace(low, high, 40))
    top = 1.05 * max(int(counts.max()), 1)
    every = math.ceil((high - low) / 5)
    decades = [((p - low) / (high - low), f"1e{p:+03d}") for p in range(low, high + 1, every)]
    shapes = _bars(frame, counts.astype(np.float64), BLUE, 0.0, top)
    scale = Axis("", number_ticks(0.0, top, integer=True))
    return svg_element(frame, title, "values", shapes, Axis("absolute error", decades), scale)


def svg_element(
    frame: Frame, alternative: str, heading: str, shapes: Sequence[str], x: Axis, y: Axis
) -> str:
    """An ``<svg>`` element with axes around ``shapes`` and ``alternative`` as accessible name."""
    bottom, left = frame.y(0), frame.x(0)
    parts = [
        f'<svg role="img" aria-label="{escape(alternative)}" '
        f'viewBox="0 0 {WIDTH} {frame.height}" font-size="10.5" fill="currentColor">',
        _text(LEFT, 13, heading, size="12"),
        *shapes,
        f'<path d="M{left} {frame.y(1)}V{bottom}H{frame.x(1)}" fill="none" stroke="currentColor"/>',
    ]
    rotate = _is_rotated(x)
    for position, label in x.ticks:
        across, down = float(frame.x(position)), float(bottom) + 13
        if rotate:
            turn = f' transform="rotate(-90 {across + 3.5:.1f} {down - 8:.1f})"'
            parts.append(_text(across + 3.5, down - 8, label, "end", extra=turn))
        else:
            overhangs = across + len(label) * CHARACTER / 2 > WIDTH
            parts.append(_text(across, down, label, "end" if overhangs else "middle"))
    for position, label in y.ticks:
        parts.append(_text(LEFT - 5, float(frame.y(position)) + 3.5, label, "end"))
    if x.name:
        parts.append(_text(float(frame.x(0.5)), frame.height - 6, x.name, "middle"))
    if y.name:
        middle = float(frame.y(0.5))
        turn = f' transform="rotate(-90 11 {middle:.1f})"'
        parts.append(_text(11, middle, y.name, "middle", extra=turn))
    return "".join([*parts, "</svg>"])


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: str = "", extra: str = ""
) -> str:
    shown = text if len(text) <= MAX_LABEL or anchor == "start" else text[: MAX_LABEL - 1] + "…"
    font = f' font-size="{size}"' if size else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{font}{extra}>{escape(shown)}</text>'
    )


def step_axis(
    length: int,
    names: Sequence[str] | None,
    first: int,
    title: str = "step",
    room: float = WIDTH - LEFT - MARGIN,
) -> Axis:
    """An axis of steps: labelled by names, by each number, or by some numbers if there are many.

    ``room`` is its length in units of the SVG.
    """
    if names is not None and length <= MAX_LABELLED_STEPS:
        return Axis("", [((k + 0.5) / length, name) for k, name in enumerate(names)])
    numbers: Sequence[int] = range(first + 1, first + length + 1)
    width = (len(str(first + length)) + 0.5) * CHARACTER
    if length > MAX_LABELLED_STEPS or length * width > room:
        from matplotlib.ticker import MaxNLocator

        locator = MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10])
        numbers = [int(n) for n in locator.tick_values(numbers[0], numbers[-1]) if n in numbers]
    return Axis(title, [((n - first - 0.5) / length, str(n)) for n in numbers])


def _is_rotated(axis: Axis) -> bool:
    """Whether the labels of a horizontal axis are too long to stand side by side."""
    longest = max((len(label) for _, label in axis.ticks), default=0)
    return not axis.name and (longest + 1) * CHARACTER * len(axis.ticks) > WIDTH - LEFT - MARGIN


def label_room(axis: Axis) -> float:
    """The space below the data for the labels of a horizontal axis."""
    longest = max((min(len(label), MAX_LABEL) for _, label in axis.ticks), default=0)
    return max(BOTTOM, 12 + CHARACTER * longest) if _is_rotated(axis) else BOTTOM


def number_ticks(
    low: float, high: float, unit: float = 1.0, integer: bool = False
) -> list[tuple[float, str]]:
    """Ticks of a scale from ``low`` to ``high``, labelled in multiples of ``unit``."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=4, integer=integer).tick_values(low / unit, high / unit)
    positions = [(float(v * unit - low) / (high - low), f"{v:g}") for v in values]
    return [(at, text) for at, text in positions if 0 <= at <= 1]


def _bars(frame: Frame, values: Array, color: str, low: float, high: float) -> list[str]:
    """Bars, or an outline of many; places of NaN and infinity are dashed boxes."""
    count = len(values)
    finite = np.where(np.isfinite(values), values, 0.0)
    tops = [frame.y(float(v)) for v in np.clip((finite - low) / (high - low), 0, 1)]
    zero = frame.y(-low / (high - low))
    if count <= style.MAX_BARS:
        edges = [(frame.x((k + 0.08) / count), frame.x((k + 0.92) / count)) for k in range(count)]
        path = "".join(
            f"M{a} {zero}V{y}H{b}V{zero}Z" for (a, b), y in zip(edges, tops, strict=True)
        )
        shapes = [f'<path d="{path}" fill="{color}"/>']
    else:
        path = "".join(f"V{y}H{frame.x((k + 1) / count)}" for k, y in enumerate(tops))
        path = f"M{frame.x(0)} {zero}{path}V{zero}Z"
        # The line keeps narrow peaks visible.
        shapes = [f'<path d="{path}" fill="{color}" stroke="{color}" stroke-width="0.6"/>']
    if low < 0:
        line = f"M{frame.x(0)} {zero}H{frame.x(1)}"
        shapes.append(f'<path d="{line}" stroke="currentColor" stroke-width="0.7"/>')
    invalid = np.flatnonzero(~np.isfinite(values))
    if len(invalid):
        ends = [(frame.x(k / count), frame.x((k + 1) / count)) for k in invalid]
        low_y, high_y = frame.y(0), frame.y(1)
        boxes = "".join(f"M{a} {low_y}V{high_y}H{b}V{low_y}" for a, b in ends)
        shapes.append(f'<path d="{boxes}" fill="none" stroke="{RED}" stroke-dasharray="3 2"/>')
        shapes.append(_text(LEFT + 4, TOP + 12, "dashed: NaN or infinity"))
    return shapes


def image_shapes(
    frame: Frame, values: Array, colors: str, low: float, high: float, unit: float
) -> list[str]:
    """An image and its color bar; NaN and infinity are magenta."""
    finite = np.where(np.isfinite(values), values, np.nan)
    cells = (style.reduce_cells(finite) - low) / (high - low)
    right = WIDTH - frame.right
    top, bottom = float(frame.y(1)), float(frame.y(0))
    box = f'y="{top}" height="{bottom - top:.1f}" preserveAspectRatio="none" '
    box += 'style="image-rendering:pixelated"'
    ramp = np.linspace(1, 0, 64)[:, None]
    shapes = [
        f'<image x="{LEFT}" width="{right - LEFT}" {box} href="{_png(cells, colors)}"/>',
        f'<image x="{right + 5}" width="7" {box} href="{_png(ramp, colors)}"/>',
    ]
    for at, label in number_ticks(low, high, unit):
        shapes.append(_text(right + 15, float(frame.y(at)) + 3.5, label))
    return shapes


def _png(values: Array, colors: str) -> str:
    """Values from 0 to 1 as a PNG image in a ``data:`` URL."""
    from matplotlib import colormaps
    from PIL import Image

    pixels = colormaps[colors].with_extremes(bad=NOT_FINITE)(
        np.ma.masked_invalid(values), bytes=True
    )
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
