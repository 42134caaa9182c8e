"""The folder, reference, front end and samples of a search, before candidates are tried."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.config_record import stored_config
from edgeattn.bundle.manifest import Artifact, Manifest, sha256
from edgeattn.errors import OutputError, UsageError
from edgeattn.files import reserved
from edgeattn.inference.raw_dataset import write_prepared
from edgeattn.samples.prepared import prepared_path
from edgeattn.version import __version__
from edgeattn_converters.options import (
    ConversionOptions,
    ModelSource,
    QuantizationOptions,
    StrPath,
)
from edgeattn_converters.tuning.evaluation import CandidateEvaluator, has_results
from edgeattn_converters.tuning.tuning_options import TuningOptions
from edgeattn_converters.worker.client import ConversionWorker
from edgeattn_converters.worker.raw_files import with_prepared_files, with_renamed_samples

if TYPE_CHECKING:
    from edgeattn.metrics.limits import Limit


@contextlib.contextmanager
def search_folder(target: Path) -> Iterator[Path]:
    """The folder with the files of the search; it is removed if it contains no results."""
    folder = target.with_name(f".{target.name}.search")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise OutputError(
            f"Cannot write to {folder.parent}: {error.strerror or error}",
            hint="Choose another folder with -o DIR.",
        ) from error
    # Two searches with one output would mix their files.
    with reserved(folder):
        try:
            yield folder
        except BaseException:
            if not has_results(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def prepare_search(
    worker: ConversionWorker,
    source: ModelSource,
    quantization: QuantizationOptions,
    folder: Path,
    *,
    data: str | None,
    workspace: Path,
    notes: Sequence[str] = (),
) -> CandidateEvaluator:
    """Load the model, and write its reference and its front end to ``folder``.

    ``data`` is the file of the task's samples if they are prepared already. Prepared forms of raw
    files are written to ``workspace``. ``notes`` become notes of the model.
    """
    options = ConversionOptions()
    source, quantization, more = with_renamed_samples(
        worker, source, options, quantization, workspace
    )
    samples = source.samples if source.raw_samples is None else None
    # As in a conversion, a note names the files that do not pass through the front end.
    files = [str(file) for file in (samples, quantization.calibration, data) if file is not None]
    source, quantization, raw = with_prepared_files(
        worker, source, options, quantization, workspace
    )
    calibration = quantization.to_json()["calibration"]
    calibration = None if calibration is None else str(calibration)
    model, reference = worker.prepare(source, options, folder, calibration, raw=raw)
    model["notes"] += [*notes, *more]
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
    manifest = Manifest(model, (), reference, versions, frontend=front_end, config=stored_config())
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
    target = prepared_path(workspace / "data" / "prepared", data)
    target.parent.mkdir(parents=True)
    write_prepared(data, front_end, artifact.inputs, target)
    return target


def search_inputs(
    source: ModelSource, data: StrPath, options: TuningOptions, manifest: Manifest
) -> dict[str, Any]:
    """Everything that results depend on besides the candidate."""
    files = {
        "model": source.path,
        "data": data,
        "samples": source.samples,
        "raw_samples": source.raw_samples,
        "calibration": options.calibration,
        "raw_calibration": options.raw_calibration,
    }
    loading = source.to_json()
    # The contents of these files decide, not their paths.
    for name in ("path", "samples", "raw_samples", "preprocess", "labels"):
        del loading[name]
    return {
        "edgeattn": __version__,
        "files": {kind: sha256(Path(path)) for kind, path in files.items() if path is not None},
        "loading": loading,
        "max_drop": options.max_drop,
        "reference": manifest.reference["sha256"],
        "raw_data": options.raw_data,
        "frontend": None if manifest.frontend is None else manifest.frontend["sha256"],
    }


def load_task(
    evaluator: CandidateEvaluator, artifact: Artifact, data: Path, max_drop: float
) -> dict[str, float]:
    """Read the task's samples without those in the calibration; the scores of Keras by output."""
    from edgeattn.evaluation.file_dataset import read_dataset
    from edgeattn.evaluation.score_comparison import compare_scores

    achieved = {
        **artifact.achieved,
        "calibration": {"digests": evaluator.calibration_fingerprints()},
    }
    manifest = replace(evaluator.manifest, artifacts=(replace(artifact, achieved=achieved),))
    dataset = read_dataset(data, Bundle(evaluator.folder, manifest), evaluator.source.ignore)
    dataset = dataset.with_keras_outputs(evaluator.keras_outputs)
    scores = {}
    for name, labels in dataset.labels.items():
        outputs = dataset.reference_outputs[name]
        result = compare_scores(name, labels, outputs, outputs)
        scores[name] = result.reference_score
    evaluator.dataset = dataset
    evaluator.limits = tuple(_limit(name, score, max_drop) for name, score in scores.items())
    return scores


def _limit(output: str, score: float, max_drop: float) -> Limit:
    """The limit that makes the score decide, for every scheme: the share of it to retain."""
    from edgeattn.metrics.limits import Limit

    if not score > 0 or not math.isfinite(score):
        raise UsageError(
            f"Keras scores {score:.3g} with output {output!r} on these samples.",
            hint="Check that the labels belong to this model.",
        )
    return Limit("retention", max(0.0, 1.0 - max_drop / score), output)
