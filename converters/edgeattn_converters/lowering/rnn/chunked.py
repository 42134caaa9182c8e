"""A recurrence for TFLite with a loop whose body is a chunk of unrolled steps.

XNNPACK packs a copy of the recurrent weights for every unrolled step. Those of a whole long
sequence do not fit into the cache; those of a chunk do. The input products of all steps are one
matrix product before the loop, and the outputs are written in place (``DYNAMIC_UPDATE_SLICE``).

A ``WHILE`` copies its loop variables in every iteration, including the outputs so far. Long
sequences are therefore split twice: the inner loop has few outputs, the outer loop few iterations.
"""

from typing import Any

from edgeattn_converters.lowering.rnn.recurrence import Recurrence
from edgeattn_converters.lowering.rnn.steps import Steps


class Chunked:
    """A :class:`RecurrenceLowering` with loops, for fixed numbers of steps and samples.

    ``sizes`` are the steps per iteration of each loop, outermost first; the last is the number of
    unrolled steps.
    """

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def __call__(
        self, recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
    ) -> tuple[Any, list[Any]]:
        steps = Steps(recurrence, has_initial_states=states is not None)
        products, mask = steps.prepare(x, mask)
        carried = steps.start(products, states, mask)
        outputs, carried = _Loops(steps, recurrence).run(products, mask, carried, self._sizes)
        return (steps.finish(outputs) if recurrence.sequences else None), steps.states(carried)


class _Loops:
    def __init__(self, steps: Steps, recurrence: Recurrence) -> None:
        self._steps = steps
        self._units = recurrence.cell.units
        self._reverse = recurrence.reverse
        self._sequences = recurrence.sequences

    def run(
        self, products: Any, mask: Any, carried: list[Any], sizes: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        """Run loops of ``sizes`` over products of (time, batch, width).

        Returns the outputs (time, batch, units), or None if they are not used, and the loop
        variables after the last step.
        """
        import tensorflow as tf

        if not sizes:
            return self._steps.run(products, mask, carried)
        size, *inner = sizes
        iterations, rest = divmod(products.shape[0], size)
        if iterations < 2:
            return self.run(products, mask, carried, tuple(inner))
        # The steps that fill no iteration are computed first.
        if self._reverse:
            first, looped = slice(iterations * size, None), slice(0, iterations * size)
        else:
            first, looped = slice(0, rest), slice(rest, None)
        parts = []
        if rest:
            outputs, carried = self.run(products[first], _slice(mask, first), carried, tuple(inner))
            parts = [outputs]
        outputs, carried = self._loop(
            products[looped], _slice(mask, looped), carried, size, tuple(inner)
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
        iterations = time // size

        def body(iteration: Any, *variables: Any) -> list[Any]:
            carried = list(variables)
            outputs = carried.pop() if self._sequences else None
            start = (iterations - 1 - iteration if self._reverse else iteration) * size
            chunk = tf.slice(products, [start, 0, 0], [size, batch, width])
            real = None if mask is None else tf.slice(mask, [start, 0, 0], [size, batch, 1])
            chunk_outputs, carried = self.run(chunk, real, carried, inner)
            if self._sequences:
                outputs = gen_xla_ops.xla_dynamic_update_slice(
                    input=outputs, update=chunk_outputs, indices=tf.stack([start, 0, 0])
                )
                carried.append(outputs)
            return [iteration + 1, *carried]

        variables = [tf.constant(0), *carried]
        if self._sequences:
            # Every element is overwritten. Zeros would be stored in the file, as a constant.
            variables.append(products[:, :, : self._units])
        _, *carried = tf.while_loop(lambda iteration, *_: iteration < iterations, body, variables)
        outputs = carried.pop() if self._sequences else None
        return outputs, carried


def _slice(mask: Any, steps: slice) -> Any:
    return None if mask is None else mask[steps]
