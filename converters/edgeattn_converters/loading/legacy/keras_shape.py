"""``_keras_shape`` of tensors: what Keras before 2.3 knew of their shape.

Layers of the user read it in ``call``, and set it where Keras could not know it.
"""

from typing import Any


class _KerasShape:
    """The static shape, a tuple, unless a program has set another; None if its rank is unknown."""

    def __get__(self, tensor: Any, owner: type | None = None) -> Any:
        if tensor is None:
            return self
        shape = tensor.shape
        if getattr(shape, "rank", 0) is None:
            return None
        return tuple(None if size is None else int(size) for size in shape)


def provide(*classes: type) -> None:
    """Let the tensors of ``classes`` have it."""
    for cls in classes:
        setattr(cls, "_keras_shape", _KerasShape())  # noqa: B010 -- mypy knows no such attribute
