"""The steps of a recurrence in operators that XNNPACK supports, for TFLite.

The time axis comes first, so that a step is a contiguous slice. The input products of all steps are
one matrix product, (time * batch, features) x (features, gates * units); each step then multiplies
its state only.
"""

from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.lowering.rnn.recurrence import Cell, Recurrence


class Steps:
    """Runs consecutive steps of one recurrence.

    The values that go from step to step are the states. The last output is among them if a masked
    step repeats it and it can differ from the first state: that is the case before the first real
    step, if there are initial states.
    """

    def __init__(self, recurrence: Recurrence, *, has_initial_states: bool) -> None:
        self._cell = recurrence.cell
        self._step = Step(recurrence.cell)
        self._reverse = recurrence.reverse
        self._zero_masked = recurrence.zero_masked
        self._carries_output = has_initial_states and not recurrence.zero_masked

    def prepare(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """Turn ``x`` (batch, time, features) and ``mask`` (batch, time) into the steps' inputs.

        Returns the products (time, batch, gates * units) and the mask (time, batch, 1). The number
        of steps is fixed; the batch may be free.
        """
        import tensorflow as tf

        batch, time, features = x.shape
        x = tf.reshape(x, (time, 1, features)) if batch == 1 else tf.transpose(x, (1, 0, 2))
        products = self._step.inputs(tf.reshape(x, (-1, features)))
        products = tf.reshape(products, (time, -1 if batch is None else batch, products.shape[-1]))
        if mask is not None:
            mask = tf.reshape(mask, (time, 1, 1)) if batch == 1 else tf.transpose(mask)[:, :, None]
        return products, mask

    def start(self, products: Any, states: list[Any] | None, mask: Any) -> list[Any]:
        """The values that the first step receives."""
        import tensorflow as tf

        batch, units = products.shape[1], self._cell.units
        if batch is None:
            zero = tf.zeros_like(products[0, :, :units])
        else:
            zero = tf.zeros((batch, units), tf.float32)
        if states is None:
            return [zero] * self._cell.states
        return [*states, zero] if mask is not None and self._carries_output else list(states)

    def states(self, carried: list[Any]) -> list[Any]:
        """The states among the values that a step passes on."""
        return carried[: self._cell.states]

    def finish(self, outputs: Any) -> Any:
        """Transpose (time, batch, units) to (batch, time, units)."""
        import tensorflow as tf

        time, batch, units = outputs.shape
        if batch == 1:
            return tf.reshape(outputs, (1, time, units))
        return tf.transpose(outputs, (1, 0, 2))

    def run(self, products: Any, mask: Any, carried: list[Any]) -> tuple[Any, list[Any]]:
        """Outputs (time, batch, units) of these steps, and the values after the last one."""
        import tensorflow as tf

        time = products.shape[0]
        steps = self._step.unstack(products)
        masks = [None] * time if mask is None else tf.unstack(mask, axis=0)
        outputs: list[Any] = [None] * time
        for t in reversed(range(time)) if self._reverse else range(time):
            carried, outputs[t] = self._advance(steps[t], masks[t], carried)
        return tf.stack(outputs, axis=0), carried

    def _advance(
        self, product: tuple[Any, ...], real: Any, carried: list[Any]
    ) -> tuple[list[Any], Any]:
        import tensorflow as tf

        previous = self.states(carried)
        new = self._step(product, previous)
        if real is None:
            return new, new[0]
        states = [tf.where(real, *pair) for pair in zip(new, previous, strict=True)]
        if self._zero_masked:
            return states, tf.where(real, new[0], tf.zeros_like(new[0]))
        if self._carries_output:
            output = tf.where(real, new[0], carried[-1])
            return [*states, output], output
        return states, states[0]


class Step:
    """One step of a cell: ``(input product, states) -> states``, with gates in Keras' order.

    Each gate has an activation operator of its own, so any function of Keras or of the user works,
    including those that act along the units, such as softmax. The products are split for all steps
    at once: a slice of anything but a half or a quarter would keep XNNPACK from taking the step.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._constants: dict[tuple[int, str], Any] = {}

    def _matmul(self, x: Any, name: str, weights: Array) -> Any:
        """``x @ weights``, with one constant per graph.

        One constant per step would fill the graph with copies of the weights, and one from outside
        a loop would not be constant inside it.
        """
        import tensorflow as tf

        key = (id(tf.compat.v1.get_default_graph()), name)
        if key not in self._constants:
            self._constants[key] = tf.constant(weights)
        return tf.matmul(x, self._constants[key])

    def inputs(self, rows: Any) -> Any:
        """The input products of (rows, features), with the bias: (rows, gates * units)."""
        cell = self._cell
        bias = cell.bias
        if bias.ndim == 2:
            # A step needs the state's bias of the candidate only, which a gate multiplies.
            cut = 2 * cell.units
            bias = bias[0] + np.concatenate([bias[1, :cut], np.zeros_like(bias[1, cut:])])
        return self._matmul(rows, "kernel", cell.kernel) + bias

    def unstack(self, products: Any) -> list[tuple[Any, ...]]:
        """Split products of (time, batch, gates * units) into the 2-D products of each step."""
        import tensorflow as tf

        parts = [products]
        if self._cell.kind == "gru":
            cut = 2 * self._cell.units
            parts = [products[:, :, :cut], products[:, :, cut:]]
        return list(zip(*(tf.unstack(part, axis=0) for part in parts), strict=True))

    def __call__(self, products: tuple[Any, ...], states: list[Any]) -> list[Any]:
        """The states (batch, units) after a step with these products."""
        return list(getattr(self, f"_{self._cell.kind}")(*products, *states))

    def _recurrent_activation(self, x: Any) -> Any:
        assert self._cell.recurrent_activation is not None
        return self._cell.recurrent_activation(x)

    def _lstm(self, product: Any, h: Any, c: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        activation, gate = self._cell.activation, self._recurrent_activation
        gates = product + self._matmul(h, "recurrent", self._cell.recurrent_kernel)
        i, f, candidate, o = tf.split(gates, 4, axis=1)  # (batch, units) each
        c = gate(f) * c + gate(i) * activation(candidate)
        return gate(o) * activation(c), c

    def _gru(self, product_zr: Any, product_h: Any, h: Any) -> tuple[Any]:
        import tensorflow as tf

        cell = self._cell
        cut = 2 * cell.units
        kernel = cell.recurrent_kernel
        zr = product_zr + self._matmul(h, "zr", kernel[:, :cut])
        z, r = (self._recurrent_activation(x) for x in tf.split(zr, 2, axis=1))
        if cell.reset_after:
            inner = r * (self._matmul(h, "h", kernel[:, cut:]) + cell.bias[1, cut:])
        else:
            inner = self._matmul(r * h, "h", kernel[:, cut:])
        candidate = cell.activation(product_h + inner)
        # z * h + (1 - z) * candidate with one operation fewer.
        return (candidate + z * (h - candidate),)

    def _simple_rnn(self, product: Any, h: Any) -> tuple[Any]:
        inner = self._matmul(h, "recurrent", self._cell.recurrent_kernel)
        return (self._cell.activation(product + inner),)


def unrolled(
    recurrence: Recurrence, x: Any, states: list[Any] | None, mask: Any
) -> tuple[Any, list[Any]]:
    """A :class:`RecurrenceLowering` with operators of its own for every step.

    It is the fastest for short sequences. It needs builtin operators only, and TFLite stores no
    state between two invocations of such a graph. The number of steps is fixed; the batch may be
    free.
    """
    steps = Steps(recurrence, has_initial_states=states is not None)
    products, mask = steps.prepare(x, mask)
    outputs, carried = steps.run(products, mask, steps.start(products, states, mask))
    return (steps.finish(outputs) if recurrence.sequences else None), steps.states(carried)
