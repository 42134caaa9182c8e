"""Figures as SVG text, drawn by matplotlib; ink takes the colour of the page, dark or light.

Colours are the Okabe-Ito palette and the maps cividis and PuOr, which people with any of the common
colour deficiencies tell apart.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.tensors import Array

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
# Replaced by the text's colour once the figure is text itself.
INK = "#010203"
# In front of the names of a figure's parts, until the page numbers its figures.
NUMBER = "figure_number_"
# Of a map with more keys or queries than a screen has points for, neighbours are averaged.
MOST_CELLS = 160
MOST_HEADS = 8

Drop = tuple[str, float, float, float, float]  # label, drop, low, high, margin


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[Any]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "The page is drawn with matplotlib, and it is not installed here.",
            hint="Install it with: pip install 'edgeattn[report]'",
        ) from error
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "edgeattn",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.ravel():
            axis.patch.set_alpha(0)
        yield figure, axes


def _svg(figure: Any, title: str) -> str:
    """The figure as an ``<svg>`` with a name that screen readers read."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, dpi=80)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Every figure counts its parts from one: on one page they need names of their own.
    prefix = NUMBER
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', text)
    label = html.escape(title, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def histogram(errors: Array, limit: float | None, title: str) -> str:
    """How large the errors are, on a logarithmic axis; the limit as a line."""
    sizes = np.abs(errors[np.isfinite(errors)]).ravel()
    shown = sizes[sizes > 0]
    with _figure(5.2, 2.3) as (figure, axes):
        axis = axes[0, 0]
        if len(shown):
            low = math.floor(math.log10(max(float(shown.min()), 1e-12)))
            high = max(math.ceil(math.log10(float(shown.max()))), low + 1)
            axis.hist(shown, bins=np.logspace(low, high, 40).tolist(), color=BLUE)
            axis.set_xscale("log")
        if limit:
            axis.axvline(limit, color=RED, linestyle="--")
            axis.text(limit, 0.97, " limit", transform=axis.get_xaxis_transform(), va="top")
        axis.set_xlabel("absolute error")
        axis.set_ylabel("values")
        return _svg(figure, title)


def maps(expected: Array, actual: Array, title: str) -> str:
    """One sample's attention, Keras' and the artifact's, and their difference.

    ``(keys,)``: bars over the steps. ``(queries, keys)`` or ``(heads, queries, keys)``: images.
    """
    if expected.ndim == 1:
        return _bars(expected, actual, title)
    heads = expected if expected.ndim == 3 else expected[None]
    others = actual if actual.ndim == 3 else actual[None]
    heads, others = heads[:MOST_HEADS], others[:MOST_HEADS]
    with _figure(7.6, 2.1 * len(heads) + 0.3, len(heads), 3) as (figure, axes):
        for row, (want, got) in enumerate(zip(heads, others, strict=True)):
            _images(figure, axes[row], _smaller(want), _smaller(got), row, len(heads) > 1)
        return _svg(figure, title)


def _images(figure: Any, axes: Any, want: Array, got: Array, head: int, several: bool) -> None:
    top = max(float(want.max()), 1e-6)
    difference = got - want
    most = max(float(np.abs(np.nan_to_num(difference)).max()), 1e-9)
    named = (("Keras", want), ("artifact", got))
    for axis, (name, image) in zip(axes, named, strict=False):
        drawn = axis.imshow(image, cmap="cividis", vmin=0, vmax=top, aspect="auto")
        axis.set_title(f"{name}, head {head + 1}" if several else name)
    figure.colorbar(drawn, ax=axes[1])
    drawn = axes[2].imshow(difference, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
    axes[2].set_title("difference")
    figure.colorbar(drawn, ax=axes[2], format="%.0e")
    axes[0].set_ylabel("query")
    for axis in axes:
        axis.set_xlabel("key")
        axis.locator_params(integer=True)


def _bars(expected: Array, actual: Array, title: str) -> str:
    want, got = _smaller(expected[None])[0], _smaller(actual[None])[0]
    steps = np.arange(len(want)) * (len(expected) / len(want)) + 1
    width = 0.9 * (steps[1] - steps[0] if len(steps) > 1 else 1)
    with _figure(7.6, 2.3, 1, 3) as (figure, axes):
        for axis, values, color, name in zip(
            axes[0],
            (want, got, got - want),
            (BLUE, ORANGE, RED),
            ("Keras", "artifact", "difference"),
            strict=True,
        ):
            axis.bar(steps, values, width=width, color=color)
            axis.set_title(name)
            axis.set_xlabel("step")
            axis.locator_params(axis="x", integer=True)
        seen = np.concatenate([want, got])
        top = float(np.max(seen[np.isfinite(seen)], initial=1e-6)) * 1.05
        axes[0, 0].set_ylim(0, top)
        axes[0, 1].set_ylim(0, top)
        axes[0, 2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axes[0, 2].axhline(0, color=INK, linewidth=0.8)
        axes[0, 0].set_ylabel("weight")
        return _svg(figure, title)


def _smaller(image: Array) -> Array:
    """``(rows, columns)`` with neighbours averaged down to :data:`MOST_CELLS` on a side."""
    for axis in (0, 1):
        length = image.shape[axis]
        if length > MOST_CELLS:
            parts = np.array_split(np.arange(length), MOST_CELLS)
            image = np.stack([image.take(part, axis).mean(axis) for part in parts], axis)
    return image


def drops(rows: Sequence[Drop], title: str) -> str:
    """Each artifact's drop in points with its interval; the mark is what may be lost."""
    with _figure(7.6, 0.42 * len(rows) + 1.1) as (figure, axes):
        axis = axes[0, 0]
        for place, (_, drop, low, high, margin) in enumerate(rows):
            axis.plot([100 * low, 100 * high], [place, place], color=BLUE, linewidth=2.5)
            axis.plot([100 * drop], [place], "o", color=BLUE)
            axis.plot([100 * margin], [place], marker="|", color=RED, markersize=16, mew=3)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(rows)), [row[0] for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel("drop in points: measured, its 95% interval, and | what may be lost")
        return _svg(figure, title)
