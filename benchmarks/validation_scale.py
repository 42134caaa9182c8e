"""Validation of data that fits no memory: what ``edgeattn validate --data`` takes for a million.

    python benchmarks/validation_scale.py [--counts 10000 1000000] [--kind stored] [--keras]

Pictures of the digits model with seeded noise, and their labels, as one file of every size; two
artifacts on it, in processes of their own. Printed are the size of the data, the largest memory of
the whole tree of processes (the sum of what is resident, shared pages counted in each), the time,
and the size of the page. Memory must not follow the data.
"""

from __future__ import annotations

import argparse
import json
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
SEED, PART = 5, 10_000


def pictures(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``(samples, 8, 8)`` float32 and their digits, a part at a time."""
    with np.load(MODEL / "samples.npz") as file:
        x, y = file["x"].astype("float32"), file["y"].astype("int64")
    generator = np.random.default_rng(SEED)
    for start in range(0, count, PART):
        rows = generator.integers(0, len(x), min(PART, count - start))
        noise = 0.1 * generator.standard_normal((len(rows), 8, 8), np.float32)
        yield np.clip(x[rows] + noise, 0, 1), y[rows]


def write(path: Path, count: int, kind: str) -> None:
    """An .npz of ``count`` samples that was never in memory either."""
    method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for place, (name, shape, dtype) in enumerate(
            [("x", (count, 8, 8), "<f4"), ("y", (count,), "<i8")]
        ):
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for part in pictures(count):
                    member.write(part[place].tobytes())


def resident(root: int) -> int:
    """Bytes that ``root`` and all that it started hold in memory."""
    parents, sizes = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = (folder / "statm").read_text().split()[1]
        except OSError:
            continue  # it has just ended
        parents[int(folder.name)], sizes[int(folder.name)] = int(stat[1]), int(pages)
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return 4096 * sum(sizes.get(pid, 0) for pid in tree)


def run(*arguments: object) -> tuple[str, int, float]:
    """What the command printed, the tree's peak in bytes, and seconds."""
    command = [sys.executable, "-P", "-m", "edgeattn", *map(str, arguments)]
    start, peak = time.perf_counter(), 0
    printed = OUT / "printed"
    with printed.open("w") as file:
        process = subprocess.Popen(command, stdout=file)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    return printed.read_text(), peak, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kind", choices=["stored", "compressed"], default="stored")
    parser.add_argument("--keras", action="store_true", help="ask Keras, and not its stand-in")
    parser.add_argument("--jobs", type=int, help="default: a core each")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    bundle = OUT / "digits.edge"
    schemes = ("--scheme", "float32", "--scheme", "dynamic_int8", "--format", "tflite")
    samples = ("--samples", MODEL / "samples.npz")
    run("convert", MODEL / "model.h5", *schemes, *samples, "-o", bundle, "--force", "--json")
    model = ("--model", MODEL / "model.h5") if options.keras else ()
    jobs = ("--jobs", options.jobs) if options.jobs else ()
    print(
        f"{'samples':>10} {'data, MB':>9} {'peak, MB':>9} {'seconds':>8} {'page, kB':>9}  verdict"
    )
    for count in options.counts:
        data, page = OUT / f"{count}.{options.kind}.npz", OUT / "report.html"
        write(data, count, options.kind)
        told, peak, seconds = run(
            "validate", bundle, "--data", data, *model, *jobs, "--report", page, "--json"
        )
        verdict = json.loads(told)["verdict"]
        sizes = [path.stat().st_size for path in (data, page)]
        print(
            f"{count:>10,} {sizes[0] / 1e6:>9.1f} {peak / 1e6:>9.1f} {seconds:>8.1f} "
            f"{sizes[1] / 1e3:>9.1f}  {verdict}",
            flush=True,
        )
        data.unlink()


if __name__ == "__main__":
    main()
