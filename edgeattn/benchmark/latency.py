"""How long an artifact takes: cold, to load, and warm, measured where it runs.

Every artifact is called in a worker process of its own, so no pipe is in a figure.

A percentile is told where enough runs support it. With n runs the chance that all of them stay
under the true quantile q is q^n; 0.9^64 and 0.99^662 are about 0.0012: from there on the measured
percentile is not just the largest value seen.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, UsageError
from edgeattn.process.worker import Worker, WorkerDied

if TYPE_CHECKING:
    from edgeattn.inference.model import Model
    from edgeattn.targets.target import Target
    from edgeattn.tensors import Array, Tensors

# Runs below which a percentile is not told.
SUPPORT = {50: 1, 90: 64, 99: 662}
RUNS = 700
SECONDS = 60.0
ROUND_RUNS, ROUND_SECONDS = 64, 0.25
WARM_RUNS, WARM_SECONDS = 20, 0.5
# Inputs that take turns: the first ones of the reference are the ordinary ones.
INPUTS = 16
PATIENCE = 300.0


@dataclass(frozen=True)
class Timing:
    """The durations of single runs, in nanoseconds, in the order in which they were measured."""

    nanoseconds: tuple[int, ...]

    def percentile_ms(self, percent: int) -> float | None:
        """The nearest-rank percentile in milliseconds; None where too few runs support it."""
        if len(self.nanoseconds) < SUPPORT[percent]:
            return None
        rank = math.ceil(percent / 100 * len(self.nanoseconds))
        return sorted(self.nanoseconds)[rank - 1] / 1e6


@dataclass(frozen=True)
class LatencyResult:
    """What was measured of one artifact with a number of threads.

    ``cold_start_ms`` is from starting a process to its first result, Python and the runtime's
    import among it; ``load_ms`` the runtime's loading of the file alone. ``void`` counts runs that
    were thrown away because the machine was throttled; ``throttled`` is None where it cannot tell.
    ``memory_bytes`` is the peak of the whole process. ``reason`` says why there are no runs.
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

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": len(self.timing.nanoseconds),
            "void": self.void,
            **{f"p{percent}_ms": self.timing.percentile_ms(percent) for percent in SUPPORT},
            "load_ms": self.load_ms,
            "cold_start_ms": self.cold_start_ms,
            "memory_bytes": self.memory_bytes,
            "throttled": self.throttled,
            "temperature_c": self.temperature_c,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class LatencyReport:
    """All measured artifacts. Energy is measured by :mod:`edgeattn.benchmark.sustained`."""

    results: tuple[LatencyResult, ...]
    place: str = "here"

    @property
    def exit_code(self) -> int:
        broken = any(item.reason and not item.unavailable for item in self.results)
        ran = any(item.timing.nanoseconds for item in self.results)
        return 0 if ran and not broken else 5

    def to_json(self) -> dict[str, Any]:
        return {
            "artifacts": [item.to_json() for item in self.results],
            "place": self.place,
            "energy": "not measurable",
        }


def measure_latency(
    bundle: Bundle,
    artifacts: tuple[Artifact, ...],
    place: Target,
    *,
    threads: Sequence[int] = (1,),
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> LatencyReport:
    """Measure ``artifacts`` in ``place``, for each number of threads in turn.

    Ends after ``runs`` runs of each that count, or after ``seconds`` for all artifacts together.
    Raises :class:`BundleError` where the files are not those the bundle was made with.
    """
    from edgeattn.targets.target import identify

    bundle.verify()
    with place.start() as child:
        identify(place, bundle, child)
    reference = bundle.reference()
    measured: list[LatencyResult] = []
    for count in threads:
        with contextlib.ExitStack() as stack:
            stands = []
            for artifact in artifacts:
                progress.report(f"starting {artifact.label}, threads {count}")
                child = stack.enter_context(place.start())
                stands.append(_Stand(artifact, count, child, place.folder, reference))
            _take_turns(stands, runs, seconds)
            measured += [stand.measured() for stand in stands]
    return LatencyReport(tuple(measured), place.name)


def _take_turns(
    stands: Sequence[_Stand],
    runs: int,
    seconds: float,
) -> None:
    end = time.monotonic() + seconds
    while True:
        waiting = [stand for stand in stands if stand.runs < runs and stand.reason is None]
        if not waiting:
            return
        for stand in waiting:
            progress.report(f"{stand.artifact.label}: {stand.runs} of {runs} runs")
            stand.round(min(ROUND_RUNS, runs - stand.runs))
        # At least one round each, however long it took.
        if time.monotonic() > end:
            return


class _Stand:
    """One artifact in its child, and what was measured of it so far."""

    def __init__(
        self, artifact: Artifact, threads: int, child: Worker, folder: str, reference: Tensors
    ) -> None:
        self.artifact = artifact
        self.reason: str | None = None
        self._threads = threads
        self._child = child
        self._unavailable = False
        self._durations: list[int] = []
        self._void = 0
        self._throttled: list[bool | None] = []
        self._temperatures: list[float] = []
        self._told: dict[str, Any] = {}
        self._cold: float | None = None
        inputs = {spec.name: reference[f"input/{spec.name}"][:INPUTS] for spec in artifact.inputs}
        call = {"folder": folder, "artifact": artifact.to_json(), "threads": threads}
        start = time.perf_counter()
        with self._failing():
            self._told, _ = child.call(
                "edgeattn.benchmark.latency:prepare", call, inputs, timeout=PATIENCE
            )
            self._cold = (time.perf_counter() - start) * 1e3
            child.call("edgeattn.benchmark.latency:measure", _limits(WARM_RUNS, WARM_SECONDS))

    @property
    def runs(self) -> int:
        return len(self._durations)

    def round(self, count: int) -> None:
        with self._failing():
            told, arrays = self._child.call(
                "edgeattn.benchmark.latency:measure",
                _limits(count, ROUND_SECONDS),
                timeout=PATIENCE,
            )
            durations = arrays["nanoseconds"].tolist()
            self._told.update(told)
            self._throttled.append(told["throttled"])
            if told["temperature_c"] is not None:
                self._temperatures.append(told["temperature_c"])
            if told["throttled"]:
                self._void += len(durations)
            else:
                self._durations += durations

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeUnavailableError as error:
            self.reason, self._unavailable = error.message, True
        except (ArtifactError, UsageError) as error:
            self.reason = error.message
        except WorkerDied as error:
            self.reason = f"The runtime {error.message}."

    def measured(self) -> LatencyResult:
        known = [value for value in self._throttled if value is not None]
        return LatencyResult(
            self.artifact,
            self._threads,
            Timing(tuple(self._durations)),
            runtime=self._told.get("runtime"),
            cold_start_ms=self._cold,
            load_ms=self._told.get("load_ms"),
            memory_bytes=self._told.get("memory_bytes"),
            void=self._void,
            throttled=any(known) if known else None,
            temperature_c=max(self._temperatures, default=None),
            reason=self.reason or (None if self._durations else self._why_nothing()),
            unavailable=self._unavailable,
        )

    def _why_nothing(self) -> str:
        return "Every run is void: the machine was throttled. Cool it and try again."


def _limits(count: int, seconds: float) -> dict[str, Any]:
    return {"count": count, "seconds": seconds}


# The other side of the pipe: one artifact, and the samples that it is given in turn.
_loaded: dict[str, Model] = {}
_samples: list[dict[str, Array]] = []


def prepare(
    folder: str, artifact: dict[str, Any], threads: int, tensors: Tensors
) -> dict[str, Any]:
    """In the child: load the artifact and run it once."""
    from pathlib import Path

    import numpy as np

    from edgeattn.inference.model import Model
    from edgeattn.runners.session import import_runtime, open_direct

    entry = Artifact.from_json(artifact)
    import_runtime(entry.format)
    ends = (entry.inputs, entry.outputs)
    start = time.perf_counter_ns()
    direct = open_direct(Path(folder) / entry.path, entry.format, *ends, threads=threads)
    spent = time.perf_counter_ns() - start
    model = _loaded["model"] = Model(entry, direct)
    rows = len(next(iter(tensors.values())))
    # An artifact of a fixed batch takes that many rows a call.
    batch = entry.inputs[0].shape[0] or 1
    for first in range(0, rows, batch):
        numbers = [min(first + row, rows - 1) for row in range(batch)]
        chosen = {name: np.ascontiguousarray(a[numbers]) for name, a in tensors.items()}
        _samples.append(chosen)
    model(_samples[0])
    return {"runtime": model.runtime, "load_ms": spent / 1e6}


def measure(count: int, seconds: float) -> tuple[dict[str, Any], Tensors]:
    """In the child: ``count`` timed runs, fewer where they take ``seconds``, at least one."""
    import resource

    import numpy as np

    from edgeattn.device import info

    model, samples, clock = _loaded["model"], _samples, time.perf_counter_ns
    before = info.throttling_flags()
    durations = np.empty(count, np.int64)
    done, end = 0, clock() + int(seconds * 1e9)
    while done < count:
        sample = samples[done % len(samples)]
        start = clock()
        model(sample)
        stop = clock()
        durations[done] = stop - start
        done += 1
        if stop > end:
            break
    told = {
        "throttled": info.was_throttled(before, info.throttling_flags()),
        "temperature_c": info.temperature_c(),
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return told, {"nanoseconds": durations[:done]}
