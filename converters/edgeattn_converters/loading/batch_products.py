"""``K.batch_dot`` of tensors of four axes and more, in code of a model that is loaded.

It was a product of the last two axes in Keras before 2.2.5 and in tf.keras before TensorFlow 2.0
(``tf.matmul``; keras/backend/tensorflow_backend.py of Keras 2.2.4): of two tensors (b, h, t, d)
with axes [3, 3], it is (b, h, t, t). Since then it is (b, h, t, h, t). TensorFlow 1.13 to 2.1 call
their Keras 2.2.4-tf, so a file of theirs does not show which one it was.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

_FIRST_RANK = 4
_OF_SEVERAL_TENSORFLOWS = (2, 2, 4)


class _Product(Enum):
    FORMER = "that of the last two axes"
    PRESENT = "that of the current Keras"
    UNKNOWN = "either, depending on the TensorFlow"


_current = _Product.PRESENT


def use(version: Sequence[int], *, of_tensorflow: bool) -> None:
    """Set what code of a model of the Keras ``version`` computes; ``of_tensorflow`` is tf.keras."""
    global _current
    version = tuple(version)
    limit = _OF_SEVERAL_TENSORFLOWS if of_tensorflow else (2, 2, 5)
    if () < version < limit:
        _current = _Product.FORMER
    elif of_tensorflow and version == _OF_SEVERAL_TENSORFLOWS:
        _current = _Product.UNKNOWN
    else:
        _current = _Product.PRESENT


@contextmanager
def restored() -> Iterator[None]:
    """Set it again as it is now, after other models were loaded."""
    global _current
    before = _current
    try:
        yield
    finally:
        _current = before


def of_loaded_model(present: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``batch_dot`` of the loaded model; ``present`` is that of the current Keras."""
    # legacy_modules.provide() runs more than once.
    original: Callable[..., Any] = getattr(present, "_of_current_keras", present)

    @functools.wraps(original)
    def batch_dot(x: Any, y: Any, axes: Any = None) -> Any:
        product = former(x, y, axes)
        return original(x, y, axes) if product is None else product

    batch_dot._of_current_keras = original  # type: ignore[attr-defined]
    return batch_dot


def former(x: Any, y: Any, axes: Any) -> Any:
    """Return the product of the Keras that saved the loaded model; None if it is the current one.

    Raises ValueError if the file does not show which one it is.
    """
    from keras import ops

    ranks = len(x.shape), len(y.shape)
    rank, missing = max(ranks), ranks[0] - ranks[1]
    if rank < _FIRST_RANK or missing > 0 or _current is _Product.PRESENT:
        return None
    if _current is _Product.UNKNOWN:
        raise ValueError(
            "K.batch_dot of tensors with four axes is another product in TensorFlow 1.13 to 1.15 "
            "than in 2.0 and 2.1, which store the same version; write tf.matmul or tf.einsum in "
            "place of it"
        )
    if axes is None:
        axes = (ranks[0] - 1, ranks[1] - 2)
    first, second = (axes, axes) if isinstance(axes, int) else axes
    for _ in range(-missing):
        x = ops.expand_dims(x, -1)
    exchanged = (*range(rank - 2), rank - 1, rank - 2)
    if first != rank - 1:
        x = ops.transpose(x, exchanged)
    if second == rank - 1:
        y = ops.transpose(y, exchanged)
    product = ops.matmul(x, y)
    if missing:
        # With fewer axes of y, Keras had an error.
        product = ops.squeeze(product, tuple(range(ranks[0] - 1, rank - 1)))
    return product
