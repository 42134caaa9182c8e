"""What runs in the host's child process: everything that touches TensorFlow or the model file."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.manifest import REFERENCE, Artifact, sha256
from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Tensors
from edgeattn_converters import calibration, reference
from edgeattn_converters.formats import attention_output_effect as agreement
from edgeattn_converters.loading.audit import ModelFile, audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.loading.migrate.keras2 import STATE_RESET_NOTE
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.selection import ModelIO
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing import states
from edgeattn_converters.tracing.trace import Interface, interface_of, vocabulary_of


@dataclass(frozen=True)
class Job:
    """A model to convert, and how it is to be read."""

    path: str
    samples: str | None = None
    time_steps: int | None = None
    custom_objects: str | None = None
    architecture: str | None = None
    trust: str | None = None
    attention: bool = True
    lowering: str = "auto"
    batch: int = 1
    states: bool = False
    attention_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A list where it came as JSON, and jobs are kept by their values.
        object.__setattr__(self, "attention_layers", tuple(self.attention_layers))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@functools.cache
def _audited(path: str, trust: str | None) -> ModelFile:
    return audit_file(Path(path), trust=trust)


def look_through(path: str, trust: str | None) -> None:
    """The static audit, before anything is loaded."""
    progress.report(f"looking through {path}")
    _audited(path, trust)


@functools.cache
def _open(job: Job) -> tuple[LoadedModel, Interface]:
    progress.report(f"loading {job.path}")
    file = _audited(job.path, job.trust)
    time_steps = job.time_steps
    if time_steps is None and job.samples is not None:
        time_steps = reference.time_steps_of(Path(job.samples))
    loaded = load_model(
        file,
        custom_objects=None if job.custom_objects is None else Path(job.custom_objects),
        architecture=job.architecture,
        time_steps=time_steps,
    )
    loaded, pairs = _with_states(loaded) if job.states else (loaded, {})
    named = job.attention_layers if job.attention else ()
    interface = interface_of(loaded.model, time_steps=time_steps, attention=named)
    interface = states.marked(interface, pairs)
    lengths = [spec.shape[1] for spec in sample_inputs(interface.inputs) if len(spec.shape) > 1]
    if job.time_steps is not None and job.time_steps not in lengths:
        raise UsageError(
            f"--time-steps {job.time_steps}: the model's time axis is not free, its inputs are "
            f"{', '.join(map(str, interface.inputs))}.",
            hint="Leave --time-steps out.",
        )
    return loaded, interface


def _with_states(loaded: LoadedModel) -> tuple[LoadedModel, dict[str, str]]:
    model, pairs = states.with_states(loaded.model, loaded.stateful)
    notes = [note for note in loaded.notes if not note.endswith(STATE_RESET_NOTE)]
    notes.append(
        f"states are inputs, zero where a sequence starts, and outputs: {', '.join(pairs.values())}"
    )
    return replace(loaded, model=model, notes=tuple(notes)), pairs


def describe(job: dict[str, Any]) -> dict[str, Any]:
    """Load the model: what it is, for the manifest, and how long that took."""
    parsed = Job(**job)
    loaded, interface = _open(parsed)
    model = loaded.model
    return {
        "name": str(getattr(model, "name", "model")),
        "file": loaded.file.path.name,
        "sha256": loaded.file.sha256,
        "bytes": loaded.file.size,
        "kind": loaded.file.kind,
        "keras_version": loaded.file.keras_version,
        "era": "keras3",
        "parameters": int(model.count_params()),
        "inputs": [spec.to_json() for spec in interface.inputs],
        "outputs": [spec.to_json() for spec in interface.outputs],
        "attention": [spec.to_json() for spec in interface.attention],
        "notes": [*loaded.notes, *(untold(interface) if parsed.attention else ())],
    }


def untold(interface: Interface) -> list[str]:
    """A line for each layer that may have an attention map which is not among the outputs."""
    return [
        f"{layer} may be attention, and its map is not told: {why}."
        + (f" Tell it with --attention {layer}" if can_be_told else "")
        for layer, why, can_be_told in interface.doubtful
    ]


def made_with() -> dict[str, str]:
    """The versions of what the bundle is made with."""
    names = ("edgeattn", "tensorflow", "keras", "tf_keras", "onnx", "tf2onnx", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_reference(job: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write ``reference.npz``: what Keras says, for the runners to be held to."""
    progress.report("asking Keras for the reference")
    parsed = Job(**job)
    loaded, interface = _open(parsed)
    path = Path(folder) / REFERENCE
    samples = None if parsed.samples is None else Path(parsed.samples)
    made = reference.write(
        loaded.model, interface, path, samples=samples, attention=parsed.attention
    )
    return {"path": REFERENCE, "sha256": sha256(path), **made}


def check_calibration(job: dict[str, Any], folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """Read the calibration samples before anything is converted: how many, and what to know."""
    progress.report("reading the calibration samples")
    measured = _calibration(Job(**job), QuantizationOptions(**options), folder)
    return {"samples": len(measured), "notes": list(measured.notes)}


def _calibration(job: Job, options: QuantizationOptions, folder: str) -> calibration.Calibration:
    if options.calibration is None:
        raise UsageError("This scheme measures activations: --calibration FILE is missing.")
    return _calibrated(job, str(options.calibration), folder)


@functools.cache
def _calibrated(job: Job, file: str, folder: str) -> calibration.Calibration:
    from edgeattn.samples.files import read_npz

    loaded, interface = _open(job)
    judged = read_npz(Path(folder) / REFERENCE)
    evaluation = {spec.name: judged[f"input/{spec.name}"] for spec in interface.inputs}
    vocabulary = vocabulary_of(loaded.model, interface)
    found = calibration.read(Path(file), interface, evaluation, vocabulary)
    # Zeros alone would leave a state no range.
    return replace(found, inputs=reference.in_a_row(loaded.model, interface, found.inputs))


def calibration_fingerprints(
    job: dict[str, Any], folder: str, options: dict[str, Any]
) -> list[str]:
    """The hashes of the calibration samples: a task must not be judged on these."""
    measured = _calibration(Job(**job), QuantizationOptions(**options), folder)
    return row_fingerprints(measured.inputs, _open(Job(**job))[1].inputs)


def parts(job: dict[str, Any]) -> dict[str, Any]:
    """What may differ between files of this model: its large layers, and how steps are computed."""
    from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers

    model = _open(Job(**job))[0].model
    return {
        "layers": [[layer.name, 4 * layer.size] for layer in layer_weights(model)],
        "recurrent": list(recurrent_layers(model)),
    }


def predict(job: dict[str, Any], tensors: Tensors) -> tuple[None, Tensors]:
    """Keras' own answers to ``tensors``, named as the model's inputs are."""
    loaded, interface = _open(Job(**job))
    return None, reference.predict(loaded.model, interface, tensors)


@functools.cache
def _trial_inputs(job: Job) -> Tensors:
    """Inputs that a choice between two files may be made on: not those of the reference."""
    loaded, interface = _open(job)
    path = None if job.samples is None else Path(job.samples)
    return reference.trial_inputs(loaded.model, interface, path)


def write_artifact(
    job: dict[str, Any],
    folder: str,
    format: str,
    scheme: str,
    options: dict[str, Any] | None = None,
    lowering: str | None = None,
) -> dict[str, Any]:
    """Convert to one format and scheme: the artifact's entry in the manifest.

    ``lowering`` is another than the job's.
    """
    progress.report(f"converting to {format} {scheme}")
    parsed = Job(**job)
    loaded, interface = _open(parsed)
    recipe, chosen = recipe_for(scheme), QuantizationOptions(**(options or {}))
    # The same samples whatever the layers' precision: they are read once.
    same = replace(chosen, precision=())
    measured = _calibration(parsed, same, folder) if recipe.needs_calibration else None
    if measured is None and scheme == "dynamic_int8" and chosen.calibration is not None:
        # It measures nothing, but chooses: real inputs show what plausible ones may not. Where
        # they are refused, the schemes that need them say so.
        with contextlib.suppress(UsageError):
            measured = _calibration(parsed, same, folder)
    samples = None if measured is None else measured.inputs
    if measured is None and scheme == "dynamic_int8":
        samples = _trial_inputs(parsed)
    converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
    name = f"{Path(parsed.path).stem}.{scheme}.{format}"
    path = Path(folder) / name
    start = time.perf_counter()
    try:
        inputs, outputs, attention, achieved = converter.convert(
            loaded.model,
            interface,
            recipe,
            path,
            attention=parsed.attention,
            lowering=lowering or parsed.lowering,
            batch=parsed.batch,
            options=chosen,
            samples=samples,
        )
    except RecursionError as error:
        raise UnsupportedModelError("The model is nested too deeply to be traced.") from error
    if attention:
        # The converter's own file without maps, once; of the schemes made of it, the same file cut.
        without = functools.partial(
            converter.convert,
            loaded.model,
            interface,
            recipe,
            attention=False,
            lowering=lowering or parsed.lowering,
            batch=parsed.batch,
            options=chosen,
        )
        achieved["difference_by_maps"] = agreement.compare(
            path,
            format,
            scheme,
            ModelIO(inputs, outputs, attention),
            _trial_inputs(parsed),
            without if scheme == "float32" else None,
        )
    if measured is not None:
        achieved["calibration"] = {
            "samples": len(measured),
            "notes": list(measured.notes),
            "digests": row_fingerprints(measured.inputs, interface.inputs),
        }
    achieved["seconds"] = round(time.perf_counter() - start, 3)
    return Artifact(
        format=format,
        scheme=scheme,
        path=name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        attention=attention,
        achieved=achieved,
        runtimes=converter.runtimes(achieved),
    ).to_json()


def inspect(path: str, **options: Any) -> dict[str, Any]:
    """What ``edgeattn inspect`` tells of a Keras file."""
    from edgeattn_converters import inspection

    return inspection.inspect(path, **options)
