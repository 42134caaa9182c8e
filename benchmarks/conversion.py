"""What converting costs: time and memory beside the stock converter, and time by sequence length.

``edgeattn convert`` of T50-LSTM64 makes six artifacts and checks each; the script beside it imports
TensorFlow, loads the same file and calls the stock converter once. They take turns. Memory is the
most that the whole tree of processes held at once: the sum of what each has resident.
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
(given,) = model.inputs
signature = [tf.TensorSpec((1, *given.shape[1:]), given.dtype)]
function = tf.function(lambda x: model(x, training=False), input_signature=signature)
converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
with open(target, "wb") as file:
    file.write(converter.convert())
"""
MODEL = "T50-LSTM64"
LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000)
# Below it, what does not depend on the length is most of it.
FITTED = 200
SAMPLED = 0.02
KIB = 1024


SAVE = """
import sys
from benchmarks import models
folder, *names = sys.argv[1:]
for name in names:
    made = models.build(name) if name in models.MODELS else models.of_length(int(name))
    made.save(f"{folder}/{name}.keras")
"""


def saved(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """Models by name, or of so many steps, as Keras files, written by a process of its own."""
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


def spent(command: list[str]) -> dict[str, float]:
    """Seconds and the most bytes resident of a command and all that it starts."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLED):
            most[0] = max(most[0], sum(map(_resident, _tree(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _, told = process.communicate()
    finally:
        ended.set()
        watcher.join()
    taken = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {told.decode()[-1000:]}")
    return {"seconds": taken, "peak_bytes": most[0]}


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [word for t in threads for word in (t / "children").read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        yield from _tree(int(child))


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(KIB * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def beside_stock(rounds: int, folder: Path) -> dict[str, Any]:
    """Whole conversions of one model and of one call of the stock converter, in turn."""
    source = saved((MODEL,), folder)[MODEL]
    script = folder / "stock.py"
    script.write_text(STOCK)
    commands = {
        "edgeattn convert": convert_command(source, folder / "made.edge"),
        "stock": [sys.executable, str(script), str(source), str(folder / "stock.tflite")],
    }
    spent(commands["stock"])  # TensorFlow comes from the disk once
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for turn in range(rounds):
        for name in sorted(commands, reverse=bool(turn % 2)):
            taken[name].append(spent(commands[name]))
    found: dict[str, Any] = {
        name: {
            "seconds": median(each["seconds"] for each in runs),
            "peak_bytes": max(each["peak_bytes"] for each in runs),
        }
        for name, runs in taken.items()
    }
    ratios = [
        ours["seconds"] / stock["seconds"]
        for ours, stock in zip(taken["edgeattn convert"], taken["stock"], strict=True)
    ]
    ratio = found["edgeattn convert"]["seconds"] / found["stock"]["seconds"]
    return {**found, "ratio": ratio, "low": min(ratios), "high": max(ratios)}


def by_length(lengths: tuple[int, ...], folder: Path) -> dict[str, float]:
    """Seconds of a whole ``edgeattn convert`` of an LSTM(64) with attention, by steps."""
    taken = {}
    for steps, source in saved([str(steps) for steps in lengths], folder).items():
        print(f"converting {steps} steps", file=sys.stderr, flush=True)
        taken[steps] = spent(convert_command(source, folder / "made.edge"))["seconds"]
    return taken


def exponent(seconds: dict[str, float], least: int = FITTED) -> float | None:
    """That of the power of the length that the time grows with, fitted from ``least`` steps on."""
    points = [(math.log(int(t)), math.log(s)) for t, s in seconds.items() if int(t) >= least]
    if len(points) < 2:
        return None
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def measured(rounds: int, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeattn-converted-") as scratch:
        folder = Path(scratch)
        beside = beside_stock(rounds, folder)
        seconds = by_length(lengths, folder)
    return {"beside_stock": beside, "seconds_by_steps": seconds, "exponent": exponent(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, action="append", help="only these lengths")
    options = parser.parse_args()
    lengths = tuple(options.steps or LENGTHS)
    print(json.dumps(measured(options.rounds, lengths), indent=1))


if __name__ == "__main__":
    main()
