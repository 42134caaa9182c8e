"""Compare the files of each scheme and target: operators, bytes, maps, task and instructions.

    python -m benchmarks.by_target --data FOLDER --write

Models are those of ``sample_models`` that classify. ``FOLDER`` has the data of *gestures* and
*activity* (``hand_gesture/point_history.csv`` and ``uci_har/uci_har_subset.npz``). Every file is
made by ``edgeattn convert`` and scored by ``edgeattn validate`` on all test data. ``--write``
updates the table in ``docs/quantization.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page
from edgeattn_converters.quantization.instructions import estimate_instructions
from examples import public_data

PAGE = page.ROOT / "docs" / "quantization.md"
RECORDED = page.RESULTS / "by_target.json"
SECTION = "by target"
MODELS = ("digits", "gestures", "activity")
CALIBRATION, SEED = 300, 7
CPU = "cortex-a76"
SCHEMES = {
    "litert": ("float32", "dynamic_int8", "int8"),
    "onnxruntime": ("float32", "dynamic_int8", "int8"),
    "tflite-micro": ("int8", "int16x8"),
}
HEADER = (
    *("model", "target", "scheme", "achieved", "integer / all operators", "bytes"),
    *("map error", "drop (points)", "ARM instructions (M)", "arena (bytes)", "verdict"),
)


def samples(name: str, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs for calibration, and inputs and labels for scoring."""
    if name == "digits":
        from benchmarks.quantization import digits

        case = digits()
        return case.calibration, case.x, case.y
    load, folder = {
        "gestures": (public_data.gestures, "hand_gesture"),
        "activity": (public_data.activity, "uci_har"),
    }[name]
    rows = load(data / folder)
    chosen = np.random.default_rng(SEED).permutation(len(rows.x))[:CALIBRATION]
    return rows.x[chosen], rows.x_test, rows.y_test


def edgeattn(*arguments: object) -> Any:
    """The JSON document of a command, which may report failed artifacts."""
    process = subprocess.run(
        [sys.executable, "-m", "edgeattn", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode not in (0, 1, 3):
        raise RuntimeError(f"{arguments[0]} failed: {process.stderr[-2000:]}")
    return json.loads(process.stdout)


def rows(name: str, data: Path, folder: Path) -> Iterator[list[str]]:
    """The lines of the table for one model."""
    calibration, x, y = samples(name, data)
    np.save(folder / "calibration.npy", calibration)
    np.savez(folder / "test.npz", x=x, y=y)
    model = page.ROOT / "sample_models" / name / "model.h5"
    for target, schemes in SCHEMES.items():
        bundle = folder / f"{target}.edge"
        converted = edgeattn(
            *("convert", model, "-o", bundle, "--target", target),
            *(item for scheme in schemes for item in ("--scheme", scheme)),
            *("--calibration", folder / "calibration.npy"),
            *(("--integer-only",) if target == "tflite-micro" else ()),
        )
        scored = edgeattn("validate", bundle, "--model", model, "--data", folder / "test.npz")
        results = {item["scheme"]: item for item in scored["artifacts"]}
        for artifact in converted["artifacts"]:
            yield [name, target, *_cells(artifact, results[artifact["scheme"]], bundle)]
        for failure in converted["failures"]:
            yield [name, target, failure["scheme"], *["-"] * 7, failure["reason"]]


def _cells(artifact: Mapping[str, Any], result: Mapping[str, Any], bundle: Path) -> list[str]:
    achieved = artifact["achieved"]
    counts = {how: sum(kinds.values()) for how, kinds in achieved["computes_in"].items()}
    integers = sum(counts.get(how, 0) for how in ("int8", "int16"))
    maps = [
        check["value"]
        for check in result["checks"]
        if check["stage"] == "attention" and check["metric"] == "max_abs_error"
    ]
    (output, *_) = result["task"]["outputs"]
    low, high = output["interval"]
    instructions = "-"
    if artifact["format"] == "tflite" and "flash_bytes" not in achieved:
        content = (bundle / artifact["path"]).read_bytes()
        instructions = f"{estimate_instructions(content)[CPU] / 1e6:.2f}"
    return [
        artifact["scheme"],
        achieved["scheme"],
        f"{integers} / {sum(counts.values())}",
        f"{artifact['bytes']:,}",
        f"{max(maps):.2g}" if maps else "-",
        f"{100 * output['drop']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
        instructions,
        f"{achieved['arena_bytes']:,}" if "arena_bytes" in achieved else "-",
        result["verdict"],
    ]


def table(recorded: Mapping[str, list[list[str]]]) -> str:
    """The table of all measured models."""
    lines = [HEADER, ("---",) * 4 + ("---:",) * 6 + ("---",)]
    for name in MODELS:
        lines += [tuple(row) for row in recorded.get(name, ())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data")
    parser.add_argument("--model", choices=MODELS, action="append", help="only these models")
    parser.add_argument("--write", action="store_true", help="record the rows and update the page")
    options = parser.parse_args()
    recorded = page.read(RECORDED) or {}
    for name in options.model or MODELS:
        recorded[name] = []
        with tempfile.TemporaryDirectory(prefix="edgeattn-targets-") as scratch:
            for row in rows(name, options.data, Path(scratch)):
                recorded[name].append(row)
                print(f"| {' | '.join(row)} |", flush=True)
    if options.write:
        page.write(RECORDED, recorded)
        PAGE.write_text(page.with_section(PAGE.read_text(), SECTION, table(recorded)))


if __name__ == "__main__":
    main()
