"""Files of raw samples, prepared for the conversion by the worker."""

from dataclasses import replace
from pathlib import Path

from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.worker.client import ConversionWorker


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
