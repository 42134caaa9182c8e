"""Latency, temperature, throttling and power of artifacts under sustained load.

One artifact at a time runs without pause, whereas in :mod:`edgeattn.benchmark.latency` artifacts
take turns. The result is a series of time windows. A window during which the board was throttled is
void.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edgeattn import progress
from edgeattn.benchmark.artifact_worker import ArtifactWorker
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.targets.target import Target, identify
from edgeattn.tensors import Tensors

WINDOWS = 12
MIN_WINDOW_SECONDS = 0.2
IDLE_SECONDS = 2.0
# The first and the last third of the windows are compared: the board is cold in the first.
FRACTIONS = 3


@dataclass(frozen=True)
class Window:
    """A time window of a sustained run.

    ``start`` and ``seconds`` are in seconds, ``p50_ms`` is the median latency in milliseconds.
    ``temperature_c``, ``throttled`` and ``watts`` are ``None`` if the machine does not report them.
    """

    start: float
    seconds: float
    runs: int
    p50_ms: float
    temperature_c: float | None = None
    throttled: bool | None = None
    watts: float | None = None

    @property
    def void(self) -> bool:
        return bool(self.throttled)


@dataclass(frozen=True)
class SustainedResult:
    """Time windows of one artifact, in order; ``reason`` is why there are none.

    ``exit_code`` is as in :class:`~edgeattn.benchmark.latency.LatencyResult`.
    """

    artifact: Artifact
    threads: int
    windows: tuple[Window, ...] = ()
    idle_watts: float | None = None
    runtime: str | None = None
    reason: str | None = None
    unavailable: bool = False
    exit_code: int | None = None

    @property
    def _valid(self) -> list[Window]:
        return [window for window in self.windows if not window.void]

    @property
    def first_ms(self) -> float | None:
        """Median latency of the first third of the valid windows."""
        return self._median_ms(slice(None, max(1, len(self._valid) // FRACTIONS)))

    @property
    def last_ms(self) -> float | None:
        """Median latency of the last third of the valid windows."""
        return self._median_ms(slice(-max(1, len(self._valid) // FRACTIONS), None))

    def _median_ms(self, windows: slice) -> float | None:
        medians = [window.p50_ms for window in self._valid[windows]]
        return median(medians) if medians else None

    @property
    def runs(self) -> int:
        """Number of runs in valid windows."""
        return sum(window.runs for window in self._valid)

    @property
    def void(self) -> int:
        """Number of runs in void windows."""
        return sum(window.runs for window in self.windows if window.void)

    @property
    def temperature_c(self) -> tuple[float, float] | None:
        """Temperature at the end of the first window, and the highest, in degrees Celsius."""
        values = [w.temperature_c for w in self.windows if w.temperature_c is not None]
        return (values[0], max(values)) if values else None

    @property
    def millijoules(self) -> tuple[float, float] | None:
        """Energy per run in millijoules: of the whole board, and above that of the idle board."""
        measured = [w for w in self._valid if w.watts is not None and w.runs]
        if not measured or self.idle_watts is None:
            return None
        seconds = sum(w.seconds for w in measured)
        runs = sum(w.runs for w in measured)
        joules = sum((w.watts or 0.0) * w.seconds for w in measured)
        return 1e3 * joules / runs, 1e3 * (joules - self.idle_watts * seconds) / runs

    def to_json(self) -> dict[str, Any]:
        energy = self.millijoules
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": self.runs,
            "void": self.void,
            "first_p50_ms": self.first_ms,
            "last_p50_ms": self.last_ms,
            "idle_watts": self.idle_watts,
            "energy_mj": None if energy is None else energy[0],
            "energy_above_idle_mj": None if energy is None else energy[1],
            "windows": [asdict(window) for window in self.windows],
            "reason": self.reason,
        }


def measure_sustained(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    target: Target,
    *,
    seconds: float,
    threads: Sequence[int] = (1,),
) -> tuple[SustainedResult, ...]:
    """Run each artifact for ``seconds`` without pause; errors are as in ``measure_latency``."""
    with target.start() as worker:
        identify(target, bundle, worker)
    reference = bundle.reference()
    return tuple(
        _measure_artifact(artifact, count, target, reference, seconds)
        for count in threads
        for artifact in artifacts
    )


def _measure_artifact(
    artifact: Artifact, threads: int, target: Target, reference: Tensors, seconds: float
) -> SustainedResult:
    window_seconds = max(MIN_WINDOW_SECONDS, seconds / WINDOWS)
    windows: list[Window] = []
    with target.start() as process:
        worker = ArtifactWorker(artifact, threads, process, target.folder, reference)
        idle = worker.call("measure_idle_power", {"seconds": IDLE_SECONDS})
        first_start = time.monotonic()
        while worker.reason is None:
            start = time.monotonic() - first_start
            if windows and start >= seconds:
                break
            progress.report(f"{artifact.label}: {start:.0f} of {seconds:.0f} s under load")
            returned = worker.call("run_window", {"seconds": window_seconds})
            if returned is not None:
                windows.append(Window(start=round(start, 3), **returned[0]))
    return SustainedResult(
        artifact,
        threads,
        tuple(windows),
        idle_watts=idle[0]["watts"] if idle else None,
        runtime=worker.runtime,
        reason=worker.reason,
        unavailable=worker.unavailable,
        exit_code=worker.exit_code,
    )
