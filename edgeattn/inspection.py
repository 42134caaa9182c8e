"""What a file or a bundle holds: bundles and artifacts here, Keras files by the host's half."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from typing import Any

from edgeattn.bundle.bundle import bundle_folder, read_manifest
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import (
    ArtifactError,
    RuntimeUnavailableError,
    UsageError,
    first_line,
    last_line,
)
from edgeattn.process.worker import Worker, WorkerDied

# What the converters import, in a process of their own.
HOST = ("tensorflow", "keras", "h5py", "onnx")
NEEDS_HOST = "Install it with: pip install 'edgeattn[convert]'"

KERAS, TFLITE, ONNX, BUNDLE = "keras", "tflite", "onnx", "bundle"


def kind_of(path: Path) -> str:
    """What ``path`` is, by its content: a bundle, an artifact, or else something for Keras."""
    if not path.exists():
        raise UsageError(f"No such file or bundle: {path}")
    if path.is_dir():
        return BUNDLE if (path / MANIFEST).is_file() else KERAS
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] == b"PK\x03\x04" and path.suffix.lower() == ".zip":
        return BUNDLE
    if head[4:8] == b"TFL3":
        return TFLITE
    # ONNX has no magic number: its first field is the version of its own layout, as a varint.
    if head[:1] == b"\x08" and path.suffix.lower() == ".onnx":
        return ONNX
    return KERAS


def check_host() -> None:
    """Whether the host's half can run; it is always there, what it needs is an extra."""
    missing = [name for name in HOST if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Keras files are read on a host, and not installed here: {', '.join(missing)}.",
            hint=NEEDS_HOST,
        )


def inspect_bundle(path: Path) -> dict[str, Any]:
    return {"kind": BUNDLE, **read_manifest(bundle_folder(path)).to_json()}


def inspect_artifact(path: Path, kind: str) -> dict[str, Any]:
    """Inputs, outputs and operators of a ``.tflite`` or ``.onnx`` file, read in a child process."""
    with Worker() as child:
        try:
            found, _ = child.call(
                f"edgeattn.inspection:read_{kind}", {"path": os.fspath(path)}, timeout=120
            )
        except WorkerDied as error:
            raise ArtifactError(
                f"The runtime {error.message} while loading {path.name}."
            ) from error
    return {"kind": kind, "file": path.name, "bytes": path.stat().st_size, **found}


def read_tflite(path: str) -> dict[str, Any]:
    """In the child: what the TFLite runtime says of a file."""
    from edgeattn.runners.tflite import interpreter_class

    make, runtime = interpreter_class()
    try:
        interpreter = make(model_path=path)
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
    except (ValueError, RuntimeError) as error:  # names that are no text among the former
        raise ArtifactError(
            f"{runtime} cannot load {Path(path).name}: {last_line(error)}"
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
    """In the child: what is in an ONNX file; operators where the onnx package is here."""
    from edgeattn.runners.external_data import refuse_external_data

    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "ONNX files need onnxruntime, and it is not installed here.",
            hint="Install it with: pip install 'edgeattn[onnx]'",
        ) from error
    refuse_external_data(Path(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As it is in the file, not as the runtime would rewrite it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no public base class
        raise ArtifactError(
            f"onnxruntime cannot load {Path(path).name}: {first_line(error)}"
        ) from error
    return {
        "inputs": [_onnx_value(item) for item in session.get_inputs()],
        "outputs": [_onnx_value(item) for item in session.get_outputs()],
        "operators": _onnx_operators(path),
    }


def _onnx_value(item: Any) -> dict[str, Any]:
    return {
        "name": str(item.name),
        "shape": [axis if isinstance(axis, int) else None for axis in item.shape],
        "dtype": str(item.type).removeprefix("tensor(").removesuffix(")"),
    }


def _onnx_operators(path: str) -> dict[str, int] | None:
    try:
        import importlib

        onnx = importlib.import_module("onnx")
    except ImportError:
        return None
    proto = onnx.load(path, load_external_data=False)
    return dict(sorted(Counter(node.op_type for node in proto.graph.node).items()))


def inspect_keras(path: Path, **options: Any) -> dict[str, Any]:
    """What the host's half finds in a Keras file, in its child process."""
    check_host()
    try:
        from edgeattn_converters.worker.client import ConversionWorker
    except ImportError as error:
        raise UsageError(f"The converters cannot be imported: {error}", hint=NEEDS_HOST) from error
    source = {name: None if value is None else str(value) for name, value in options.items()}
    source["path"] = str(path)
    with ConversionWorker() as worker:
        worker.audit(path, source.get("trust"))
        document: dict[str, Any] = worker.call(
            "inspect", {"source": source}, activity=f"loading {path.name}"
        )
    return document
