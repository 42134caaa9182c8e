"""Processor, versions and peak rates of this machine, on one thread."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = ("tensorflow", "keras", "tf2onnx", "onnxruntime", "ai-edge-litert", "numpy")


def describe() -> dict[str, Any]:
    """Return the processor's name and the versions of the measured packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "processors": len(names),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def matrix_rate() -> float:
    """Return the multiply-accumulates per second of a float32 matrix product."""
    size = 512
    a, b = np.ones((2, size, size), np.float32)
    out = np.empty_like(a)
    return size**3 / _shortest(lambda: np.matmul(a, b, out=out))


# Fits the second-level cache of most cores; smaller blocks would measure the overhead of the call.
MIN_BLOCK_BYTES = 512 * 1024


def cache_bandwidth(size: int) -> float:
    """Return the bytes per second read from the cache that a block of ``size`` bytes fits."""
    count = max(MIN_BLOCK_BYTES, size) // 4
    block = np.ones(count, np.float32)
    half = count // 2
    dot = _shortest(lambda: np.dot(block[:half], block[half : 2 * half]))
    rows = max(1, count // 512)
    matrix, vector = block[: rows * 512].reshape(rows, 512), np.ones(rows, np.float32)
    product = _shortest(lambda: np.dot(vector, matrix))
    return max(8 * half / dot, 4 * rows * 512 / product)


def _shortest(work: Callable[[], Any]) -> float:
    """Return the seconds of one call in the fastest of many rounds."""
    work()
    shortest = float("inf")
    for _ in range(40):
        start = time.perf_counter()
        for _ in range(20):
            work()
        shortest = min(shortest, (time.perf_counter() - start) / 20)
    return shortest


def limit(multiplications: int, streamed: int, step: int) -> float:
    """Return the minimum seconds per sequence.

    That is the larger of two times: ``multiplications`` multiply-accumulates at the rate of a
    matrix product, and reading ``streamed`` bytes of recurrent weights at the bandwidth of the
    cache that the ``step`` bytes of one step fit.
    """
    reading = streamed / cache_bandwidth(step) if streamed else 0.0
    return max(multiplications / matrix_rate(), reading)
