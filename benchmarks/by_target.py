"""Compare the files of each scheme and target: operators, bytes, maps, task and instructions.

    python -m benchmarks.by_target --data FOLDER [--others FOLDER] --write

Models are those of ``sample_models``. ``FOLDER`` has the data of *gestures*, *activity* and
*vowels* (``hand_gesture/point_history.csv``, ``uci_har/uci_har_subset.npz`` and
``sktime_JapaneseVowels``). ``--others`` is a folder of models of other authors (see
:mod:`benchmarks.target_models`). Every file is made by ``edgeattn convert`` and scored by
``edgeattn validate`` on all test data, beside TensorFlow's own ``int8``, of which only the bytes
and the instructions are measured. ARM instructions are counted under emulation, and with
``--memory`` also the bytes that are fetched from memory, which takes much longer. ``--write``
records the rows of each model when it is finished, and updates the tables in
``docs/quantization.md``; rows of targets that were not measured are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page
from benchmarks.target_models import OTHERS, SAMPLES, TargetCase, other

PAGE = page.ROOT / "docs" / "quantization.md"
RECORDED = page.RESULTS / "by_target.json"
SECTION, REASONS = "by target", "by target, reasons"
MODELS = (*SAMPLES, *OTHERS)
COUNTED = 4  # inputs
SCHEMES = {
    "litert": ("float32", "dynamic_int8", "int8"),
    "onnxruntime": ("float32", "dynamic_int8", "int8"),
    "tflite-micro": ("int8", "int16x8"),
    "TensorFlow": ("int8",),
}
HEADER = (
    *("model", "target", "scheme", "achieved", "integer / all operators", "bytes"),
    *("map error", "drop (points)", "ARM instructions (M), a76 / a72", "fetched (MB), a76 / a72"),
    *("arena (bytes)", "verdict"),
)
Row = dict[str, str]


def edgeattn(*arguments: object) -> Any:
    """The JSON document of a command, which may report failed artifacts."""
    process = subprocess.run(
        [sys.executable, "-m", "edgeattn", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode not in (0, 1, 3, 6):
        raise RuntimeError(f"{arguments[0]} failed: {process.stderr[-2000:]}")
    return json.loads(process.stdout)


def rows(
    name: str, case: TargetCase, folder: Path, targets: Sequence[str], *, memory: bool
) -> Iterator[Row]:
    """The lines of the table for one model; ``memory`` adds the bytes that are fetched."""
    np.save(folder / "calibration.npy", case.calibration)
    if case.y is None:
        np.savez(folder / "test.npz", x=case.x)
    else:
        np.savez(folder / "test.npz", x=case.x, y=case.y)
    np.save(folder / "inputs.npy", case.x[:COUNTED])
    for target in targets:
        schemes = SCHEMES[target]
        if target == "TensorFlow":
            yield {
                "model": name,
                "target": target,
                "scheme": "int8",
                **_stock(case, folder, memory),
            }
            continue
        bundle = folder / f"{target}.edge"
        try:
            converted = edgeattn(
                *("convert", case.model, "-o", bundle, "--target", target),
                *(item for scheme in schemes for item in ("--scheme", scheme)),
                *("--calibration", folder / "calibration.npy"),
                *(("--integer-only",) if target == "tflite-micro" else ()),
            )
            scored = edgeattn(
                *("validate", bundle, "--model", case.model, "--data", folder / "test.npz")
            )
        except (RuntimeError, json.JSONDecodeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            yield {"model": name, "target": target, "scheme": ", ".join(schemes), "verdict": reason}
            continue
        results = {item["scheme"]: item for item in scored["artifacts"]}
        paths = [bundle / item["path"] for item in converted["artifacts"]]
        counted = _counted(folder, paths, memory)
        for artifact in converted["artifacts"]:
            cells = _cells(artifact, results[artifact["scheme"]])
            counts = counted.get(bundle / artifact["path"], {})
            yield {"model": name, "target": target, **cells, **counts}
        for failure in converted["failures"]:
            reason = failure["reason"]
            yield {"model": name, "target": target, "scheme": failure["scheme"], "verdict": reason}


def _cells(artifact: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    achieved = artifact["achieved"]
    counts = {how: sum(kinds.values()) for how, kinds in achieved["computes_in"].items()}
    integers = sum(counts.get(how, 0) for how in ("int8", "int16"))
    maps = [
        check["value"]
        for check in result["checks"]
        if check["stage"] == "attention" and check["metric"] == "max_abs_error"
    ]
    cells = {
        "scheme": artifact["scheme"],
        "achieved": achieved["scheme"],
        "integer / all operators": f"{integers} / {sum(counts.values())}",
        "bytes": f"{artifact['bytes']:,}",
        "verdict": result["verdict"],
        "notes": "; ".join(achieved.get("notes") or ()),
    }
    if maps:
        cells["map error"] = f"{max(maps):.2g}"
    for output in ((result.get("task") or {}).get("outputs") or ())[:1]:
        if output.get("drop") is not None and output.get("interval"):
            drop, low, high = (100 * value for value in (output["drop"], *output["interval"]))
            cells["drop (points)"] = f"{drop:+.2f} [{low:+.2f}, {high:+.2f}]"
    if "arena_bytes" in achieved:
        cells["arena (bytes)"] = f"{achieved['arena_bytes']:,}"
    return cells


def _counted(folder: Path, paths: list[Path], memory: bool) -> dict[Path, Row]:
    """The instructions and, with ``memory``, the fetched bytes of ``.tflite`` files for a Pi.

    The first file of a process also pays for what the runtime prepares once, so it is repeated.
    """
    from benchmarks import counting
    from benchmarks.instruction_tables import LINE_BYTES

    files = [path for path in paths if path.suffix == ".tflite" and "micro" not in str(path)]
    if not files:
        return {}
    plan = [{"path": str(path), "runtime": "tflite"} for path in (files[0], *files)]
    columns = [(HEADER[8], counting.INSTRUCTIONS, 1e-6)]
    if memory:
        columns.append((HEADER[9], counting.FETCHED, LINE_BYTES * 1e-6))
    cells: dict[Path, Row] = {}
    for column, what, scale in columns:
        values: dict[Path, list[str]] = {}
        for cpu in ("cortex-a76", "cortex-a72"):
            readings = counting.read_counters(folder, plan, cpu, what)[1:]
            for path, (report, numbers) in zip(files, readings, strict=True):
                mean = "failed" if "failed" in report else f"{np.mean(numbers) * scale:.4g}"
                values.setdefault(path, []).append(mean)
        for path, pair in values.items():
            cells.setdefault(path, {})[column] = " / ".join(pair)
    return cells


def _stock(case: TargetCase, folder: Path, memory: bool) -> Row:
    """TensorFlow's own ``int8`` of a function with batch size 1: its bytes and instructions."""
    from benchmarks import quantization

    path = folder / "stock.int8.tflite"
    quantization.OUT.mkdir(parents=True, exist_ok=True)
    np.save(quantization.OUT / "calibration.npy", case.calibration)
    script = str(Path(quantization.__file__))
    process = subprocess.run(
        [sys.executable, script, "--stock", str(case.model), "int8", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode < 0:
        return {"verdict": "no file: the converter crashes"}
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["no message"]
        return {"verdict": f"no file: {lines[-1][:80]}"}
    cells = {"bytes": f"{path.stat().st_size:,}", "verdict": "-"}
    return {**cells, **_counted(folder, [path], memory).get(path, {})}


def table(recorded: Mapping[str, list[Row]]) -> str:
    """The table of all measured models."""
    lines: list[tuple[str, ...]] = [HEADER, ("---",) * 4 + ("---:",) * 7 + ("---",)]
    for name in MODELS:
        for row in recorded.get(name, ()):
            lines.append(tuple(_text(row.get(column, "-")) for column in HEADER))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def reasons(recorded: Mapping[str, list[Row]]) -> str:
    """What is not an integer in the ``int8`` file of each model for a Pi, and why."""
    lines = ["| model | target | what stays float32, and why |", "|---|---|---|"]
    for name in MODELS:
        for row in recorded.get(name, ()):
            if row["scheme"] == "int8" and "notes" in row:
                notes = row["notes"] or "nothing"
                lines.append(f"| {name} | {row['target']} | {_text(notes)} |")
    return "\n".join(lines)


def merge(before: Sequence[Row], measured: Sequence[Row], targets: Sequence[str]) -> list[Row]:
    """The rows of a model by target, in which ``measured`` replaces all rows of ``targets``."""
    kept = [row for row in before if row["target"] not in targets]
    return sorted((*kept, *measured), key=lambda row: tuple(SCHEMES).index(row["target"]))


def _text(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data")
    parser.add_argument("--others", type=Path, help="folder of models of other authors")
    parser.add_argument("--model", choices=MODELS, action="append", help="only these models")
    parser.add_argument(
        "--target", choices=tuple(SCHEMES), action="append", help="only these targets"
    )
    parser.add_argument("--memory", action="store_true", help="count the bytes fetched, slowly")
    parser.add_argument("--write", action="store_true", help="record the rows and update the page")
    options = parser.parse_args()
    for name in options.model or MODELS:
        if name in OTHERS and options.others is None:
            print(f"{name}: skipped, because --others is missing", file=sys.stderr)
            continue
        case = SAMPLES[name](options.data) if name in SAMPLES else other(name, options.others)
        measured: list[Row] = []
        targets = options.target or tuple(SCHEMES)
        with tempfile.TemporaryDirectory(prefix="edgeattn-targets-") as scratch:
            for row in rows(name, case, Path(scratch), targets, memory=options.memory):
                measured.append(row)
                print(f"| {' | '.join(row.get(column, '-') for column in HEADER)} |", flush=True)
        if options.write:
            before = page.read(RECORDED) or {}
            recorded = {**before, name: merge(before.get(name, ()), measured, targets)}
            page.write(RECORDED, recorded)
            text = page.with_section(PAGE.read_text(), SECTION, table(recorded))
            PAGE.write_text(page.with_section(text, REASONS, reasons(recorded)))


if __name__ == "__main__":
    main()
