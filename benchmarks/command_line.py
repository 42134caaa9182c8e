"""Measure the command line: ``edgeattn --help``, ``edgeattn run`` and ``validate --report``.

``--help`` is compared with ``import click``, and with the imports of rich that rich-click needs for
its help pages; ``run`` is compared with a script that a user would write without edgeattn: numpy,
the runtime, the file, all samples, the outputs to a file. Processes take turns, and medians of wall
time and of CPU time are compared. ``edgeattn run`` starts the runtime in a worker process, which
imports numpy again. This import is measured and subtracted. ``validate --report`` is compared with
``validate`` of the same artifact.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

# The console script of the environment that runs this.
EDGEATTN = [str(Path(sys.executable).parent / "edgeattn")]
SCRIPT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, source, target = sys.argv[1:]
interpreter = Interpreter(model_path=path, num_threads=1)
interpreter.allocate_tensors()
input_index = interpreter.get_input_details()[0]["index"]
output_details = interpreter.get_output_details()
rows = []
for row in np.load(source):
    interpreter.set_tensor(input_index, row[None])
    interpreter.invoke()
    rows.append([interpreter.get_tensor(item["index"])[0] for item in output_details])
arrays = {str(number): np.stack(column) for number, column in enumerate(zip(*rows))}
np.savez(target, **arrays)
"""
RICH = "import click, rich.console, rich.table, rich.panel, rich.text, rich.markdown"
SAMPLES = 16
STEPS, FEATURES, CLASSES = 50, 16, 6
FORMAT, SCHEME = "tflite", "float32"
VALIDATE, REPORT = "edgeattn validate", "edgeattn validate --report"


def run_timed(command: list[str]) -> tuple[float, float]:
    """Run ``command`` and return its wall time and CPU time in seconds, including children."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        stderr = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:5])}: {stderr.decode()[-1000:]}")
    return seconds, usage.ru_utime + usage.ru_stime


def alternate(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Return medians over rounds in which the commands take turns, in alternating order."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        run_timed(command)  # warms the disk cache
    for turn in range(rounds):
        for name in sorted(commands, reverse=bool(turn % 2)):
            times[name].append(run_timed(commands[name]))
    return {
        name: {"seconds": median(t for t, _ in runs), "cpu_seconds": median(c for _, c in runs)}
        for name, runs in times.items()
    }


def measure(rounds: int, bundle: Path | None = None) -> dict[str, Any]:
    """Return all comparisons. ``bundle`` is one of T50-LSTM64, converted if it is omitted."""
    imports = {"import click": "import click"}
    if importlib.util.find_spec("rich"):
        imports["import click and rich"] = RICH
    help_times = alternate(
        {
            **{name: [sys.executable, "-c", code] for name, code in imports.items()},
            "help": [*EDGEATTN, "--help"],
        },
        2 * rounds,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = bundle or _convert(folder)
        run_times = alternate(_run_commands(bundle, folder), rounds)
        report_times = alternate(_report_commands(bundle, folder), rounds)
    return {
        "help": {
            **help_times,
            "ratio": help_times["help"]["seconds"] / help_times["import click"]["seconds"],
            "cpu_ratio": help_times["help"]["cpu_seconds"]
            / help_times["import click"]["cpu_seconds"],
        },
        "run": {
            **run_times,
            "more_s": run_overhead(run_times, "seconds"),
            "more_cpu_s": run_overhead(run_times, "cpu_seconds"),
        },
        "report": {
            **report_times,
            "ratio": report_times[REPORT]["seconds"] / report_times[VALIDATE]["seconds"],
            "cpu_ratio": report_times[REPORT]["cpu_seconds"]
            / report_times[VALIDATE]["cpu_seconds"],
        },
    }


def run_overhead(times: dict[str, dict[str, float]], key: str) -> float:
    """Return the seconds of ``edgeattn run`` beyond the script and one more import of numpy."""
    numpy = times["import numpy"][key] - times["python"][key]
    return times["edgeattn run"][key] - times["script"][key] - numpy


def _run_commands(bundle: Path, folder: Path) -> dict[str, list[str]]:
    import numpy as np

    manifest = json.loads((bundle / "manifest.json").read_text())
    artifact = next(
        item
        for item in manifest["artifacts"]
        if (item["format"], item["scheme"]) == (FORMAT, SCHEME)
    )
    source = folder / "x.npy"
    shape = (SAMPLES, STEPS, FEATURES)
    np.save(source, np.random.default_rng(4).standard_normal(shape).astype(np.float32))
    script = folder / "script.py"
    script.write_text(SCRIPT)
    run_script = [sys.executable, "-P", str(script), str(bundle / artifact["path"])]
    run = [*EDGEATTN, "run", str(bundle), "--format", FORMAT, "--scheme", SCHEME, "--force"]
    return {
        "edgeattn run": [*run, "--input", str(source), "-o", str(folder / "run.npz")],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "python": [sys.executable, "-c", ""],
        "script": [*run_script, str(source), str(folder / "script.npz")],
    }


def _report_commands(bundle: Path, folder: Path) -> dict[str, list[str]]:
    validate = [*EDGEATTN, "validate", str(bundle), "--format", FORMAT, "--scheme", SCHEME]
    return {VALIDATE: validate, REPORT: [*validate, "--report", str(folder / "report.html")]}


def _convert(folder: Path) -> Path:
    from benchmarks.conversion import MODEL, convert_command, save_models

    target = folder / "t50.edge"
    command = convert_command(save_models((MODEL,), folder)[MODEL], target)
    run_timed([*command, "--format", FORMAT, "--scheme", SCHEME])
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bundle", type=Path, help="bundle of T50-LSTM64; default: convert one")
    options = parser.parse_args()
    print(json.dumps(measure(options.rounds, options.bundle), indent=1))


if __name__ == "__main__":
    main()
