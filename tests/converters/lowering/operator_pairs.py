"""Every pair of an operator that changes or moves values and one whose operands have an order.

``python tests/converters/lowering/operator_pairs.py`` converts all of them to both formats and
prints those whose results differ from Keras. A converter moves such operators past each other, and
can lose the order of the operands or a sign.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import random_graphs
from keras import ops
from random_graphs import BINARY, FEATURES, STEPS

PAIRS_PER_MODEL = 100
# The operator before the move. Its constants are of either sign, like the data.
FIRST = {
    "nothing": lambda t: t,
    "negative": ops.negative,
    "from a constant": lambda t: 0.7 - t,
    "quotient of a constant": lambda t: -1.3 / (ops.abs(t) + 0.5),
    "scaled": lambda t: t * -1.6,
}
MOVES = {
    "in place": lambda t: t,
    "transposed": lambda t: ops.transpose(t, (0, 2, 1)),
    "reshaped": lambda t: ops.reshape(t, (-1, 2, STEPS * FEATURES // 2)),
    "broadcast": lambda t: ops.mean(t, axis=-1, keepdims=True),
    "concatenated": lambda t: ops.concatenate([t, t * 0.5], axis=-1),
}
SECOND = {
    **{name: BINARY[name] for name in ("subtract", "divide", "power", "floor_divide", "mod")},
    **{name: BINARY[name] for name in ("less", "greater_equal", "where", "negated_sum")},
    "greater": lambda a, b: ops.cast(ops.greater(a, b), "float32"),
    "less_equal": lambda a, b: ops.cast(ops.less_equal(a, b), "float32"),
}
OTHERS = ("scalar", "vector", "all axes", "data")


@dataclass(frozen=True)
class Pair:
    """``second`` of the moved result of ``first`` and another operand, which is on the ``left`` or
    on the right."""

    first: str
    move: str
    second: str
    other: str
    left: bool

    def __str__(self) -> str:
        moved = f"{self.first} {self.move}"
        operands = (self.other, moved) if self.left else (moved, self.other)
        return f"{self.second}({', '.join(operands)})"


PAIRS = [Pair(*item) for item in itertools.product(FIRST, MOVES, SECOND, OTHERS, (True, False))]


class PairLayer(keras.layers.Layer):
    """A pair; ``number`` makes its values differ from those of other pairs."""

    def __init__(self, pair: Pair, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pair, self.number = pair, number

    def call(self, inputs: Any) -> Any:
        # Equal operations of different pairs would be merged.
        x = inputs * (1 + self.number % 97 / 64)
        moved = MOVES[self.pair.move](FIRST[self.pair.first](x))
        other = self._other(x, moved)
        operands = (other, moved) if self.pair.left else (moved, other)
        return SECOND[self.pair.second](*operands)

    def _other(self, x: Any, moved: Any) -> Any:
        sizes = [int(size) for size in moved.shape[1:]]
        generator = np.random.default_rng(self.number)
        if self.pair.other == "data":
            return MOVES[self.pair.move](ops.tanh(x) + 1.5)
        shape = {"scalar": [], "vector": sizes[-1:], "all axes": [1, *sizes]}[self.pair.other]
        values = generator.uniform(0.4, 2.5, shape) * generator.choice([-1, 1], shape)
        return np.float32(values)

    def compute_output_spec(self, inputs: Any) -> Any:
        moved = keras.ops.zeros((1, STEPS, FEATURES))
        return keras.KerasTensor((None, *MOVES[self.pair.move](moved).shape[1:]))


def model_of(pairs: Sequence[Pair]) -> Any:
    """A model with an output for each pair, ``pair_0`` and so on."""
    inputs = keras.Input((STEPS, FEATURES), name="x")
    names = [f"pair_{number}" for number in range(len(pairs))]
    return keras.Model(
        inputs,
        {
            name: PairLayer(pair, number, name=name)(inputs)
            for number, (name, pair) in enumerate(zip(names, pairs, strict=True))
        },
    )


def compare(pairs: Sequence[Pair], formats: Sequence[str] = ("tflite", "onnx")) -> Iterator[str]:
    """Yield a line for each pair that a format computes differently from Keras."""
    model = model_of(pairs)
    with tempfile.TemporaryDirectory() as folder:
        for format in formats:
            runner = random_graphs.converted(model, format, Path(folder))
            for name, share in random_graphs.differing(model, runner.run, seed=0).items():
                pair = pairs[int(name.removeprefix("pair_"))]
                yield f"{format}: {share:.0%} of the values differ: {pair}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = []
    for first in range(0, len(PAIRS), PAIRS_PER_MODEL):
        lines += compare(PAIRS[first : first + PAIRS_PER_MODEL])
    print("\n".join(lines) or f"{len(PAIRS)} pairs of operators in both formats agree with Keras.")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
