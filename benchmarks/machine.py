"""What this machine is, and how fast it multiplies and reads, on one thread."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = ("tensorflow", "keras", "tf2onnx", "onnxruntime", "ai-edge-litert", "numpy")


def described() -> dict[str, Any]:
    """The processor by its own name, and the versions of what was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "processors": len(names),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def matrix_rate() -> float:
    """Multiply-accumulates a second of a float32 matrix product."""
    size = 512
    a, b = np.ones((2, size, size), np.float32)
    out = np.empty_like(a)
    return size**3 / _best(lambda: np.matmul(a, b, out=out))


# Half a megabyte: in the second cache of most cores. Of less, the call itself would be measured.
SMALLEST = 512 * 1024


def cache_bandwidth(size: int) -> float:
    """Bytes a second read of a block of ``size`` bytes, which stays in the cache that it fits."""
    count = max(SMALLEST, size) // 4
    block = np.ones(count, np.float32)
    half = count // 2
    dot = _best(lambda: np.dot(block[:half], block[half : 2 * half]))
    rows = max(1, count // 512)
    matrix, vector = block[: rows * 512].reshape(rows, 512), np.ones(rows, np.float32)
    product = _best(lambda: np.dot(vector, matrix))
    return max(8 * half / dot, 4 * rows * 512 / product)


def _best(work: Callable[[], Any]) -> float:
    """Seconds of one call, in the best of many rounds: what the machine can, not what it did."""
    work()
    best = float("inf")
    for _ in range(40):
        start = time.perf_counter()
        for _ in range(20):
            work()
        best = min(best, (time.perf_counter() - start) / 20)
    return best


def limit(multiplications: int, streamed: int, step: int) -> float:
    """Seconds below which a sequence cannot be: all multiplications at the matrix rate, or the
    weights read anew in every step at the bandwidth of the cache that ``step`` bytes fit."""
    reading = streamed / cache_bandwidth(step) if streamed else 0.0
    return max(multiplications / matrix_rate(), reading)
