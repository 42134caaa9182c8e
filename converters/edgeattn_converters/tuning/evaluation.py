"""Builds and validates candidates, and stores each result on disk so that a search can resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MALFORMED, Artifact, Manifest, sha256
from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.metrics.lost_values import METRIC as LOST_VALUES
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, PASS
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.tuning.search import NOT_CONVERTED, Candidate, Result

if TYPE_CHECKING:
    from edgeattn.evaluation.dataset import InMemoryDataset
    from edgeattn.metrics.limits import Check, Limit
    from edgeattn.tensors import Tensors
    from edgeattn.validation.report import ArtifactReport
    from edgeattn_converters.worker.client import ConversionWorker

RESULTS = "tried.jsonl"


def has_results(folder: Path) -> bool:
    """Whether ``folder`` contains results of a search."""
    path = folder / RESULTS
    return path.is_file() and len(path.read_text("utf-8").splitlines()) > 1


def files_without_artifacts(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """The names and contents of the files of a search's bundle in ``folder``."""
    return tuple(
        (path.name, path.read_bytes())
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != RESULTS and path.suffix not in (".tflite", ".onnx")
    )


class ResultStore:
    """Results by candidate in a file with one line for each, written before the next begins.

    ``inputs`` is everything that results depend on besides the candidate. If the file is of other
    inputs, it is replaced by an empty one.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        self._path = folder / RESULTS
        self._results: dict[tuple[Candidate, bool], Result] = {}
        header = json.dumps(inputs, sort_keys=True)
        lines = self._path.read_text("utf-8", "replace").split("\n") if self._path.is_file() else []
        if not lines or lines[0] != header:
            self._path.write_text(header + "\n", "utf-8")
            return
        for line in lines[1:]:
            # The last line is incomplete if the search was killed while writing it, and files are
            # missing if it was killed while removing them.
            with contextlib.suppress(*MALFORMED, OSError):
                task, result = _from_json(json.loads(line), folder)
                self._results[result.candidate, task] = result
        if lines[-1]:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def __len__(self) -> int:
        return len(self._results)

    def get(self, candidate: Candidate, task: bool) -> Result | None:
        """The stored result; one with the task's evaluation also serves without ``task``."""
        result = self._results.get((candidate, True))
        return result or (None if task else self._results.get((candidate, False)))

    def add(self, result: Result, task: bool) -> None:
        self._results[result.candidate, task] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": task, **asdict(result)}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _from_json(data: dict[str, Any], folder: Path) -> tuple[bool, Result]:
    task = bool(data.pop("task"))
    fields = data.pop("candidate")
    precision = tuple((str(layer), str(scheme)) for layer, scheme in fields.pop("precision"))
    drop = data.pop("drop")
    result = Result(
        candidate=Candidate(precision=precision, **fields),
        drop=None if drop is None else tuple(drop),
        **data,
    )
    if result.artifact and sha256(folder / result.artifact["path"]) != result.artifact["sha256"]:
        raise ValueError(f"{result.artifact['path']} was changed")
    return task, result


class CandidateEvaluator:
    """Converts candidates of one model in ``folder`` and validates them on its reference.

    ``manifest`` is that of a bundle in ``folder`` without artifacts. ``dataset`` and ``limits`` are
    of the task, and are set when they are known.
    """

    def __init__(
        self,
        worker: ConversionWorker,
        folder: Path,
        source: ModelSource,
        calibration: str | None,
        manifest: Manifest,
    ) -> None:
        self.dataset: InMemoryDataset | None = None
        self.limits: tuple[Limit, ...] = ()
        self.manifest = manifest
        self.folder = folder
        self.source = source
        self.calibration = calibration
        self._worker = worker

    @property
    def request(self) -> dict[str, Any]:
        """Arguments of tasks that only need the model."""
        return {"source": self.source.to_json(), "options": ConversionOptions().to_json()}

    def keras_outputs(self, inputs: Tensors) -> Tensors:
        return self._worker.predict(self.source, ConversionOptions(), inputs)

    def calibration_fingerprints(self) -> list[str]:
        """Fingerprints of the calibration samples, which the task must not contain."""
        if self.calibration is None:
            return []
        arguments = {
            **self.request,
            "quantization": QuantizationOptions(calibration=self.calibration).to_json(),
            "folder": str(self.folder),
        }
        fingerprints: list[str] = self._worker.call(
            "calibration_fingerprints", arguments, activity="reading the calibration samples"
        )
        return fingerprints

    def convert(self, candidate: Candidate) -> Artifact | EdgeattnError:
        """The candidate's file, with a unique name, or the error that prevents it."""
        quantization = QuantizationOptions(
            calibration=self.calibration, precision=_weight_precision(candidate.precision)
        )
        arguments = {
            "source": self.source.to_json(),
            "options": ConversionOptions(lowering=candidate.lowering).to_json(),
            "quantization": quantization.to_json(),
            "folder": str(self.folder),
            "format": candidate.format,
            "scheme": candidate.scheme,
            "reference": dict(self.manifest.reference),
        }
        try:
            entry = self._worker.call(
                "write_artifact", arguments, activity=f"converting to {candidate.label}"
            )
        except (UnsupportedModelError, UsageError) as error:
            return error
        artifact = Artifact.from_json(entry)
        name = hashlib.sha256(candidate.label.encode()).hexdigest()[:12]
        path = f"{name}.{candidate.format}"
        (self.folder / artifact.path).rename(self.folder / path)
        return replace(artifact, path=path)

    def validate(self, artifact: Artifact, *, task: bool) -> ArtifactReport:
        """The report on outputs and attention maps; on the task only if these pass."""
        from edgeattn.validation.validate import ValidationOptions, validate_isolated

        bundle = Bundle(self.folder, replace(self.manifest, artifacts=(artifact,)))
        options = ValidationOptions(limits=self.limits)
        report = validate_isolated(bundle, (artifact,), options=options).artifacts[0]
        # The task's samples decide what synthetic samples of the reference leave open.
        if task and self.dataset is not None and report.verdict in (PASS, INCONCLUSIVE):
            report = validate_isolated(
                bundle, (artifact,), dataset=self.dataset, options=options
            ).artifacts[0]
        return report

    def evaluate(
        self, candidate: Candidate, task: bool, artifact: Artifact | None = None
    ) -> Result:
        """Convert (unless ``artifact`` is its file) and validate ``candidate``."""
        converted = artifact if artifact is not None else self.convert(candidate)
        if isinstance(converted, EdgeattnError):
            return Result(candidate, NOT_CONVERTED, shortfall=converted.message)
        report = self.validate(converted, task=task)
        outcomes = () if report.task is None else report.task.results
        worst = max(outcomes, key=lambda outcome: outcome.interval[1], default=None)
        return Result(
            candidate,
            report.verdict,
            bytes=converted.bytes,
            excess=excess(report.checks),
            output=None if worst is None else worst.output,
            score=None if worst is None else worst.artifact_score,
            drop=None if worst is None else (worst.drop, *worst.interval),
            scores={outcome.output: outcome.artifact_score for outcome in outcomes},
            shortfall=shortfall(report),
            artifact=converted.to_json(),
        )


def _weight_precision(precision: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The precision of weights for layers that have the scheme of another candidate."""
    stored = {"dynamic_int8": "int8_weights"}
    return tuple((layer, stored.get(scheme, scheme)) for layer, scheme in precision)


def excess(checks: Sequence[Check]) -> float:
    """The worst check as a multiple of its limit; at most 1 if all pass."""
    return max((_ratio(check) for check in checks if check.limit is not None), default=math.inf)


def _ratio(check: Check) -> float:
    value, limit = check.value, float(check.limit or 0.0)
    if math.isnan(value):
        return math.inf
    if check.metric == LOST_VALUES:
        # A count, whose limit is usually 0.
        return 1.0 + value - limit if value > limit else 0.0
    if check.relation == "<=":
        return value / limit if limit > 0 else (0.0 if value <= limit else math.inf)
    if check.metric == "snr_db":
        # Of amplitudes: 20 dB are a factor of ten.
        return float(10 ** min((limit - value) / 20, 300.0))
    # Of shares: the disagreement in relation to the largest that is allowed.
    if limit < 1:
        return max(0.0, 1.0 - value) / (1.0 - limit)
    return 0.0 if value >= limit else math.inf


def shortfall(report: ArtifactReport) -> str:
    """The main reason why an artifact does not pass; empty if it does."""
    if report.reason:
        return report.reason
    if missed := report.failed or tuple(check for _, check in report.open_limits):
        check = max(missed, key=_ratio)
        of = f" of {check.output}" if check.output else ""
        return f"{check.metric}{of} is {check.value:.3g} (limit {check.relation} {check.limit:.3g})"
    for outcome in () if report.task is None else report.task.results:
        if outcome.verdict == FAIL:
            return f"{outcome.output}: {outcome.summary}"
        if outcome.verdict == INCONCLUSIVE:
            # The limit of retention stands for --max-drop here.
            return f"{outcome.output}: {outcome.summary}. {replace(outcome, retention=None).remedy}"
    return ""
