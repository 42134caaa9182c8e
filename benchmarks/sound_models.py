"""How often right artifacts of retrained models pass, fail or are inconclusive.

    python benchmarks/sound_models.py [--models digits commands] [--seeds 5] [--quick]

Every sample model is trained with several seeds, converted in all schemes, and validated on its
labeled samples. No verdict may be "fail": that would be a false alarm, or a fault of the converter.
The exit code is 1 if there is one. ``--quick`` trains for one epoch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODELS = (
    *("add_two_numbers", "commands", "digits", "digits_transformer"),
    *("events", "find_max"),
)
SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
VERDICTS = ("pass", "inconclusive", "fail")
# Trains with another seed, and saves other samples for the calibration.
TRAIN = """
import importlib.util, pathlib, sys
import numpy as np
script, seed, folder, *more = sys.argv[1:]
spec = importlib.util.spec_from_file_location("train", script)
train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train)
train.SEED = int(seed)
sys.argv = [script, "--output", folder, *more]
train.main()
x = train.sequences(300, train.SEED + 99)[0] if hasattr(train, "sequences") else train.pictures()[0]
np.savez(pathlib.Path(folder) / "calibration.npz", x=x[:300])
"""


def retrain(model: str, seed: int, folder: Path, *, quick: bool) -> None:
    """Write ``model.h5``, ``samples.npz`` and ``calibration.npz`` to ``folder``."""
    script = ROOT / "sample_models" / model / "train.py"
    more = ["--quick"] if quick else []
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(script), str(seed), str(folder), *more],
        check=True,
        capture_output=True,
    )


def validate(folder: Path) -> list[dict[str, Any]]:
    """Convert the model in ``folder`` and validate it on its samples: the artifacts' results."""
    bundle, samples = folder / "model.edge", folder / "samples.npz"
    converted = _edgeattn(
        *("convert", folder / "model.h5", "--samples", samples),
        *("--calibration", folder / "calibration.npz", "-o", bundle, "--json"),
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


def table(counts: dict[str, Counter[str]]) -> str:
    """The number of artifacts by scheme and verdict."""
    lines = ["| scheme | " + " | ".join(VERDICTS) + " |", "|---" * 4 + "|"]
    for scheme in SCHEMES:
        cells = " | ".join(str(counts[scheme][verdict]) for verdict in VERDICTS)
        lines.append(f"| {scheme} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each model (default: 5)")
    parser.add_argument("--quick", action="store_true", help="train for one epoch")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {scheme: Counter() for scheme in SCHEMES}
    for model in options.models:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as name:
                retrain(model, seed, Path(name), quick=options.quick)
                for item in validate(Path(name)):
                    counts[item["scheme"]][item["verdict"]] += 1
                    if item["verdict"] != "pass":
                        label = f"{model}, seed {seed}, {item['format']} {item['scheme']}"
                        print(f"{label}: {item['verdict']}, {item['reason']}", flush=True)
            print(f"{model}, seed {seed}: done", flush=True)
    print(table(counts))
    return int(any(count["fail"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
