"""The steps of a recurrence written out in operators that XNNPACK takes, for TFLite.

The time axis comes first, so that a step is a slice of what lies together in memory. What all steps
need of the inputs is one product, (time * batch, features) x (features, gates * units); a step is
left with its state's product and what follows from it.
"""

from __future__ import annotations

from typing import Any

from edgeattn.tensors import Array
from edgeattn_converters.lowering.rnn.cells import Cell


class Steps:
    """Runs of steps of one recurrence.

    What is carried from step to step are the states; and the last output, where a masked step
    repeats it and it may differ from the first state, which is so before the first real step.
    """

    def __init__(
        self, cell: Cell, *, reverse: bool, zero_masked: bool, has_initial_states: bool
    ) -> None:
        self._cell = cell
        self._step = Step(cell)
        self._reverse = reverse
        self._zero_masked = zero_masked
        self._carries_output = has_initial_states and not zero_masked

    def prepare(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """(batch, time, ...) as the steps take it: (time, batch, gates * units), (time, batch, 1).

        Time is static, the batch may be free.
        """
        import tensorflow as tf

        batch, time, features = x.shape
        x = tf.reshape(x, (time, 1, features)) if batch == 1 else tf.transpose(x, (1, 0, 2))
        products = self._step.inputs(tf.reshape(x, (-1, features)))
        free = -1 if batch is None else batch
        products = tf.reshape(products, (time, free, products.shape[-1]))
        if mask is not None:
            mask = tf.reshape(mask, (time, 1, 1)) if batch == 1 else tf.transpose(mask)[:, :, None]
        return products, mask

    def start(self, products: Any, states: list[Any] | None, mask: Any) -> list[Any]:
        """What the first step is given."""
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
        """The final states, of what the last step carried on."""
        return carried[: self._cell.states]

    def finish(self, outputs: Any) -> Any:
        """(time, batch, units) -> (batch, time, units)"""
        import tensorflow as tf

        time, batch, units = outputs.shape
        if batch == 1:
            return tf.reshape(outputs, (1, time, units))
        return tf.transpose(outputs, (1, 0, 2))

    def run(self, products: Any, mask: Any, carried: list[Any]) -> tuple[Any, list[Any]]:
        """Outputs (time, batch, units) of these steps, and what they carry on."""
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

        before = self.states(carried)
        new = self._step(product, before)
        if real is None:
            return new, new[0]
        states = [tf.where(real, one, other) for one, other in zip(new, before, strict=True)]
        if self._zero_masked:
            return states, tf.where(real, new[0], tf.zeros_like(new[0]))
        if self._carries_output:
            output = tf.where(real, new[0], carried[-1])
            return [*states, output], output
        return states, states[0]


class Step:
    """``(input product, states) -> states`` of a cell, gates in Keras' order.

    The activations are applied gate by gate: any function of Keras or of the user is right there,
    those that look along the units, as softmax does, too. Slices that do not halve or quarter would
    keep XNNPACK from taking the whole step, so products are cut for all steps at once.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._constants: dict[tuple[int, str], Any] = {}

    def _matmul(self, x: Any, name: str, weights: Array) -> Any:
        """x @ weights, with one constant a graph.

        One a step would fill the graph with copies of the weights, and one from outside of a loop
        would not be constant inside of it.
        """
        import tensorflow as tf

        key = (id(tf.compat.v1.get_default_graph()), name)
        if key not in self._constants:
            self._constants[key] = tf.constant(weights)
        return tf.matmul(x, self._constants[key])

    def inputs(self, rows: Any) -> Any:
        """(rows, features) -> (rows, gates * units): what the steps need of the inputs."""
        cell = self._cell
        bias = cell.bias if cell.bias.ndim == 1 else cell.bias[0]
        return self._matmul(rows, "kernel", cell.kernel) + bias

    def unstack(self, products: Any) -> list[tuple[Any, ...]]:
        """(time, batch, gates * units) -> for every step the products it takes, 2-D each."""
        import tensorflow as tf

        parts = [products]
        if self._cell.kind == "gru":
            cut = 2 * self._cell.units
            parts = [products[:, :, :cut], products[:, :, cut:]]
        return list(zip(*(tf.unstack(part, axis=0) for part in parts), strict=True))

    def __call__(self, products: tuple[Any, ...], states: list[Any]) -> list[Any]:
        """One step's products and states of (batch, units) -> the new states."""
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
        if cell.reset_after:
            zr = zr + cell.bias[1, :cut]
        z, r = (self._recurrent_activation(x) for x in tf.split(zr, 2, axis=1))
        if cell.reset_after:
            inner = r * (self._matmul(h, "h", kernel[:, cut:]) + cell.bias[1, cut:])
        else:
            inner = self._matmul(r * h, "h", kernel[:, cut:])
        candidate = cell.activation(product_h + inner)
        # z * h + (1 - z) * candidate, with an operation less.
        return (candidate + z * (h - candidate),)

    def _simple_rnn(self, product: Any, h: Any) -> tuple[Any]:
        inner = self._matmul(h, "recurrent", self._cell.recurrent_kernel)
        return (self._cell.activation(product + inner),)
