"""Bundles of the models, one conversion each, all in one process that has TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import artifacts as hand
import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, Manifest, write_manifest
from edgeattn.errors import UnsupportedModelError
from edgeattn.process.worker import Worker
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker.client import ENVIRONMENT

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SAMPLES = ("digits", "find_max", "add_two_numbers")
STAGES = "edgeattn_converters.worker.tasks"
FORMATS = ("tflite", "onnx")


@dataclass(frozen=True)
class Wanted:
    """A model to convert: where it lies, and what is to be made of it."""

    name: str
    path: Path
    schemes: tuple[str, ...]
    samples: Path | None = None
    calibration: Path | None = None
    lowering: str = "auto"


def bundles(folder: Path, calibration: Path) -> dict[str, Bundle]:
    """Every model's bundle, by name; ``calibration`` are digits that nothing is judged on."""
    simple = ("float32", "float16", "dynamic_int8")
    with Worker(environment={**ENVIRONMENT, "PYTHONPATH": str(TESTS)}) as child:
        child.call("faults.models:save", {"folder": str(folder)})
        wanted = [Wanted(path.stem, path, simple) for path in sorted(folder.glob("*.keras"))]
        for name in SAMPLES:
            home = ROOT / "sample_models" / name
            digits = name == "digits"
            schemes = (*simple, "int8", "int16x8") if digits else simple
            source = calibration if digits else None
            wanted.append(Wanted(name, home / "model.h5", schemes, home / "samples.npz", source))
        watcher = folder / "watcher.keras"
        wanted.append(Wanted("fused", watcher, ("float32",), lowering="fused"))
        made = {item.name: _convert(child, folder / f"{item.name}.edge", item) for item in wanted}
    return {**made, "integers": _integers(folder / "integers.edge")}


def _integers(folder: Path) -> Bundle:
    """A file whose ends are int8, made by hand: what Keras' converters leave to its user."""
    folder.mkdir()
    file = folder / "integers.tflite"
    hand.write_int8_tflite(file)
    entry = hand.artifact(file, scheme="int8", inputs=(hand.INT8_X,), outputs=(hand.INT8_Y,))
    x = hand.samples()
    half = (np.rint(x) / 2).astype(np.float32)
    return hand.write_bundle(folder, [entry], {"input/x": half, "output/same": half})


def _convert(child: Worker, folder: Path, wanted: Wanted) -> Bundle:
    """As ``edgeattn_converters.convert`` does it, but for the verdict at its end."""
    folder.mkdir()
    source = ModelSource(wanted.path, samples=wanted.samples).to_json()
    options = ConversionOptions(lowering=wanted.lowering).to_json()
    quantization = QuantizationOptions(calibration=wanted.calibration).to_json()
    model = {"source": source, "options": options}
    shared = {**model, "folder": str(folder)}
    described, _ = child.call(f"{STAGES}:describe", model)
    reference, _ = child.call(f"{STAGES}:write_reference", shared)
    made = []
    formats = FORMATS if wanted.lowering == "auto" else FORMATS[:1]
    for format in formats:
        for scheme in wanted.schemes:
            asked = {
                **shared,
                "format": format,
                "scheme": scheme,
                "quantization": quantization,
            }
            try:
                made.append(Artifact.from_json(child.call(f"{STAGES}:write_artifact", asked)[0]))
            except UnsupportedModelError:
                continue
    manifest = Manifest(described, tuple(made), reference, {})
    write_manifest(folder, manifest)
    return Bundle(folder, manifest)


def digits_to_calibrate_on() -> np.ndarray:
    """Pictures of scikit-learn's digits that are not among the sample model's own."""
    from sklearn.datasets import load_digits

    with np.load(ROOT / "sample_models" / "digits" / "samples.npz") as held:
        known = {picture.tobytes() for picture in held["x"]}
    pictures = (load_digits().images / 16).astype(np.float32)
    return np.stack([p for p in pictures if p.tobytes() not in known][:400])
