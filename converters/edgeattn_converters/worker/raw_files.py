"""Files of raw samples, prepared for the conversion by the worker."""

from dataclasses import replace
from pathlib import Path

from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker.client import ConversionWorker


def with_renamed_samples(
    worker: ConversionWorker, source: ModelSource, options: ConversionOptions, workspace: Path
) -> tuple[ModelSource, list[str]]:
    """``source`` with samples by the inputs of the converted model, and notes for the user.

    Samples may have the names of the inputs of the stored model if layers after these are removed.
    Raw values become the raw samples. The new file is written to ``workspace``. With
    ``--preprocess``, it is not certain which steps such values passed; then nothing is renamed.
    """
    path = None if source.samples is None else Path(source.samples)
    others = (source.raw_samples, source.preprocess)
    if path is None or path.suffix.lower() != ".npz" or any(item is not None for item in others):
        return source, []
    target = str(_file(workspace, "renamed", str(path)))
    field = worker.call(
        "rename_samples",
        {"source": source.to_json(), "options": options.to_json(), "target": target},
        activity="reading the names of the samples",
    )
    if field is None:
        return source, []
    if field == "samples":
        return replace(source, samples=target), [
            f"{path.name}: integers of text inputs are indices of the removed layers"
        ]
    return replace(source, samples=None, raw_samples=target), [
        f"{path.name} has raw values under the names of the model's own inputs: used as with "
        "--raw-samples, where labels have no effect"
    ]


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
    path = workspace / folder / f"{Path(name).stem}.npz"
    path.parent.mkdir()
    return path
