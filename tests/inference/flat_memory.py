"""Measure whether calls of a loaded model leave memory behind.

    python tests/inference/flat_memory.py --calls 1000000

A device that runs a model twelve times a second makes a million calls a day. Calls of both runtimes
with good and bad samples, in this thread and in new ones, are made in ten parts, and the memory of
the process is read after each. Exits with 1 if it grows by more than ``MAX_GROWTH``.
"""

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from artifacts import samples, write_dense_bundle

import edgeattn

PARTS = 10
CALLS_PER_THREAD = 100
BAD = [np.float32([1, np.nan, 3]), np.float32([1, 2])]
# Bytes between the first part and the last. A call that kept its four numbers in an array would
# leave more than 100 bytes, which is 90 MB in a million calls and 5 MB in the 50,000 of the test.
MAX_GROWTH = 2**20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def call(model: edgeattn.Model, count: int) -> None:
    """``count`` calls, one in ten of which fails, and one in hundred starts a thread."""
    rows = samples(64)
    for number in range(count):
        if number % 10 == 9:
            try:
                model(BAD[number // 10 % 2])
            except edgeattn.SampleError:
                continue
            raise AssertionError("a bad sample was accepted")
        if number % CALLS_PER_THREAD == 0:
            thread = threading.Thread(target=model, args=(rows[number % 64],))
            thread.start()
            thread.join()
        else:
            model(rows[number % 64])


def growth(calls: int) -> list[int]:
    """The memory after each part but the first, less that after the first, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_dense_bundle(Path(folder) / "dense.edge").path
        models = [edgeattn.load(bundle, format=format) for format in ("tflite", "onnx")]
    used = []
    for _ in range(PARTS):
        for model in models:
            call(model, calls // PARTS // len(models))
        used.append(resident_bytes())
    return [after - used[0] for after in used[1:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    calls = parser.parse_args().calls
    parts = growth(calls)
    print(f"{calls:,} calls; kB after each tenth: {[part // 1000 for part in parts]}")
    return int(parts[-1] > MAX_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
