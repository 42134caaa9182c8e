"""What every picture shares: colours, type, how arrays are checked and figures are written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import OutputError, UsageError
from edgeattn.files import atomic_write
from edgeattn.tensors import Array

# Okabe and Ito, "Color Universal Design", 2008.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
WEIGHTS, DIFFERENCES = "cividis", "PuOr"
# Of an image with more cells on a side than it has points for, neighbours share one.
MOST_CELLS = 160
# Up to so many steps have a bar each, and up to so many tokens a label each.
MOST_BARS, MOST_LABELS = 80, 40
# As many heads as a page has room for.
MOST_HEADS = 16


@dataclass(frozen=True)
class Look:
    """The colours of what is not data: ``ink`` of text and lines, ``background`` of the page."""

    ink: str = "black"
    background: str = "white"


PAPER = Look()


def require(*modules: str, purpose: str = "Plotting", extra: str = "plots") -> None:
    """Check that ``modules`` are importable.

    Raises :class:`UsageError`, with the ``pip install`` command of ``extra``, if one is missing.
    """
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"{purpose} needs {name}, which is not installed.",
                hint=f"Install it: pip install 'edgeattn[{extra}]'",
            ) from error


@contextmanager
def figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    look: Look = PAPER,
    **grid: Any,
) -> Iterator[tuple[Any, Any]]:
    """A figure of ``width`` by ``height`` inches and its axes, ``(rows, columns)``, to draw on.

    Raises :class:`UsageError` where matplotlib is missing.
    """
    require("matplotlib")
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "edgeattn",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": look.background,
        "savefig.facecolor": look.background,
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "axes.edgecolor": look.ink,
        "axes.titlecolor": look.ink,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
    }
    with rc_context(style):
        room = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)  # inches
        made = Figure(figsize=(width, height), layout=room)
        axes = made.subplots(rows, columns, squeeze=False, **grid)
        for axis in axes.ravel():
            # Ticks are made when they are drawn, outside this context.
            axis.tick_params(color=look.ink, labelcolor=look.ink, labelsize=9)
        yield made, axes


def save(figure: Any, path: str | os.PathLike[str], *, dpi: float = 150) -> Path:
    """Write ``figure`` to ``path`` in the format of its suffix, aside and renamed; the path.

    Raises :class:`OutputError` where it cannot be written or the suffix is no picture's.
    """
    path = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    kind = path.suffix[1:].lower()
    if kind not in kinds:
        raise OutputError(
            f"A picture's name ends in its format, and {path.name!r} does not.",
            hint=f"End it in one of: {', '.join('.' + name for name in sorted(kinds))}",
        )
    # The scale beside an image gets its labels in the first layout, and their room in the second.
    figure.draw_without_rendering()
    with atomic_write(path, parents=True) as file:
        figure.savefig(file, format=kind, dpi=dpi)
    return path


def checked(weights: ArrayLike, name: str, shapes: dict[int, str]) -> Array:
    """``weights`` as float64 with one of the numbers of axes in ``shapes``, none of them empty.

    ``shapes`` maps a number of axes to what they are. Raises :class:`UsageError` naming them.
    """
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} should be an array of numbers, not {_kind(weights)}.") from error
    if array.ndim not in shapes or 0 in array.shape:
        wanted = " or ".join(shapes.values())
        raise UsageError(f"{name} should have the shape {wanted}. Received: {array.shape}.")
    return array


def _kind(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a {type(value).__name__} whose rows differ or hold something else"
    return f"a {type(value).__name__}"


def labels(tokens: Sequence[object] | None, length: int, name: str = "tokens") -> list[str] | None:
    """``tokens`` as text, one for each of ``length`` steps; :class:`UsageError` if they are not."""
    if tokens is None:
        return None
    told = [str(token) for token in tokens]
    if len(told) != length:
        raise UsageError(f"{name} should be {length}, one for each step. Received: {len(told)}.")
    return told


def brightest(image: Array, most: int = MOST_CELLS) -> Array:
    """``(rows, columns)`` with at most ``most`` on a side: of neighbours, the one farthest from 0.

    An average would pale a single step that is looked at among hundreds, and hide a single error.
    """
    for axis in (0, 1):
        if image.shape[axis] > most:
            parts = np.array_split(np.arange(image.shape[axis]), most)
            image = np.stack([_farthest(image.take(part, axis), axis) for part in parts], axis)
    return image


def _farthest(image: Array, axis: int) -> Array:
    sizes = np.where(np.isnan(image), np.inf, np.abs(image))
    places = np.expand_dims(sizes.argmax(axis), axis)
    chosen: Array = np.take_along_axis(image, places, axis).squeeze(axis)
    return chosen


def top(*arrays: Array) -> float:
    """The end of a scale that starts at zero and holds every finite number of ``arrays``."""
    return (
        max(
            (float(np.max(a[np.isfinite(a)], initial=0.0)) for a in arrays),
            default=0.0,
        )
        or 1e-6
    )
