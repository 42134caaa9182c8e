"""Layers with low-rank updates of their weights (LoRA): the scale of the update in the file.

``Dense.build`` and ``Embedding.build`` of Keras 3.15 add the matrices of a stored layer with the
default scale, so that ``lora_alpha`` in the config has no effect. ``.keras`` files contain the sum
of weights and update instead.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from edgeattn.printable import enumerated
from edgeattn_converters.keras_classes import derives_from

_CLASSES = ("Dense", "EinsumDense", "Embedding", "Conv1D")


@contextlib.contextmanager
def alpha_of_config() -> Iterator[None]:
    """Within the context, layers that are built keep the ``lora_alpha`` they were created with."""
    import keras

    with contextlib.ExitStack() as stack:
        for name in _CLASSES:
            mro = getattr(keras.layers, name).__mro__
            cls = next(parent for parent in mro if "enable_lora" in vars(parent))
            stack.enter_context(mock.patch.object(cls, "enable_lora", _kept(cls.enable_lora)))
        yield


def _kept(enable_lora: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(enable_lora)
    def enable(layer: Any, rank: int, lora_alpha: float | None = None, **options: Any) -> None:
        alpha = getattr(layer, "lora_alpha", None) if lora_alpha is None else lora_alpha
        enable_lora(layer, rank, lora_alpha=alpha, **options)

    return enable


def notes(model: Any) -> tuple[str, ...]:
    """A note on the layers of an ``.h5`` file that Keras itself would load with another scale."""
    import keras

    names = [
        layer.name
        for layer in model._flatten_layers()
        if derives_from(layer, *_CLASSES)
        and getattr(layer, "lora_enabled", False)
        and layer.lora_alpha != layer.lora_rank
    ]
    if not names:
        return ()
    return (
        f"{enumerated(names)}: the update of the weights has the lora_alpha in the file. Keras "
        f"{keras.__version__} takes lora_rank in its place when it loads an .h5 file.",
    )
