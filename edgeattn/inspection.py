"""The contents of a bundle, a model file or a Keras file, as JSON documents."""

import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn import first_bytes, progress
from edgeattn.bundle.bundle import bundle_folder, read_manifest
from edgeattn.bundle.folder_contents import check_no_container
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.bundle.unlisted_files import refuse_unlisted_files
from edgeattn.bundle.verified_file import read_file
from edgeattn.converters import import_converters
from edgeattn.errors import (
    ArtifactError,
    ConversionError,
    UnsupportedModelError,
    UsageError,
    first_line,
    last_line,
)
from edgeattn.file_structure.contents import COUNTS
from edgeattn.file_structure.read import read_contents
from edgeattn.process.limits import run_limits
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.runners.accelerators import NOT_COMPARED, missing_operators
from edgeattn.runners.isolated import RAISE_TIMEOUT

KERAS, TFLITE, ONNX, BUNDLE = "keras", "tflite", "onnx", "bundle"
_DAMAGED = "Convert the model again, or copy the file again: it may have been cut short."
# Words of ONNX for dtypes that have another name in NumPy and in TFLite.
_DTYPES = {"float": "float32", "double": "float64"}


def file_kind(path: Path) -> str:
    """``bundle``, ``tflite`` or ``onnx`` by the content of ``path``, or else ``keras``."""
    if not path.exists():
        if Path(f"{path}.index").is_file():
            return KERAS  # the prefix of a checkpoint, which the audit names
        raise UsageError(
            f"No such file or bundle: {path}",
            hint="Pass a Keras, .tflite or .onnx file or a bundle.",
        )
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"{path} is not a regular file.", hint="Pass a model file or a bundle.")
    if path.is_dir():
        check_no_container(path)
        return BUNDLE if (path / MANIFEST).is_file() else KERAS
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(first_bytes.ZIP) and path.suffix.lower() == ".zip":
        return BUNDLE if _has_manifest(path) else KERAS
    if first_bytes.is_tflite(head):
        return TFLITE
    is_named_onnx = head[:1] == b"\x08" and path.suffix.lower() == ".onnx"
    if is_named_onnx or (first_bytes.may_be_onnx(head) and path.name != "saved_model.pb"):
        return ONNX
    return KERAS


def _has_manifest(path: Path) -> bool:
    """Whether a zip archive is a packed bundle, or too damaged to tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return True


def inspect_bundle(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, with sizes and counts as they are in its files.

    A file that is missing or malformed has no counts; the reason is under ``problem``. Raises
    :class:`UnsafeModelError` if the folder has files that the manifest does not list.
    """
    folder = bundle_folder(path)
    manifest = read_manifest(folder)
    refuse_unlisted_files(folder, manifest.hashes)
    document = {"kind": BUNDLE, **manifest.to_json()}
    for artifact in document["artifacts"]:
        file = folder / artifact["path"]
        progress.report(f"reading {file.name}")
        achieved = artifact["achieved"]
        try:
            artifact["achieved"] = {**achieved, **read_contents(file, artifact["format"]).to_json()}
            artifact["bytes"] = file.stat().st_size
        except ArtifactError as error:
            artifact["achieved"] = {k: v for k, v in achieved.items() if k not in COUNTS}
            artifact["problem"] = error.message
    return document


def inspect_artifact(path: Path, kind: str) -> dict[str, Any]:
    """Inputs, outputs and operators of a ``.tflite`` or ``.onnx`` file, read in a worker process.

    For a ``.tflite`` file, ``lacking`` has the operators that microcontrollers and accelerators
    lack.
    Raises :class:`UnsupportedModelError` if the runtime cannot load the file or crashes, or exceeds
    the limits of :func:`~edgeattn.process.limits.run_limits`.
    """
    limits = run_limits()
    progress.report(f"loading {path.name}")
    with Worker() as worker:
        try:
            contents, _ = worker.call(
                f"edgeattn.inspection:read_{kind}",
                {"path": os.fspath(path)},
                timeout=limits.seconds,
                memory=limits.memory,
            )
        except WorkerDiedError as error:
            raise UnsupportedModelError(
                f"The runtime {error.message} while loading {path.name}.",
                hint=RAISE_TIMEOUT if error.timed_out else None,
            ) from error
        except ArtifactError as error:
            raise UnsupportedModelError(error.message, hint=error.hint) from error
    document = {"kind": kind, "file": path.name, "bytes": path.stat().st_size, **contents}
    if kind == TFLITE:
        document["lacking"] = missing_operators(contents["operators"])
        document["not_compared"] = NOT_COMPARED
    return document


def inspect_keras(path: Path, loading: Mapping[str, Any]) -> dict[str, Any]:
    """Layers, attention and convertibility of a Keras file, read in a worker process.

    ``loading`` holds fields of :class:`edgeattn_converters.ModelSource`.
    """
    client = import_converters("edgeattn_converters.worker.client")
    source, limits = {**loading, "path": str(path)}, run_limits()
    with client.ConversionWorker() as worker:
        worker.audit(path, source.get("trust"))
        try:
            document: dict[str, Any] = worker.call(
                "inspect",
                {"source": source},
                activity=f"loading and converting {path.name}",
                timeout=limits.seconds,
                memory=limits.memory,
            )
        except ConversionError as error:
            if isinstance(error.__cause__, WorkerDiedError) and error.__cause__.timed_out:
                error.hint = RAISE_TIMEOUT
            raise
    return document


def read_tflite(path: str) -> dict[str, Any]:
    """In the worker: what the TFLite runtime reports about a file."""
    from edgeattn.runners.external_buffers import refuse_external_buffers
    from edgeattn.runners.tflite import interpreter_class

    interpreter_type, runtime = interpreter_class()
    content = read_file(Path(path))
    try:
        refuse_external_buffers(Path(path), content)
        interpreter = interpreter_type(model_content=content)
        operators = Counter(item["op_name"] for item in interpreter._get_ops_details())
        # The runtime counts its own delegate among the operators.
        operators.pop("DELEGATE", None)
        tensors = Counter(_dtype(item["dtype"]) for item in interpreter.get_tensor_details())
        return {
            "inputs": [_tflite_tensor(item) for item in interpreter.get_input_details()],
            "outputs": [_tflite_tensor(item) for item in interpreter.get_output_details()],
            "operators": dict(sorted(operators.items())),
            "tensors": dict(sorted(tensors.items())),
        }
    except (ValueError, RuntimeError) as error:  # ValueError for names that are not UTF-8, too
        raise ArtifactError(
            f"{runtime} cannot load {Path(path).name}: {last_line(error)}", hint=_DAMAGED
        ) from error


def _dtype(dtype: Any) -> str:
    import numpy as np

    name: str = np.dtype(dtype).name
    return name


def _tflite_tensor(item: Any) -> dict[str, Any]:
    scale, zero_point = item["quantization"]
    return {
        "name": str(item["name"]),
        "shape": [int(axis) for axis in item["shape"]],
        "dtype": _dtype(item["dtype"]),
        "scale": float(scale) or None,
        "zero_point": int(zero_point) if scale else None,
    }


def read_onnx(path: str) -> dict[str, Any]:
    """In the worker: what onnxruntime reports about an ONNX file, and its operators."""
    from edgeattn.runners.external_data import refuse_external_data
    from edgeattn.runners.onnx import import_onnxruntime, session_options

    onnxruntime = import_onnxruntime()
    content = read_file(Path(path))
    refuse_external_data(Path(path), content)
    options = session_options()
    options.log_severity_level = 4
    # The graph as stored, not as the runtime would rewrite it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base class
        raise ArtifactError(
            f"onnxruntime cannot load {Path(path).name}: {first_line(error)}", hint=_DAMAGED
        ) from error
    return {
        "inputs": [_onnx_value(item) for item in session.get_inputs()],
        "outputs": [_onnx_value(item) for item in session.get_outputs()],
        "operators": dict(read_contents(Path(path), ONNX, content).operators),
    }


def _onnx_value(item: Any) -> dict[str, Any]:
    dtype = str(item.type).removeprefix("tensor(").removesuffix(")")
    return {
        "name": str(item.name),
        "shape": [axis if isinstance(axis, int) else None for axis in item.shape],
        "dtype": _DTYPES.get(dtype, dtype),
    }
