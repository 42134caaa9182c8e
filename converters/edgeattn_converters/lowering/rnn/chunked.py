"""A recurrence for TFLite whose steps are written out only for a chunk of the sequence.

A ``WHILE`` runs the chunk until the sequence is through. XNNPACK packs a copy of the recurrent
weights for every step that is written out: of a long sequence unrolled, they fall out of the cache;
of a chunk they stay. What the steps need of the inputs is one product for all of them before the
loop; the outputs are written in place (``DYNAMIC_UPDATE_SLICE``).

In place or not, a ``WHILE`` copies what it carries in every round, the outputs so far among it. So
long sequences are cut twice: the inner loop's outputs are few, and the outer loop has few rounds.
"""

from __future__ import annotations

from typing import Any

from edgeattn_converters.lowering.rnn.cells import Cell
from edgeattn_converters.lowering.rnn.steps import Steps


class Chunked:
    """A :class:`edgeattn_converters.lowering.rnn.layers.Recurrence` in chunks within loops.

    ``sizes`` are the steps of a round: of the outermost loop first, of the written-out chunk last.
    """

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def __call__(
        self,
        cell: Cell,
        x: Any,
        states: list[Any] | None,
        mask: Any,
        *,
        reverse: bool,
        zero_masked: bool,
        sequences: bool,
        final: bool,
    ) -> tuple[Any, list[Any]]:
        """Time and batch are static."""
        steps = Steps(
            cell, reverse=reverse, zero_masked=zero_masked, has_initial_states=states is not None
        )
        products, mask = steps.prepare(x, mask)
        loops = _Loops(steps, cell.units, reverse=reverse, sequences=sequences)
        carried = steps.start(products, states, mask)
        outputs, carried = loops.run(products, mask, carried, self._sizes)
        return (steps.finish(outputs) if sequences else None), steps.states(carried)


class _Loops:
    def __init__(self, steps: Steps, units: int, *, reverse: bool, sequences: bool) -> None:
        self._steps = steps
        self._units = units
        self._reverse = reverse
        self._sequences = sequences

    def run(
        self, products: Any, mask: Any, carried: list[Any], sizes: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        """Outputs (time, batch, units), if asked for, of products (time, batch, width)."""
        import tensorflow as tf

        if not sizes:
            return self._steps.run(products, mask, carried)
        size, *inner = sizes
        rounds, rest = divmod(products.shape[0], size)
        if rounds < 2:
            return self.run(products, mask, carried, tuple(inner))
        # The steps that fill no round come first, in the order of the computation.
        cut = rounds * size if self._reverse else rest
        ahead, looped = slice(0, rest), slice(rest, None)
        if self._reverse:
            ahead, looped = slice(cut, None), slice(0, cut)
        parts = []
        if rest:
            first, carried = self.run(products[ahead], _cut(mask, ahead), carried, tuple(inner))
            parts = [first]
        outputs, carried = self._loop(
            products[looped], _cut(mask, looped), carried, size, tuple(inner)
        )
        if not self._sequences:
            return None, carried
        parts = [outputs, *parts] if self._reverse else [*parts, outputs]
        return (tf.concat(parts, axis=0) if len(parts) > 1 else outputs), carried

    def _loop(
        self, products: Any, mask: Any, carried: list[Any], size: int, inner: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        import tensorflow as tf
        from tensorflow.compiler.tf2xla.ops import gen_xla_ops

        time, batch, width = products.shape
        rounds = time // size

        def body(turn: Any, *carry: Any) -> list[Any]:
            now = list(carry)
            written = now.pop() if self._sequences else None
            at = (rounds - 1 - turn if self._reverse else turn) * size
            part = tf.slice(products, [at, 0, 0], [size, batch, width])
            real = None if mask is None else tf.slice(mask, [at, 0, 0], [size, batch, 1])
            outputs, now = self.run(part, real, now, inner)
            if self._sequences:
                written = gen_xla_ops.xla_dynamic_update_slice(
                    input=written, update=outputs, indices=tf.stack([at, 0, 0])
                )
                now.append(written)
            return [turn + 1, *now]

        start = [tf.constant(0), *carried]
        if self._sequences:
            # Every place of it is overwritten: zeros would be stored in the file, as a constant.
            start.append(products[:, :, : self._units])
        _, *now = tf.while_loop(lambda turn, *_: turn < rounds, body, start)
        outputs = now.pop() if self._sequences else None
        return outputs, now


def _cut(mask: Any, steps: slice) -> Any:
    return None if mask is None else mask[steps]
