"""One sequence's attention over the epochs of a training, and the loss."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgeattn.errors import UsageError
from edgeattn.plots import style
from edgeattn.plots.axes import image, set_title, ticks
from edgeattn.plots.style import BLUE, PAPER, WEIGHTS, Look
from edgeattn.tensors import Array


def over_epochs(
    weights: ArrayLike,
    losses: ArrayLike | None = None,
    *,
    tokens: Sequence[object] | None = None,
    title: str | None = None,
    loss_name: str = "loss",
    look: Look = PAPER,
) -> Any:
    """Draw one sequence's attention over the epochs of a training, with the loss below.

    ``weights`` are ``(epochs, steps)``; the first row is the untrained model if ``losses`` has one
    value less or starts with NaN. ``losses`` are ``(epochs,)``, NaN for epochs without a loss, and
    ``loss_name`` labels their axis. ``tokens`` label the steps. Raises :class:`UsageError` if a
    shape or the number of tokens is wrong.
    """
    array = style.as_array(weights, "weights", {2: "(epochs, steps)"})
    values = check_losses(losses, len(array))
    names = style.labels(tokens, array.shape[1])
    rows = 1 if values is None else 2
    height = min(max(0.16 * array.shape[1], 1.6), 4.0)
    grid: dict[str, Any] = {"sharex": True, "height_ratios": [height, 1.2][:rows]}
    size = (7.0, height + 0.9 + 1.2 * (rows - 1))
    with style.figure(*size, rows, 1, look=look, **grid) as (figure, axes):
        top = axes[0, 0]
        drawn = image(top, array.T, WEIGHTS, 0, style.top(array))
        drawn.set_extent((-0.5, len(array) - 0.5, array.shape[1] + 0.5, 0.5))
        figure.colorbar(drawn, ax=top, label="attention weight")
        ticks(top.yaxis, array.shape[1], names, room=height)
        top.set_ylabel("step")
        if values is not None:
            scale_loss_axis(axes[1, 0], values, loss_name)
            axes[1, 0].plot(np.arange(len(values)), values, color=BLUE, linewidth=1.8)
        ticks(axes[-1, 0].xaxis, len(array), None)
        axes[-1, 0].set_xlim(-0.5, len(array) - 0.5)
        axes[-1, 0].set_xlabel("epoch (0: untrained)")
        set_title(figure, title)
        return figure


def check_losses(losses: ArrayLike | None, epochs: int) -> Array | None:
    """``losses`` as ``(epochs,)``, with NaN in front if the untrained model's is missing."""
    if losses is None:
        return None
    array = style.as_array(losses, "losses", {1: "(epochs,)"})
    if len(array) == epochs - 1:
        array = np.concatenate([[np.nan], array])
    if len(array) != epochs:
        raise UsageError(
            f"losses should have one value for each of the {epochs} epochs of the weights, or "
            f"{epochs - 1} without the untrained model. Received: {len(array)}."
        )
    return array


def scale_loss_axis(axis: Any, losses: Array, name: str) -> None:
    """Set limits for all losses, on a logarithmic scale if they span more than a decade."""
    finite = losses[np.isfinite(losses)]
    axis.set_ylabel(name, parse_math=False)
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 10 * low:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.3, high * 1.3)
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        axis.set_ylim(low - margin, high + margin)
