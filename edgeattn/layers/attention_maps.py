"""Where a Keras model looks, asked of any of its attention layers, and watched while it learns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.files import atomic_write
from edgeattn.layers.attention import Attention
from edgeattn.plots.epochs import animation, epoch, over_epochs
from edgeattn.plots.style import save
from edgeattn.tensors import Array

# Layers that tell their weights when they are called with the argument of that name.
ASKING: tuple[tuple[Any, str], ...] = (
    (Attention, "return_attention_weights"),
    (keras.layers.MultiHeadAttention, "return_attention_scores"),
    (keras.layers.Attention, "return_attention_scores"),  # and AdditiveAttention, made from it
)
RECORD = "attention.npz"


def attention_maps(
    model: keras.Model, x: Any, layer: str | None = None, *, batch_size: int = 32
) -> Array:
    """The attention weights of ``model`` on the inputs ``x``, without changing the model.

    Knows this package's ``Attention`` and Keras' ``Attention``, ``AdditiveAttention`` and
    ``MultiHeadAttention``, also inside nested models; masks and dropout are as in ``predict``.

    Args:
        model: built, on any backend.
        x: the inputs, the sample axis first; a list where the model has several.
        layer: the name of the attention layer; not needed where there is only one.
        batch_size: samples at a time.

    Returns:
        float array: ``(samples, time)`` of this package's layer, ``(samples, queries, keys)`` or
        ``(samples, heads, queries, keys)`` of Keras'.

    Raises:
        UsageError: no attention layer, no such layer, or several and none named.
        SampleError: no samples, or inputs that differ in how many they hold.
    """
    inputs = [np.asarray(part) for part in (x if isinstance(x, list | tuple) else [x])]
    counts = {len(part) if part.ndim else 0 for part in inputs}
    if len(counts) != 1 or 0 in counts:
        raise SampleError(f"x should hold samples, as many in each input. Received: {counts}.")
    several = isinstance(x, list | tuple)
    told = []
    with _asked(_layer(model, layer)) as seen:
        for start in range(0, counts.pop(), batch_size):
            batch = [part[start : start + batch_size] for part in inputs]
            seen.clear()
            model(batch if several else batch[0], training=False)
            if len(seen) != 1:
                raise UsageError(
                    f"The layer should be called once in the model. It is called {len(seen)} times."
                )
            told.append(np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(seen[0], "float32"))))
    return np.concatenate(told)


class AttentionOverEpochs(keras.callbacks.Callback):
    """Watches where a model looks while it learns: a frame for each epoch, and an animation.

    In ``folder``: ``epoch-0000.png`` of the untrained model and one more after each epoch,
    ``attention.npz`` with the weights and losses so far, and when training ends ``attention.gif``
    and ``over-epochs.png``, the first sample's map. With ``fit(..., initial_epoch=n)`` it goes on
    from the epochs that ``attention.npz`` holds. Needs ``pip install 'edgeattn[plots]'``.

    Args:
        x: a few samples to look at, as for :func:`attention_maps`; eight make a good picture.
        folder: takes what is written; made if it is missing.
        layer: the name of the attention layer; not needed where there is only one.
        monitor: which figure of the epoch is drawn beside the map.
        truth: where it ought to look, ``(samples, time)``; drawn under the map.
        tokens: what stands at each step.
        title: above the pictures.
        frames: ``False`` leaves the pictures of single epochs out, which take most of the time.

    ``weights``, ``(epochs, samples, ...)``, and ``losses``, ``(epochs,)``, hold what was seen; the
    untrained model's is the first row, and its loss NaN. Of several heads the first sample's map is
    drawn.
    """

    def __init__(
        self,
        x: Any,
        folder: str | os.PathLike[str],
        *,
        layer: str | None = None,
        monitor: str = "loss",
        truth: Any = None,
        tokens: Sequence[object] | None = None,
        title: str | None = None,
        frames: bool = True,
    ) -> None:
        super().__init__()
        self.x, self.folder, self.layer, self.monitor = x, Path(folder), layer, monitor
        self.truth, self.tokens, self.title, self.frames = truth, tokens, title, frames
        self._weights: list[Array] = []
        self._losses: list[float] = []

    @property
    def weights(self) -> Array:
        return np.stack(self._weights)

    @property
    def losses(self) -> Array:
        return np.array(self._losses)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the first epoch: what was seen until then, or the untrained model."""
        if not self._weights:
            if epoch:
                self.resume(epoch)
            else:
                self.see(self.model, float("nan"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """See the model as the epoch left it."""
        logs = logs or {}
        if self.monitor not in logs:
            raise UsageError(
                f"There is no {self.monitor!r} among what is measured after an epoch.",
                hint=f"Choose monitor= from: {', '.join(sorted(logs)) or 'nothing was measured'}",
            )
        self.see(self.model, float(logs[self.monitor]))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write the animation and the picture over the epochs."""
        if self._weights:
            self.finish()

    def see(self, model: keras.Model, loss: float) -> None:
        """Record where ``model`` looks now, and draw it; for training loops of one's own."""
        self._weights.append(attention_maps(model, self.x, self.layer))
        self._losses.append(loss)
        with atomic_write(self.folder / RECORD, parents=True) as file:
            np.savez_compressed(file, weights=self.weights, losses=self.losses)
        if self.frames:
            number = len(self._weights) - 1
            save(epoch(**self._drawn()), self.folder / f"epoch-{number:04}.png", dpi=100)

    def resume(self, epochs: int) -> None:
        """Go on after ``epochs`` epochs that another process has seen.

        Raises :class:`UsageError` where ``attention.npz`` does not hold them.
        """
        path = self.folder / RECORD
        try:
            with np.load(path, allow_pickle=False) as record:
                weights, losses = record["weights"], record["losses"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"Training goes on at epoch {epochs + 1}, and {path} with the epochs before that "
                "cannot be read.",
                hint="Start from epoch 0, or watch into the folder of the first run.",
            ) from error
        if len(weights) < epochs + 1:
            raise UsageError(
                f"Training goes on at epoch {epochs + 1}, and {path} ends at {len(weights) - 1}.",
                hint="Start from epoch 0, or go on where the record ends.",
            )
        self._weights = list(weights[: epochs + 1])
        self._losses = [float(loss) for loss in losses[: epochs + 1]]

    def finish(self) -> None:
        """Write ``attention.gif`` and ``over-epochs.png``."""
        drawn = self._drawn()
        animation(self.folder / "attention.gif", **drawn)
        first = self.weights[:, 0]
        if first.ndim == 2:
            drawn.pop("truth")
            drawn["weights"] = first
            save(over_epochs(**drawn), self.folder / "over-epochs.png")

    def _drawn(self) -> dict[str, Any]:
        weights = self.weights  # (epochs, samples, ...)
        return {
            "weights": weights if weights.ndim == 3 else weights[:, 0],
            "losses": self.losses,
            "truth": self.truth,
            "tokens": self.tokens,
            "title": self.title,
            "loss_name": self.monitor.replace("_", " "),
        }


def _layer(model: keras.Model, name: str | None) -> Any:
    """The attention layer called ``name``, or the only one."""
    kinds = tuple(kind for kind, _ in ASKING)
    found = [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]
    names = ", ".join(layer.name for layer in found) or "none"
    if name is None and len(found) == 1:
        return found[0]
    if name is None:
        raise UsageError(
            f"The model should have one attention layer, or layer= says which. It has: {names}."
        )
    named = [layer for layer in found if layer.name == name]
    if len(named) != 1:
        raise UsageError(f"There should be one attention layer {name!r}. There are: {names}.")
    return named[0]


@contextmanager
def _asked(layer: Any) -> Iterator[list[Any]]:
    """While inside, every call of ``layer`` leaves its weights in the list.

    The layer is asked where it stands, so whatever comes before it, masks and other inputs
    included, is as in the model itself.
    """
    argument = next(name for kind, name in ASKING if isinstance(layer, kind))
    seen: list[Any] = []
    call = layer.call

    def telling(*arguments: Any, **named: Any) -> Any:
        wanted = named.get(argument)
        if wanted is None:
            wanted = getattr(layer, argument, False)
        named[argument] = True
        answer, weights = call(*arguments, **named)
        seen.append(weights)
        return (answer, weights) if wanted else answer

    layer.call = telling
    try:
        yield seen
    finally:
        del layer.call
