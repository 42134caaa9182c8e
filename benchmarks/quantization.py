"""What quantization costs in accuracy and saves in bytes and time, beside the stock routes.

    python benchmarks/quantization.py --data FOLDER --write

Digits come with the sample model. Activity is the UCI smartphone data (Anguita et al. 2013,
CC BY 4.0) as ``FOLDER/uci_har/uci_har_subset.npz``: a convolution, an LSTM and attention, trained
here once and kept in ``.out``. ``--model FILE --samples FILE --calibration FILE`` adds another
classifier, its samples an ``.npz`` of ``x`` and ``y``. Calibration is on training data, the scores
on all test data. Drops are in points, paired, with a bootstrap 95% interval; times are medians of
one thread, all files of a model in turns. ``--write`` puts the table into ``docs/quantization.md``.

The stock routes are what the tools do on their own, each in a process of its own, since some die:
TensorFlow's converter on a function of batch 1, and Keras' ONNX export with onnxruntime's
quantizers. They tell no attention map, so nothing holds theirs to Keras.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".out" / "quantization"
PAGE = ROOT / "docs" / "quantization.md"
START, END = "<!-- measured -->", "<!-- end of measured -->"
RESAMPLES, SEED = 10_000, 7
CALIBRATED = 300
SECONDS = 6.0
STOCK = {
    "tflite": ("float32", "float16", "dynamic_int8", "int8"),
    "onnx": ("float32", "dynamic_int8", "int8"),
}
Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A trained classifier, and samples: to calibrate on, and to be scored on."""

    name: str
    model: Path
    calibration: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Row:
    """A file: how large, how right, and what became of it; ``run`` takes one sample."""

    format: str
    scheme: str
    stock: bool
    bytes: int = 0
    right: np.ndarray | None = None
    run: Run | None = None
    verdict: str = ""
    summary: str = ""


def digits() -> Case:
    from sklearn.datasets import load_digits

    folder = ROOT / "sample_models" / "digits"
    with np.load(folder / "samples.npz") as file:
        x, y = file["x"], file["y"]
    known = {row.tobytes() for row in x.astype("float32")}
    pictures = (load_digits().images / 16).astype("float32")
    train = np.stack([p for p in pictures if p.tobytes() not in known])
    return Case("digits", folder / "model.h5", train[:CALIBRATED], x.astype("float32"), y)


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
    return Case("activity", path, train[chosen], test, truth)


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


def another(name: str, model: Path, samples: Path, calibration: Path) -> Case:
    def array(path: Path) -> np.ndarray:
        loaded = np.load(path)
        return loaded if isinstance(loaded, np.ndarray) else loaded["x"]

    with np.load(samples) as file:
        y = file["y"]
    return Case(name, model, array(calibration), array(samples), y)


def score(answers: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(samples,) booleans: which answers are right; one output is a probability of class 1."""
    if answers.shape[-1] == 1:
        return (answers[..., 0] > 0.5) == (y.reshape(-1) > 0.5)
    return answers.argmax(-1) == y


def drop(right: np.ndarray, now: np.ndarray) -> tuple[float, float, float]:
    """Points lost and their 95% interval; both are (samples,) booleans about the same samples."""
    lost = right.astype(float) - now.astype(float)
    generator = np.random.default_rng(SEED)
    means = [generator.choice(lost, len(lost)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return 100 * float(lost.mean()), 100 * float(low), 100 * float(high)


def ours(case: Case) -> list[Row]:
    """Every scheme in both formats, as ``edgeattn convert`` makes them."""
    from edgeattn.runners import open_artifact
    from edgeattn_converters import ModelSource, QuantizationOptions, convert

    calibration, samples = OUT / "calibration.npy", OUT / "samples.npy"
    np.save(calibration, case.calibration)
    np.save(samples, case.x)
    made = convert(
        ModelSource(case.model, samples=samples),
        OUT / f"{case.name}.edge",
        quantization=QuantizationOptions(calibration=calibration),
        force=True,
    )
    found = []
    for report in made.report.artifacts:
        artifact = report.artifact
        runner = open_artifact(made.bundle.path, artifact)
        name, answer = artifact.inputs[0].name, artifact.outputs[0].name

        def run(x: np.ndarray, runner: Any = runner, name: str = name, out: str = answer) -> Any:
            return runner.run({name: x})[out]

        found.append(
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
    found += [
        Row(failure["format"], failure["scheme"], False, verdict=failure["reason"])
        for failure in made.failures
    ]
    return found


def stock(case: Case) -> list[Row]:
    """The same by the tools' own routes; what does not run says why."""
    found = []
    np.save(OUT / "calibration.npy", case.calibration)
    for format, schemes in STOCK.items():
        for scheme in schemes:
            path = OUT / f"{case.name}.stock.{scheme}.{format}"
            path.unlink(missing_ok=True)
            command = [sys.executable, __file__, "--stock", str(case.model), scheme, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            reason = "died: segmentation fault" if done.returncode == -signal.SIGSEGV else ""
            if done.returncode and not reason:
                lines = done.stderr.strip().splitlines() or ["no word"]
                reason = f"no file: {lines[-1][:60]}"
            if reason:
                found.append(Row(format, scheme, True, verdict=reason))
                continue
            try:
                run = (_litert if format == "tflite" else _onnxruntime)(path)
                answers = np.concatenate([run(case.x[k : k + 1]) for k in range(len(case.x))])
            except Exception as error:  # runtimes refuse in classes of their own
                reason = f"does not run: {str(error).splitlines()[0][:60]}"
                found.append(Row(format, scheme, True, path.stat().st_size, verdict=reason))
                continue
            right = score(answers, case.y)
            found.append(Row(format, scheme, True, path.stat().st_size, right, run, "-"))
    return found


def make_stock(model_path: Path, scheme: str, path: Path) -> None:
    """Write the file that a stock route makes of the model."""
    import keras

    import edgeattn.layers  # noqa: F401 - the model has our layer

    model = keras.models.load_model(model_path, compile=False)
    calibration = np.load(OUT / "calibration.npy")[:100].astype(model.inputs[0].dtype)
    if path.suffix == ".tflite":
        path.write_bytes(_stock_tflite(model, scheme, calibration))
        return
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    model(calibration[:1])
    exported = path if scheme == "float32" else path.with_suffix(".float.onnx")
    model.export(exported, format="onnx", verbose=False)
    if scheme == "dynamic_int8":
        quantize_dynamic(exported, path)
    elif scheme == "int8":
        import onnxruntime

        name = onnxruntime.InferenceSession(str(exported)).get_inputs()[0].name
        quantize_static(exported, path, _Reader(name, calibration))


class _Reader:
    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._feeds = iter([{name: samples[k : k + 1]} for k in range(len(samples))])

    def get_next(self) -> Any:
        return next(self._feeds, None)


def _stock_tflite(model: Any, scheme: str, calibration: np.ndarray) -> bytes:
    import tensorflow as tf

    (tensor,) = model.inputs
    signature = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "int8":
        converter.representative_dataset = lambda: ([row[None]] for row in calibration)
    return bytes(converter.convert())


def _litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(told["index"])

    return run


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def timed(rows: list[Row], one: np.ndarray) -> dict[int, float]:
    """Milliseconds of one sample, by position: all in turns, for some seconds."""
    took: dict[int, list[float]] = {k: [] for k, row in enumerate(rows) if row.run is not None}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or any(len(times) < 30 for times in took.values()):
        for k, times in took.items():
            run = rows[k].run
            assert run is not None
            start = time.perf_counter()
            run(one)
            times.append(time.perf_counter() - start)
    return {k: 1e3 * statistics.median(times) for k, times in took.items()}


def lines(case: Case) -> Iterator[str]:
    rows = [*ours(case), *stock(case)]
    took = timed(rows, case.x[:1])
    for format in ("tflite", "onnx"):
        base = next(k for k, row in enumerate(rows) if row.format == format and not row.stock)
        assert rows[base].right is not None
        for k, row in enumerate(rows):
            if row.format != format:
                continue
            route = "stock" if row.stock else "edgeattn"
            told = f"| {case.name} | {format} | {row.scheme} | {route} "
            if row.right is None:
                yield f"{told}| - | - | - | - | - | - | {row.verdict} |"
                continue
            lost, low, high = drop(rows[base].right, row.right)
            yield (
                f"{told}| {row.bytes:,} | {row.bytes / rows[base].bytes:.2f} "
                f"| {100 * row.right.mean():.2f} | {lost:.2f} [{low:.2f}, {high:.2f}] "
                f"| {took[k]:.3f} | {took[k] / took[base]:.2f} | {row.verdict} |"
            )
    for row in rows:
        if row.summary:
            print(f"{case.name} {row.format} {row.scheme}: {row.summary}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="the folder that uci_har lies in")
    parser.add_argument("--model", type=Path, help="another Keras classifier")
    parser.add_argument("--name", default="model", help="what it is called in the table")
    parser.add_argument("--samples", type=Path, help="its test data, .npz of x and y")
    parser.add_argument("--calibration", type=Path, help="its calibration data, .npy, or .npz of x")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--stock", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stock:
        make_stock(Path(asked.stock[0]), asked.stock[1], Path(asked.stock[2]))
        return
    OUT.mkdir(parents=True, exist_ok=True)
    header = ["model", "format", "scheme", "route", "bytes", "of float32", "accuracy", "drop"]
    header += ["ms", "of float32", "verdict"]
    table = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    cases = [digits()]
    if asked.data is not None and (asked.data / "uci_har").is_dir():
        cases.append(activity(asked.data))
    else:
        print("activity: not run, there is no uci_har in --data", file=sys.stderr)
    if asked.model is not None:
        cases.append(another(asked.name, asked.model, asked.samples, asked.calibration))
    for case in cases:
        for line in lines(case):
            table.append(line)
            print(line, flush=True)
    if asked.write:
        text = PAGE.read_text("utf-8")
        before, rest = text.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(before + "\n".join([START, *table, END]) + after, "utf-8")


if __name__ == "__main__":
    main()
