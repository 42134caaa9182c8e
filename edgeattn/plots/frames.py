"""Attention during training: a frame for one epoch, and all epochs as an animation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.files import atomic_write
from edgeattn.plots import style
from edgeattn.plots.axes import bars, image, ticks
from edgeattn.plots.epochs import check_losses, scale_loss_axis
from edgeattn.plots.style import BLUE, ORANGE, PAPER, RED, WEIGHTS, Labels, Look
from edgeattn.tensors import Array

SHAPES = {
    2: "(epochs, steps)",
    3: "(epochs, rows, steps)",
    4: "(epochs, heads, queries, keys)",
}
MAX_HEADS = 4
LAST_FRAME_MS = 2500
DPI = 90


def epoch(
    weights: ArrayLike,
    losses: ArrayLike | None = None,
    *,
    number: int = -1,
    truth: ArrayLike | None = None,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    loss_name: str = "loss",
    look: Look = PAPER,
) -> Any:
    """Draw the attention of one epoch, the expected attention, and the loss until that epoch.

    ``weights`` are those of all epochs, first of the untrained model: ``(epochs, steps)``,
    ``(epochs, rows, steps)`` with a row for each sequence, or ``(epochs, heads, queries, keys)``.
    ``losses`` are ``(epochs,)``, NaN for epochs without a loss; ``loss_name`` is their title.
    ``number`` is the index of the epoch to draw, ``truth`` the expected weights, ``(steps,)`` or
    ``(rows, steps)``. ``tokens`` label the steps. Raises :class:`UsageError` if a shape or the
    number of tokens is wrong.
    """
    frame = _Frame(_Training.check(weights, losses, truth, tokens, loss_name), title, look)
    frame.show(range(len(frame.training.weights))[number])
    return frame.figure


def animation(
    path: str | os.PathLike[str],
    weights: ArrayLike,
    losses: ArrayLike | None = None,
    *,
    truth: ArrayLike | None = None,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    loss_name: str = "loss",
    seconds: float = 0.2,
) -> Path:
    """Write the epochs of a training to ``path`` as a GIF that loops, and return ``path``.

    Every epoch is shown for ``seconds``, the last for 2.5 seconds. The other arguments are those of
    :func:`epoch`, and so are the errors; raises :class:`OutputError` if the file cannot be written.
    """
    path = Path(path)
    training = _Training.check(weights, losses, truth, tokens, loss_name)
    frames = list(_images(_Frame(training, title, PAPER)))
    palette = _palette()
    images = [frame.quantize(palette=palette, dither=0) for frame in frames]
    durations = [int(1000 * seconds)] * (len(images) - 1) + [LAST_FRAME_MS]
    with atomic_write(path, parents=True) as file:
        images[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations if len(durations) > 1 else durations[0],
            loop=0,
            optimize=True,
        )
    return path


@dataclass(frozen=True)
class _Training:
    """The arguments of :func:`epoch` that are data, checked."""

    weights: Array
    losses: Array | None
    truth: Array | None
    names: Labels
    loss_name: str

    @classmethod
    def check(
        cls,
        weights: ArrayLike,
        losses: ArrayLike | None,
        truth: ArrayLike | None,
        tokens: Sequence[object] | None,
        loss_name: str,
    ) -> _Training:
        array = style.as_array(weights, "weights", SHAPES)
        if array.ndim == 4 and array.shape[1] > MAX_HEADS:
            raise UsageError(
                f"A frame has room for {MAX_HEADS} heads. Received: {array.shape[1]}.",
                hint=f"Draw some of them: weights[:, :{MAX_HEADS}]",
            )
        expected = None
        if truth is not None:
            expected = style.as_array(truth, "truth", {1: "(steps,)", 2: "(rows, steps)"})
            if expected.shape != array.shape[1:]:
                raise UsageError(
                    f"truth should have the shape {array.shape[1:]}. Received: {expected.shape}."
                )
        names = style.labels(tokens, array.shape[-1])
        return cls(array, check_losses(losses, len(array)), expected, names, loss_name)


class _Frame:
    """A figure whose fixed parts are drawn once; :meth:`show` draws an epoch."""

    def __init__(self, training: _Training, title: str | None, look: Look) -> None:
        self.training, self.title, self.look = training, title, look
        self.end = style.top(training.weights)
        self.laid_out = False
        has_loss, has_truth = training.losses is not None, training.truth is not None
        maps = training.weights.shape[1] if training.weights.ndim == 4 else 1
        rows = 1 + has_truth
        width = 3.4 * maps + (3.0 if has_loss else 0) + 0.4
        with style.figure(width, self._map_height() * rows + 1.0, look=look) as (figure, axes):
            axes[0, 0].remove()
            self.figure = figure
            ratios = [1.15] * maps + [1.0] * has_loss
            grid = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
            self.axes = [figure.add_subplot(grid[0, column]) for column in range(maps)]
            if training.truth is not None:
                below = figure.add_subplot(grid[1, 0], sharex=self.axes[0])
                self._draw_map(below, training.truth, ORANGE, style.top(training.truth))
                below.set_title("expected attention")
                below.set_xlabel("step")
            if training.losses is not None:
                self._draw_loss(figure.add_subplot(grid[:, -1]), training.losses)
            for axis in figure.axes:
                self._color_ticks(axis)
            self.heading = figure.suptitle(" ", fontsize=11, parse_math=False)

    def show(self, number: int) -> None:
        """Draw epoch ``number``. The first call lays out the figure."""
        training = self.training
        weights = training.weights[number]
        multi_head = weights.ndim == 3
        for head, axis in enumerate(self.axes):
            axis.clear()
            self._draw_map(axis, weights[head] if multi_head else weights, BLUE, self.end)
            self._color_ticks(axis)
            if training.truth is None:
                axis.set_xlabel("key" if multi_head else "step")
            else:
                axis.tick_params(labelbottom=False)
            name = f"head {head + 1}" if len(self.axes) > 1 else "attention"
            axis.set_title(name, loc="left", fontsize=10)
        text = "untrained" if number == 0 else f"epoch {number} of {len(training.weights) - 1}"
        self.heading.set_text(f"{self.title}: {text}" if self.title else text)
        if training.losses is not None:
            until = np.arange(len(training.losses)) <= number
            self.line.set_data(np.flatnonzero(until), training.losses[until])
            loss = training.losses[number]
            self.dot.set_data([number], [loss] if np.isfinite(loss) else [np.nan])
        if not self.laid_out:
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            self.laid_out = True

    def _map_height(self) -> float:
        shape = self.training.weights.shape
        if len(shape) == 2:
            return 1.9
        return 2.4 if len(shape) == 4 else float(min(max(0.12 * shape[1], 1.2), 2.6))

    def _color_ticks(self, axis: Any) -> None:
        axis.tick_params(color=self.look.ink, labelcolor=self.look.ink, labelsize=9)

    def _draw_map(self, axis: Any, values: Array, color: str, end: float) -> None:
        """Bars for one sequence, or an image for several rows."""
        if values.ndim == 1:
            bars(axis, values, color, end)
            axis.set_ylim(0, 1.05 * end)
            axis.set_ylabel("weight")
        else:
            image(axis, values, WEIGHTS, 0, end)
            ticks(axis.yaxis, len(values), None, room=1.2)
            axis.set_ylabel("query" if self.training.weights.ndim == 4 else "sequence")
        ticks(axis.xaxis, values.shape[-1], self.training.names, room=3.0)

    def _draw_loss(self, axis: Any, losses: Array) -> None:
        scale_loss_axis(axis, losses, self.training.loss_name)
        axis.set_title(self.training.loss_name, parse_math=False)
        axis.set_ylabel("")
        axis.set_xlim(0, max(len(losses) - 1, 1))
        (self.line,) = axis.plot([], [], color=BLUE, linewidth=1.8)
        (self.dot,) = axis.plot([], [], "o", color=RED, markersize=6, clip_on=False)
        axis.set_xlabel("epoch")
        ticks(axis.xaxis, len(losses), None, room=2.4)


def _images(frame: _Frame) -> Iterator[Any]:
    """Every epoch as a :class:`PIL.Image.Image`."""
    style.require("matplotlib", "PIL", purpose="An animation")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    frame.figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(frame.figure)
    for number in range(len(frame.training.weights)):
        frame.show(number)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _palette() -> Any:
    """A palette for all frames: the color map, and each color blended with white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from PIL import Image

    colors = [colormaps[WEIGHTS](np.linspace(0, 1, 128))[:, :3]]
    colors += [np.linspace(to_rgb(color), (1, 1, 1), 32) for color in ("black", BLUE, RED, ORANGE)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * np.concatenate(colors)).astype(np.uint8).ravel().tolist())
    return palette
