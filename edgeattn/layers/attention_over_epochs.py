"""A Keras callback that records and draws attention during training."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgeattn.errors import UsageError
from edgeattn.files import atomic_write
from edgeattn.layers.attention_maps import attention_maps
from edgeattn.plots.epochs import over_epochs
from edgeattn.plots.frames import animation, epoch
from edgeattn.plots.style import save
from edgeattn.tensors import Array

RECORD = "attention.npz"


class AttentionOverEpochs(keras.callbacks.Callback):
    """Records the attention weights on a few samples before training and after every epoch.

    Writes to ``folder``: ``epoch-0000.png`` for the untrained model and one picture after every
    epoch; ``attention.npz`` with all weights and losses; and when training ends ``attention.gif``
    and ``over-epochs.png``, the attention of the first sample. With ``fit(..., initial_epoch=n)``
    the record in ``attention.npz`` is continued. Requires ``pip install 'edgeattn[plots]'``.

    Args:
        x: inputs as for :func:`attention_maps`; about eight samples fit into a picture.
        folder: output folder, created if it is missing.
        layer: name of the attention layer; may be omitted if there is only one.
        monitor: the value in the logs of an epoch that is drawn as the loss.
        truth: expected weights, ``(samples, time)``, drawn below the attention.
        tokens: a label for each step.
        frames: whether to write a picture for every epoch, which takes most of the time.

    ``weights`` are ``(epochs, samples, ...)``, of the untrained model first; of layers with several
    heads, the pictures show the first sample. ``losses`` are ``(epochs,)``; the first is NaN.
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
        self.x: Any = x
        self.folder: Path = Path(folder)
        self.layer: str | None = layer
        self.monitor: str = monitor
        self.truth: Any = truth
        self.tokens: Sequence[object] | None = tokens
        self.title: str | None = title
        self.frames: bool = frames
        self._weights: list[Array] = []
        self._losses: list[float] = []

    @property
    def weights(self) -> Array:
        return np.stack(self._weights)

    @property
    def losses(self) -> Array:
        return np.array(self._losses)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the first epoch of ``fit``: record the untrained model, or load the record."""
        if not self._weights:
            if epoch:
                self.resume(epoch)
            else:
                self.record(self.model, float("nan"))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the model after an epoch."""
        logs = logs or {}
        if self.monitor not in logs:
            raise UsageError(
                f"The logs of an epoch have no value {self.monitor!r}.",
                hint=f"Set monitor= to one of: {', '.join(sorted(logs)) or 'none available'}",
            )
        self.record(self.model, float(logs[self.monitor]))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write the animation and the picture over the epochs."""
        if self._weights:
            self.finish()

    def record(self, model: keras.Model, loss: float) -> None:
        """Record the attention of ``model`` as the next epoch; for custom training loops."""
        self._weights.append(attention_maps(model, self.x, self.layer))
        self._losses.append(loss)
        with atomic_write(self.folder / RECORD, parents=True) as file:
            np.savez_compressed(file, weights=self.weights, losses=self.losses)
        if self.frames:
            number = len(self._weights) - 1
            save(epoch(**self._plot_arguments()), self.folder / f"epoch-{number:04}.png", dpi=100)

    def resume(self, epochs: int) -> None:
        """Load the first ``epochs`` epochs of ``attention.npz``.

        Raises :class:`UsageError` if the file cannot be read or has fewer epochs.
        """
        path = self.folder / RECORD
        try:
            with np.load(path, allow_pickle=False) as record:
                weights, losses = record["weights"], record["losses"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"Training resumes at epoch {epochs + 1}, but {path} with the record of the "
                "earlier epochs cannot be read.",
                hint="Start at epoch 0, or use the folder of the first run.",
            ) from error
        if len(weights) < epochs + 1:
            raise UsageError(
                f"Training resumes at epoch {epochs + 1}, but {path} ends at epoch "
                f"{len(weights) - 1}.",
                hint="Start at epoch 0, or resume at the end of the record.",
            )
        self._weights = list(weights[: epochs + 1])
        self._losses = [float(loss) for loss in losses[: epochs + 1]]

    def finish(self) -> None:
        """Write ``attention.gif`` and ``over-epochs.png``."""
        arguments = self._plot_arguments()
        animation(self.folder / "attention.gif", **arguments)
        first = self.weights[:, 0]
        if first.ndim == 2:
            arguments.pop("truth")
            arguments["weights"] = first
            save(over_epochs(**arguments), self.folder / "over-epochs.png")

    def _plot_arguments(self) -> dict[str, Any]:
        weights = self.weights  # (epochs, samples, ...)
        return {
            "weights": weights if weights.ndim == 3 else weights[:, 0],
            "losses": self.losses,
            "truth": self.truth,
            "tokens": self.tokens,
            "title": self.title,
            "loss_name": self.monitor.replace("_", " "),
        }
