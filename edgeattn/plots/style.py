"""What all figures share: colors, fonts, validation of arrays, and files."""

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
from edgeattn.printable import counted, enumerated
from edgeattn.tensors import Array

# Okabe and Ito, "Color Universal Design", 2008.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
WEIGHTS, DIFFERENCES = "cividis", "PuOr"
# An image with more cells per side is reduced: a screen has no more pixels for it.
MAX_CELLS = 160
# Longer sequences get an outline instead of bars, and numbers instead of token labels.
MAX_BARS, MAX_LABELS = 80, 40
# Heads in one figure.
MAX_HEADS = 16


@dataclass(frozen=True)
class Look:
    """Colors of a figure besides the data: ``ink`` for text and lines, and ``background``."""

    ink: str = "black"
    background: str = "white"


PAPER = Look()


def require(*modules: str, purpose: str = "Plotting", extra: str = "plots") -> None:
    """Raise :class:`UsageError`, with the command to install ``extra``, if a module is missing."""
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
    width: float, height: float, rows: int = 1, columns: int = 1, *, look: Look = PAPER, **grid: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield a figure of ``width`` by ``height`` inches and its axes, ``(rows, columns)``.

    ``grid`` are options of :meth:`matplotlib.figure.Figure.subplots`. Raises :class:`UsageError`
    if Matplotlib is not installed.
    """
    require("matplotlib")
    from matplotlib import rc_context
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from edgeattn.plots.notebook_figure import NotebookFigure

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
        layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)  # inches
        new_figure = NotebookFigure(figsize=(width, height), layout=layout)
        axes = new_figure.subplots(rows, columns, squeeze=False, **grid)
        for axis in axes.ravel():
            # Matplotlib creates ticks when it draws, after this context has ended.
            axis.tick_params(color=look.ink, labelcolor=look.ink, labelsize=9)
        yield new_figure, axes


def save(figure: Any, path: str | os.PathLike[str], *, dpi: float = 150) -> Path:
    """Write ``figure`` to ``path`` in the format of its suffix, and return the path.

    Missing folders are created. Raises :class:`OutputError` if the file cannot be written or
    Matplotlib does not support the format.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    format = path.suffix[1:].lower()
    if format not in formats:
        raise OutputError(
            f"The suffix of {path.name!r} is not a supported figure format.",
            hint=f"Use one of: {', '.join('.' + name for name in sorted(formats))}",
        )
    # A colorbar gets its labels in the first layout, and space for them in the second.
    figure.draw_without_rendering()
    with atomic_write(path, parents=True) as file:
        figure.savefig(file, format=format, dpi=dpi)
    return path


def as_array(values: ArrayLike, name: str, shapes: dict[int, str]) -> Array:
    """``values`` as a float64 array with at least one element on every axis.

    ``shapes`` maps each allowed number of axes to a description. Raises :class:`UsageError`, with
    ``name`` and the allowed shapes, for anything else.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        if isinstance(values, Sequence) and not isinstance(values, str):
            kind += " with rows of different length or other elements"
        raise UsageError(f"{name} should be an array of numbers. Received: {kind}.") from error
    if array.ndim not in shapes or 0 in array.shape:
        allowed = enumerated(list(shapes.values()), "or")
        raise UsageError(f"{name} should have the shape {allowed}. Received: {array.shape}.")
    return array


Labels = list[str] | None


def labels(tokens: Sequence[object] | None, length: int, name: str = "tokens") -> Labels:
    """``tokens`` as text. Raises :class:`UsageError` if their number is not ``length``."""
    if tokens is None:
        return None
    texts = [str(token) for token in tokens]
    if len(texts) != length:
        raise UsageError(
            f"{name} should have {counted(length, 'element')}, one for each step. Received: "
            f"{len(texts)}."
        )
    return texts


def reduce_cells(image: Array, limit: int = MAX_CELLS) -> Array:
    """Reduce ``(rows, columns)`` to at most ``limit`` per side.

    Of neighboring cells, the one farthest from zero remains: a mean would hide a single large
    weight or error among hundreds of cells.
    """
    for axis in (0, 1):
        if image.shape[axis] > limit:
            groups = np.array_split(np.arange(image.shape[axis]), limit)
            image = np.stack([_farthest(image.take(group, axis), axis) for group in groups], axis)
    return image


def _farthest(image: Array, axis: int) -> Array:
    sizes = np.where(np.isnan(image), np.inf, np.abs(image))
    indices = np.expand_dims(sizes.argmax(axis), axis)
    farthest: Array = np.take_along_axis(image, indices, axis).squeeze(axis)
    return farthest


def top(*arrays: Array) -> float:
    """The largest finite value of ``arrays`` as the end of a scale from zero, never zero itself."""
    largest = (float(np.max(a[np.isfinite(a)], initial=0.0)) for a in arrays)
    return max(largest, default=0.0) or 1e-6
