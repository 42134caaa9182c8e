"""The reference, the front end and the task's samples of a search, before candidates are tried."""

from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, Manifest
from edgeattn.errors import UsageError
from edgeattn.inference.raw_dataset import write_prepared
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.tuning.evaluation import CandidateEvaluator
from edgeattn_converters.worker.client import ConversionWorker
from edgeattn_converters.worker.raw_files import with_prepared_files


def prepare_search(
    worker: ConversionWorker,
    source: ModelSource,
    quantization: QuantizationOptions,
    folder: Path,
    *,
    data: str | None,
    workspace: Path,
) -> CandidateEvaluator:
    """Load the model, and write its reference and its front end to ``folder``.

    ``data`` is the file of the task's samples if they are prepared already. Prepared forms of raw
    files are written to ``workspace``.
    """
    options = ConversionOptions()
    samples = source.samples if source.raw_samples is None else None
    # As in a conversion, a note names the files that do not pass through the front end.
    files = [str(file) for file in (samples, quantization.calibration, data) if file is not None]
    source, quantization, raw = with_prepared_files(
        worker, source, options, quantization, workspace
    )
    calibration = quantization.to_json()["calibration"]
    calibration = None if calibration is None else str(calibration)
    model, reference = worker.prepare(source, options, folder, calibration, raw=raw)
    front_end = worker.call(
        "write_front_end",
        {
            "source": source.to_json(),
            "options": options.to_json(),
            "folder": str(folder),
            "prepared": files,
        },
        activity="writing the front end",
    )
    model["notes"] += (front_end or {}).pop("notes", [])
    versions = worker.call("package_versions", {}, activity="reading package versions")
    manifest = Manifest(model, (), reference, versions, frontend=front_end)
    return CandidateEvaluator(worker, folder, source, calibration, manifest)


def prepared_data(
    evaluator: CandidateEvaluator, artifact: Artifact, data: Path, workspace: Path
) -> Path:
    """A file in ``workspace`` with the raw dataset ``data`` as the front end prepares it.

    Raises :class:`UsageError` if there is no front end, and :class:`SampleError` if a sample does
    not fit.
    """
    front_end = Bundle(evaluator.folder, evaluator.manifest).front_end()
    if front_end is None:
        raise UsageError(
            "--raw-data has no effect: the model has no preprocessing layers.",
            hint="Pass --preprocess FILE.toml too, or pass the inputs with --data.",
        )
    target = workspace / "data" / f"{data.stem}.npz"
    target.parent.mkdir()
    write_prepared(data, front_end, artifact.inputs, target)
    return target
