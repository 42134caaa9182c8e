"""Figures of attention weights.

    from edgeattn import plots

    plots.save(plots.attention(weights, tokens=tokens), "attention.png")

Every function takes arrays and returns a :class:`matplotlib.figure.Figure`, which ``savefig`` or
:func:`save` writes in any format that Matplotlib supports; :func:`animation` writes a GIF. Each
takes the ``title`` of the figure and its ``look``, the colors of text, lines and background.
Requires ``pip install 'edgeattn[plots]'``, and raises :class:`edgeattn.UsageError` without it. Only
the callback :class:`AttentionOverEpochs`, which is defined in :mod:`edgeattn.layers`, requires
Keras.

The palette of Okabe and Ito and the color maps cividis and PuOr suit readers with color vision
deficiencies. NaN and infinity are drawn in vermilion, never as zero.
"""

from typing import Any

from edgeattn.plots.epochs import over_epochs
from edgeattn.plots.frames import animation, epoch
from edgeattn.plots.maps import attention, comparison, panels
from edgeattn.plots.style import PAPER, Look, save
from edgeattn.plots.text import words

__all__ = [
    "PAPER",
    "AttentionOverEpochs",
    "Look",
    "animation",
    "attention",
    "comparison",
    "epoch",
    "over_epochs",
    "panels",
    "save",
    "words",
]


def __getattr__(name: str) -> Any:
    """Import the callback on first use, because it requires Keras."""
    if name == "AttentionOverEpochs":
        from edgeattn.layers import AttentionOverEpochs

        return AttentionOverEpochs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
