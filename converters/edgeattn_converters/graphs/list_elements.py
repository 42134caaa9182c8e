"""The elements of a list of tensors that are known while a graph is traced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Elements:
    """The elements of a list: ``items``, None for those that are not written, or else all of them
    as one tensor, ``whole``. ``shape`` is that of an element, if it is known."""

    dtype: Any
    items: tuple[Any, ...] | None = None
    whole: Any = None
    shape: Shape = None

    @property
    def length(self) -> int | None:
        if self.items is not None:
            return len(self.items)
        return None if self.whole.shape.rank is None else self.whole.shape[0]

    def separate(self) -> tuple[Any, ...]:
        """The elements as ``items``; the length has to be known."""
        import tensorflow as tf

        if self.items is not None:
            return self.items
        return tuple(tf.unstack(self.whole)) if self.length else ()

    def resized(self, length: int) -> "Elements":
        """With ``length`` elements, of which new ones are not written."""
        items = self.separate()[:length]
        return replace(self, whole=None, items=(*items, *[None] * (length - len(items))))

    def with_item(self, position: int, item: Any) -> "Elements":
        """With another element at a position, which exists."""
        items = self.separate()
        return replace(self, whole=None, items=(*items[:position], item, *items[position + 1 :]))

    def stacked(self, shape: Shape = None, like: Any = None) -> Any:
        """All elements as one tensor, those that are not written as zeros, as in TensorFlow.

        ``shape`` is that of an element, ``like`` a tensor of that shape. None if neither is known
        and no element is written.
        """
        import tensorflow as tf

        if self.items is None:
            return self.whole
        if self.items and all(item is not None for item in self.items):
            return tf.stack(self.items)
        size = self._size(shape, like)
        if size is None:
            return None
        parts = [
            tf.stack(run) if any(map(_is_written, run)) else self._zeros([len(run)], size)
            for run in _runs(self.items) or [[]]
        ]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 0)

    def _size(self, shape: Shape, like: Any = None) -> Any:
        """The shape of an element, as a list or a tensor; None if it is unknown."""
        import tensorflow as tf

        for known in (shape, self.shape):
            if is_known(known):
                return list(known or ())
        written = next(filter(_is_written, self.items or ()), like)
        return None if written is None else tf.shape(written)

    def _zeros(self, sizes: list[int], size: Any) -> Any:
        """Zeros of the shape ``(*sizes, *size)``."""
        import tensorflow as tf

        whole = (
            [*sizes, *size]
            if isinstance(size, list)
            else tf.concat([[*sizes], size], 0)
            if sizes
            else size
        )
        return tf.zeros(whole, self.dtype)

    def at(self, position: int, shape: Shape) -> Any:
        """The element at a position, which exists; None if it is not written, of unknown shape."""
        if self.items is None:
            return self.whole[position]
        if self.items[position] is not None:
            return self.items[position]
        size = self._size(shape)
        return None if size is None else self._zeros([], size)

    def joined(self) -> tuple[Any, Any] | None:
        """The elements one after the other along their first axis, and their lengths; None if one
        is not written, or has no known number of axes."""
        import tensorflow as tf

        if self.items is not None:
            if not self.items or not all(map(_is_written, self.items)):
                return None
            lengths = tf.stack([tf.shape(item, tf.int64)[0] for item in self.items])
            return tf.concat(self.items, 0), lengths
        if (self.whole.shape.rank or 0) < 2:
            return None
        sizes = tf.shape(self.whole, tf.int64)
        others = [
            sizes[k] if size is None else size for k, size in enumerate(self.whole.shape) if k > 1
        ]
        return tf.reshape(self.whole, [-1, *others]), tf.fill(sizes[:1], sizes[1])


def is_known(shape: Shape) -> bool:
    return shape is not None and None not in shape


def _is_written(item: Any) -> bool:
    return item is not None


def _runs(items: Sequence[Any]) -> list[list[Any]]:
    """Successive items that are all written or all not."""
    runs: list[list[Any]] = []
    for item in items:
        if runs and _is_written(runs[-1][-1]) == _is_written(item):
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs
