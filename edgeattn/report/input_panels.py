"""The input beside the attention to it: a signal as lines, or an image."""

from __future__ import annotations

import math

import numpy as np

from edgeattn.plots.style import BLUE, GREEN, ORANGE, RED, WEIGHTS
from edgeattn.report.svg_panels import (
    BARS_HEIGHT,
    COLOR_BAR,
    IMAGE_HEIGHT,
    LEFT,
    WIDTH,
    Axis,
    Frame,
    image_shapes,
    number_ticks,
    step_axis,
    svg_element,
)
from edgeattn.tensors import Array

# A signal with more features or steps is drawn as an image.
LINE_COLORS = (BLUE, ORANGE, GREEN, RED)
MAX_LINE_STEPS = 400


def input_panel(values: Array, title: str, is_image: bool, name: str = "input") -> str:
    """One sample as an SVG: ``(steps, features)``, or ``(height, width, channels)``."""
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    if is_image:
        pixels = values.mean(-1)
        room = WIDTH - LEFT - COLOR_BAR
        x, y = (step_axis(length, None, 0, "", room) for length in pixels.shape[::-1])
        return _image(
            pixels, f"{name}, image: {title}", f"{name} (mean of channels)", x, y, low, high
        )
    steps, features = values.shape
    if features > len(LINE_COLORS) or steps > MAX_LINE_STEPS:
        x = step_axis(steps, None, 0, room=WIDTH - LEFT - COLOR_BAR)
        y = step_axis(features, None, 0, "feature")
        return _image(values.T, f"{name}, image: {title}", name, x, y, low, high)
    x = step_axis(steps, None, 0)
    frame = Frame(BARS_HEIGHT)
    shapes = []
    for color, column in zip(LINE_COLORS, values.T, strict=False):
        points = [
            f"{frame.x((k + 0.5) / steps)},{frame.y((value - low) / (high - low))}"
            for k, value in enumerate(column)
            if math.isfinite(value)
        ]
        line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}"/>'
        dots = "".join(
            f'<circle cx="{x}" cy="{y}" r="1.6" fill="{color}"/>'
            for x, y in (point.split(",") for point in points)
        )
        shapes.append(line + (dots if steps <= 40 else ""))
    scale = Axis("", number_ticks(low, high))
    heading = name if features == 1 else f"{name}, {features} features"
    return svg_element(frame, f"{heading}: {title}", heading, shapes, x, scale)


def _image(
    cells: Array, alternative: str, heading: str, x: Axis, y: Axis, low: float, high: float
) -> str:
    frame = Frame(IMAGE_HEIGHT, COLOR_BAR)
    shapes = image_shapes(frame, cells, WEIGHTS, low, high, 1.0)
    from_top = Axis(y.name, [(1 - at, text) for at, text in y.ticks])
    return svg_element(frame, alternative, heading, shapes, x, from_top)
