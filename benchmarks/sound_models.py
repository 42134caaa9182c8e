"""How often right artifacts of retrained models pass, fail or are inconclusive.

    python -m benchmarks.sound_models [--models digits commands] [--schemes int8] [--seeds 5]
        [--data DIR] [--quick]

Every sample model is trained with several seeds, converted in all schemes, and validated on its
labeled samples. No verdict may be "fail": that would be a false alarm, or a fault of the converter.
The exit code is 1 if there is one. The models of public data need ``--data``, a folder with one
folder for each data set. ``--quick`` trains for one epoch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.retrain import PUBLIC

ROOT = Path(__file__).parents[1]
SYNTHETIC = (
    *("add_two_numbers", "commands", "digits", "digits_transformer"),
    *("events", "find_max"),
)
SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
VERDICTS = ("pass", "inconclusive", "fail")


def retrain(model: str, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Write ``model.h5``, ``samples.npz`` and ``calibration.npz`` to ``folder``."""
    more = ["--quick"] if options.quick else []
    if options.data is not None:
        more += ["--data", str(options.data.absolute())]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.retrain", model, str(seed), str(folder), *more],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )


def validate(folder: Path, schemes: Sequence[str]) -> list[dict[str, Any]]:
    """Convert the model in ``folder`` to ``schemes`` and validate it on its samples.

    Returns the results of the artifacts.
    """
    bundle, samples = folder / "model.edge", folder / "samples.npz"
    converted = _edgeattn(
        *("convert", folder / "model.h5", "--samples", samples),
        *("--calibration", folder / "calibration.npz", "-o", bundle, "--json"),
        *(argument for scheme in schemes for argument in ("--scheme", scheme)),
    )
    for failure in json.loads(converted)["failures"]:
        print(f"{failure['format']} {failure['scheme']} not converted: {failure['reason']}")
    document = json.loads(_edgeattn("validate", bundle, "--data", samples, "--json"))
    artifacts: list[dict[str, Any]] = document["artifacts"]
    return artifacts


def _edgeattn(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "edgeattn", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return done.stdout


def _reason(artifact: dict[str, Any]) -> str:
    """Why an artifact does not pass: its reason, the limits that it misses, and its task."""
    checks = artifact["checks"]
    reasons = [artifact["reason"]] if artifact["reason"] else []
    reasons += [
        f"{check['metric']} of {check['output']} {check['value']} (limit {check['limit']})"
        for check in checks
        if check["passed"] is False
    ]
    if artifact["stages"]["task"] != "pass":
        reasons.append(f"task {artifact['stages']['task']}")
    return "; ".join(reasons)


def table(counts: dict[str, Counter[str]]) -> str:
    """The number of artifacts by scheme and verdict."""
    lines = ["| scheme | " + " | ".join(VERDICTS) + " |", "|---" * 4 + "|"]
    for scheme in counts:
        cells = " | ".join(str(counts[scheme][verdict]) for verdict in VERDICTS)
        lines.append(f"| {scheme} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*SYNTHETIC, *PUBLIC])
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each model (default: 5)")
    parser.add_argument("--data", type=Path, help="folder of the public data sets")
    parser.add_argument("--quick", action="store_true", help="train for one epoch")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {scheme: Counter() for scheme in options.schemes}
    models = options.models or [*SYNTHETIC, *(PUBLIC if options.data is not None else ())]
    if options.data is None and any(model in PUBLIC for model in models):
        parser.error(f"{', '.join(PUBLIC)} need --data")
    for model in models:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as name:
                retrain(model, seed, Path(name), options)
                for item in validate(Path(name), options.schemes):
                    counts[item["scheme"]][item["verdict"]] += 1
                    if item["verdict"] != "pass":
                        label = f"{model}, seed {seed}, {item['format']} {item['scheme']}"
                        print(f"{label}: {item['verdict']}, {_reason(item)}", flush=True)
            print(f"{model}, seed {seed}: done", flush=True)
    print(table(counts))
    return int(any(count["fail"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
