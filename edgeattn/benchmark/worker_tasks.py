"""Benchmark functions that run in the worker process of an artifact.

:func:`load` is called first and keeps the artifact and its inputs for the other functions.
"""

import resource
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.device import info
from edgeattn.device.power import PowerSampler
from edgeattn.inference.model import Model
from edgeattn.inference.session import import_runtime, open_session
from edgeattn.tensors import Array, Tensors

# Limits the memory for durations, of eight bytes each.
MAX_RUNS_PER_WINDOW = 1_000_000

_models: dict[str, Model] = {}
_batches: list[dict[str, Array]] = []


def load(folder: str, artifact: dict[str, Any], threads: int, tensors: Tensors) -> dict[str, Any]:
    """Load an artifact of the bundle in ``folder`` and run it once.

    ``tensors`` holds the inputs, with samples on the first axis; they are cut into batches of the
    artifact's fixed batch size, or of one sample. Returns ``runtime`` and ``load_ms``.
    """
    entry = Artifact.from_json(artifact)
    import_runtime(entry.format)
    start = time.perf_counter_ns()
    runner = open_session(
        Path(folder) / entry.path, entry.format, entry.inputs, entry.outputs, threads=threads
    )
    duration = time.perf_counter_ns() - start
    model = _models["model"] = Model(entry, runner)
    samples = len(next(iter(tensors.values())))
    batch = entry.inputs[0].shape[0] or 1
    for first in range(0, samples, batch):
        indices = [min(first + offset, samples - 1) for offset in range(batch)]
        _batches.append({name: np.ascontiguousarray(a[indices]) for name, a in tensors.items()})
    model(_batches[0])
    return {"runtime": model.runtime, "load_ms": duration / 1e6}


def time_runs(count: int, seconds: float) -> tuple[dict[str, Any], Tensors]:
    """Time up to ``count`` runs, but at least one, and stop after ``seconds``.

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
    """Return the mean power in ``watts`` while nothing runs, ``None`` if it cannot be read."""
    with PowerSampler() as sampler:
        if sampler.supported:
            time.sleep(seconds)
    return {"watts": sampler.watts}


def run_window(seconds: float) -> dict[str, Any]:
    """Run the artifact without pause for ``seconds``.

    Returns the fields of :class:`edgeattn.benchmark.sustained.Window`, except its start.
    """
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
