"""Latencies of candidates, on this machine or on a board, and the choice by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact, Manifest
from edgeattn.errors import DeviceError
from edgeattn.metrics.verdict import INCONCLUSIVE, PASS
from edgeattn_converters.tuning.evaluation import CandidateEvaluator, shortfall
from edgeattn_converters.tuning.search import Candidate, Result, best, fastest_group

if TYPE_CHECKING:
    from edgeattn.benchmark.board import Board, BoardAddress
    from edgeattn.benchmark.comparison import MedianLatency
    from edgeattn.device.info import Device
    from edgeattn.evaluation.dataset import InMemoryDataset
    from edgeattn.metrics.limits import Limit
    from edgeattn.tensors import Tensors

# How many candidates are timed: the smallest that pass. More if latency is the aim, since the
# fastest are not always among the smallest. Each is loaded in a process of its own.
TIMED = {"size": 16, "latency": 32}


@dataclass(frozen=True)
class Choice:
    """All results with latencies, and the one that was chosen; None if none could be converted.

    ``measured`` describes the measurement of the chosen one for the manifest of its bundle, and
    ``lost`` has the boards of a pool that failed, with the reasons.
    """

    results: tuple[Result, ...]
    chosen: Result | None
    measured: dict[str, Any] | None = None
    lost: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidates:
    """The results of a search, and what a board needs to measure and validate them.

    Attributes:
        results: All results.
        aim: What the search minimizes.
        folder: The folder of their files, and of the reference.
        manifest: That of a bundle in ``folder`` without artifacts.
        dataset: The samples of the task.
        limits: The limits of the task.
    """

    results: tuple[Result, ...]
    aim: str
    folder: Path
    manifest: Manifest
    dataset: InMemoryDataset | None
    limits: tuple[Limit, ...]

    @classmethod
    def of(cls, results: Sequence[Result], aim: str, evaluator: CandidateEvaluator) -> Candidates:
        return cls(
            *(tuple(results), aim, evaluator.folder),
            *(evaluator.manifest, evaluator.dataset, evaluator.limits),
        )

    @property
    def artifacts(self) -> dict[Candidate, Artifact]:
        """The artifacts to measure, by candidate."""
        return {
            result.candidate: Artifact.from_json(result.artifact)
            for result in _to_time(self.results, self.aim)
            if result.artifact
        }

    @property
    def inputs(self) -> Tensors:
        """The inputs of the reference."""
        reference = Bundle(self.folder, self.manifest).reference()
        return {name: array for name, array in reference.items() if name.startswith("input/")}


@dataclass(frozen=True)
class MeasuringDevice:
    """The board on which candidates are measured, and what it reported about itself."""

    address: BoardAddress
    device: Device


def choose(candidates: Candidates) -> Choice:
    """Measure the candidates of which one may be chosen on this machine, and choose one."""
    from edgeattn.benchmark.comparison import compare_latencies
    from edgeattn.targets.target import local_target

    artifacts = candidates.artifacts
    if not artifacts:
        return Choice(candidates.results, best(candidates.results, candidates.aim))
    bundle = Bundle(candidates.folder, candidates.manifest)
    latencies = compare_latencies(list(artifacts.values()), local_target(bundle), candidates.inputs)
    timed = _with_latencies(candidates.results, dict(zip(artifacts, latencies, strict=True)))
    chosen = best(timed, candidates.aim)
    return Choice(timed, chosen, _measured(chosen, timed, latencies, None))


def choose_on_board(candidates: Candidates, on: MeasuringDevice) -> Choice:
    """Measure the candidates on a board, and choose one that has passed on it, too.

    Raises :class:`DeviceError` if the board does not respond or measures nothing.
    """
    from edgeattn.benchmark.board import open_board

    artifacts = candidates.artifacts
    if not artifacts:
        return Choice(candidates.results, best(candidates.results, candidates.aim))
    files = {artifact.path: artifact.sha256 for artifact in artifacts.values()}
    with open_board(on.address, candidates.folder, files) as board:
        latencies = board.compare(list(artifacts.values()), candidates.inputs)
        timed = _with_latencies(candidates.results, dict(zip(artifacts, latencies, strict=True)))
        _check_measured(timed, on.address.destination)
        timed, chosen = confirmed(
            timed, candidates.aim, lambda result: _on_board(result, board, candidates)
        )
    return Choice(timed, chosen, _measured(chosen, timed, latencies, on))


def _to_time(results: Sequence[Result], aim: str) -> list[Result]:
    """The smallest that pass, or the one closest to passing."""
    passing = [result for result in results if result.passed]
    closest = best(results, "size")
    smallest = sorted(passing, key=lambda result: result.bytes or 0)[: TIMED[aim]]
    return smallest or ([closest] if closest is not None else [])


def _with_latencies(
    results: Sequence[Result], latencies: dict[Any, MedianLatency]
) -> tuple[Result, ...]:
    timed = []
    for result in results:
        latency = latencies.get(result.candidate)
        if latency is not None and latency.estimate is not None:
            median, low, high = latency.estimate
            result = replace(result, p50_ms=median, interval_ms=(low, high))
        elif latency is not None:
            result = replace(result, unmeasured=latency.reason or "")
        timed.append(result)
    return tuple(timed)


def _check_measured(results: Sequence[Result], name: str) -> None:
    if any(result.p50_ms is not None for result in results):
        return
    reasons = dict.fromkeys(result.unmeasured for result in results if result.unmeasured)
    raise DeviceError(
        f"No candidate could be measured on {name}: {'; '.join(reasons)}",
        hint=f"Check the device: edgeattn doctor {name}. If its memory is too small for all "
        "candidates at once, pass fewer: --format and --scheme. Rerun the command to resume.",
    )


def _on_board(result: Result, board: Board, candidates: Candidates) -> Result:
    """``result`` unchanged if it passes on the board, too; otherwise with the verdict there."""
    from edgeattn.validation.validate import ValidationOptions

    artifact = Artifact.from_json(result.artifact)
    bundle = Bundle(candidates.folder, replace(candidates.manifest, artifacts=(artifact,)))
    options = ValidationOptions(limits=candidates.limits)
    report = board.validate(bundle, (artifact,), options=options)
    if report.verdict == INCONCLUSIVE and candidates.dataset is not None:
        # The task's samples decide what synthetic samples of the reference leave open.
        report = board.validate(bundle, (artifact,), dataset=candidates.dataset, options=options)
    if report.verdict == PASS:
        return result
    reason = shortfall(report.artifacts[0])
    return replace(
        result, verdict=report.verdict, shortfall=f"on {board.target.name}: {reason}".rstrip(": ")
    )


def confirmed(
    results: tuple[Result, ...], aim: str, on_board: Callable[[Result], Result]
) -> tuple[tuple[Result, ...], Result | None]:
    """The best result that passes on the board, too, and all results.

    ``on_board`` returns a result with its verdict on the board. Better results that do not pass
    there have that verdict.
    """
    while True:
        chosen = best(results, aim)
        if chosen is None or not chosen.passed:
            return results, chosen
        checked = on_board(chosen)
        if checked.passed:
            return results, chosen
        results = tuple(checked if r.candidate == chosen.candidate else r for r in results)


def _measured(
    chosen: Result | None,
    results: Sequence[Result],
    latencies: Sequence[MedianLatency],
    on: MeasuringDevice | None,
) -> dict[str, Any] | None:
    if chosen is None or chosen.p50_ms is None or chosen.interval_ms is None:
        return None
    return {
        "p50_ms": chosen.p50_ms,
        "interval_ms": list(chosen.interval_ms),
        "rounds": min(len(item.rounds_ms) for item in latencies if item.reason is None),
        "threads": 1,
        "on": "the machine that searched" if on is None else on.address.destination,
        "device": None if on is None else on.device.summary,
        "no_difference_measured": [
            result.candidate.label
            for result in fastest_group(results)
            if result.candidate != chosen.candidate
        ],
    }
