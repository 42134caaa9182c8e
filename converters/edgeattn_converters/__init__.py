"""Converts trained Keras models to bundles. Needs TensorFlow, so it runs on a workstation."""

import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.config_record import stored_config
from edgeattn.bundle.lengths import joined, length_folder
from edgeattn.bundle.manifest import Artifact, Manifest, write_manifest
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import (
    ConversionError,
    EdgeattnError,
    SchemeError,
    UnsupportedModelError,
    UsageError,
)
from edgeattn.printable import join_lines
from edgeattn.process.worker import Worker
from edgeattn.runners.arena import arena_bytes
from edgeattn.schemes import FORMATS, MICRO
from edgeattn.validation.report import Report
from edgeattn.validation.rounding import may_be_float32_rounding
from edgeattn.validation.validate import validate_isolated
from edgeattn_converters.lengths import (
    NamedLengths,
    check_files_of_lengths,
    lengths_by_key,
    of_length,
)
from edgeattn_converters.option_conflicts import Request, check_combination
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions, StrPath
from edgeattn_converters.quantization.quantizer import NO_ATTENTION
from edgeattn_converters.worker.client import ConversionWorker
from edgeattn_converters.worker.raw_files import with_prepared_files, with_renamed_samples

__all__ = [
    "Conversion",
    "ConversionOptions",
    "ModelSource",
    "QuantizationOptions",
    "convert",
    "convert_lengths",
]


@dataclass(frozen=True)
class Conversion:
    """The written bundle, the report on its artifacts, and the artifacts that failed to convert.

    A failure has the keys ``format``, ``scheme`` and ``reason``, and ``required``: false if the
    format cannot achieve the scheme for this model and nobody requested the scheme by name.
    """

    bundle: Bundle
    report: Report
    failures: tuple[dict[str, Any], ...]

    @property
    def exit_code(self) -> int:
        """1 if an artifact does not match Keras, 3 if a required one is missing, else 0."""
        missing = any(failure["required"] for failure in self.failures)
        return int(self.report.exit_code) or (UnsupportedModelError.exit_code if missing else 0)


def convert(
    source: StrPath | ModelSource,
    output: StrPath | None = None,
    *,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    quantization: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    force: bool = False,
) -> Conversion:
    """Convert a trained Keras model to a bundle, and compare every artifact with Keras.

    ``source`` is a path or a :class:`ModelSource`. The bundle is written to ``output``, by default
    ``MODEL.edge`` beside the model, and appears there only when it is complete; ``force`` replaces
    an existing one.

    An artifact that cannot be converted is listed in ``failures``. Raises
    :class:`ConversionError`, and writes nothing, if none can be converted; raises
    :class:`UsageError` if an argument or a file of samples is invalid.
    """
    source = ModelSource.of(source)
    source.check_files()
    named = options.schemes
    target = Path(output) if output is not None else source.beside(".edge")
    check_new_bundle(target, force=force)
    options = options.with_defaults(
        calibrated=quantization.calibrated, integers=quantization.integer_only
    )
    integers = quantization.integer_only or MICRO in options.targets
    check_combination(
        Request(source, options, quantization),
        named_schemes=options.schemes if integers else named,
    )
    quantization.check_files()
    if source.samples is None and quantization.calibration is not None:
        source = replace(source, sized_by=quantization.calibration)
    for runtime in ("tflite-runtime", MICRO):
        if runtime in options.targets:
            quantization = replace(quantization, runtime=runtime)
    with new_bundle(target, force=force) as folder, tempfile.TemporaryDirectory() as workspace:
        with ConversionWorker() as worker:
            worker.check(source, options, calibration=quantization.calibration)
            source, quantization, notes = with_renamed_samples(
                worker, source, options, quantization, Path(workspace)
            )
            # Files of the user whose inputs are prepared already. Beside --raw-samples, --samples
            # is what their preparation is compared with.
            samples = source.samples if source.raw_samples is None else None
            prepared = [
                str(file) for file in (samples, quantization.calibration) if file is not None
            ]
            source, quantization, raw = with_prepared_files(
                worker, source, options, quantization, Path(workspace)
            )
            model, reference = worker.prepare(
                source, options, folder, calibration=quantization.to_json()["calibration"], raw=raw
            )
            model["notes"] += notes
            request = {
                "source": source.to_json(),
                "options": options.to_json(),
                "quantization": quantization.to_json(),
                "folder": str(folder),
            }
            front_end = worker.call(
                "write_front_end",
                {
                    **{name: request[name] for name in ("source", "options", "folder")},
                    "prepared": prepared,
                },
                activity="writing the front end",
            )
            model["notes"] += (front_end or {}).pop("notes", [])
            model["notes"] += _check_calibration(worker, request)
            artifacts, failures = _write_artifacts(
                worker, {**request, "reference": reference}, named
            )
            model["notes"] += _options_without_effect(artifacts, quantization)
            versions = worker.call("package_versions", {}, activity="reading package versions")
        manifest = Manifest(
            model,
            artifacts,
            reference,
            versions,
            failures,
            created=int(time.time()),
            frontend=front_end,
            config=stored_config(),
        )
        manifest, report = _validated(folder, manifest, request)
    return Conversion(Bundle(target, manifest), report, failures)


def convert_lengths(
    source: StrPath | ModelSource,
    lengths: Sequence[NamedLengths],
    output: StrPath | None = None,
    *,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    quantization: QuantizationOptions = QuantizationOptions(),  # noqa: B008 - frozen
    force: bool = False,
) -> tuple[Conversion, ...]:
    """Convert a model with a free time axis for each of several sequence lengths.

    A length is a number, or a mapping with those of the inputs by name. The bundles are
    ``steps-LENGTH`` in the folder ``output``, from which :func:`edgeattn.load` selects one by the
    lengths of the sample. With one length or none, ``output`` is the bundle of :func:`convert`. The
    paths of samples and calibration samples contain ``{steps}``, which stands for the length.
    Raises as that function does, and then writes nothing.
    """
    source, by_key = ModelSource.of(source), lengths_by_key(lengths)
    if len(by_key) < 2:
        for steps, sized in by_key.items():
            source, quantization = of_length(source, quantization, steps, sized)
        return (convert(source, output, options=options, quantization=quantization, force=force),)
    check_files_of_lengths(source, quantization, by_key)
    target = Path(output) if output is not None else source.beside(".edge")
    conversions = []
    with new_bundle(target, force=force) as folder:
        for steps, sized in by_key.items():
            progress.report(f"converting for the sequence length {joined(steps)}")
            one_source, quantized = of_length(source, quantization, steps, sized)
            one = convert(
                one_source, folder / length_folder(steps), options=options, quantization=quantized
            )
            moved = Bundle(target / length_folder(steps), one.bundle.manifest)
            conversions.append(replace(one, bundle=moved))
    return tuple(conversions)


def _check_calibration(worker: ConversionWorker, request: Mapping[str, Any]) -> list[str]:
    """Notes on the calibration samples. Raises :class:`UsageError` if they are invalid."""
    if request["quantization"]["calibration"] is None:
        return []
    checked = worker.call("check_calibration", request, activity="reading the calibration samples")
    notes: list[str] = checked["notes"]
    return notes


def _validated(
    folder: Path, manifest: Manifest, request: Mapping[str, Any]
) -> tuple[Manifest, Report]:
    """The written manifest, and the report on the artifacts.

    If a float32 artifact misses a limit that rounding may explain, the manifest contains what
    rounding in float32 costs.
    """
    write_manifest(folder, manifest)
    progress.report("validating the artifacts")
    report = validate_isolated(Bundle(folder, manifest), manifest.artifacts)
    if not any(may_be_float32_rounding(item.artifact, item.failed) for item in report.artifacts):
        return manifest, report
    reference = manifest.reference
    arguments = {name: request[name] for name in ("source", "options", "folder")}
    with ConversionWorker() as worker:
        worker.audit(Path(request["source"]["path"]), request["source"]["trust"])
        costs = worker.call(
            "rounding_in_float32",
            {**arguments, "reference": reference},
            activity="computing what rounding costs",
        )
    rounding = {**reference.get("rounding", {}), "float32": costs}
    manifest = replace(manifest, reference={**reference, "rounding": rounding})
    write_manifest(folder, manifest)
    return manifest, validate_isolated(Bundle(folder, manifest), manifest.artifacts)


def _write_artifacts(
    worker: ConversionWorker, request: Mapping[str, Any], named: Sequence[str]
) -> tuple[tuple[Artifact, ...], tuple[dict[str, Any], ...]]:
    """The artifacts of all schemes and formats, and those that failed, with the reasons.

    ``named`` are the schemes that were requested by name, not by default.
    """
    options, model = request["options"], Path(request["source"]["path"])
    artifacts: list[Artifact] = []
    failures: list[dict[str, Any]] = []
    for scheme, format in itertools.product(options["schemes"], options["formats"]):
        arguments = {**request, "format": format, "scheme": scheme}
        activity = f"converting to {format} {scheme}"
        try:
            entry = worker.call("write_artifact", arguments, activity=activity)
            artifact = Artifact.from_json(entry)
            if artifact.runtime == MICRO:
                artifact = _with_arena(artifact, Path(request["folder"]), options["arena"])
            artifacts.append(artifact)
        except UsageError:
            raise  # it concerns all artifacts
        except EdgeattnError as error:
            (Path(request["folder"]) / f"{model.stem}.{scheme}.{format}").unlink(missing_ok=True)
            required = scheme in named or not isinstance(error, SchemeError)
            failure = {"format": format, "scheme": scheme, "reason": error.message}
            hint = {} if error.hint is None else {"hint": str(error.hint)}
            failures.append({**failure, **hint, "required": required})
    if not artifacts:
        raise nothing_converted(
            ModelSource(**request["source"]),
            {f"{f['format']} {f['scheme']}": f["reason"] for f in failures},
        )
    return tuple(artifacts), tuple(failures)


def _with_arena(artifact: Artifact, folder: Path, limit: int | None) -> Artifact:
    """``artifact`` with the size of its arena in the manifest.

    Raises :class:`ConversionError` if it exceeds ``limit``.
    """
    progress.report(f"measuring the arena of {artifact.label}")
    with Worker() as worker:
        arena = arena_bytes(folder / artifact.path, worker)
    if limit is not None and arena > limit:
        raise ConversionError(
            f"The model is too large for the requested arena: it needs {arena:,} bytes, and "
            f"--arena allows {limit:,}. Use shorter sequences or fewer units, or raise --arena."
        )
    return replace(artifact, achieved={**artifact.achieved, "arena_bytes": arena})


def _options_without_effect(
    artifacts: Sequence[Artifact], quantization: QuantizationOptions
) -> list[str]:
    """A note if some artifacts have no attention whose precision was requested."""
    labels = [a.label for a in artifacts if NO_ATTENTION in a.achieved.get("notes", ())]
    if not labels:
        return []
    option = f"--attention-precision {quantization.attention_precision}"
    return [f"{option} has no effect on {', '.join(labels)}, because no attention was found there"]


def nothing_converted(source: ModelSource, reasons: Mapping[str, str]) -> ConversionError:
    """The error if no artifact could be converted; ``reasons`` by artifact, "onnx float32"."""
    lines = [f"  {label}: {reason}" for label, reason in reasons.items()]
    attempted = {label.split()[0] for label in reasons}
    other = [format for format in FORMATS if format not in attempted]
    # inspect attempts every format, except for models with free axes.
    sized = (source.time_steps, source.lengths, source.shapes, source.samples, source.sized_by)
    attempt = f"Show whether it converts to {other[0]}" if other and not any(sized) else None
    return ConversionError(
        join_lines([f"{Path(source.path).name} could not be converted to any format:", *lines]),
        hint=f"{attempt or 'List the contents of the model'}: {source.command('inspect')}",
    )
