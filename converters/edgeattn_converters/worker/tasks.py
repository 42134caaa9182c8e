"""Tasks of the worker process: everything that uses TensorFlow or opens the model file.

Arguments and results are JSON. ``source``, ``options`` and ``quantization`` are the fields of
:class:`ModelSource`, :class:`ConversionOptions` and :class:`QuantizationOptions`.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.manifest import CALIBRATION, REFERENCE, SAMPLES, Artifact, sha256
from edgeattn.errors import EdgeattnError, SampleError, UnsupportedModelError, UsageError
from edgeattn.frontend.description import FRONTEND, FrontEnd
from edgeattn.samples import files as sample_files
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.samples.states import sample_inputs
from edgeattn.schemes import FORMATS, SCHEMES
from edgeattn.tensors import Tensors
from edgeattn_converters import calibration, front_end, inspection, original_layers
from edgeattn_converters.formats import ConvertedFile, free_time
from edgeattn_converters.formats.unchanged_outputs import compare_without_maps
from edgeattn_converters.loading.audit import ModelFile, audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.loading.migrate.keras2 import STATE_RESET_NOTE
from edgeattn_converters.loading.migrate.preprocessing import REMOVED_NOTE
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizationSamples
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference import keras_outputs, reference_file
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.rounding import float32_costs
from edgeattn_converters.tracing import states
from edgeattn_converters.tracing.attention_function import attention_function
from edgeattn_converters.tracing.free_time import FreeModel, free_model
from edgeattn_converters.tracing.trace import Interface, interface_of
from edgeattn_converters.worker import early_checks

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)  # hashed by identity, as a cache key
class OpenModel:
    """A loaded model and its inputs and outputs."""

    source: ModelSource
    loaded: LoadedModel
    interface: Interface
    free: FreeModel | None = None

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def samples(self) -> Path | None:
        return None if self.source.samples is None else Path(self.source.samples)


def _open(source: Json, options: Json) -> OpenModel:
    parsed = ConversionOptions(**options)
    return _load(ModelSource(**source), tuple(parsed.attention_layers), parsed.states)


@functools.cache
def _load(source: ModelSource, attention_layers: tuple[str, ...], with_states: bool) -> OpenModel:
    progress.report(f"loading {source.path}")
    time_steps = early_checks.time_steps_of(source)
    loaded = load_model(
        _audit(str(source.path), source.trust),
        custom_objects=None if source.custom_objects is None else Path(source.custom_objects),
        architecture=source.architecture,
        time_steps=time_steps,
        samples=None if source.samples is None else Path(source.samples),
    )
    loaded, pairs = _with_states(loaded) if with_states else (loaded, {})
    interface = interface_of(loaded.model, time_steps=time_steps, attention=attention_layers)
    interface = states.mark_states(interface, pairs)
    early_checks.check_time_steps(source.time_steps, sample_inputs(interface.inputs))
    free = None if time_steps is None or with_states else _free_model(source, interface)
    return OpenModel(source, loaded, interface, free)


def _free_model(source: ModelSource, interface: Interface) -> FreeModel | None:
    """The model with its time axis as free as it is stored; None if it is fixed."""
    file = _audit(str(source.path), source.trust)
    if not early_checks.may_be_free(file, source.architecture):
        return None
    try:
        loaded = load_model(
            file,
            custom_objects=None if source.custom_objects is None else Path(source.custom_objects),
            architecture=source.architecture,
            allow_free_time=True,
        )
    except EdgeattnError:
        return None
    return free_model(loaded.model, interface)


def _with_states(loaded: LoadedModel) -> tuple[LoadedModel, dict[str, str]]:
    model, pairs = states.with_states(loaded.model, loaded.stateful)
    notes = [note for note in loaded.notes if not note.endswith(STATE_RESET_NOTE)]
    notes.append(f"states are inputs (zero at the start) and outputs: {', '.join(pairs.values())}")
    return replace(loaded, model=model, notes=tuple(notes)), pairs


@functools.cache
def _audit(path: str, trust: str | None) -> ModelFile:
    return audit_file(Path(path), trust=trust)


def audit(path: str, trust: str | None) -> None:
    """The static audit, before anything is loaded."""
    progress.report(f"auditing {path}")
    _audit(path, trust)


def check(
    source: Json, options: Json, calibration_samples: str | None = None, data: str | None = None
) -> None:
    """Report mistakes that the stored configuration reveals, before TensorFlow is imported."""
    parsed = ModelSource(**source)
    early_checks.check(
        _audit(str(parsed.path), parsed.trust),
        parsed,
        ConversionOptions(**options),
        calibration_samples=None if calibration_samples is None else Path(calibration_samples),
        data=None if data is None else Path(data),
    )


def describe(source: Json, options: Json) -> dict[str, Any]:
    """Load the model and describe it for the manifest."""
    opened = _open(source, options)
    file, model, interface = opened.loaded.file, opened.model, opened.interface
    early_checks.check_lowering(
        ConversionOptions(**options).lowering, recurrent=bool(recurrent_layers(model))
    )
    doubtful = _attention_notes(interface) if ConversionOptions(**options).attention else []
    return {
        "name": str(getattr(model, "name", "model")),
        "file": file.path.name,
        "sha256": file.sha256,
        "bytes": file.size,
        "kind": file.kind,
        "keras_version": file.keras_version,
        "era": "keras3",
        "parameters": int(model.count_params()),
        "inputs": [spec.to_json() for spec in interface.inputs],
        "outputs": [spec.to_json() for spec in interface.outputs],
        "attention": [spec.to_json() for spec in interface.attention],
        # Whether the files have these maps as outputs.
        "attention_outputs": ConversionOptions(**options).attention,
        "notes": [*opened.loaded.notes, *doubtful],
    }


def _attention_notes(interface: Interface) -> list[str]:
    """A note for each layer that may be attention but whose map is not exported."""
    return [
        f"{item.layer} may be attention, but its map is not exported: {item.reason}."
        + (f" To export it, pass --attention {item.layer}." if item.exportable else "")
        for item in interface.doubtful
    ]


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
    opened, parsed = _open(source, options), ConversionOptions(**options)
    path = Path(folder) / REFERENCE
    with _explaining_removed_layers(opened):
        if opened.samples is not None:
            _check_arrays(opened, opened.samples)
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
    return {"path": REFERENCE, "sha256": sha256(path), **entry}


def rounding_in_float32(source: Json, options: Json, folder: str, reference: Json) -> Json:
    """What rounding in float32 costs on the reference in ``folder``, by output and metric."""
    opened = _open(source, options)
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
        rounded_function(opened.model, interface, attention=attention),
        {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs},
        expected,
        ordinary=int(reference["samples"]) + int(reference.get("ordinary_edge_cases", 0)),
    )


@contextlib.contextmanager
def _explaining_removed_layers(opened: OpenModel) -> Iterator[None]:
    """Add to errors about samples what inputs take if preprocessing layers were removed."""
    try:
        yield
    except SampleError as error:
        removed = [note for note in opened.loaded.notes if REMOVED_NOTE in note]
        if not removed:
            raise
        inputs = ", ".join(map(str, sample_inputs(opened.interface.inputs)))
        hint = (
            f"Pass raw inputs with --raw-samples, or what these layers returned for the inputs "
            f"{inputs}. {' '.join(removed)}"
        )
        raise SampleError(error.message, hint=hint) from error


def _check_arrays(opened: OpenModel, path: Path) -> None:
    """Raise :class:`SampleError` if a file has an array that is neither an input nor a label."""
    outputs = [spec.name for spec in opened.interface.outputs]
    ignore = opened.source.ignore
    sample_files.open_samples(path, opened.interface.inputs, ignore=ignore).check_arrays(outputs)


def write_front_end(
    source: Json, options: Json, folder: str, prepared: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Write the front end to ``folder``; its entry in the manifest, and ``notes`` for the user.

    ``prepared`` are files of the user with prepared inputs. None if there is no front end.
    """
    opened = _open(source, options)
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
    opened = _open(source, options)
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


def prepare_raw_samples(source: Json, options: Json, inputs: str, raw: str) -> None:
    """Write the raw samples of ``source`` to ``raw``, and prepared ones to ``inputs``."""
    progress.report("preparing the raw samples in Keras")
    opened = _open(source, options)
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
    samples = _calibration(_open(source, options), QuantizationOptions(**quantization), folder)
    return {"samples": len(samples), "notes": list(samples.notes)}


def _calibration(
    opened: OpenModel, quantization: QuantizationOptions, folder: str
) -> calibration.Calibration:
    if quantization.calibration is None:
        raise UsageError(
            "This scheme needs calibration samples.", hint="Pass them with --calibration FILE."
        )
    return _read_calibration(opened, str(quantization.calibration), folder)


@functools.cache
def _read_calibration(opened: OpenModel, path: str, folder: str) -> calibration.Calibration:
    model, interface = opened.model, opened.interface
    _check_arrays(opened, Path(path))
    arrays = read_npz(Path(folder) / REFERENCE)
    evaluation = {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs}
    with _explaining_removed_layers(opened):
        samples = calibration.read(Path(path), interface, evaluation, interface.vocabulary)
    # States that are always zero would have no range.
    return replace(
        samples, inputs=reference_file.with_running_states(model, interface, samples.inputs)
    )


def calibration_fingerprints(
    source: Json, options: Json, quantization: Json, folder: str
) -> list[str]:
    """Fingerprints of the calibration samples, which a task must not be evaluated on."""
    opened = _open(source, options)
    samples = _calibration(opened, QuantizationOptions(**quantization), folder)
    return row_fingerprints(samples.inputs, opened.interface.inputs)


def describe_layers(source: Json, options: Json) -> dict[str, Any]:
    """Names and float32 sizes (bytes) of layers with large weights; names of recurrent layers."""
    model = _open(source, options).model
    return {
        "layers": [[layer.name, 4 * layer.size] for layer in layer_weights(model)],
        "recurrent": list(recurrent_layers(model)),
    }


def predict(
    source: Json, options: Json, tensors: Tensors, maps: Sequence[str] = ()
) -> tuple[None, Tensors]:
    """The outputs of Keras' ``model.predict`` and the attention maps ``maps``, by name."""
    opened = _open(source, options)
    outputs = keras_outputs.predict(opened.model, opened.interface, tensors)
    if maps:
        outputs |= _attention_maps(opened, tuple(maps))(tensors)
    return None, outputs


@functools.cache
def _attention_maps(opened: OpenModel, names: tuple[str, ...]) -> Callable[[Tensors], Tensors]:
    return attention_function(opened.model, opened.interface, names)


@functools.cache
def _selection_inputs(opened: OpenModel) -> Tensors:
    """Inputs that are not in the reference, on which candidates of one scheme are compared."""
    return reference_file.selection_inputs(opened.model, opened.interface, opened.samples)


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
    opened, parsed = _open(source, options), ConversionOptions(**options)
    chosen = QuantizationOptions(**quantization)
    measured, samples = _quantization_samples(opened, chosen, folder, scheme)
    name = f"{Path(opened.source.path).stem}.{scheme}.{format}"
    path = Path(folder) / name
    start = time.perf_counter()
    converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
    convert = functools.partial(
        converter.convert, opened.model, opened.interface, recipe_for(scheme), quantization=chosen
    )
    judged = _with_reference(samples, opened.interface, Path(folder), reference)
    convert = functools.partial(convert, options=parsed, samples=judged)
    file: ConvertedFile | None = None
    achieved: dict[str, Any] = {}
    free_axes: free_time.Axes = {}
    try:
        if format == "onnx" and opened.free is not None:
            arrays = read_npz(Path(folder) / REFERENCE)
            file, free, reason = free_time.convert_free(convert, path, scheme, arrays, opened.free)
            if free is None:
                achieved["fixed_length"] = reason
            else:
                convert, free_axes = functools.partial(convert, free=free), dict(free.axes)
        if file is None:
            file = convert(path)
    except RecursionError as error:
        raise UnsupportedModelError("The model is nested too deeply to be traced.") from error
    achieved |= file.achieved
    if file.attention:
        without_maps = functools.partial(
            convert, options=replace(parsed, attention=False, attention_layers=())
        )
        achieved["difference_by_maps"] = compare_without_maps(
            path,
            format,
            scheme,
            ModelIO(file.inputs, file.outputs, file.attention),
            _selection_inputs(opened),
            # The other schemes are made from the float32 file, so one conversion is enough.
            without_maps if scheme == "float32" else None,
            runtime=chosen.runtime,
        )
    if measured is not None:
        achieved["calibration"] = {
            "samples": len(measured),
            "notes": list(measured.notes),
            "digests": row_fingerprints(measured.inputs, opened.interface.inputs),
        }
    achieved["seconds"] = round(time.perf_counter() - start, 3)
    return Artifact(
        format=format,
        scheme=scheme,
        path=name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        inputs=file.inputs,
        outputs=file.outputs,
        attention=file.attention,
        achieved=achieved,
        runtimes=converter.runtimes(achieved),
        free_axes=free_axes,
    ).to_json()


def _quantization_samples(
    opened: OpenModel, quantization: QuantizationOptions, folder: str, scheme: str
) -> tuple[calibration.Calibration | None, Tensors | None]:
    """The calibration samples, if the scheme uses any, and the inputs to quantize with."""
    if recipe_for(scheme).needs_calibration:
        measured = _calibration(opened, quantization, folder)
        return measured, measured.inputs
    if scheme != "dynamic_int8":
        return None, None
    # It measures no ranges, but chooses among candidates: better on real inputs. If they are
    # rejected, the schemes that need them report why.
    if quantization.calibration is not None:
        with contextlib.suppress(UsageError):
            measured = _calibration(opened, quantization, folder)
            return measured, measured.inputs
    return None, _selection_inputs(opened)


def _with_reference(
    samples: Tensors | None, interface: Interface, folder: Path, entry: Json | None
) -> QuantizationSamples | None:
    """``samples`` with the inputs of the reference, if these are real: synthetic ones decide
    nothing."""
    if samples is None:
        return None
    if entry is None or entry.get("kind") not in (SAMPLES, CALIBRATION):
        return QuantizationSamples(samples)
    arrays = read_npz(folder / REFERENCE)
    inputs = {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs}
    ordinary = int(entry["samples"]) + int(entry.get("ordinary_edge_cases", 0))
    return QuantizationSamples(samples, inputs, ordinary)


def inspect(source: Json, attempt_conversion: bool = True) -> dict[str, Any]:
    """The contents of a Keras file, for ``edgeattn inspect``."""
    return inspection.inspect(ModelSource(**source), attempt_conversion=attempt_conversion)
