"""What quantization costs in accuracy and saves in bytes and time: ``docs/quantization.md``.

    python benchmarks/quantization.py --data FOLDER

Digits come with the sample model. Activity is the UCI smartphone data (Anguita et al. 2013,
CC BY 4.0) as ``FOLDER/uci_har/uci_har_subset.npz``: a convolution, an LSTM and attention, trained
here once and kept in ``.out``. Calibration is on training data, the scores on all test data. Drops
are in points, paired, with a bootstrap 95% interval; times are medians of one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.update(KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".out" / "quantization"
RESAMPLES, SEED = 10_000, 7
CALIBRATED = 300
Case = tuple[str, Path, np.ndarray, np.ndarray, np.ndarray]


def digits() -> Case:
    from sklearn.datasets import load_digits

    folder = ROOT / "sample_models" / "digits"
    with np.load(folder / "samples.npz") as file:
        x, y = file["x"], file["y"]
    known = {row.tobytes() for row in x.astype("float32")}
    pictures = (load_digits().images / 16).astype("float32")
    train = np.stack([p for p in pictures if p.tobytes() not in known])
    return "digits", folder / "model.h5", train[:CALIBRATED], x.astype("float32"), y


def activity(data: Path) -> Case:
    with np.load(data / "uci_har" / "uci_har_subset.npz") as file:
        arrays = {name.lower(): file[name] for name in file.files}
    train, test = arrays["x_train"].astype("float32"), arrays["x_test"].astype("float32")
    # The labels count from one.
    labels, truth = arrays["y_train"].astype(int) - 1, arrays["y_test"].astype(int) - 1
    path = OUT / "activity.keras"
    if not path.exists():
        _train_activity(path, train, labels)
    chosen = np.random.default_rng(SEED).permutation(len(train))[:CALIBRATED]
    return "activity", path, train[chosen], test, truth


def _train_activity(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    import keras

    from edgeattn.layers import Attention

    keras.utils.set_random_seed(SEED)
    inputs = keras.Input(x.shape[1:], name="signal")
    states = keras.layers.Conv1D(64, 5, strides=4, activation="relu")(inputs)
    states = keras.layers.LSTM(96, return_sequences=True)(states)
    vector = Attention(64, name="look")(states)
    answer = keras.layers.Dense(6, activation="softmax", name="answer")(vector)
    model = keras.Model(inputs, answer)
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=12, verbose=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)


def drop(right: np.ndarray, now: np.ndarray) -> tuple[float, float, float]:
    """Points lost and their 95% interval; both are (samples,) booleans about the same samples."""
    lost = right.astype(float) - now.astype(float)
    generator = np.random.default_rng(SEED)
    means = [generator.choice(lost, len(lost)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return 100 * float(lost.mean()), 100 * float(low), 100 * float(high)


def rows(case: Case, scratch: Path) -> Iterator[str]:
    from edgeattn.runners import open_artifact
    from edgeattn_converters import convert

    name, model, calibration, x, y = case
    np.save(scratch / "calibration.npy", calibration)
    np.save(scratch / "samples.npy", x)
    made = convert(
        model,
        scratch / f"{name}.edge",
        samples=scratch / "samples.npy",
        calibration=scratch / "calibration.npy",
        force=True,
    )
    first: dict[str, tuple[int, np.ndarray, float]] = {}
    for report in made.report.artifacts:
        artifact = report.artifact
        runner = open_artifact(made.bundle.path, artifact)
        input_name = artifact.inputs[0].name
        right = runner.run({input_name: x})[artifact.outputs[0].name].argmax(-1) == y
        one, times = {input_name: x[:1]}, []
        for _ in range(300):
            start = time.perf_counter()
            runner.run(one)
            times.append(time.perf_counter() - start)
        took = 1e3 * statistics.median(times)
        first.setdefault(artifact.format, (artifact.bytes, right, took))
        size, before, base = first[artifact.format]
        lost, low, high = drop(before, right)
        yield (
            f"| {name} | {artifact.format} | {artifact.scheme} | {artifact.bytes:,} "
            f"| {artifact.bytes / size:.2f} | {100 * right.mean():.2f} "
            f"| {lost:.2f} [{low:.2f}, {high:.2f}] | {took:.3f} | {took / base:.2f} "
            f"| {report.verdict} |"
        )
    for failure in made.failures:
        yield f"| {name} | {failure['format']} | {failure['scheme']} | {failure['reason']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that uci_har lies in")
    data = parser.parse_args().data
    OUT.mkdir(parents=True, exist_ok=True)
    header = ["model", "format", "scheme", "bytes", "of float32", "accuracy", "drop", "ms"]
    header += ["of float32", "verdict"]
    print("|", " | ".join(header), "|")
    print("|" + "---|" * len(header))
    cases = [digits()]
    if data is not None and (data / "uci_har").is_dir():
        cases.append(activity(data))
    else:
        print("activity: not run, there is no uci_har in --data")
    for case in cases:
        for row in rows(case, OUT):
            print(row, flush=True)


if __name__ == "__main__":
    main()
