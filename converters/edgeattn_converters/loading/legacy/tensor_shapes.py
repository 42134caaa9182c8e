"""Shapes and dtypes of symbolic tensors with the methods that they have in Keras 2.

There, they are the TensorShape and the DType of TensorFlow. In Keras 3, they are a tuple and a
string, which the objects here still are.
"""

from collections.abc import Callable, Iterable
from typing import Any


class Size(int):
    """A size, which TensorFlow 1 had as a ``Dimension``: ``x.shape[1].value``."""

    __slots__ = ()

    # Keras 3 asks for this, or else for the name of the class, if a tensor is multiplied by it.
    dtype = int

    @property
    def value(self) -> int:
        """The number."""
        return int(self)


class Shape(tuple[Any, ...]):
    """A tuple of sizes, None for those that are not known, with the methods of TensorShape."""

    __slots__ = ()

    def __new__(cls, sizes: Iterable[Any]) -> "Shape":
        """Create the shape from numbers and None, or from a TensorShape."""
        return super().__new__(cls, (None if size is None else Size(size) for size in sizes))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of TensorShape, such as ``rank``."""
        import tensorflow as tf

        if name.startswith("_"):
            raise AttributeError(name)
        return _with_shapes(getattr(tf.TensorShape(tuple(self)), name))

    def __getitem__(self, key: Any) -> Any:
        """Return a size, or the shape of a slice."""
        found = super().__getitem__(key)
        return Shape(found) if isinstance(key, slice) else found

    def __add__(self, other: Any) -> Any:
        """Return the shape with that of more axes behind it."""
        return Shape((*self, *other)) if _is_shape(other) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        """Return the shape with that of more axes before it."""
        return Shape((*other, *self)) if _is_shape(other) else NotImplemented

    def __eq__(self, other: Any) -> bool:
        """Return whether a list, a tuple or a TensorShape has the same sizes."""
        return tuple(self) == tuple(other) if _is_shape(other) else False

    def __ne__(self, other: object) -> bool:
        """Return whether it has not."""
        return not self == other

    __hash__ = tuple.__hash__


class Dtype(str):
    """The name of a dtype, with the attributes of DType."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of DType, such as ``is_floating``."""
        import tensorflow as tf

        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(tf.as_dtype(str(self)), name)


def shapes_in(value: Any) -> Any:
    """Return shapes, in lists and dictionaries, with the methods of TensorShape."""
    if isinstance(value, dict):
        return {key: shapes_in(item) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if all(item is None or isinstance(item, int) for item in value):
        return Shape(value)
    return type(value)(map(shapes_in, value))


def plain_shapes(value: Any) -> Any:
    """Return shapes, in lists and dictionaries, as tuples of sizes, as Keras 3 takes them."""
    import tensorflow as tf

    if isinstance(value, dict):
        return {key: plain_shapes(item) for key, item in value.items()}
    if isinstance(value, tf.TensorShape):
        return value if value.rank is None else tuple(value.as_list())
    if not isinstance(value, list | tuple):
        return value
    if value and all(item is None or isinstance(item, int) for item in value):
        return tuple(value)
    return type(value)(map(plain_shapes, value))


def _is_shape(value: Any) -> bool:
    import tensorflow as tf

    if isinstance(value, tf.TensorShape):
        return value.rank is not None
    return isinstance(value, list | tuple)


def _with_shapes(value: Any) -> Any:
    """Return what TensorShape has as an attribute, or returns, with shapes of this module."""
    import tensorflow as tf

    if isinstance(value, tf.TensorShape):
        return value if value.rank is None else Shape(value.as_list())
    if not callable(value):
        return value
    method: Callable[..., Any] = value
    return lambda *args, **kwargs: _with_shapes(method(*args, **kwargs))
