"""Pictures of attention, for papers and for looking at one's own models.

    from edgeattn import plots

    plots.save(plots.attention(weights, tokens=words), "attention.png")

Every function takes arrays and gives a :class:`matplotlib.figure.Figure`, which ``savefig`` or
:func:`save` writes in any format that matplotlib knows; :func:`animation` writes a GIF. Needs
``pip install 'edgeattn[plots]'``. Keras is needed by :class:`AttentionOverEpochs` alone, the
callback that watches a model in training; with :func:`edgeattn.layers.attention_maps` it lives in
:mod:`edgeattn.layers`.

Colours are the Okabe-Ito palette and the maps cividis and PuOr, which people with any of the common
colour deficiencies tell apart. Weights that are no numbers are painted vermilion, never as zero.
"""

from __future__ import annotations

from typing import Any

from edgeattn.plots.epochs import animation, epoch, over_epochs
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
    """The callback, on first use: it is the one name here that needs Keras."""
    if name == "AttentionOverEpochs":
        from edgeattn.layers import AttentionOverEpochs

        return AttentionOverEpochs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
