"""The weights and activations of a cell in the form of ONNX's LSTM, GRU and RNN nodes.

Source: the ONNX operator specification. ONNX orders the gates of an LSTM i, o, f, c, where Keras
has i, f, c, o; those of a GRU are z, r, h in both.
"""

from typing import Any

import numpy as np

from edgeattn.tensors import Array
from edgeattn_converters.lowering.rnn.recurrence import Cell


def onnx_weights(cell: Cell) -> tuple[Array, Array, Array]:
    """``W`` (gates * units, features), ``R`` (gates * units, units), ``B`` (2 * gates * units,)."""
    order = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "simple_rnn": (0,)}[cell.kind]
    index = np.concatenate([np.arange(cell.units) + gate * cell.units for gate in order])
    w = np.ascontiguousarray(cell.kernel[:, index].T)
    r = np.ascontiguousarray(cell.recurrent_kernel[:, index].T)
    if cell.bias.ndim == 2:
        b = np.concatenate([cell.bias[0][index], cell.bias[1][index]])
    else:
        b = np.concatenate([cell.bias[index], np.zeros_like(cell.bias)])
    return w, r, b


# ONNX's name, alpha and beta of an activation.
_Activation = tuple[str, float | None, float | None]
_ACTIVATIONS: dict[str, _Activation] = {
    "tanh": ("Tanh", None, None),
    "sigmoid": ("Sigmoid", None, None),
    "relu": ("Relu", None, None),
    "softsign": ("Softsign", None, None),
    "softplus": ("Softplus", None, None),
    "linear": ("Affine", 1.0, 0.0),
    "elu": ("Elu", 1.0, None),
}


def onnx_activations(cell: Cell) -> dict[str, Any] | None:
    """The attributes of a node for the cell's activations; None if ONNX lacks one of them."""
    main = _activation(cell.activation)
    recurrent = _activation(cell.recurrent_activation) if cell.kind != "simple_rnn" else None
    functions = {
        "lstm": [recurrent, main, main],
        "gru": [recurrent, main],
        "simple_rnn": [main],
    }[cell.kind]
    known = [item for item in functions if item is not None]
    if len(known) < len(functions):
        return None
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in known]}
    # The specification lists the alphas and betas of those functions only that have them.
    alphas = [alpha for _, alpha, _ in known if alpha is not None]
    betas = [beta for _, _, beta in known if beta is not None]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


def _activation(function: Any) -> _Activation | None:
    name = getattr(function, "__name__", None)
    module = str(getattr(function, "__module__", ""))
    if module.split(".")[0] in ("keras", "tf_keras") and name != "hard_sigmoid":
        return _ACTIVATIONS.get(str(name))
    slope = _hard_sigmoid_slope(function)
    return None if slope is None else ("HardSigmoid", slope, 0.5)


def _hard_sigmoid_slope(function: Any) -> float | None:
    """The slope of a hard sigmoid, which differs between Keras 2 and 3; None for others."""
    import tensorflow as tf

    with tf.init_scope():
        grid = np.linspace(-8, 8, 257, dtype=np.float32)
        # Of two axes, as a cell has them: a function may compute along the second one.
        values = np.asarray(function(tf.constant(grid[None])))[0]
    for slope in (0.2, 1 / 6):
        if np.allclose(values, np.clip(slope * grid + 0.5, 0, 1), atol=1e-6):
            return slope
    return None
