"""Cold start, load time and warm latency of artifacts, measured on a target.

Each artifact runs in a worker process of its own and is timed inside it, so the figures exclude the
communication with the worker. The artifacts take turns in short rounds, so heat and other load on
the machine affect all of them alike. A round during which the board was throttled is void.

A percentile is reported only if enough runs support it. The probability that all of n runs lie
below the true quantile q is q^n. 0.9^64 and 0.99^662 are about 0.0012: with as many runs, the
measured percentile is not merely the largest value.
"""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeattn import progress
from edgeattn.benchmark.artifact_worker import ArtifactWorker, failure_code
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.printable import counted
from edgeattn.targets.target import Target, identify

# Runs that a percentile requires.
REQUIRED_RUNS = {50: 1, 90: 64, 99: 662}
RUNS = 700
SECONDS = 60.0
ROUND_RUNS, ROUND_SECONDS = 64, 0.25
WARM_UP_RUNS, WARM_UP_SECONDS = 20, 0.5


@dataclass(frozen=True)
class Timing:
    """The durations of single runs in nanoseconds, in the order of measurement."""

    nanoseconds: tuple[int, ...]

    def percentile_ms(self, percent: int) -> float | None:
        """The nearest-rank percentile in milliseconds; None with too few runs for it."""
        if len(self.nanoseconds) < REQUIRED_RUNS[percent]:
            return None
        rank = math.ceil(percent / 100 * len(self.nanoseconds))
        return sorted(self.nanoseconds)[rank - 1] / 1e6


@dataclass(frozen=True)
class LatencyResult:
    """Measurements of one artifact with a number of threads.

    ``cold_start_ms`` is the time from starting a process to its first output, including the start
    of Python and the import of the runtime; ``load_ms`` that in which the runtime loads the file.
    ``memory_bytes`` is the peak of the whole process. ``void`` is the number of runs discarded
    because the board was throttled, which ``throttled`` says, ``None`` if unknown.
    ``temperature_c`` is the highest temperature. ``reason`` says why there are no runs,
    ``unavailable`` whether that is because the runtime is not installed, and ``exit_code`` is that
    of the error, if it is one of the artifact.
    """

    artifact: Artifact
    threads: int
    timing: Timing = field(default=Timing(()))
    runtime: str | None = None
    cold_start_ms: float | None = None
    load_ms: float | None = None
    memory_bytes: int | None = None
    void: int = 0
    throttled: bool | None = None
    temperature_c: float | None = None
    reason: str | None = None
    unavailable: bool = False
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "sha256": self.artifact.sha256,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": len(self.timing.nanoseconds),
            "void": self.void,
            **{f"p{percent}_ms": self.timing.percentile_ms(percent) for percent in REQUIRED_RUNS},
            "load_ms": self.load_ms,
            "cold_start_ms": self.cold_start_ms,
            "memory_bytes": self.memory_bytes,
            "throttled": self.throttled,
            "temperature_c": self.temperature_c,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class LatencyReport:
    """Results of all artifacts on the target named ``target``."""

    results: tuple[LatencyResult, ...]
    target: str

    @property
    def exit_code(self) -> int:
        """0 if at least one artifact ran and none failed, apart from missing runtimes; otherwise
        that of :func:`failure_code`."""
        codes = {item.exit_code for item in self.results if item.reason and not item.unavailable}
        ran = any(result.timing.nanoseconds for result in self.results)
        return 0 if ran and not codes else failure_code(codes)

    def to_json(self) -> dict[str, Any]:
        # Energy per artifact is undefined while artifacts take turns.
        return {
            "artifacts": [result.to_json() for result in self.results],
            "place": self.target,
            "energy": "not measurable",
        }


def measure_latency(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    target: Target,
    *,
    threads: Sequence[int] = (1,),
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> LatencyReport:
    """Identify the bundle on ``target``, and measure its artifacts, see :func:`measure_artifacts`.

    Raises :class:`BundleError` if the bundle was changed or differs from the one on the target, and
    :class:`DeviceError` if the target does not respond.
    """
    with target.start() as worker:
        identify(target, bundle, worker)
    return measure_artifacts(bundle, artifacts, target, threads=threads, runs=runs, seconds=seconds)


def measure_artifacts(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    target: Target,
    *,
    threads: Sequence[int] = (1,),
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> LatencyReport:
    """Measure ``artifacts`` on ``target``, for each number of ``threads`` in turn.

    Measures ``runs`` valid runs of each artifact, or fewer if all artifacts together take more than
    ``seconds``. A file that differs from its hash in ``artifacts`` is not run.
    """
    reference = bundle.reference()
    results: list[LatencyResult] = []
    for count in threads:
        with contextlib.ExitStack() as stack:
            recorders = []
            for artifact in artifacts:
                progress.report(f"starting {artifact.label}, threads {count}")
                worker = stack.enter_context(target.start())
                recorders.append(
                    _Recorder(ArtifactWorker(artifact, count, worker, target.folder, reference))
                )
            _run_rounds(recorders, runs, seconds)
            results += [recorder.result() for recorder in recorders]
    return LatencyReport(tuple(results), target.name)


class _Recorder:
    """Runs one artifact in rounds and records the valid durations."""

    def __init__(self, worker: ArtifactWorker) -> None:
        self.worker = worker
        self.durations: list[int] = []
        self._void = 0
        self._memory_bytes: int | None = None
        self._throttled: list[bool] = []
        self._temperatures: list[float] = []
        worker.call("time_runs", {"count": WARM_UP_RUNS, "seconds": WARM_UP_SECONDS})

    def run_round(self, count: int) -> None:
        returned = self.worker.call("time_runs", {"count": count, "seconds": ROUND_SECONDS})
        if returned is None:
            return
        conditions, arrays = returned
        durations = arrays["nanoseconds"].tolist()
        self._memory_bytes = conditions["memory_bytes"]
        if conditions["throttled"] is not None:
            self._throttled.append(conditions["throttled"])
        if conditions["temperature_c"] is not None:
            self._temperatures.append(conditions["temperature_c"])
        if conditions["throttled"]:
            self._void += len(durations)
        else:
            self.durations += durations

    def result(self) -> LatencyResult:
        worker, reason = self.worker, self.worker.reason
        if reason is None and not self.durations:
            reason = "All runs are void because the board was throttled. Cool it and measure again."
        return LatencyResult(
            worker.artifact,
            worker.threads,
            Timing(tuple(self.durations)),
            runtime=worker.runtime,
            cold_start_ms=worker.cold_start_ms,
            load_ms=worker.load_ms,
            memory_bytes=self._memory_bytes,
            void=self._void,
            throttled=any(self._throttled) if self._throttled else None,
            temperature_c=max(self._temperatures, default=None),
            reason=reason,
            unavailable=worker.unavailable,
            exit_code=worker.exit_code,
        )


def _run_rounds(recorders: Sequence[_Recorder], runs: int, seconds: float) -> None:
    """Run all artifacts in turns; every artifact gets at least one round."""
    end = time.monotonic() + seconds
    while True:
        unfinished = [
            recorder
            for recorder in recorders
            if len(recorder.durations) < runs and recorder.worker.reason is None
        ]
        for recorder in unfinished:
            completed = len(recorder.durations)
            progress.report(
                f"{recorder.worker.artifact.label}: {completed} of {counted(runs, 'run')}"
            )
            recorder.run_round(min(ROUND_RUNS, runs - completed))
        if not unfinished or time.monotonic() > end:
            return
