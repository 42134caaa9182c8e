"""Measure the memory and time of ``edgeattn validate --data`` for up to a million samples.

    python benchmarks/validation_scale.py [--counts 10000 1000000] [--kind stored] [--keras]
    python benchmarks/validation_scale.py --workers 1 2 [--counts 1000000]

The data are images of the digits model with seeded noise, and their labels. Two artifacts are
validated on each file. Printed are the size of the data, the peak memory of all processes (the sum
of their resident memory, with shared pages counted in each), the time, and the size of the report.
Memory must not grow with the data.

With ``--workers``, the workers of a local Dask scheduler evaluate, and the peak memory is that of
the largest worker with its processes. The CPU time is that of the command and of all workers: on a
machine that also runs other work, it shows what the time does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".out" / "validation_scale"
MODEL = ROOT / "sample_models" / "digits"
SEED, CHUNK = 5, 10_000


def images(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield chunks of float32 images (samples, 8, 8) and their int64 labels (samples,)."""
    with np.load(MODEL / "samples.npz") as file:
        x, y = file["x"].astype("float32"), file["y"].astype("int64")
    generator = np.random.default_rng(SEED)
    for start in range(0, count, CHUNK):
        rows = generator.integers(0, len(x), min(CHUNK, count - start))
        noise = 0.1 * generator.standard_normal((len(rows), 8, 8), np.float32)
        yield np.clip(x[rows] + noise, 0, 1), y[rows]


def write(path: Path, count: int, kind: str) -> None:
    """Write an .npz file of ``count`` samples without holding them in memory."""
    method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for index, (name, shape, dtype) in enumerate(
            [("x", (count, 8, 8), "<f4"), ("y", (count,), "<i8")]
        ):
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for chunk in images(count):
                    member.write(chunk[index].tobytes())


def resident_bytes(root: int) -> int:
    """Return the resident memory of process ``root`` and its descendants."""
    return processes(root)[0]


def processes(root: int) -> tuple[int, float]:
    """Return the resident memory of process ``root`` and its descendants, and their CPU seconds.

    The time includes that of descendants that have ended.
    """
    parents, sizes, ticks = {}, {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = (folder / "statm").read_text().split()[1]
        except OSError:
            continue  # the process has ended
        parents[int(folder.name)], sizes[int(folder.name)] = int(stat[1]), int(pages)
        ticks[int(folder.name)] = sum(map(int, stat[11:15]))
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    memory = os.sysconf("SC_PAGE_SIZE") * sum(sizes.get(pid, 0) for pid in tree)
    return memory, sum(ticks.get(pid, 0) for pid in tree) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def started(name: str, ready: str, *arguments: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Start a process of Dask; return its number, and what ``ready`` matches in its log."""
    log = OUT / f"{name}.log"
    command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=OUT, stdout=file, stderr=file)
        try:
            while not (match := re.search(ready, log.read_text())):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.1)
            yield process.pid, match
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def spread(count: int, bundle: Path, data: Path) -> tuple[str, int, float, float]:
    """Validate with ``count`` workers: the verdict, peak memory, seconds and CPU seconds."""
    with contextlib.ExitStack() as stack:
        address = ("--host", "127.0.0.1", "--port", "0")
        _, match = stack.enter_context(
            started("scheduler", r"(tcp://[\d.:]+)", "scheduler", *address)
        )
        workers = [
            stack.enter_context(
                started(f"worker{number}", "Registered to", "worker", match[1], "--nthreads", "1")
            )[0]
            for number in range(count)
        ]
        before = sum(processes(pid)[1] for pid in workers)
        command = [sys.executable, "-P", "-m", "edgeattn", "validate", bundle, "--data", data]
        start, peak, own = time.perf_counter(), 0, 0.0
        with (OUT / "stdout").open("w") as file:
            process = subprocess.Popen(
                [*map(str, command), "--scheduler", match[1], "--json"], stdout=file
            )
            while process.poll() is None:
                peak = max([peak, *(processes(pid)[0] for pid in workers)])
                own = max(own, processes(process.pid)[1])
                time.sleep(0.1)
        seconds = time.perf_counter() - start
        used = sum(processes(pid)[1] for pid in workers) - before + own
    return json.loads((OUT / "stdout").read_text())["verdict"], peak, seconds, used


def run(*arguments: object) -> tuple[str, int, float]:
    """Return the output of the command, the peak memory in bytes, and the seconds."""
    command = [sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)]
    start, peak = time.perf_counter(), 0
    output = OUT / "stdout"
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file)
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(0.1)
    return output.read_text(), peak, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kind", choices=["stored", "compressed"], default="stored")
    parser.add_argument(
        "--keras", action="store_true", help="compare with Keras instead of the fallback reference"
    )
    parser.add_argument("--jobs", type=int, help="worker processes; default: one per core")
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of Dask workers")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    bundle = OUT / "digits.edge"
    schemes = ("--scheme", "float32", "--scheme", "dynamic_int8", "--format", "tflite")
    samples = ("--samples", MODEL / "samples.npz")
    run("convert", MODEL / "model.h5", *schemes, *samples, "-o", bundle, "--force", "--json")
    if options.workers:
        print(f"{'samples':>10} {'workers':>8} {'peak (MB)':>10} {'time (s)':>9} {'CPU (s)':>9}")
        for count in options.counts:
            data = OUT / f"{count}.{options.kind}.npz"
            write(data, count, options.kind)
            for number in options.workers:
                verdict, peak, seconds, used = spread(number, bundle, data)
                print(
                    f"{count:>10,} {number:>8} {peak / 1e6:>10.1f} {seconds:>9.1f} {used:>9.1f}  "
                    f"{verdict}",
                    flush=True,
                )
            data.unlink()
        return
    model = ("--model", MODEL / "model.h5") if options.keras else ()
    jobs = ("--jobs", options.jobs) if options.jobs else ()
    print(
        f"{'samples':>10} {'data (MB)':>10} {'peak (MB)':>10} {'time (s)':>9} "
        f"{'report (kB)':>12}  verdict"
    )
    for count in options.counts:
        data, report = OUT / f"{count}.{options.kind}.npz", OUT / "report.html"
        write(data, count, options.kind)
        stdout, peak, seconds = run(
            "validate", bundle, "--data", data, *model, *jobs, "--report", report, "--json"
        )
        verdict = json.loads(stdout)["verdict"]
        sizes = [path.stat().st_size for path in (data, report)]
        print(
            f"{count:>10,} {sizes[0] / 1e6:>10.1f} {peak / 1e6:>10.1f} {seconds:>9.1f} "
            f"{sizes[1] / 1e3:>12.1f}  {verdict}",
            flush=True,
        )
        data.unlink()


if __name__ == "__main__":
    main()
