"""Files of raw samples, prepared for the conversion by the worker."""

from dataclasses import dataclass, replace
from pathlib import Path

from edgeattn.samples.prepared import prepared_path
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker.client import ConversionWorker


@dataclass(frozen=True)
class RenamedFile:
    """A file of samples by the inputs of the converted model, and whether its values are raw."""

    path: Path
    is_raw: bool = False
    notes: tuple[str, ...] = ()


def with_renamed_samples(
    worker: ConversionWorker,
    source: ModelSource,
    options: ConversionOptions,
    quantization: QuantizationOptions,
    workspace: Path,
) -> tuple[ModelSource, QuantizationOptions, list[str]]:
    """``source`` and ``quantization`` with samples by the inputs of the converted model, and notes.

    Raw samples become those of ``--raw-samples`` and ``--raw-calibration``; see
    :func:`renamed_file`.
    """
    notes: list[str] = []
    # Beside --raw-samples, --samples is what their preparation is compared with.
    if source.samples is not None and source.raw_samples is None:
        file = renamed_file(worker, source, options, Path(source.samples), workspace / "samples")
        notes += file.notes
        if file.is_raw:
            source = replace(source, samples=None, raw_samples=file.path)
        else:
            source = replace(source, samples=file.path)
    if quantization.calibration is not None:
        path = Path(quantization.calibration)
        file = renamed_file(worker, source, options, path, workspace / "calibration")
        notes += file.notes
        if file.is_raw:
            quantization = replace(quantization, calibration=None, raw_calibration=file.path)
        else:
            quantization = replace(quantization, calibration=file.path)
    return source, quantization, notes


def renamed_file(
    worker: ConversionWorker,
    source: ModelSource,
    options: ConversionOptions,
    path: Path,
    folder: Path,
    *,
    labels: bool = False,
) -> RenamedFile:
    """The samples in ``path`` by the inputs of the converted model, in a file in ``folder``.

    Samples may have the names of the inputs of the stored model if layers after these are removed.
    ``path`` itself if it has others. With ``--preprocess``, it is not certain which steps such
    values passed; then nothing is renamed. ``labels`` are left out of raw samples by default.
    """
    if path.suffix.lower() != ".npz" or source.preprocess is not None:
        return RenamedFile(path)
    folder = folder / "renamed"
    folder.mkdir(parents=True)
    target = folder / path.name
    kind = worker.call(
        "rename_samples",
        {
            "source": source.to_json(),
            "options": options.to_json(),
            "path": str(path),
            "target": str(target),
            "labels": labels,
        },
        activity="reading the names of the samples",
    )
    if kind is None:
        return RenamedFile(path)
    if kind == "prepared":
        note = f"{path.name}: integers of text inputs are indices of the removed layers"
        return RenamedFile(target, notes=(note,))
    note = (
        f"{path.name} has raw values under the names of the model's own inputs: used as with "
        f"--raw-{'data' if labels else folder.parent.name}"
    )
    note += "" if labels else ", where labels have no effect"
    return RenamedFile(target, is_raw=True, notes=(note,))


def with_prepared_files(
    worker: ConversionWorker,
    source: ModelSource,
    options: ConversionOptions,
    quantization: QuantizationOptions,
    workspace: Path,
) -> tuple[ModelSource, QuantizationOptions, str | None]:
    """``source`` and ``quantization`` with prepared samples in place of raw ones.

    The original layers prepare the samples of the reference, and the front end those for
    calibration. The third value is a file with the raw inputs of the reference, or None. All are
    written to ``workspace``, under the names of the raw files.
    """
    arguments = {"source": source.to_json(), "options": options.to_json()}
    raw = None
    if quantization.raw_calibration is not None:
        target = _file(workspace, "calibration", str(quantization.raw_calibration))
        worker.call(
            "prepare_calibration",
            {**arguments, "path": str(quantization.raw_calibration), "target": str(target)},
            activity="preparing the calibration samples",
        )
        quantization = replace(quantization, calibration=target, raw_calibration=None)
    if source.raw_samples is not None:
        inputs = _file(workspace, "samples", str(source.raw_samples))
        raw = str(_file(workspace, "raw", str(source.raw_samples)))
        worker.call(
            "prepare_raw_samples",
            {**arguments, "inputs": str(inputs), "raw": raw},
            activity="preparing the raw samples",
        )
        source = replace(source, samples=inputs, raw_samples=None)
    return source, quantization, raw


def _file(workspace: Path, folder: str, name: str) -> Path:
    path = prepared_path(workspace / folder / "prepared", Path(name))
    path.parent.mkdir(parents=True)
    return path
