"""Tasks of the worker process: everything that uses TensorFlow or opens the model file.

Arguments and results are JSON. ``source``, ``options`` and ``quantization`` are the fields of
:class:`ModelSource`, :class:`ConversionOptions` and :class:`QuantizationOptions`.
"""

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.manifest import REFERENCE, sha256
from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn.frontend.description import FRONTEND, FrontEnd
from edgeattn.process.sandbox import limited_processor_time
from edgeattn.samples.arrays import npy_array, npz_members
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.samples.states import sample_inputs
from edgeattn.schemes import FORMATS, SCHEMES
from edgeattn.tensors import Tensors
from edgeattn_converters import front_end, inspection, original_layers
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.reference import keras_outputs, reference_file
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.rounding import float32_costs
from edgeattn_converters.tracing import joined_batch
from edgeattn_converters.tracing.attention_function import attention_function
from edgeattn_converters.worker import early_checks
from edgeattn_converters.worker.artifact import ArtifactRequest, convert_artifact
from edgeattn_converters.worker.description import description
from edgeattn_converters.worker.open_model import (
    Json,
    OpenModel,
    audited_file,
    check_arrays,
    explaining_removed_layers,
    open_model,
)
from edgeattn_converters.worker.quantization_samples import calibration_samples


def audit(path: str, trust: str | None, seconds: float) -> None:
    """The static audit, before anything is loaded, in this many seconds of processor time."""
    with limited_processor_time(seconds):
        audited_file(path, trust)


def check(
    source: Json, options: Json, calibration_samples: str | None = None, data: str | None = None
) -> None:
    """Report mistakes that the stored configuration reveals, before TensorFlow is imported."""
    parsed = ModelSource(**source)
    early_checks.check(
        audited_file(str(parsed.path), parsed.trust, parsed.signature),
        parsed,
        ConversionOptions(**options),
        calibration_samples=None if calibration_samples is None else Path(calibration_samples),
        data=None if data is None else Path(data),
    )


def describe(source: Json, options: Json) -> dict[str, Any]:
    """Load the model and describe it for the manifest."""
    return description(open_model(source, options), ConversionOptions(**options))


def package_versions() -> dict[str, str]:
    """The versions of the packages that made the bundle."""
    names = ("edgeattn", "tensorflow", "keras", "tf_keras", "onnx", "tf2onnx", "numpy")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def write_reference(
    source: Json,
    options: Json,
    folder: str,
    calibration: str | None = None,
    raw: str | None = None,
) -> dict[str, Any]:
    """Write the reference to ``folder``; its entry in the manifest, and ``notes`` for the user.

    ``calibration`` is a file of samples that are used if ``source`` has none, ``raw`` one with the
    raw inputs of the samples in ``source``.
    """
    progress.report("computing the reference in Keras")
    opened, parsed = open_model(source, options), ConversionOptions(**options)
    path = Path(folder) / REFERENCE
    is_fixed = opened.interface.batch is not None and not opened.interface.any_batch
    if parsed.batch > 1 and is_fixed and "tflite" in (parsed.formats or FORMATS):
        raise UnsupportedModelError(
            f"--batch {parsed.batch}: this model computes one sample at a time.",
            hint="Omit --batch, or save a model, or a signature, for any number of samples.",
        )
    with (
        explaining_removed_layers(opened),
        joined_batch.explained(opened.model, opened.interface.inputs),
    ):
        if opened.samples is not None:
            check_arrays(opened, opened.samples)
        entry = reference_file.write(
            opened.model,
            opened.interface,
            path,
            samples=opened.samples,
            attention=parsed.attention,
            calibration_file=None if calibration is None else Path(calibration),
            schemes=parsed.schemes or SCHEMES,
            extras=reference_file.Extras(
                raw=None if raw is None else read_npz(Path(raw)),
                free=opened.free if "onnx" in (parsed.formats or FORMATS) else None,
            ),
        )
    if parsed.batch > 1 and entry.get("mixes_samples") and "tflite" in (parsed.formats or FORMATS):
        raise UnsupportedModelError(
            f"--batch {parsed.batch}: outputs of this model for a sample depend on the other "
            "samples of its batch.",
            hint="Omit --batch; files then compute one sample at a time.",
        )
    return {"path": REFERENCE, "sha256": sha256(path), **entry}


def rounding_in_float32(source: Json, options: Json, folder: str, reference: Json) -> Json:
    """What rounding in float32 costs on the reference in ``folder``, by output and metric."""
    opened = open_model(source, options)
    arrays = read_npz(Path(folder) / REFERENCE)
    interface = opened.interface
    maps = {spec.name for spec in interface.attention}
    names = {
        spec.name: spec.name if spec.name in maps else f"output/{spec.name}"
        for spec in interface.all_outputs
    }
    expected = {name: arrays[key] for name, key in names.items() if key in arrays}
    attention = any(name in expected for name in maps)
    return float32_costs(
        interface,
        rounded_function(
            opened.model,
            interface,
            attention=attention,
            alone=bool(reference.get("mixes_samples")),
        ),
        {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs},
        expected,
        ordinary=int(reference["samples"]) + int(reference.get("ordinary_edge_cases", 0)),
    )


def write_front_end(
    source: Json, options: Json, folder: str, prepared: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Write the front end to ``folder``; its entry in the manifest, and ``notes`` for the user.

    ``prepared`` are files of the user with prepared inputs. None if there is no front end.
    """
    opened = open_model(source, options)
    built = front_end.build(opened.loaded, opened.interface, opened.source)
    if built is None:
        return None
    path = Path(folder) / FRONTEND
    path.write_bytes(built.to_bytes())
    notes = [
        f"{Path(name).name} was read as prepared inputs; the front end prepares those of "
        "--raw-samples and --raw-calibration"
        for name in prepared
        if built.inputs or built.window
    ]
    return {"path": FRONTEND, "sha256": sha256(path), "notes": notes}


def prepare_calibration(source: Json, options: Json, path: str, target: str) -> None:
    """Write the raw samples in ``path`` as the front end prepares them to ``target``."""
    progress.report("preparing the calibration samples")
    opened = open_model(source, options)
    built = front_end.build(opened.loaded, opened.interface, opened.source)
    if built is None:
        raise _no_preprocessing("--raw-calibration", "--calibration")
    inputs = front_end.prepared_inputs(opened.interface, built, Path(path))
    with Path(target).open("wb") as file:
        write_npz(file, inputs)


def _no_preprocessing(option: str, other: str) -> UsageError:
    return UsageError(
        f"{option} has no effect: the model has no preprocessing layers.",
        hint=f"Pass --preprocess FILE.toml too, or pass the inputs with {other}.",
    )


def rename_samples(
    source: Json, options: Json, path: str, target: str, *, labels: bool = False
) -> str | None:
    """Write samples under the names of the inputs of the stored model to ``target``, renamed.

    Labels of raw samples are left out unless ``labels`` are used. Returns ``"raw"`` or
    ``"prepared"``, or None if nothing is written because the names are those of the converted
    model, or others.
    """
    parsed, file = ModelSource(**source), Path(path)
    files = {
        name: npy_array(file, member)
        for name, member in npz_members(file).items()
        if name not in parsed.ignore
    }
    if parsed.samples == path and any(item.dtype.kind in "US" for item in files.values()):
        # The shape of text does not determine the number of time steps.
        source = replace(parsed, samples=None, raw_samples=target).to_json()
    opened = open_model(source, options)
    if not opened.loaded.preprocessing:
        return None
    specs = sample_inputs(opened.interface.inputs)
    arrays = {name: array for name, array in read_npz(file).items() if name in files}
    renamed = original_layers.by_loaded_inputs(opened.loaded, specs, arrays)
    if renamed is None:
        return None
    outputs = {spec.name for spec in opened.interface.outputs}
    unused = outputs if renamed.is_raw and not labels else set()
    with Path(target).open("wb") as output:
        write_npz(output, {k: array for k, array in renamed.arrays.items() if k not in unused})
    return "raw" if renamed.is_raw else "prepared"


def prepare_raw_samples(source: Json, options: Json, inputs: str, raw: str) -> None:
    """Write the raw samples of ``source`` to ``raw``, and prepared ones to ``inputs``."""
    progress.report("preparing the raw samples in Keras")
    opened = open_model(source, options)
    built = front_end.build(opened.loaded, opened.interface, opened.source)
    if built is None and not opened.loaded.preprocessing:
        raise _no_preprocessing("--raw-samples", "--samples")
    prepared = original_layers.keras_inputs(
        opened.loaded, opened.interface, built or FrontEnd(), opened.source
    )
    for path, arrays in ((inputs, prepared.inputs), (raw, prepared.raw)):
        with Path(path).open("wb") as file:
            write_npz(file, arrays)


def check_calibration(
    source: Json, options: Json, quantization: Json, folder: str
) -> dict[str, Any]:
    """Read the calibration samples before anything is converted: their notes for the user."""
    progress.report("reading the calibration samples")
    samples = calibration_samples(
        open_model(source, options), QuantizationOptions(**quantization), folder
    )
    return {"samples": len(samples), "notes": list(samples.notes)}


def calibration_fingerprints(
    source: Json, options: Json, quantization: Json, folder: str
) -> list[str]:
    """Fingerprints of the calibration samples, which a task must not be evaluated on."""
    opened = open_model(source, options)
    samples = calibration_samples(opened, QuantizationOptions(**quantization), folder)
    return row_fingerprints(samples.inputs, opened.interface.inputs)


def describe_layers(source: Json, options: Json) -> dict[str, Any]:
    """Names and float32 sizes (bytes) of layers with large weights; names of recurrent layers."""
    model = open_model(source, options).model
    return {
        "layers": [[layer.name, 4 * layer.size] for layer in layer_weights(model)],
        "recurrent": list(recurrent_layers(model)),
    }


def predict(
    source: Json, options: Json, tensors: Tensors, maps: Sequence[str] = ()
) -> tuple[None, Tensors]:
    """The outputs of Keras' ``model.predict`` and the attention maps ``maps``, by name."""
    opened = open_model(source, options)
    outputs = keras_outputs.predict(opened.model, opened.interface, tensors)
    if maps:
        outputs |= _attention_maps(opened, tuple(maps))(tensors)
    return None, outputs


@functools.cache
def _attention_maps(opened: OpenModel, names: tuple[str, ...]) -> Callable[[Tensors], Tensors]:
    return attention_function(opened.model, opened.interface, names)


def write_artifact(
    source: Json,
    options: Json,
    quantization: Json,
    folder: str,
    format: str,
    scheme: str,
    reference: Json | None = None,
) -> dict[str, Any]:
    """Convert to one format and scheme; the artifact's entry in the manifest.

    ``reference`` is the manifest's entry for the reference in ``folder``. A candidate that fails on
    it is rejected.
    """
    progress.report(f"converting to {format} {scheme}")
    request = ArtifactRequest(
        format, scheme, ConversionOptions(**options), QuantizationOptions(**quantization)
    )
    return convert_artifact(open_model(source, options), request, Path(folder), reference).to_json()


def inspect(source: Json, attempt_conversion: bool = True) -> dict[str, Any]:
    """The contents of a Keras file, for ``edgeattn inspect``."""
    return inspection.inspect(ModelSource(**source), attempt_conversion=attempt_conversion)
