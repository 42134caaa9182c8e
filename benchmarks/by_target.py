"""Compare the files of each scheme and target: operators, bytes, maps, task and instructions.

    python -m benchmarks.by_target --data FOLDER [--others FOLDER] --write

Models are those of ``sample_models``. ``FOLDER`` has the data of *gestures*, *activity*, *vowels*
and *imdb* (``hand_gesture/point_history.csv``, ``uci_har/uci_har_subset.npz``,
``sktime_JapaneseVowels`` and ``imdb``). ``--others`` is a folder of models of other authors (see
:mod:`benchmarks.target_models`). Every file is made by ``edgeattn convert`` and scored by
``edgeattn validate`` on all test data. Files of other tools are beside them (see
:mod:`benchmarks.other_quantizers`); ai-edge-quantizer is used if it is installed. ARM instructions
are counted under emulation, and with ``--memory`` also the bytes that are fetched from memory,
which takes much longer. ``--write`` records the rows of each model when it is finished, and updates
the tables in ``docs/quantization.md``; rows of targets that were not measured are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import other_quantizers, page
from benchmarks.other_quantizers import AI_EDGE, COUNTED, TENSORFLOW, UNROLLED
from benchmarks.other_quantizers import SCHEMES as OTHER_TOOLS
from benchmarks.target_models import OTHERS, SAMPLES, TargetCase, other

PAGE = page.ROOT / "docs" / "quantization.md"
RECORDED = page.RESULTS / "by_target.json"
SECTION, REASONS = "by target", "by target, reasons"
MODELS = (*SAMPLES, *OTHERS)
INPUTS = "inputs.npy"
SCHEMES = {
    "litert": ("float32", "dynamic_int8", "int8"),
    "onnxruntime": ("float32", "dynamic_int8", "int8"),
    "tflite-micro": ("int8", "int16x8"),
    **{tool: OTHER_TOOLS[tool] for tool in (TENSORFLOW, UNROLLED, AI_EDGE)},
}
HEADER = (
    *("model", "target", "scheme", "achieved", "integer / all operators", "bytes"),
    *("map error", "drop (points)", "ARM instructions (M), a76 / a72", "fetched (MB), a76 / a72"),
    *("arena (bytes)", "verdict"),
)
# Why a file did not achieve its scheme, if its notes do not name what is more precise.
KERNELS = {
    "litert": "products take fewer instructions with float32 inputs, according to the cost model",
    "onnxruntime": "products of fewer than 65,536 multiplications have float32 inputs",
}
# The same for the recurrent operators of a file for onnxruntime.
RECURRENT = {
    "LSTM": "LSTM has no kernel with calibrated ranges",
    "GRU": "GRU has no kernel with integers",
}
EXPLAINED = ("in float32", "in int16", "activations stay float32")
Row = dict[str, str]


class CommandFailedError(Exception):
    """A command of edgeattn reported an error instead of a result."""


def edgeattn(*arguments: object) -> Any:
    """The JSON document of a command, which may report failed artifacts.

    Raises :class:`CommandFailedError` with the message of the command if it made none.
    """
    process = subprocess.run(
        [sys.executable, "-m", "edgeattn", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        document = json.loads(process.stdout)
    except json.JSONDecodeError:
        raise RuntimeError(f"{arguments[0]} failed: {process.stderr[-2000:]}") from None
    if "error" in document:
        raise CommandFailedError(document["error"]["message"])
    return document


def rows(
    name: str, case: TargetCase, folder: Path, targets: Sequence[str], *, memory: bool
) -> Iterator[Row]:
    """The lines of the table for one model; ``memory`` adds the bytes that are fetched."""
    np.save(folder / "calibration.npy", case.calibration)
    if case.y is None:
        np.savez(folder / "test.npz", x=case.x)
    else:
        np.savez(folder / "test.npz", x=case.x, y=case.y)
    np.save(folder / INPUTS, case.x[:COUNTED])
    for target in targets:
        if target not in OTHER_TOOLS:
            yield from _own_rows(name, case, folder, target, memory=memory)
    tools = [target for target in targets if target in OTHER_TOOLS]
    if tools:
        yield from _other_rows(name, case, folder, tools, memory=memory)


def _own_rows(
    name: str, case: TargetCase, folder: Path, target: str, *, memory: bool
) -> Iterator[Row]:
    """The files of edgeattn for a target."""
    schemes, bundle = SCHEMES[target], folder / f"{target}.edge"
    try:
        converted = edgeattn(
            *("convert", case.model, "-o", bundle, "--target", target),
            *(item for scheme in schemes for item in ("--scheme", scheme)),
            *("--calibration", folder / "calibration.npy"),
            *(("--integer-only",) if target == "tflite-micro" else ()),
        )
    except CommandFailedError as error:
        reason = str(error)
        yield {"model": name, "target": target, "scheme": ", ".join(schemes), "verdict": reason}
        return
    if converted["artifacts"]:
        data = folder / "test.npz"
        scored = edgeattn("validate", bundle, "--model", case.model, "--data", data)
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


def _other_rows(
    name: str, case: TargetCase, folder: Path, tools: Sequence[str], *, memory: bool
) -> Iterator[Row]:
    """The files of other tools, which return no maps; they have no verdict, but an SNR."""
    from benchmarks import quantization
    from edgeattn.file_structure.read import read_contents
    from edgeattn.metrics.pairwise import snr_db

    results = other_quantizers.quantize(case.model, folder, tools)
    paths = [result.path for result in results if result.path]
    inputs = {path: other_quantizers.inputs_of(path).name for path in paths}
    counted = _counted(folder, paths, memory, inputs)
    for result in results:
        row = {"model": name, "target": result.tool, "scheme": result.scheme}
        if result.path is None or result.outputs is None or result.expected is None:
            yield {**row, "verdict": result.failure}
            continue
        contents = read_contents(result.path, "tflite", own_names=False)
        cells = {
            **_operators(contents.computes_in),
            "achieved": contents.scheme,
            "bytes": f"{result.path.stat().st_size:,}",
            "verdict": f"SNR {snr_db(result.expected, result.outputs):.1f} dB",
        }
        if case.y is not None:
            scores = (quantization.score(y, case.y) for y in (result.expected, result.outputs))
            cells["drop (points)"] = _drop(*quantization.drop(*scores))
        yield {**row, **cells, **counted[result.path]}


def _operators(computes_in: Mapping[str, Mapping[str, int]]) -> Row:
    counts = {how: sum(kinds.values()) for how, kinds in computes_in.items()}
    integers = sum(counts.get(how, 0) for how in ("int8", "int16"))
    return {"integer / all operators": f"{integers} / {sum(counts.values())}"}


def _recurrent(computes_in: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The recurrent operators of a file that :data:`RECURRENT` explains.

    An LSTM of dynamic quantization is a DynamicQuantizeLSTM.
    """
    kinds = [kind for counts in computes_in.values() for kind in counts]
    return [name for name in RECURRENT if any(kind.endswith(name) for kind in kinds)]


def _drop(drop: float, low: float, high: float) -> str:
    return f"{drop:+.2f} [{low:+.2f}, {high:+.2f}]"


def _cells(artifact: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    achieved = artifact["achieved"]
    maps = [
        check["value"]
        for check in result["checks"]
        if check["stage"] == "attention" and check["metric"] == "max_abs_error"
    ]
    cells = {
        "scheme": artifact["scheme"],
        "achieved": achieved["scheme"],
        **_operators(achieved["computes_in"]),
        "recurrent": ", ".join(_recurrent(achieved["computes_in"])),
        "bytes": f"{artifact['bytes']:,}",
        "verdict": result["verdict"],
        "notes": "; ".join(achieved.get("notes") or ()),
    }
    if maps:
        cells["map error"] = f"{max(maps):.2g}"
    for output in ((result.get("task") or {}).get("outputs") or ())[:1]:
        if output.get("drop") is not None and output.get("interval"):
            drop = (100 * value for value in (output["drop"], *output["interval"]))
            cells["drop (points)"] = _drop(*drop)
    if "arena_bytes" in achieved:
        cells["arena (bytes)"] = f"{achieved['arena_bytes']:,}"
    return cells


def _counted(
    folder: Path, paths: list[Path], memory: bool, inputs: Mapping[Path, str] | None = None
) -> dict[Path, Row]:
    """The instructions and, with ``memory``, the fetched bytes of ``.tflite`` files for a Pi.

    The first file of a process also pays for what the runtime prepares once, so it is repeated.
    ``inputs`` are the names of the files of inputs that are not ``inputs.npy``.
    """
    from benchmarks import counting
    from benchmarks.instruction_tables import LINE_BYTES

    files = [path for path in paths if path.suffix == ".tflite" and "micro" not in str(path)]
    if not files:
        return {}
    plan = [
        {"path": str(path), "runtime": "tflite", "inputs": (inputs or {}).get(path, INPUTS)}
        for path in (files[0], *files)
    ]
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


def table(recorded: Mapping[str, list[Row]]) -> str:
    """The table of all measured models."""
    lines: list[tuple[str, ...]] = [HEADER, ("---",) * 4 + ("---:",) * 7 + ("---",)]
    for name in MODELS:
        for row in recorded.get(name, ()):
            lines.append(tuple(_text(row.get(column, "-")) for column in HEADER))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def reasons(recorded: Mapping[str, list[Row]]) -> str:
    """What is not in the integers of the scheme, and why.

    Listed are the files of edgeattn in ``int8``, and others that did not achieve their scheme.
    """
    lines = [
        "| model | target | scheme | achieved | what is not in integers of the scheme, and why |",
        "|---|---|---|---|---|",
    ]
    for name in MODELS:
        for row in recorded.get(name, ()):
            achieved = row.get("achieved", "-")
            if "notes" not in row or (row["scheme"] != "int8" and achieved == row["scheme"]):
                continue
            cells = (name, row["target"], row["scheme"], achieved, _text(_reason(row)))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _reason(row: Row) -> str:
    notes = row["notes"]
    is_achieved = row.get("achieved", row["scheme"]) == row["scheme"]
    if not is_achieved and not notes.startswith(EXPLAINED) and row["target"] in KERNELS:
        kinds = row.get("recurrent", "").split(", ") if row["target"] == "onnxruntime" else ()
        of_recurrences = [RECURRENT[kind] for kind in kinds if kind]
        notes = "; ".join(filter(None, (*of_recurrences, KERNELS[row["target"]], notes)))
    return notes or "nothing"


def merge(before: Sequence[Row], measured: Sequence[Row], targets: Sequence[str]) -> list[Row]:
    """The rows of a model by target, in which ``measured`` replaces all rows of ``targets``."""
    kept = [row for row in before if row["target"] not in targets]
    return sorted((*kept, *measured), key=lambda row: tuple(SCHEMES).index(row["target"]))


def _text(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _commit() -> str:
    """The commit that was measured, which differs between models."""
    command = ("git", "describe", "--always", "--dirty")
    process = subprocess.run(command, cwd=page.ROOT, capture_output=True, text=True, check=True)
    return process.stdout.strip()


def _installed(target: str) -> bool:
    return target != AI_EDGE or importlib.util.find_spec("ai_edge_quantizer") is not None


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
    targets = options.target or [target for target in SCHEMES if _installed(target)]
    for target in targets:
        if not _installed(target):
            parser.error(f"{target} is not installed: pip install {target}")
    for name in options.model or MODELS:
        if name in OTHERS and options.others is None:
            print(f"{name}: skipped, because --others is missing", file=sys.stderr)
            continue
        case = SAMPLES[name](options.data) if name in SAMPLES else other(name, options.others)
        measured: list[Row] = []
        with tempfile.TemporaryDirectory(prefix="edgeattn-targets-") as scratch:
            for row in rows(name, case, Path(scratch), targets, memory=options.memory):
                measured.append(row)
                print(f"| {' | '.join(row.get(column, '-') for column in HEADER)} |", flush=True)
        if options.write:
            before = page.read(RECORDED) or {}
            measured = [{**row, "commit": _commit()} for row in measured]
            recorded = {**before, name: merge(before.get(name, ()), measured, targets)}
            page.write(RECORDED, recorded)
            text = page.with_section(PAGE.read_text(), SECTION, table(recorded))
            PAGE.write_text(page.with_section(text, REASONS, reasons(recorded)))


if __name__ == "__main__":
    main()
