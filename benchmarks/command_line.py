"""The command line: ``edgeattn --help`` beside ``import click``, ``run`` beside a script.

Processes are started in turn, and medians compared, of the time they take and of the processor's
time, which a busy machine stretches less. The script of ``run`` does what a user without edgeattn
would write: numpy, the runtime, the file, every sample, the outputs to a file. ``edgeattn run`` has
its runtime in a process of its own, so numpy is imported twice: that second import is numpy's time
and not edgeattn's, and is measured and taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

# The script that pip installs, beside the interpreter that runs this.
EDGEATTN = [str(Path(sys.executable).parent / "edgeattn")]
BARE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, source, target = sys.argv[1:]
interpreter = Interpreter(model_path=path, num_threads=1)
interpreter.allocate_tensors()
into = interpreter.get_input_details()[0]["index"]
outs = interpreter.get_output_details()
told = []
for row in np.load(source):
    interpreter.set_tensor(into, row[None])
    interpreter.invoke()
    told.append([interpreter.get_tensor(out["index"])[0] for out in outs])
arrays = {str(number): np.stack(column) for number, column in enumerate(zip(*told))}
np.savez(target, **arrays)
"""
SAMPLES = 16
STEPS, FEATURES, CLASSES = 50, 16, 6


def spent(command: list[str]) -> tuple[float, float]:
    """Seconds that a command took, and seconds of the processor, its children's among them."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:5])}: {told.decode()[-1000:]}")
    return taken, usage.ru_utime + usage.ru_stime


def alternating(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Medians over rounds in which each command has its turn, which is first changing."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        spent(command)  # what it reads comes from the disk once
    for turn in range(rounds):
        for name in sorted(commands, reverse=bool(turn % 2)):
            taken[name].append(spent(commands[name]))
    return {
        name: {"seconds": median(t for t, _ in each), "cpu_seconds": median(c for _, c in each)}
        for name, each in taken.items()
    }


def measured(rounds: int, bundle: Path | None = None) -> dict[str, Any]:
    """Both comparisons; ``bundle`` is of the model T50-LSTM64, made here where it is not given."""
    shown = alternating(
        {"import click": [sys.executable, "-c", "import click"], "help": [*EDGEATTN, "--help"]},
        2 * rounds,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = bundle or _bundle(folder)
        ran = alternating(_runs(bundle, folder), rounds)
    return {
        "help": {
            **shown,
            "ratio": shown["help"]["seconds"] / shown["import click"]["seconds"],
            "cpu_ratio": shown["help"]["cpu_seconds"] / shown["import click"]["cpu_seconds"],
        },
        "run": {
            **ran,
            "more_s": _more(ran, "seconds"),
            "more_cpu_s": _more(ran, "cpu_seconds"),
        },
    }


def _more(ran: dict[str, dict[str, float]], what: str) -> float:
    """What ``edgeattn run`` takes beyond the script and a second import of numpy."""
    numpy = ran["import numpy"][what] - ran["python"][what]
    return ran["edgeattn run"][what] - ran["script"][what] - numpy


def _runs(bundle: Path, folder: Path) -> dict[str, list[str]]:
    import numpy as np

    manifest = json.loads((bundle / "manifest.json").read_text())
    chosen = [a for a in manifest["artifacts"] if (a["format"], a["scheme"]) == TFLITE]
    source = folder / "x.npy"
    shape = (SAMPLES, STEPS, FEATURES)
    np.save(source, np.random.default_rng(4).standard_normal(shape).astype(np.float32))
    script = folder / "bare.py"
    script.write_text(BARE)
    bare = [sys.executable, "-P", str(script), str(bundle / chosen[0]["path"])]
    ours = [*EDGEATTN, "run", str(bundle), "--format", TFLITE[0], "--scheme", TFLITE[1], "--force"]
    return {
        "edgeattn run": [*ours, "--input", str(source), "-o", str(folder / "ours.npz")],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "python": [sys.executable, "-c", ""],
        "script": [*bare, str(source), str(folder / "bare.npz")],
    }


TFLITE = ("tflite", "float32")


def _bundle(folder: Path) -> Path:
    from benchmarks.conversion import MODEL, convert_command, saved

    target = folder / "t50.edge"
    command = convert_command(saved((MODEL,), folder)[MODEL], target)
    spent([*command, "--format", TFLITE[0], "--scheme", TFLITE[1]])
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bundle", type=Path, help="of T50-LSTM64; default: made here")
    options = parser.parse_args()
    print(json.dumps(measured(options.rounds, options.bundle), indent=1))


if __name__ == "__main__":
    main()
