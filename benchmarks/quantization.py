"""Compare the accuracy, size and time of quantized files with the stock routes.

    python -m benchmarks.quantization --data FOLDER --write

Digits is the sample model. Activity uses the UCI smartphone data (Anguita et al. 2013, CC BY 4.0)
from ``FOLDER/uci_har/uci_har_subset.npz``; its model, a convolution, an LSTM and attention, is
trained once and stored in ``.out``. ``--model FILE --samples FILE --calibration FILE`` adds another
classifier with samples as ``.npz`` of ``x`` and ``y``. Files are calibrated on training data and
scored on all test data. Drops of accuracy are paired, in percentage points, with a 95% bootstrap
interval. Times are medians on one thread, with all files of a model taking turns. ``--write``
updates the table in ``docs/quantization.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np

from benchmarks import stock_files

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".out" / "quantization"
PAGE = ROOT / "docs" / "quantization.md"
START, END = "<!-- measured -->", "<!-- end of measured -->"
RESAMPLES, SEED = 10_000, 7
CALIBRATION_SAMPLES = 300
TIMING_SECONDS = 6.0


@dataclass(frozen=True)
class Case:
    """A trained classifier, with samples for calibration and for scoring."""

    name: str
    model: Path
    calibration: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Row:
    """One file. ``correct`` has a boolean per sample; without it, ``verdict`` is the failure."""

    format: str
    scheme: str
    stock: bool
    bytes: int = 0
    correct: np.ndarray | None = None
    run: stock_files.Run | None = None
    verdict: str = ""
    summary: str = ""


def digits() -> Case:
    from sklearn.datasets import load_digits

    folder = ROOT / "sample_models" / "digits"
    with np.load(folder / "samples.npz") as file:
        x, y = file["x"], file["y"]
    test_rows = {row.tobytes() for row in x.astype("float32")}
    pictures = (load_digits().images / 16).astype("float32")
    train = np.stack([p for p in pictures if p.tobytes() not in test_rows])
    return Case("digits", folder / "model.h5", train[:CALIBRATION_SAMPLES], x.astype("float32"), y)


def activity(data: Path) -> Case:
    with np.load(data / "uci_har" / "uci_har_subset.npz") as file:
        arrays = {name.lower(): file[name] for name in file.files}
    train, test = arrays["x_train"].astype("float32"), arrays["x_test"].astype("float32")
    # Labels start at one.
    train_labels, test_labels = arrays["y_train"].astype(int) - 1, arrays["y_test"].astype(int) - 1
    path = OUT / "activity.keras"
    if not path.exists():
        _train_activity(path, train, train_labels)
    indices = np.random.default_rng(SEED).permutation(len(train))[:CALIBRATION_SAMPLES]
    return Case("activity", path, train[indices], test, test_labels)


def _train_activity(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    import keras

    from edgeattn.layers import Attention

    keras.utils.set_random_seed(SEED)
    inputs = keras.Input(x.shape[1:], name="signal")
    states = keras.layers.Conv1D(64, 5, strides=4, activation="relu")(inputs)
    states = keras.layers.LSTM(96, return_sequences=True)(states)
    vector = Attention(64, name="look")(states)
    outputs = keras.layers.Dense(6, activation="softmax", name="answer")(vector)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=12, verbose=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)


def custom_case(name: str, model: Path, samples: Path, calibration: Path) -> Case:
    def array(path: Path) -> np.ndarray:
        loaded = np.load(path)
        return loaded if isinstance(loaded, np.ndarray) else loaded["x"]

    with np.load(samples) as file:
        y = file["y"]
    return Case(name, model, array(calibration), array(samples), y)


def score(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which outputs are correct, (samples,). A single output is the probability of 1."""
    if outputs.shape[-1] == 1:
        return (outputs[..., 0] > 0.5) == (y.reshape(-1) > 0.5)
    return outputs.argmax(-1) == y


def drop(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Return the drop of accuracy in percentage points and its 95% bootstrap interval.

    Both arguments are the results of :func:`score` on the same samples.
    """
    lost = before.astype(float) - after.astype(float)
    generator = np.random.default_rng(SEED)
    means = [generator.choice(lost, len(lost)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return 100 * float(lost.mean()), 100 * float(low), 100 * float(high)


def edgeattn_rows(case: Case) -> list[Row]:
    """Convert with edgeattn to every scheme in both formats."""
    from edgeattn.runners import open_artifact
    from edgeattn_converters import ModelSource, QuantizationOptions, convert

    calibration, samples = OUT / "calibration.npy", OUT / "samples.npy"
    np.save(calibration, case.calibration)
    np.save(samples, case.x)
    result = convert(
        ModelSource(case.model, samples=samples),
        OUT / f"{case.name}.edge",
        quantization=QuantizationOptions(calibration=calibration),
        force=True,
    )
    rows = []
    for report in result.report.artifacts:
        artifact = report.artifact
        runner = open_artifact(result.bundle.path, artifact)
        name, output = artifact.inputs[0].name, artifact.outputs[0].name

        def run(x: np.ndarray, runner: Any = runner, name: str = name, output: str = output) -> Any:
            return runner.run({name: x})[output]

        rows.append(
            Row(
                artifact.format,
                artifact.scheme,
                False,
                artifact.bytes,
                score(run(case.x), case.y),
                run,
                report.verdict,
                str(artifact.achieved.get("summary", "")),
            )
        )
    rows += [
        Row(failure["format"], failure["scheme"], False, verdict=failure["reason"])
        for failure in result.failures
    ]
    return rows


def stock_rows(case: Case) -> list[Row]:
    """Convert by the stock routes."""
    rows = []
    np.save(OUT / "calibration.npy", case.calibration)
    for format, schemes in stock_files.SCHEMES.items():
        for scheme in schemes:
            path = OUT / f"{case.name}.stock.{scheme}.{format}"
            if reason := stock_files.make(case.model, scheme, path, OUT / "calibration.npy"):
                rows.append(Row(format, scheme, True, verdict=reason))
                continue
            try:
                run = stock_files.open_file(path)
                outputs = np.concatenate([run(case.x[k : k + 1]) for k in range(len(case.x))])
            except Exception as error:  # runtimes raise exceptions of their own
                reason = f"does not run: {str(error).splitlines()[0][:60]}"
                rows.append(Row(format, scheme, True, path.stat().st_size, verdict=reason))
                continue
            correct = score(outputs, case.y)
            rows.append(Row(format, scheme, True, path.stat().st_size, correct, run, "-"))
    return rows


def time_rows(rows: list[Row], sample: np.ndarray) -> dict[int, float]:
    """Return the median milliseconds of each row that runs; all rows take turns."""
    seconds: dict[int, list[float]] = {k: [] for k, row in enumerate(rows) if row.run is not None}
    end = time.monotonic() + TIMING_SECONDS
    while time.monotonic() < end or any(len(times) < 30 for times in seconds.values()):
        for k, times in seconds.items():
            run = rows[k].run
            assert run is not None
            start = time.perf_counter()
            run(sample)
            times.append(time.perf_counter() - start)
    return {k: 1e3 * statistics.median(times) for k, times in seconds.items()}


def table_lines(case: Case) -> Iterator[str]:
    rows = [*edgeattn_rows(case), *stock_rows(case)]
    times = time_rows(rows, case.x[:1])
    for format in ("tflite", "onnx"):
        base = next(k for k, row in enumerate(rows) if row.format == format and not row.stock)
        assert rows[base].correct is not None
        for k, row in enumerate(rows):
            if row.format != format:
                continue
            route = "stock" if row.stock else "edgeattn"
            prefix = f"| {case.name} | {format} | {row.scheme} | {route} "
            if row.correct is None:
                yield f"{prefix}| - | - | - | - | - | - | {row.verdict} |"
                continue
            lost, low, high = drop(rows[base].correct, row.correct)
            yield (
                f"{prefix}| {row.bytes:,} | {row.bytes / rows[base].bytes:.2f} "
                f"| {100 * row.correct.mean():.2f} | {lost:.2f} [{low:.2f}, {high:.2f}] "
                f"| {times[k]:.3f} | {times[k] / times[base]:.2f} | {row.verdict} |"
            )
    for row in rows:
        if row.summary:
            print(f"{case.name} {row.format} {row.scheme}: {row.summary}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder that contains uci_har")
    parser.add_argument("--model", type=Path, help="additional Keras classifier")
    parser.add_argument("--name", default="model", help="its name in the table")
    parser.add_argument("--samples", type=Path, help="its test data: .npz of x and y")
    parser.add_argument("--calibration", type=Path, help="its calibration data: .npy, or .npz of x")
    parser.add_argument("--write", action="store_true", help=f"update the table in {PAGE.name}")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    header = ["model", "format", "scheme", "route", "bytes", "/ float32", "accuracy (%)", "drop"]
    header += ["time (ms)", "/ float32", "verdict"]
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    cases = [digits()]
    if options.data is not None and (options.data / "uci_har").is_dir():
        cases.append(activity(options.data))
    else:
        print("activity: skipped, because --data has no folder uci_har", file=sys.stderr)
    if options.model is not None:
        cases.append(custom_case(options.name, options.model, options.samples, options.calibration))
    for case in cases:
        for line in table_lines(case):
            table.append(line)
            print(line, flush=True)
    if options.write:
        text = PAGE.read_text("utf-8")
        before, rest = text.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(before + "\n".join([START, *table, END]) + after, "utf-8")


if __name__ == "__main__":
    main()
