"""Takes one model of the corpus through edgeattn or through a stock route, in this process."""

import contextlib
import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edgeattn.errors import EdgeattnError, first_line
from edgeattn.process import server
from edgeattn.process.protocol import error_from_json
from edgeattn.runners import open_runner
from edgeattn.schemes import FORMATS

from . import stock
from .case import Case
from .outputs import (
    CRASHED,
    INEXACT,
    REFUSED,
    RIGHT,
    WRONG,
    Arrays,
    Expected,
    expected_outputs,
    flat,
)

ROWS = 6
SAMPLES, CALIBRATION = 12, 100
CUSTOM = Path(__file__).with_name("custom_layers.py")
INTERNAL_ERROR = 70
# A status, and a reason unless it is "right".
Status = list[str]


class LocalWorker:
    """Serves the calls of a :class:`edgeattn.process.worker.Worker` in this process.

    A model then needs one process instead of two that import TensorFlow.
    """

    def __init__(self, **_: Any) -> None:
        pass

    def __enter__(self) -> "LocalWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Mapping[str, np.ndarray] | None = None,
        **_: Any,
    ) -> tuple[Any, Any]:
        request = {"call": function, "arguments": json.loads(json.dumps(dict(arguments or {})))}
        reply, arrays = server._call(request, dict(tensors or {}))
        if "error" in reply:
            raise error_from_json(reply["error"])
        return json.loads(json.dumps(reply.get("result"))), arrays


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Convert and validate without workers."""
    with (
        mock.patch("edgeattn_converters.worker.processes.Worker", LocalWorker),
        mock.patch("edgeattn.validation.validate.Worker", LocalWorker),
    ):
        yield


def convert_case(case: Case, schemes: tuple[str, ...] = ()) -> dict[str, dict[str, Status]]:
    """The statuses of the files that Keras saves, and of the artifacts of the first file."""
    files: dict[str, Status] = {}
    artifacts: dict[str, Status] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in case.kerases():
            keras = importlib.import_module(module)
            try:
                model = case.model(keras)
                expected = _expected(case, model)
            except Exception as error:
                files[f"{module} .h5"] = ["-", f"not built: {first_line(error)}"]
                continue
            for suffix in (".keras", ".h5") if module == "keras" else (".h5",):
                label = f"{module} {suffix}"
                path = folder / f"{module}{suffix}"
                try:
                    model.save(path)
                except Exception as error:
                    files[label] = ["-", f"not saved: {first_line(error)}"]
                    continue
                files[label] = _load(case, path, expected)
                if not artifacts:
                    artifacts = _convert(case, model, path, expected, schemes or case.schemes)
    return {"files": files, "artifacts": artifacts}


def run_stock(case: Case, route: str) -> Status:
    """The status of a stock route."""
    keras = importlib.import_module(case.kerases()[0])
    try:
        model = case.model(keras)
        expected = _expected(case, model, cut=False)
    except Exception as error:
        return ["-", f"not built: {first_line(error)}"]
    try:
        run = stock.ROUTES[route](model)
    except Exception as error:
        return [REFUSED, _text(error)]
    try:
        rows = [run([array[k : k + 1] for array in expected.inputs]) for k in range(ROWS)]
    except Exception as error:
        return [CRASHED, _text(error)]
    actual = [np.concatenate(values) for values in zip(*rows, strict=True)]
    reason = expected.difference(actual, case.precision)
    return [WRONG, reason] if reason else [RIGHT]


def _text(error: Exception) -> str:
    return first_line(error)[:200]


def _expected(case: Case, model: Any, *, cut: bool = True) -> Expected:
    """What the model computes; ``inputs`` are those after preprocessing layers if ``cut``."""
    raw = case.inputs(model, ROWS)

    def predict(arrays: Arrays) -> Any:
        return model.predict(_packed(model, arrays), verbose=0)

    expected = expected_outputs(predict, raw, exact=case.values == "tokens" or _is_text(raw))
    if not case.first_layers or not cut:
        return expected
    return Expected(
        _preprocessed(case, model, raw), expected.outputs, expected.moved, expected.names
    )


def _is_text(arrays: Arrays) -> bool:
    return any(array.dtype.kind not in "buif" for array in arrays)


def _packed(model: Any, arrays: Arrays) -> Any:
    from edgeattn_converters.tracing.keras_call import pack

    if _is_text(arrays):
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        return tensors if len(tensors) > 1 else tensors[0]
    return pack(model, tuple(arrays))


def _preprocessed(case: Case, model: Any, arrays: Arrays) -> Arrays:
    import tensorflow as tf

    layers = map(model.get_layer, case.first_layers)
    return [
        np.asarray(layer(tf.constant(array))) for layer, array in zip(layers, arrays, strict=True)
    ]


def _source(case: Case, path: Path) -> dict[str, Any]:
    return {
        "custom_objects": CUSTOM if case.custom else None,
        "time_steps": case.time_steps,
    }


def _load(case: Case, path: Path, expected: Expected) -> Status:
    """Whether the file loads as the model that was saved."""
    from edgeattn_converters.loading.audit import audit_file
    from edgeattn_converters.loading.load import load_model
    from edgeattn_converters.tracing.keras_call import pack

    try:
        model = load_model(audit_file(path), **_source(case, path)).model
        arrays = tuple(expected.inputs)
        outputs = model.predict(pack(model, arrays), verbose=0)
    except EdgeattnError as error:
        return [CRASHED if error.exit_code == INTERNAL_ERROR else REFUSED, _text(error)]
    except Exception as error:
        return [CRASHED, f"{type(error).__name__}: {_text(error)}"]
    if expected.names and isinstance(outputs, dict):
        outputs = [outputs[name] for name in expected.names]
    reason = expected.difference(flat(outputs), case.precision)
    return [WRONG, reason] if reason else [RIGHT]


def _convert(
    case: Case, model: Any, path: Path, expected: Expected, schemes: tuple[str, ...]
) -> dict[str, Status]:
    """The status of every artifact."""
    from edgeattn_converters import ConversionOptions, ModelSource, QuantizationOptions, convert

    source = ModelSource(
        path,
        samples=_write_samples(case, model, path, "samples", SAMPLES, 1),
        **_source(case, path),
    )
    calibration = None
    if {"int8", "int16x8"} & set(schemes):
        calibration = _write_samples(case, model, path, "calibration", CALIBRATION, 2)
    labels = [f"{format} {scheme}" for format in FORMATS for scheme in schemes]
    try:
        conversion = convert(
            source,
            path.with_suffix(".edge"),
            options=ConversionOptions(schemes=schemes),
            quantization=QuantizationOptions(calibration=calibration),
            force=True,
        )
    except EdgeattnError as error:
        return _failed(labels, error)
    except Exception as error:
        return {label: [CRASHED, f"{type(error).__name__}: {_text(error)}"] for label in labels}
    statuses = {
        f"{failure['format']} {failure['scheme']}": [REFUSED, failure["reason"].splitlines()[0]]
        for failure in conversion.failures
    }
    names = [spec["name"] for spec in conversion.bundle.manifest.model["outputs"]]
    names = list(expected.names) if set(expected.names) == set(names) else names
    for report in conversion.report.artifacts:
        statuses[report.artifact.label] = _artifact_status(
            report, conversion.bundle.path / report.artifact.path, names, expected, case.precision
        )
    return statuses


def _failed(labels: list[str], error: EdgeattnError) -> dict[str, Status]:
    """The statuses if no artifact was converted; the message may have a reason for each."""
    status = CRASHED if error.exit_code == INTERNAL_ERROR else REFUSED
    lines = dict(
        line.strip().split(": ", 1) for line in error.message.splitlines()[1:] if ": " in line
    )
    return {label: [status, lines.get(label, _text(error))] for label in labels}


def _artifact_status(
    report: Any, path: Path, names: list[str], expected: Expected, precision: str
) -> Status:
    artifact = report.artifact
    if report.broken:
        return [CRASHED, str(report.reason)]
    runner = open_runner(path, artifact.format, artifact.inputs, artifact.outputs, as_deployed=True)
    feeds = {
        spec.name: array.astype(spec.dtype if spec.scale is None else "float32")
        for spec, array in zip(artifact.inputs, expected.inputs, strict=True)
    }
    try:
        values = runner.run(feeds)
    except EdgeattnError as error:
        return [CRASHED, _text(error)]
    scheme = precision if artifact.scheme == "float32" else artifact.scheme
    reason = expected.difference([values[name] for name in names], scheme)
    if report.verdict == "pass":
        return [WRONG, f"verdict pass, but {reason}"] if reason else [RIGHT]
    checks = ", ".join(check.name for check in (*report.failed, *report.unproven)[:3])
    text = f"verdict {report.verdict}: {report.reason or checks}"
    if artifact.scheme == "float32" or report.conversion == "wrong":
        return [WRONG, text]
    return [INEXACT, text]


def _write_samples(case: Case, model: Any, path: Path, name: str, rows: int, seed: int) -> Path:
    from edgeattn_converters.tracing.keras_call import layer_name

    arrays = case.inputs(model, rows, seed)
    if case.first_layers:
        arrays = _preprocessed(case, model, arrays)
    if len(arrays) == 1:
        file = path.with_name(f"{path.name}.{name}.npy")
        np.save(file, arrays[0])
        return file
    file = path.with_name(f"{path.name}.{name}.npz")
    names = [layer_name(tensor) for tensor in model.inputs]
    np.savez(file, **dict(zip(names, arrays, strict=True)))
    return file
