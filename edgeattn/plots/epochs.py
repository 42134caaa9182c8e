"""Attention as it is learned: a picture over the epochs, one epoch's frame, and the animation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.files import atomic_write
from edgeattn.plots import style
from edgeattn.plots.axes import bars, image, ticks, titled
from edgeattn.plots.style import BLUE, ORANGE, PAPER, RED, WEIGHTS, Look
from edgeattn.tensors import Array

FRAMES = {
    2: "(epochs, steps)",
    3: "(epochs, rows, steps)",
    4: "(epochs, heads, queries, keys)",
}


def over_epochs(
    weights: ArrayLike,
    losses: ArrayLike | None = None,
    *,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    loss_name: str = "loss",
    look: Look = PAPER,
) -> Any:
    """One sequence's attention over the epochs of a training, with the loss under it.

    Args:
        weights: ``(epochs, steps)``; the first row is the untrained model's where ``losses`` has
            one value less, or NaN for it.
        losses: one for each epoch, NaN where there is none.
        tokens: what stands at each step.
        title: above everything.
        loss_name: what the losses are, for their axis.
        look: the colours of what is not data.

    Returns:
        :class:`matplotlib.figure.Figure`.

    Raises:
        UsageError: shapes or tokens that do not fit, or matplotlib is missing.
    """
    array = style.checked(weights, "weights", {2: FRAMES[2]})
    told = _losses(losses, len(array))
    names = style.labels(tokens, array.shape[1])
    rows = 1 if told is None else 2
    tall = min(max(0.16 * array.shape[1], 1.6), 4.0)
    grid = {"sharex": True, "height_ratios": [tall, 1.2][:rows]}
    with style.figure(7.0, tall + 0.9 + 1.2 * (rows - 1), rows, 1, look=look, **grid) as (
        made,
        axes,
    ):
        above = axes[0, 0]
        drawn = image(above, array.T, WEIGHTS, 0, style.top(array))
        drawn.set_extent((-0.5, len(array) - 0.5, array.shape[1] + 0.5, 0.5))
        made.colorbar(drawn, ax=above, label="attention weight")
        ticks(above.yaxis, array.shape[1], names, room=tall)
        above.set_ylabel("step")
        if told is not None:
            _loss_axis(axes[1, 0], told, loss_name)
            axes[1, 0].plot(np.arange(len(told)), told, color=BLUE, linewidth=1.8)
        ticks(axes[-1, 0].xaxis, len(array), None)
        axes[-1, 0].set_xlim(-0.5, len(array) - 0.5)
        axes[-1, 0].set_xlabel("epoch (0: untrained)")
        titled(made, title)
        return made


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
    """One epoch of a training: where it looks, where it ought to, and the loss until then.

    Args:
        weights: all epochs', ``(epochs, steps)``, ``(epochs, rows, steps)`` with a row for each
            sequence, or ``(epochs, heads, queries, keys)``; the first is the untrained model's.
        losses: one for each epoch, NaN where there is none.
        number: the epoch that is drawn, as an index.
        truth: the weights that ought to be reached, ``(steps,)`` or ``(rows, steps)``.
        tokens: what stands at each step.
        title: above everything.
        loss_name: what the losses are, for their axis.
        look: the colours of what is not data.

    Returns:
        :class:`matplotlib.figure.Figure`.

    Raises:
        UsageError: shapes or tokens that do not fit, or matplotlib is missing.
    """
    scene = _Scene(weights, losses, truth, tokens, title, loss_name, look)
    scene.show(range(len(scene.weights))[number])
    return scene.figure


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
    dpi: float = 90,
) -> Path:
    """Write the epochs of a training as a GIF that starts again; the last is shown for longer.

    The arguments are those of :func:`epoch`; ``seconds`` is what each epoch is shown for.

    Raises:
        UsageError: shapes or tokens that do not fit, or matplotlib is missing.
        OutputError: ``path`` cannot be written.
    """
    path = Path(path)
    scene = _Scene(weights, losses, truth, tokens, title, loss_name, PAPER)
    frames = list(_drawn(scene, dpi))
    palette = _palette()
    reduced = [frame.quantize(palette=palette, dither=0) for frame in frames]
    durations = [int(1000 * seconds)] * (len(reduced) - 1) + [2500]
    with atomic_write(path, parents=True) as file:
        reduced[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=reduced[1:],
            duration=durations if len(durations) > 1 else durations[0],
            loop=0,
            optimize=True,
        )
    return path


class _Scene:
    """What an animation draws once, and what :meth:`show` changes from epoch to epoch."""

    def __init__(
        self,
        weights: ArrayLike,
        losses: ArrayLike | None,
        truth: ArrayLike | None,
        tokens: Sequence[object] | None,
        title: str | None,
        loss_name: str,
        look: Look,
    ) -> None:
        self.weights = style.checked(weights, "weights", FRAMES)
        self.losses = _losses(losses, len(self.weights))
        self.names = style.labels(tokens, self.weights.shape[-1])
        self.end = style.top(self.weights)
        self.loss_name, self.look = loss_name, look
        self.truth = _truth(truth, self.weights)
        maps, aside = self._counts()
        rows = 1 if self.truth is None else 2
        tall = self._height()
        beside = self.losses is not None
        width = 3.4 * maps + (3.0 if beside else 0) + 0.4
        with style.figure(width, tall * rows + 1.0, look=look) as (figure, axes):
            axes[0, 0].remove()
            self.figure = figure
            grid = figure.add_gridspec(rows, maps + aside, width_ratios=[1.15] * maps + [1] * aside)
            self.axes = [figure.add_subplot(grid[0, k]) for k in range(maps)]
            self.drawn: list[Any] = []
            if self.truth is not None:
                below = figure.add_subplot(grid[1, 0], sharex=self.axes[0])
                self._map(below, self.truth, style.top(self.truth))
                below.set_title("where it ought to look")
                below.set_xlabel("step")
            if beside:
                self._loss(figure.add_subplot(grid[:, -1]))
            for axis in figure.axes:
                axis.tick_params(color=look.ink, labelcolor=look.ink, labelsize=9)
            self.heading = figure.suptitle(" ", fontsize=11, parse_math=False)
            self.title = title
            self.laid_out = False

    def _counts(self) -> tuple[int, int]:
        """Columns of maps, and of what stands beside them."""
        maps = self.weights.shape[1] if self.weights.ndim == 4 else 1
        if maps > 4:
            raise UsageError(f"At most 4 heads fit into a frame. Received: {maps}.")
        return maps, int(self.losses is not None)

    def _height(self) -> float:
        if self.weights.ndim == 2:
            return 1.9
        if self.weights.ndim == 4:
            return 2.4
        return float(min(max(0.12 * self.weights.shape[1], 1.2), 2.6))

    def _map(self, axis: Any, values: Array, end: float) -> Any:
        """Bars for one sequence, an image for more; on an axis of its own scale."""
        room = 3.0
        if values.ndim == 1:
            bars(axis, values, ORANGE if values is self.truth else BLUE, end)
            axis.set_ylim(0, 1.05 * end)
            axis.set_ylabel("weight")
            drawn = None
        else:
            drawn = image(axis, values, WEIGHTS, 0, end)
            ticks(axis.yaxis, len(values), None, room=1.2)
            axis.set_ylabel("query" if self.weights.ndim == 4 else "sequence")
        ticks(axis.xaxis, values.shape[-1], self.names, room=room)
        return drawn

    def _loss(self, axis: Any) -> None:
        assert self.losses is not None
        _loss_axis(axis, self.losses, self.loss_name)
        axis.set_title(self.loss_name, parse_math=False)
        axis.set_ylabel("")
        axis.set_xlim(0, max(len(self.losses) - 1, 1))
        (self.line,) = axis.plot([], [], color=BLUE, linewidth=1.8)
        (self.dot,) = axis.plot([], [], "o", color=RED, markersize=6, clip_on=False)
        axis.set_xlabel("epoch")
        ticks(axis.xaxis, len(self.losses), None, room=2.4)

    def show(self, number: int) -> None:
        """Draw epoch ``number``; the first lays everything out."""
        for axis in self.axes:
            axis.clear()
        shown = self.weights[number]
        for axis, values in zip(self.axes, shown if shown.ndim == 3 else [shown], strict=True):
            self._map(axis, values, self.end)
            axis.tick_params(color=self.look.ink, labelcolor=self.look.ink, labelsize=9)
            if self.truth is None:
                axis.set_xlabel("key" if shown.ndim == 3 else "step")
            else:
                axis.tick_params(labelbottom=False)
        heads = len(self.axes) > 1
        for place, axis in enumerate(self.axes):
            name = f"head {place + 1}" if heads else "attention"
            axis.set_title(name, loc="left", fontsize=10)
        told = "untrained" if number == 0 else f"epoch {number} of {len(self.weights) - 1}"
        self.heading.set_text(f"{self.title}: {told}" if self.title else told)
        if self.losses is not None:
            until = np.arange(len(self.losses)) <= number
            self.line.set_data(np.flatnonzero(until), self.losses[until])
            now = self.losses[number]
            self.dot.set_data([number], [now] if np.isfinite(now) else [np.nan])
        if not self.laid_out:
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
            self.laid_out = True


def _drawn(scene: _Scene, dpi: float) -> Iterator[Any]:
    """Every epoch as a picture of Pillow's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "Animations are written with Pillow, and it is not installed here.",
            hint="Install it with: pip install 'edgeattn[plots]'",
        ) from error
    scene.figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(scene.figure)
    for number in range(len(scene.weights)):
        scene.show(number)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _palette() -> Any:
    """One palette for all frames: the map's colours, and each ink's way to the paper."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb
    from PIL import Image

    inks = [colormaps[WEIGHTS](np.linspace(0, 1, 128))[:, :3]]
    for ink in ("black", BLUE, RED, ORANGE):
        inks.append(np.linspace(to_rgb(ink), (1, 1, 1), 32))
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * np.concatenate(inks)).astype(np.uint8).ravel().tolist())
    return palette


def _losses(losses: ArrayLike | None, epochs: int) -> Array | None:
    """One for each epoch; a missing one is that of the untrained model."""
    if losses is None:
        return None
    told = style.checked(losses, "losses", {1: "(epochs,)"})
    if len(told) == epochs - 1:
        told = np.concatenate([[np.nan], told])
    if len(told) != epochs:
        raise UsageError(
            f"losses should be {epochs}, one for each of the weights' epochs, or {epochs - 1} "
            f"without the untrained model's. Received: {len(told)}."
        )
    return told


def _truth(truth: ArrayLike | None, weights: Array) -> Array | None:
    if truth is None:
        return None
    wanted = weights.shape[1:]
    array = style.checked(truth, "truth", {1: "(steps,)", 2: "(rows, steps)"})
    if array.shape != wanted:
        raise UsageError(f"truth should have the shape {wanted}. Received: {array.shape}.")
    return array


def _loss_axis(axis: Any, losses: Array, name: str) -> None:
    """Limits that hold every epoch's loss; logarithmic where they span more than a decade."""
    finite = losses[np.isfinite(losses)]
    axis.set_ylabel(name, parse_math=False)
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 10 * low:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.3, high * 1.3)
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        axis.set_ylim(low - room, high + room)
