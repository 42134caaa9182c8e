"""Makes candidates and judges them, and remembers what became of each on the disk."""

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
from edgeattn.bundle.manifest import Artifact, Manifest, sha256
from edgeattn.errors import EdgeattnError, UnsupportedModelError, UsageError
from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, PASS
from edgeattn_converters.tuning.search import NOT_MADE, Candidate, Result

if TYPE_CHECKING:
    from edgeattn.evaluation.dataset import Trial
    from edgeattn.validation.validate import ArtifactReport, Check, Limit
    from edgeattn_converters.worker.client import ConversionWorker

TRIED = "tried.jsonl"


def was_tried(folder: Path) -> bool:
    """Whether ``folder`` remembers any result."""
    path = folder / TRIED
    return path.is_file() and len(path.read_text("utf-8").splitlines()) > 1


class Memory:
    """Results by candidate in ``tried.jsonl``: a line each, on the disk before the next is begun.

    ``question`` is all that a result depends on besides its candidate; a file of another question
    is begun anew.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        self._path = folder / TRIED
        self._first = json.dumps(question, sort_keys=True)
        self._known: dict[tuple[Candidate, bool], Result] = {}
        lines = self._path.read_text("utf-8").split("\n") if self._path.is_file() else []
        if not lines or lines[0] != self._first:
            self._path.write_text(self._first + "\n", "utf-8")
            return
        for line in lines[1:]:
            # A line that was cut off is the one that was being written.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                task, result = _from_json(json.loads(line), folder)
                self._known[result.candidate, task] = result
        if lines[-1]:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def __len__(self) -> int:
        return len(self._known)

    def get(self, candidate: Candidate, task: bool) -> Result | None:
        known = self._known.get((candidate, True))
        return known or (None if task else self._known.get((candidate, False)))

    def add(self, result: Result, task: bool) -> None:
        self._known[result.candidate, task] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": task, **asdict(result)}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _from_json(data: dict[str, Any], folder: Path) -> tuple[bool, Result]:
    task = bool(data.pop("task"))
    told = data.pop("candidate")
    precision = tuple((str(layer), str(scheme)) for layer, scheme in told.pop("precision"))
    drop = data.pop("drop")
    result = Result(
        candidate=Candidate(precision=precision, **told),
        drop=None if drop is None else tuple(drop),
        **data,
    )
    if result.artifact and sha256(folder / result.artifact["path"]) != result.artifact["sha256"]:
        raise ValueError(f"{result.artifact['path']} is not what was tried")
    return task, result


class Attempts:
    """Candidates of one model, made by ``host`` in ``folder`` and judged on its reference.

    ``manifest`` is that of a bundle in ``folder``; ``trial`` the samples with labels, once there.
    """

    def __init__(
        self,
        host: ConversionWorker,
        folder: Path,
        job: Mapping[str, Any],
        options: Mapping[str, Any],
        manifest: Manifest,
    ) -> None:
        self.trial: Trial | None = None
        self.limits: tuple[Limit, ...] = ()
        self.manifest = manifest
        self.folder = folder
        self._host = host
        self._job, self._options = dict(job), dict(options)

    def make(self, candidate: Candidate) -> Artifact | EdgeattnError:
        """The candidate's file, under a name of its own, or why there is none."""
        arguments = {
            "job": self._job,
            "lowering": candidate.lowering,
            "folder": str(self.folder),
            "format": candidate.format,
            "scheme": candidate.scheme,
            "options": {**self._options, "precision": _stored(candidate.precision)},
        }
        try:
            told = self._host.call("write_artifact", arguments, what=candidate.label)
        except (UnsupportedModelError, UsageError) as error:
            return error
        artifact = Artifact.from_json(told)
        short = hashlib.sha256(candidate.label.encode()).hexdigest()[:12]
        name = f"{short}.{candidate.format}"
        (self.folder / artifact.path).rename(self.folder / name)
        return replace(artifact, path=name)

    def judge(self, artifact: Artifact, *, task: bool) -> ArtifactReport:
        """The numbers and the map; the task only where those are within their limits."""
        from edgeattn.validation.validate import validate_isolated

        bundle = Bundle(self.folder, replace(self.manifest, artifacts=(artifact,)))
        report = validate_isolated(bundle, (artifact,), limits=self.limits).artifacts[0]
        if task and self.trial is not None and report.verdict == PASS:
            found = validate_isolated(bundle, (artifact,), trial=self.trial, limits=self.limits)
            report = found.artifacts[0]
        return report

    def evaluate(self, candidate: Candidate, task: bool, made: Artifact | None = None) -> Result:
        """What became of ``candidate``; a file that was ``made`` before is not made again."""
        artifact = made if made is not None else self.make(candidate)
        if isinstance(artifact, EdgeattnError):
            return Result(candidate, NOT_MADE, shortfall=artifact.message)
        report = self.judge(artifact, task=task)
        return _result(candidate, artifact, report)


# How a layer's weights are stored that has the scheme of another candidate.
_STORED = {"dynamic_int8": "int8_weights"}


def _stored(precision: tuple[tuple[str, str], ...]) -> list[list[str]]:
    return [[layer, _STORED.get(scheme, scheme)] for layer, scheme in precision]


def _result(candidate: Candidate, artifact: Artifact, report: ArtifactReport) -> Result:
    outcomes = () if report.task is None else report.task.outcomes
    worst = max(outcomes, key=lambda outcome: outcome.interval[1], default=None)
    return Result(
        candidate,
        report.verdict,
        bytes=artifact.bytes,
        excess=excess(report.checks),
        score=None if worst is None else worst.after,
        drop=None if worst is None else (worst.drop, *worst.interval),
        shortfall=_shortfall(report),
        artifact=artifact.to_json(),
    )


def excess(checks: Sequence[Check]) -> float:
    """How many times its limit the worst figure is; see :class:`Result`."""
    return max((_over(check) for check in checks if check.limit is not None), default=math.inf)


def _over(check: Check) -> float:
    value, limit = check.value, float(check.limit or 0.0)
    if math.isnan(value):
        return math.inf
    if check.better == "<=":
        return value / limit if limit > 0 else (0.0 if value <= limit else math.inf)
    if check.metric == "snr_db":
        # Noise is an amplitude: 20 dB are a factor of ten.
        return float(10 ** min((limit - value) / 20, 300.0))
    # Shares: what disagrees, against what may.
    if limit < 1:
        return max(0.0, 1.0 - value) / (1.0 - limit)
    return 0.0 if value >= limit else math.inf


def _shortfall(report: ArtifactReport) -> str:
    """In words, what kept an artifact from passing: the worst of it."""
    if report.reason:
        return report.reason
    if report.failed:
        check = max(report.failed, key=_over)
        where = f" of {check.output}" if check.output else ""
        return (
            f"{check.metric}{where} is {check.value:.3g}, and must be {check.better} "
            f"{check.limit:.3g}"
        )
    for outcome in () if report.task is None else report.task.outcomes:
        if outcome.verdict in (FAIL, INCONCLUSIVE):
            told = (
                f"{outcome.score} of {outcome.output} drops by {outcome.drop:.4f} "
                f"({outcome.interval[0]:.4f} to {outcome.interval[1]:.4f}), "
                f"and may by {outcome.margin:.4f}"
            )
            more = f"; {outcome.needed:,} samples would tell" if outcome.needed else ""
            return told + more
    return ""


def timed(
    results: Sequence[Result],
    folder: Path,
    manifest: Manifest,
    *,
    runs: int,
    seconds: float,
) -> tuple[Result, ...]:
    """``results`` with their median latency on this machine, all measured in turns of one run."""
    from edgeattn.benchmark.latency import measure_latency
    from edgeattn.bundle.manifest import write_manifest
    from edgeattn.targets.target import local_target

    there = [result for result in results if result.artifact]
    artifacts = tuple(Artifact.from_json(result.artifact) for result in there)
    if not artifacts:
        return tuple(results)
    bundle = Bundle(folder, replace(manifest, artifacts=artifacts))
    # The place is met by its manifest's hash: the one on disk is of all that is timed.
    write_manifest(folder, bundle.manifest)
    found = measure_latency(bundle, artifacts, local_target(bundle), runs=runs, seconds=seconds)
    median = {item.artifact.path: item.timing.percentile_ms(50) for item in found.results}
    return tuple(
        replace(result, p50_ms=median.get(str(result.artifact.get("path")))) for result in results
    )
