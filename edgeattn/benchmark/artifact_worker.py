"""A worker process that has loaded one artifact for a benchmark, and the functions it runs."""

import resource
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.device import info
from edgeattn.device.power import PowerSampler
from edgeattn.errors import (
    ArtifactError,
    DeviceError,
    RuntimeUnavailableError,
    UnsafeModelError,
    UsageError,
)
from edgeattn.inference.model import Model
from edgeattn.inference.session import import_runtime, open_session
from edgeattn.process.limits import run_limits
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.runners.isolated import RAISE_TIMEOUT
from edgeattn.targets.replies import parse_measurement
from edgeattn.tensors import Array, Tensors

# The first samples of the reference, which are ordinary ones, are used as inputs in turn.
INPUT_SAMPLES = 16
# Limits the memory for durations, of eight bytes each.
MAX_RUNS_PER_WINDOW = 1_000_000

# In the worker: the loaded artifact, and its inputs in batches.
_models: dict[str, Model] = {}
_batches: list[dict[str, Array]] = []


class ArtifactWorker:
    """Loads ``artifact`` in ``worker`` and calls the functions of this module in it.

    A failed call is recorded in ``reason`` and ``exit_code``, and in ``unavailable`` if the runtime
    is not installed; :meth:`call` then returns ``None``. ``cold_start_ms`` is the time from
    starting the process to the first output.
    """

    def __init__(
        self, artifact: Artifact, threads: int, worker: Worker, folder: str, reference: Tensors
    ) -> None:
        self.artifact = artifact
        self.threads = threads
        self.reason: str | None = None
        self.unavailable = False
        self.exit_code: int | None = None
        self._worker = worker
        inputs = {
            spec.name: reference[f"input/{spec.name}"][:INPUT_SAMPLES] for spec in artifact.inputs
        }
        arguments = {"folder": folder, "artifact": artifact.to_json(), "threads": threads}
        start = time.perf_counter()
        loaded = self.call("load", arguments, inputs)
        duration_ms = (time.perf_counter() - start) * 1e3
        self.cold_start_ms = duration_ms if loaded else None
        self.runtime: str | None = loaded[0]["runtime"] if loaded else None
        self.load_ms: float | None = loaded[0]["load_ms"] if loaded else None

    def call(
        self, function: str, arguments: Mapping[str, Any], tensors: Tensors | None = None
    ) -> tuple[Any, Tensors] | None:
        """Return the result and the arrays of a function, or ``None`` if this artifact failed.

        Raises :class:`DeviceError` if the reply is malformed.
        """
        if self.reason is not None:
            return None
        limits = run_limits()
        try:
            reply, arrays = self._worker.call(
                f"edgeattn.benchmark.artifact_worker:{function}",
                arguments,
                tensors,
                timeout=limits.seconds + arguments.get("seconds", 0.0),
                memory=limits.memory,
            )
            return parse_measurement(function, reply, arrays)
        except (RuntimeUnavailableError, ArtifactError, UnsafeModelError, UsageError) as error:
            self.reason, self.exit_code = error.message, error.exit_code
            self.unavailable = isinstance(error, RuntimeUnavailableError)
        except WorkerDiedError as error:
            advice = f" {RAISE_TIMEOUT}" if error.timed_out else ""
            self.reason = f"The runtime {error.message}.{advice}"
            self.exit_code = ArtifactError.exit_code
        return None


def failure_code(codes: Collection[int | None]) -> int:
    """The most severe of the exit codes of artifacts, or that of a device if it is the cause."""
    severe = (UnsafeModelError, UsageError, ArtifactError)
    return next((e.exit_code for e in severe if e.exit_code in codes), DeviceError.exit_code)


def load(folder: str, artifact: dict[str, Any], threads: int, tensors: Tensors) -> dict[str, Any]:
    """In the worker: load an artifact of the bundle in ``folder`` and run it once.

    ``tensors`` holds the inputs, with samples on the first axis; they are cut into batches of the
    artifact's fixed batch size, or of one sample. Returns ``runtime`` and ``load_ms``.
    """
    entry = Artifact.from_json(artifact)
    import_runtime(entry.format, entry.runtime)
    start = time.perf_counter_ns()
    runner = open_session(
        Path(folder) / entry.path,
        entry.format,
        entry.inputs,
        entry.outputs,
        threads=threads,
        sha256=entry.sha256,
        runtime=entry.runtime,
    )
    duration = time.perf_counter_ns() - start
    model = _models["model"] = Model(entry, runner, allow_non_finite=True)
    samples = len(next(iter(tensors.values())))
    batch = entry.inputs[0].shape[0] or 1
    for first in range(0, samples, batch):
        indices = [min(first + offset, samples - 1) for offset in range(batch)]
        _batches.append({name: np.ascontiguousarray(a[indices]) for name, a in tensors.items()})
    model(_batches[0])
    return {"runtime": model.runtime, "load_ms": duration / 1e6}


def time_runs(count: int, seconds: float) -> tuple[dict[str, Any], Tensors]:
    """In the worker: time up to ``count`` runs, but at least one, and stop after ``seconds``.

    Returns ``throttled``, ``temperature_c`` and the process's peak ``memory_bytes``, and the
    durations as the array ``nanoseconds``.
    """
    model, clock = _models["model"], time.perf_counter_ns
    flags = info.throttling_flags()
    durations = np.empty(count, np.int64)
    runs, end = 0, clock() + int(seconds * 1e9)
    while runs < count:
        batch = _batches[runs % len(_batches)]
        start = clock()
        model(batch)
        stop = clock()
        durations[runs] = stop - start
        runs += 1
        if stop > end:
            break
    conditions = {
        "throttled": info.was_throttled(flags, info.throttling_flags()),
        "temperature_c": info.temperature_c(),
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    return conditions, {"nanoseconds": durations[:runs]}


def measure_idle_power(seconds: float) -> dict[str, Any]:
    """In the worker: mean power in ``watts`` while nothing runs, ``None`` if it cannot be read."""
    with PowerSampler() as sampler:
        if sampler.supported:
            time.sleep(seconds)
    return {"watts": sampler.watts}


def run_window(seconds: float) -> dict[str, Any]:
    """In the worker: run without pause; returns the fields of a ``Window``, except its start."""
    start = time.perf_counter()
    with PowerSampler() as sampler:
        conditions, arrays = time_runs(MAX_RUNS_PER_WINDOW, seconds)
    nanoseconds = arrays["nanoseconds"]
    return {
        "seconds": time.perf_counter() - start,
        "runs": len(nanoseconds),
        "p50_ms": float(median(nanoseconds.tolist())) / 1e6,
        "temperature_c": conditions["temperature_c"],
        "throttled": conditions["throttled"],
        "watts": sampler.watts,
    }
