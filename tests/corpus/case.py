"""A model of the corpus: how it is built, and inputs for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeattn.schemes import SCHEMES

SEED = 23
WORDS = ("the", "cat", "sat", "on", "a", "mat", "unknown")
Build = Callable[[Any], Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A model of the corpus.

    Attributes:
        name: ``GROUP/NAME``, unique.
        build: Returns the model, built with the module ``keras`` or ``tf_keras`` that it is passed.
        values: Distribution of the inputs, a key of :data:`VALUES`; a number is that of different
            integers, with normally distributed floats. Texts are single words, or ``phrases``.
        padding: Value of the padding at the end of some samples; None if they have none.
        keras, tf_keras: Whether the model is built with this Keras.
        schemes: Schemes to convert to.
        custom: Whether the model has layers of ``custom_layers.py``.
        time_steps: The length of a free time axis.
        first_layers: Names of the preprocessing layers that edgeattn leaves to the caller, one for
            each input.
        scale: Standard deviation of the random weights.
        precision: Scheme with whose tolerance float32 files are compared. Keras computes models of
            mixed precision in float16, edgeattn in float32.
    """

    name: str
    build: Build = field(repr=False)
    values: str | int = "normal"
    padding: float | None = None
    keras: bool = True
    tf_keras: bool = True
    schemes: tuple[str, ...] = tuple(name for name in SCHEMES if name != "int4")
    custom: bool = False
    time_steps: int | None = None
    first_layers: tuple[str, ...] = ()
    scale: float = 0.4
    precision: str = "float32"

    @property
    def group(self) -> str:
        return self.name.split("/")[0]

    def model(self, keras: Any) -> Any:
        """The model with random weights from a fixed seed, biases included."""
        keras.utils.set_random_seed(SEED)
        model = self.build(keras)
        generator = np.random.default_rng(SEED)
        for weight in model.weights:
            name = getattr(weight, "path", weight.name)
            if "float" not in str(weight.dtype) or "seed" in name:
                continue
            value = generator.normal(0, self.scale, tuple(weight.shape))
            if "variance" in name:
                value = np.abs(value) + 0.5
            elif "gamma" in name or name.split("/")[-1].startswith("scale"):
                value = value + 1.0
            weight.assign(value.astype("float32"))
        return model

    def kerases(self) -> tuple[str, ...]:
        """The names of the modules that the model is built with."""
        return tuple(name for name in ("keras", "tf_keras") if getattr(self, name))

    def inputs(self, model: Any, rows: int, seed: int = 0) -> list[np.ndarray]:
        """``rows`` samples, one array for each input of the model."""
        generator = np.random.default_rng((SEED, seed))
        arrays = []
        for tensor in model.inputs:
            shape = (rows, *(axis or self.time_steps or 1 for axis in tensor.shape[1:]))
            dtype = getattr(tensor.dtype, "name", str(tensor.dtype))
            array = _values(generator, shape, dtype, self.values)
            if self.padding is not None and array.ndim > 1:
                for row in range(0, rows, 2):
                    array[row, 1 + row // 2 % shape[1] :] = self.padding
            arrays.append(array)
        return arrays


def _values(
    generator: Generator, shape: Sequence[int], dtype: str, values: str | int
) -> np.ndarray:
    if dtype == "string":
        first, *others = generator.choice(WORDS, (3, *shape)).astype(object)
        return sum((" " + word for word in others), first) if values == "phrases" else first
    if dtype == "bool":
        return generator.random(shape) < 0.7
    if isinstance(values, int) and "int" in dtype:
        return generator.integers(1, values, shape).astype(dtype)
    name = "normal" if isinstance(values, int) else values
    return np.asarray(VALUES[name](generator, shape)).astype(dtype)


VALUES: dict[str, Callable[[Generator, Sequence[int]], Any]] = {
    # Without outliers, which 100 calibration samples do not have.
    "normal": lambda generator, shape: np.clip(generator.standard_normal(shape), -2.5, 2.5),
    "unit": lambda generator, shape: generator.uniform(0.01, 0.99, shape),
    "positive": lambda generator, shape: generator.uniform(0.5, 2.0, shape),
    "large": lambda generator, shape: generator.uniform(2.0, 6.0, shape),
    "tokens": lambda generator, shape: generator.integers(0, 13, shape),
    # A temperature, a pressure in Pa and a humidity.
    "units": lambda generator, shape: (
        np.clip(generator.standard_normal(shape), -2.5, 2.5) * [5, 632, 0.1] + [20, 101325, 0.5]
    ),
    "pixels": lambda generator, shape: generator.integers(0, 256, shape),
}


def from_layers(
    name: str,
    shape: Sequence[int | None],
    make: Callable[[Any, Any], Any],
    *,
    dtype: str = "float32",
    **options: Any,
) -> Case:
    """The case of a model with one input, whose output is ``make(layers, input)``."""

    def build(keras: Any) -> Any:
        x = keras.Input(tuple(shape), dtype=dtype, name="x")
        return keras.Model(x, make(keras.layers, x))

    return Case(name, build, **options)


def in_group(group: str, cases: Sequence[Case]) -> tuple[Case, ...]:
    return tuple(replace(case, name=f"{group}/{case.name}") for case in cases)
