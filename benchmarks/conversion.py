"""Measure conversion: time and memory compared with the stock converter, and time by length.

``edgeattn convert`` of T50-LSTM64 makes six artifacts and validates each. The script that it is
compared with imports TensorFlow, loads the same file and calls the stock converter once. They take
turns. Memory is the largest sum of the resident memory of all processes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
STOCK = """
import sys
import tensorflow as tf
import edgeattn.layers
source, target = sys.argv[1:]
model = tf.keras.models.load_model(source)
(tensor,) = model.inputs
signature = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)]
function = tf.function(lambda x: model(x, training=False), input_signature=signature)
converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
with open(target, "wb") as file:
    file.write(converter.convert())
"""
MODEL = "T50-LSTM64"
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000)
# The exponent is fitted from this length on; below it, constant costs dominate.
MIN_FITTED_LENGTH = 200
SAMPLING_SECONDS = 0.02
KIB = 1024
SAVE = """
import sys
from benchmarks import models
folder, *names = sys.argv[1:]
for name in names:
    model = models.build(name) if name in models.MODELS else models.of_length(int(name))
    model.save(f"{folder}/{name}.keras")
"""


def save_models(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """Save models as Keras files, in a new process. A number is T50-LSTM64 of that length."""
    subprocess.run(
        [sys.executable, "-c", SAVE, str(folder), *names],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return {name: folder / f"{name}.keras" for name in names}


def convert_command(source: Path, target: Path) -> list[str]:
    command = [sys.executable, "-P", "-m", "edgeattn", "convert", str(source), "--force", "--quiet"]
    return [*command, "-o", str(target)]


def run_measured(command: list[str]) -> dict[str, float]:
    """Run ``command`` and return its time and the peak memory of its tree of processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLING_SECONDS):
            peak[0] = max(peak[0], sum(map(_resident_bytes, _process_tree(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _, stderr = process.communicate()
    finally:
        ended.set()
        watcher.join()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {stderr.decode()[-1000:]}")
    return {"seconds": seconds, "peak_bytes": peak[0]}


def _process_tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for t in threads for child in (t / "children").read_text().split()]
    except OSError:  # the process has ended
        return
    for child in children:
        yield from _process_tree(int(child))


def _resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(KIB * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def compare_with_stock(rounds: int, folder: Path) -> dict[str, Any]:
    """Compare whole conversions of one model with one call of the stock converter."""
    source = save_models((MODEL,), folder)[MODEL]
    script = folder / "stock.py"
    script.write_text(STOCK)
    commands = {
        "edgeattn convert": convert_command(source, folder / "model.edge"),
        "stock": [sys.executable, str(script), str(source), str(folder / "stock.tflite")],
    }
    run_measured(commands["stock"])  # warms the disk cache
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name in sorted(commands, reverse=bool(turn % 2)):
            runs[name].append(run_measured(commands[name]))
    medians: dict[str, Any] = {
        name: {
            "seconds": median(run["seconds"] for run in each),
            "peak_bytes": max(run["peak_bytes"] for run in each),
        }
        for name, each in runs.items()
    }
    ratios = [
        ours["seconds"] / stock["seconds"]
        for ours, stock in zip(runs["edgeattn convert"], runs["stock"], strict=True)
    ]
    ratio = medians["edgeattn convert"]["seconds"] / medians["stock"]["seconds"]
    return {**medians, "ratio": ratio, "low": min(ratios), "high": max(ratios)}


def by_length(lengths: tuple[int, ...], folder: Path) -> dict[str, float]:
    """Return the seconds of a whole ``edgeattn convert`` of T50-LSTM64 by number of steps."""
    times = {}
    for steps, source in save_models([str(steps) for steps in lengths], folder).items():
        print(f"converting {steps} steps", file=sys.stderr, flush=True)
        command = convert_command(source, folder / "model.edge")
        times[steps] = run_measured(command)["seconds"]
    return times


def exponent(seconds: dict[str, float], min_length: int = MIN_FITTED_LENGTH) -> float | None:
    """Fit ``time ~ length ** exponent`` from ``min_length`` on; ``None`` with too few points."""
    points = [(math.log(int(t)), math.log(s)) for t, s in seconds.items() if int(t) >= min_length]
    if len(points) < 2:
        return None
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def measure(rounds: int, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeattn-conversion-") as scratch:
        folder = Path(scratch)
        comparison = compare_with_stock(rounds, folder)
        seconds = by_length(lengths, folder)
    return {"beside_stock": comparison, "seconds_by_steps": seconds, "exponent": exponent(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, action="append", help="only this length; repeatable")
    options = parser.parse_args()
    lengths = tuple(options.steps or LENGTHS)
    print(json.dumps(measure(options.rounds, lengths), indent=1))


if __name__ == "__main__":
    main()
