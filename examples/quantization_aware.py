"""Fine-tuning in int8: an attention map that an all-int8 file breaks, and its cure.

Each reading has a value in [0, 1] and a switch that is 0 or 0.004, in the unit of another sensor.
The weights of the switch are therefore two hundred times larger than those of the value. They share
one scale for each unit, so that int8 leaves one or two levels to the weights of the value. The
task is the largest value among the readings whose switch is on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from edgeattn.layers import Attention
from edgeattn_converters import Conversion, ConversionOptions, QuantizationOptions, convert
from edgeattn_converters.options import ModelSource
from edgeattn_converters.quantization_aware import FineTuned, FineTuningOptions, fine_tune

READINGS, UNITS = 12, 32
SWITCH = 0.004
SAMPLES, CALIBRATION = 64, 400
OUTPUT = Path(__file__).parent.parent / ".out" / "examples" / "quantization_aware"


def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Readings, ``(count, READINGS, 2)``, and the largest value that counts, ``(count, 1)``."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(0, 1, (count, READINGS))
    on = generator.random((count, READINGS)) < 0.5
    on[np.arange(count), generator.integers(0, READINGS, count)] = True
    largest = np.where(on, values, 0).max(axis=1, keepdims=True)
    return np.stack([values, SWITCH * on], axis=-1).astype("float32"), largest.astype("float32")


def build(scale: float = 1.0) -> keras.Model:
    """A dense layer, attention (Bahdanau) and a linear output; the switch is multiplied first."""
    readings = keras.Input((READINGS, 2), name="readings")
    scaled = keras.layers.Rescaling([1.0, scale])(readings) if scale != 1.0 else readings
    states = keras.layers.Dense(UNITS, activation="tanh", name="encode")(scaled)
    vector = Attention(UNITS, score="bahdanau", name="look")(states)
    return keras.Model(readings, keras.layers.Dense(1, name="largest")(vector))


def train(x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Train with the switch as 0 or 1, then move the factor into the weights."""
    keras.utils.set_random_seed(1)
    trained = build(1 / SWITCH)
    steps = 15 * -(-len(x) // 64)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    trained.compile(keras.optimizers.Adam(rate), "mse")
    trained.fit(x, y, batch_size=64, epochs=15, verbose=0)
    model, (kernel, *others) = build(), trained.get_weights()
    model.set_weights([kernel * np.array([[1.0], [1 / SWITCH]], "float32"), *others])
    return model


def converted(model: keras.Model, folder: Path, name: str) -> Conversion:
    """The bundle of an all-int8 file, and its report."""
    model.save(folder / f"{name}.keras")
    return convert(
        ModelSource(folder / f"{name}.keras", samples=folder / "samples.npz"),
        folder / f"{name}.edge",
        options=ConversionOptions(schemes=("int8",), formats=("tflite",)),
        quantization=QuantizationOptions(
            calibration=folder / "calibration.npz", attention_precision="int8"
        ),
        force=True,
    )


def compare(folder: Path) -> tuple[Conversion, Conversion, FineTuned]:
    """The files before and after fine-tuning, and its result."""
    x, y = sequences(4000, seed=1)
    np.savez(folder / "samples.npz", readings=sequences(SAMPLES, seed=3)[0])
    np.savez(folder / "calibration.npz", readings=x[:CALIBRATION])
    model = train(x, y)
    before = converted(model, folder, "before")
    options = FineTuningOptions(attention_precision="int8", epochs=10, learning_rate=3e-3)
    tuned = fine_tune(model, x[:2000], options=options)
    return before, converted(tuned.model, folder, "after"), tuned


def describe(conversion: Conversion) -> str:
    (report,) = conversion.report.artifacts
    error = next(
        check
        for check in report.checks
        if check.stage == "attention" and check.metric == "max_abs_error"
    )
    return f"{report.verdict}: largest error of the map {error.value:.4f} (limit {error.limit})"


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=OUTPUT,
    help="Output folder. Default: .out/examples/quantization_aware",
)  # fmt: skip
def main(output: Path) -> None:
    """Train a small model, convert it to int8, fine-tune it, and convert it again."""
    output.mkdir(parents=True, exist_ok=True)
    before, after, tuned = compare(output.absolute())
    click.echo(f"before: {describe(before)}")
    click.echo(f"after:  {describe(after)}")
    drift = tuned.after["attention/look"]["max_abs_error"]
    click.echo(f"int8 after fine-tuning, compared with the model before: {drift:.4f}")
    sys.exit(int(after.exit_code))


if __name__ == "__main__":
    main()
