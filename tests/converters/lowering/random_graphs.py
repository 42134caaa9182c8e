"""Random graphs of elementwise, moving and reducing operations, compared with Keras.

``python tests/converters/lowering/random_graphs.py --count 200`` converts 200 graphs to both
formats and prints those that compute something else. A converter may reorder such operations, and
nothing but their results shows whether it does so correctly.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import ops

STEPS, FEATURES = 4, 3
ROWS = 6
GRAPHS_PER_MODEL = 10
# Differences that rounding explains: of an output, and of the inputs by that much, see `differing`.
TOLERANCE, PERTURBATION = 1e-4, 1e-6
Generator = np.random.Generator

UNARY = {
    "abs": ops.abs,
    "negative": ops.negative,
    "square": lambda t: ops.square(ops.clip(t, -4.0, 4.0)),
    "exp": lambda t: ops.exp(ops.clip(t, -4.0, 4.0)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "leaky_relu": lambda t: ops.leaky_relu(t, 0.3),
    "elu": ops.elu,
    "gelu": ops.gelu,
    "hard_sigmoid": ops.hard_sigmoid,
    "hard_silu": ops.hard_silu,
    "softplus": ops.softplus,
    "sqrt": lambda t: ops.sqrt(ops.abs(t) + 0.1),
    "rsqrt": lambda t: ops.rsqrt(ops.abs(t) + 0.1),
    "reciprocal": lambda t: ops.reciprocal(ops.abs(t) + 0.5),
    "log": lambda t: ops.log(ops.abs(t) + 0.5),
    "floor": ops.floor,
    "sign": ops.sign,
    "softmax": ops.softmax,
    "clip": lambda t: ops.clip(t, -0.8, 1.1),
    "normalize": lambda t: ops.normalize(t, axis=-1),
    "plain_normalize": lambda t: t / ops.sqrt(ops.sum(t * t, axis=-1, keepdims=True) + 5e-4),
    "plain_softmax": lambda t: _share(ops.exp(ops.clip(t, -4.0, 4.0))),
    "centered": lambda t: t - ops.mean(t, axis=-1, keepdims=True),
    "log_softmax": ops.log_softmax,
    "cumsum": lambda t: ops.cumsum(t, axis=-1),
    "from_ones": lambda t: ops.ones_like(t) - t,
    "from_zeros": lambda t: ops.zeros_like(t) - t,
    "heaviside": lambda t: ops.cast(t > 0.25, "float32"),
    "parametric_relu": lambda t: ops.relu(t) - 0.3 * ops.relu(-t),
}
BINARY = {
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": ops.multiply,
    "divide": ops.divide,
    "power": lambda a, b: ops.power(ops.abs(a) + 0.3, ops.clip(b, -2.0, 2.0)),
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "floor_divide": ops.floor_divide,
    "mod": ops.mod,
    "squared_difference": lambda a, b: ops.square(a - b),
    "less": lambda a, b: ops.cast(ops.less(a, b), "float32"),
    "greater_equal": lambda a, b: ops.cast(ops.greater_equal(a, b), "float32"),
    "where": lambda a, b: ops.where(ops.less(a, b), a, b * 0.5),
    "negated_sum": lambda a, b: ops.negative(a) + b,
}
REDUCTIONS = (ops.sum, ops.mean, ops.max, ops.min, ops.var)


def _share(t: Any) -> Any:
    return t / ops.sum(t, axis=-1, keepdims=True)


class RandomGraph(keras.layers.Layer):
    """3 to 9 random operations; ``history`` describes them."""

    def __init__(self, seed: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.history: list[str] = []

    def call(self, inputs: Any) -> Any:
        generator = np.random.default_rng(self.seed)
        # Equal operations of different graphs would be merged.
        result, self.history = random_graph(generator, inputs * float(generator.uniform(0.5, 2.0)))
        return result


def sizes(tensor: Any) -> list[int]:
    """The axes without the batch."""
    return [int(size) for size in tensor.shape[1:]]


def random_graph(generator: Generator, tensor: Any) -> tuple[Any, list[str]]:
    """Apply 3 to 9 random operations; return the result and a description of each."""
    history: list[str] = []
    earlier = [tensor]
    for _ in range(int(generator.integers(3, 10))):
        kind = generator.choice(
            ["unary", "constant", "constant", "transpose", "transpose", "reshape", "reduce",
             "broadcast", "earlier", "product", "piece"]
        )  # fmt: skip
        tensor, text = STEPS_BY_KIND[str(kind)](generator, tensor, earlier)
        if math.prod(sizes(tensor)) > 200:
            tensor = ops.mean(tensor, axis=1, keepdims=True)
        history.append(text)
        earlier.append(tensor)
    return tensor, history


def _unary(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    name = str(generator.choice(list(UNARY)))
    return UNARY[name](tensor), name


def _constant(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    """A binary operation with a constant that broadcasts, on either side."""
    shape = sizes(tensor)
    keep = int(generator.integers(0, len(shape) + 2))
    kept = [1, *shape][len(shape) + 1 - keep :]
    kept = [1 if generator.random() < 0.2 else size for size in kept]
    values = generator.uniform(0.4, 2.5, kept) * generator.choice([-1, 1], kept)
    constant = np.float32(values) if not kept else values.astype("float32")
    name = str(generator.choice(list(BINARY)))
    if generator.random() < 0.6:
        return BINARY[name](constant, tensor), f"{name}(constant {kept}, t)"
    return BINARY[name](tensor, constant), f"{name}(t, constant {kept})"


def _transpose(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    axes = [0, *(1 + generator.permutation(len(tensor.shape) - 1)).tolist()]
    return ops.transpose(tensor, axes), f"transpose {axes}"


def _reshape(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    size = math.prod(sizes(tensor))
    shape: list[int] = []
    while size > 1 and len(shape) < 2:
        factors = [k for k in range(2, size + 1) if size % k == 0]
        shape.append(int(generator.choice(factors)))
        size //= shape[-1]
    shape = [*shape, size] if size > 1 or not shape else shape
    if generator.random() < 0.3 and len(shape) < 3:
        shape.insert(int(generator.integers(0, len(shape) + 1)), 1)
    return ops.reshape(tensor, [-1, *shape]), f"reshape {shape}"


def _reduce(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    reduction = REDUCTIONS[int(generator.integers(len(REDUCTIONS)))]
    axis = int(generator.integers(1, len(tensor.shape)))
    keepdims = bool(generator.random() < 0.7 or len(tensor.shape) == 2)
    text = f"{reduction.__name__} over {axis}, keepdims={keepdims}"
    return reduction(tensor, axis=axis, keepdims=keepdims), text


def _broadcast(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    reduction = REDUCTIONS[int(generator.integers(len(REDUCTIONS)))]
    axis = int(generator.integers(1, len(tensor.shape)))
    name = str(generator.choice(list(BINARY)))
    reduced = reduction(tensor, axis=axis, keepdims=True)
    operands = (reduced, tensor) if generator.random() < 0.5 else (tensor, reduced)
    return BINARY[name](*operands), f"{name} with {reduction.__name__} over {axis}"


def _earlier(generator: Generator, tensor: Any, earlier: list[Any]) -> tuple[Any, str]:
    """A binary operation with an earlier result, also with its transpose."""
    others = [item for item in earlier if sizes(item) == sizes(tensor)]
    others += [
        ops.transpose(item, (0, 2, 1))
        for item in earlier
        if len(item.shape) == 3 and sizes(item)[::-1] == sizes(tensor)
    ]
    if not others:
        return tensor * 0.5, "half"
    other = others[int(generator.integers(len(others)))]
    name = str(generator.choice(list(BINARY)))
    operands = (other, tensor) if generator.random() < 0.5 else (tensor, other)
    return BINARY[name](*operands), f"{name} with an earlier result"


def _product(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    """A product with constants, on either side, or with the transpose of the tensor itself."""
    if len(tensor.shape) == 3 and generator.random() < 0.3:
        return ops.matmul(tensor, ops.transpose(tensor, (0, 2, 1))) * 0.2, "product with itself"
    if len(tensor.shape) == 3 and generator.random() < 0.5:
        weights = generator.normal(0, 0.5, (5, int(tensor.shape[1]))).astype("float32")
        return ops.einsum("ks,bsf->bkf", weights, tensor), "einsum from the left"
    weights = generator.normal(0, 0.5, (int(tensor.shape[-1]), 4)).astype("float32")
    return ops.matmul(tensor, weights), "product"


def _piece(generator: Generator, tensor: Any, _: list[Any]) -> tuple[Any, str]:
    axis = int(generator.integers(1, len(tensor.shape)))
    size = int(tensor.shape[axis])
    match int(generator.integers(4)):
        case 0:
            return ops.flip(tensor, axis=axis), f"flip {axis}"
        case 1:
            return ops.concatenate([tensor, tensor * 0.5], axis=axis), f"concatenate {axis}"
        case 2:
            indices = generator.integers(0, size, size)
            return ops.take(tensor, indices, axis=axis), f"take {indices.tolist()} of {axis}"
    half = (size + 1) // 2
    return ops.split(tensor, [half], axis=axis)[0] if size > 1 else tensor, f"half of {axis}"


STEPS_BY_KIND = {
    "unary": _unary,
    "constant": _constant,
    "transpose": _transpose,
    "reshape": _reshape,
    "reduce": _reduce,
    "broadcast": _broadcast,
    "earlier": _earlier,
    "product": _product,
    "piece": _piece,
}


def random_model(seed: int, graphs: int = GRAPHS_PER_MODEL) -> tuple[Any, dict[str, list[str]]]:
    """Return a model with one output for each graph, and the operations of each graph."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    graphs_by_name = {
        f"graph_{k}": RandomGraph((seed, k), name=f"graph_{k}") for k in range(graphs)
    }
    model = keras.Model(inputs, {name: graph(inputs) for name, graph in graphs_by_name.items()})
    return model, {name: graph.history for name, graph in graphs_by_name.items()}


def differing(model: Any, run: Any, seed: int) -> dict[str, float]:
    """Return the outputs that differ from Keras, with the share of their values.

    Values are left out if a tiny change of the inputs changes them in Keras itself.
    """
    generator = np.random.default_rng(seed)
    x = generator.normal(0, 1, (ROWS, STEPS, FEATURES)).astype("float32")
    expected = model.predict(x, verbose=0)
    # Each value by itself: scaling all of them does not change a sum that is close to zero.
    signs = np.random.default_rng(seed + 1).choice([-1, 1], (4, *x.shape))
    moved = [
        model.predict((x * (1 + sign * PERTURBATION)).astype("float32"), verbose=0)
        for sign in signs
    ]
    actual = run({"x": x})
    faults = {}
    for name, values in expected.items():
        allowed = TOLERANCE * (1 + np.abs(values))
        with np.errstate(invalid="ignore"):
            stable = np.isfinite(values)
            for other in moved:
                stable &= np.abs(other[name] - values) < allowed
            wrong = ~(np.abs(actual[name] - values) <= allowed) & stable
        if wrong.any():
            faults[name] = float(wrong.sum() / stable.sum())
    return faults


def converted(model: Any, format: str, folder: Path) -> Any:
    """A runner of the model's float32 file in this format."""
    from edgeattn.runners import open_runner
    from edgeattn_converters.formats import onnx, tflite
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing.trace import interface_of

    path = folder / f"model.{format}"
    converter = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(model, interface_of(model), recipe_for("float32"), path)
    return open_runner(path, format, file.inputs, file.outputs, as_deployed=True)


def compare(
    seed: int, formats: tuple[str, ...] = ("tflite", "onnx"), graphs: int = GRAPHS_PER_MODEL
) -> Iterator[str]:
    """Yield a line for each graph of a model that a format computes differently from Keras."""
    from edgeattn.errors import ConversionError

    model, histories = random_model(seed, graphs)
    with tempfile.TemporaryDirectory() as folder:
        for name in formats:
            try:
                runner = converted(model, name, Path(folder))
            except ConversionError as error:
                yield f"seed {seed} {name}: {error.message}"
                continue
            for graph, share in differing(model, runner.run, seed).items():
                steps = "; ".join(histories[graph])
                yield f"seed {seed} {graph} {name}: {share:.0%} of the values differ: {steps}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="number of graphs (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + -(-arguments.count // GRAPHS_PER_MODEL))
    lines = [line for seed in seeds for line in compare(seed)]
    print("\n".join(lines) or f"{arguments.count} graphs in both formats agree with Keras.")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
