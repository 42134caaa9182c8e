"""Bundles of the models, converted once each in one process that has TensorFlow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import artifacts
import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, Manifest, write_manifest
from edgeattn.errors import UnsupportedModelError
from edgeattn.process.worker import Worker
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker.processes import ENVIRONMENT

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SAMPLE_MODELS = ("digits", "find_max", "add_two_numbers")
TASKS = "edgeattn_converters.worker.tasks"
FORMATS = ("tflite", "onnx")
# Models of operators: quantization has faults of its own in the others.
FLOAT_ONLY = ("scanner", "writer", "keeper", "ledger")


@dataclass(frozen=True)
class ModelToConvert:
    """A model file, and the options of its conversion."""

    name: str
    path: Path
    schemes: tuple[str, ...]
    samples: Path | None = None
    calibration: Path | None = None
    lowering: str = "auto"


def convert_all(
    folder: Path,
    calibration: Path,
    selected: Mapping[str, Collection[tuple[str, str]]] | None = None,
) -> dict[str, Bundle]:
    """The bundles by model name.

    ``calibration`` is a file of digits that no artifact is evaluated on. ``selected`` are the
    formats and schemes to convert, by model name, instead of all.
    """
    simple = ("float32", "float16", "dynamic_int8")
    with Worker(environment={**ENVIRONMENT, "PYTHONPATH": str(TESTS)}) as worker:
        worker.call("faults.models:save", {"folder": str(folder)})
        models = [
            ModelToConvert(
                path.stem,
                path,
                simple[:1] if path.stem in FLOAT_ONLY else simple,
                samples=path.with_suffix(".npz") if path.with_suffix(".npz").is_file() else None,
            )
            for path in sorted(folder.glob("*.keras"))
        ]
        for name in SAMPLE_MODELS:
            home = ROOT / "sample_models" / name
            digits = name == "digits"
            models.append(
                ModelToConvert(
                    name,
                    home / "model.h5",
                    (*simple, "int8", "int16x8") if digits else simple,
                    home / "samples.npz",
                    calibration if digits else None,
                )
            )
        watcher = folder / "watcher.keras"
        models.append(ModelToConvert("fused", watcher, ("float32",), lowering="fused"))
        bundles = {
            model.name: _convert(
                worker,
                folder / f"{model.name}.edge",
                model,
                None if selected is None else selected[model.name],
            )
            for model in models
            if selected is None or model.name in selected
        }
    return {**bundles, "integers": _integer_bundle(folder / "integers.edge")}


def _integer_bundle(folder: Path) -> Bundle:
    """A hand-written file with int8 inputs and outputs, which the converters do not write."""
    folder.mkdir()
    file = folder / "integers.tflite"
    artifacts.write_int8_tflite(file)
    entry = artifacts.artifact(
        file, scheme="int8", inputs=(artifacts.INT8_X,), outputs=(artifacts.INT8_Y,)
    )
    half = (np.rint(artifacts.samples()) / 2).astype(np.float32)
    return artifacts.write_bundle(folder, [entry], {"input/x": half, "output/same": half})


def _convert(
    worker: Worker,
    folder: Path,
    model: ModelToConvert,
    selected: Collection[tuple[str, str]] | None,
) -> Bundle:
    """Convert as ``edgeattn_converters.convert`` does, without the validation at its end."""
    folder.mkdir()
    arguments = {
        "source": ModelSource(model.path, samples=model.samples).to_json(),
        "options": ConversionOptions(lowering=model.lowering).to_json(),
    }
    description, _ = worker.call(f"{TASKS}:describe", arguments)
    arguments["folder"] = str(folder)
    reference, _ = worker.call(f"{TASKS}:write_reference", arguments)
    arguments["quantization"] = QuantizationOptions(calibration=model.calibration).to_json()
    entries = []
    for format in FORMATS if model.lowering == "auto" else FORMATS[:1]:
        for scheme in model.schemes:
            if selected is not None and (format, scheme) not in selected:
                continue
            request = {**arguments, "format": format, "scheme": scheme}
            try:
                entry, _ = worker.call(f"{TASKS}:write_artifact", request)
            except UnsupportedModelError:
                continue
            entries.append(Artifact.from_json(entry))
    manifest = Manifest(description, tuple(entries), reference, {})
    write_manifest(folder, manifest)
    return Bundle(folder, manifest)


def calibration_digits() -> np.ndarray:
    """400 images of scikit-learn's digits that are not among the samples of the sample model."""
    from sklearn.datasets import load_digits

    with np.load(ROOT / "sample_models" / "digits" / "samples.npz") as samples:
        known = {image.tobytes() for image in samples["x"]}
    images = (load_digits().images / 16).astype(np.float32)
    return np.stack([image for image in images if image.tobytes() not in known][:400])
