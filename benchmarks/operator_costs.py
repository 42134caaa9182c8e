"""Count the ARM instructions of single operators, from which the cost model is fitted.

Each operator is repeated in one file, ``FEW`` and ``MANY`` times; the difference of both counts is
that of the operator alone. ``python -m benchmarks.operator_costs`` prints one line per operator and
size, and writes them to ``benchmarks/results/operator_costs.json`` and the fitted costs to
``edgeattn_converters/quantization/instruction_costs.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page
from benchmarks.operator_files import Case, repeated
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import instruction_costs
from edgeattn_converters.quantization.instructions import graph_features

MODULE = Path(instruction_costs.__file__)
BEGIN, END = "# fitted: begin\n", "# fitted: end\n"
RECORDED = page.RESULTS / "operator_costs.json"
FEW, MANY = 2, 10
ELEMENTWISE = ("ADD", "SUB", "MUL", "LOGISTIC", "TANH", "RELU")
# XNNPACK merges these with their neighbours, so that they cannot be counted alone.
TABLES = {(kind, "int8") for kind in ("LOGISTIC", "TANH", "RELU")}
FLOAT_ONLY = ("EXP", "RSQRT", "ABS", "NEG")
ROWS = ("SOFTMAX", "MEAN", "SUM")


def cases() -> Iterator[Case]:
    for dtype in ("float32", "int8", "int16"):
        for size in (64, 256, 2048):
            for kind in (*ELEMENTWISE, *(FLOAT_ONLY if dtype == "float32" else ("QUANTIZE",))):
                if (kind, dtype) not in TABLES:
                    yield Case(kind, dtype, (1, size))
        for rows, size in ((1, 64), (1, 512), (16, 64)):
            for kind in ROWS:
                yield Case(kind, dtype, (rows, size))
            if rows > 1:
                yield Case("BATCH_MATMUL", dtype, (1, rows, size), 64)
        for steps, units in ((10, 128), (50, 32), (50, 64), (128, 128)):
            for kind in ("SCORES", "WEIGHTED_SUM"):
                yield Case(kind, dtype, (1, steps, units))
        for size in (64, 256, 2048):
            yield Case("RESHAPE", dtype, (1, size))
            yield Case("TRANSPOSE", dtype, (8, size // 8))
            for parts in (2, 4):
                yield Case("SPLIT", dtype, (1, size), parts)
                yield Case("CONCATENATION", dtype, (1, size // parts), parts)
        for parts, size in ((8, 64), (32, 64), (8, 256)):
            yield Case("UNPACK", dtype, (parts, 1, size), parts)
            yield Case("PACK", dtype, (1, size), parts)
    for size in (64, 256, 2048):
        yield Case("REQUANTIZE", "int8", (1, size))
    for dtype in ("float32", "dynamic", "int8", "int16"):
        for rows in (1, 8, 50):
            for size, width in ((64, 256), (256, 64), (64, 64), (16, 256), (128, 512)):
                yield Case("FULLY_CONNECTED", dtype, (rows, size), width)
    for size, width in ((64, 256), (256, 64), (64, 64), (16, 256), (128, 512)):
        yield Case("ROW_PRODUCT", "float32", (1, size), width)


def count(cases: Sequence[Case], cpu: str) -> dict[Case, float]:
    """The instructions of one operator of each case that the runtime can run."""
    from benchmarks import counting

    with tempfile.TemporaryDirectory(prefix="edgeattn-operators-") as scratch:
        folder = Path(scratch)
        plan = []
        for number, case in enumerate(cases):
            values = np.random.default_rng(1).uniform(-1, 1, (2, *case.shape))
            np.save(folder / f"inputs{number}.npy", values.astype(np.float32))
            for repeats in (FEW, MANY):
                path = f"case{number}.{repeats}.tflite"
                (folder / path).write_bytes(repeated(case, repeats))
                plan.append({"path": path, "runtime": "tflite", "inputs": f"inputs{number}.npy"})
        readings = counting.read_counters(folder, plan, cpu)
    counts = {}
    for case, few, many in zip(cases, readings[::2], readings[1::2], strict=True):
        failures = [report["failed"] for report, _ in (few, many) if "failed" in report]
        if failures:
            print(f"{case}: {failures[0]}", file=sys.stderr)
            continue
        counts[case] = (np.mean(many[1]) - np.mean(few[1])) / (MANY - FEW)
    return counts


def count_all(every: Sequence[Case], cpu: str) -> dict[Case, float]:
    """As :func:`count`, in one process, or one per kind of operator if one of them crashes."""
    from benchmarks import counting

    try:
        return count(every, cpu)
    except counting.ProcessFailedError as error:
        kinds = dict.fromkeys((case.kind, case.dtype) for case in every)
        if len(kinds) == 1:
            print(f"{every[0]}: {error}", file=sys.stderr)
            return {}
    counts = {}
    for kind in kinds:
        counts |= count_all([case for case in every if (case.kind, case.dtype) == kind], cpu)
    return counts


def fit(lines: Sequence[dict[str, Any]], cpu: str) -> dict[str, list[float]]:
    """The costs of each kind of operator with the least relative errors, none below zero."""
    rows, numbers = [], []
    for line in lines:
        if line["cpu"] != cpu:
            continue
        case = Case(line["kind"], line["dtype"], tuple(line["shape"]), line["width"])
        features: Counter[tuple[str, int]] = Counter()
        for repeats, sign in ((FEW, -1), (MANY, 1)):
            file = TFLiteFile(repeated(case, repeats))
            for key, values in graph_features(file, file.main):
                for position, value in enumerate(values):
                    features[key, position] += sign * value
        rows.append({k: v / (MANY - FEW) for k, v in features.items() if v})
        numbers.append(max(line["instructions"], 1.0))
    columns = sorted({key for row in rows for key in row})
    matrix = np.array([[row.get(key, 0.0) for key in columns] for row in rows])
    targets = np.array(numbers)
    # Relative errors count, but below a few hundred instructions absolute ones.
    weights = 1 / (targets + 300)
    solution = _nonnegative(matrix * weights[:, None], targets * weights)
    costs: dict[str, list[float]] = {}
    for (key, position), value in zip(columns, solution, strict=True):
        costs.setdefault(key, [0.0] * 4)[position] = round(float(value), 3)
    errors = (matrix @ solution) / targets - 1
    print(f"{cpu}: median error {np.median(np.abs(errors)):.1%}, worst {np.abs(errors).max():.1%}")
    return costs


def _write(lines: Sequence[dict[str, Any]]) -> None:
    """Record the counts, one per line."""
    RECORDED.write_text("[\n" + ",\n".join(f" {json.dumps(line)}" for line in lines) + "\n]\n")


def _nonnegative(matrix: Any, targets: Any) -> Any:
    """Least squares; columns with negative coefficients are left out until there are none."""
    used = np.arange(matrix.shape[1])
    while True:
        solution = np.linalg.lstsq(matrix[:, used], targets, rcond=None)[0]
        if (solution >= 0).all():
            break
        used = used[solution >= 0]
    result = np.zeros(matrix.shape[1])
    result[used] = solution
    return result


def main() -> None:
    from benchmarks import counting
    from benchmarks.instruction_tables import CPUS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="fit the recorded counts again")
    parser.add_argument("--kind", action="append", help="count only these, keep the others")
    options = parser.parse_args()
    if not options.fit:
        counting.prepare()
        kinds = options.kind or []
        document = [
            line for line in page.read(RECORDED) or [] if kinds and line["kind"] not in kinds
        ]
        for cpu in CPUS:
            for dtype in ("float32", "dynamic", "int8", "int16"):
                every = [
                    case
                    for case in cases()
                    if case.dtype == dtype and (not kinds or case.kind in kinds)
                ]
                if not every:
                    continue
                for case, number in count_all(every, cpu).items():
                    document.append({"cpu": cpu, **asdict(case), "instructions": round(number)})
                _write(document)
    lines = page.read(RECORDED)
    before, rest = MODULE.read_text().split(BEGIN)
    fitted = ["COSTS: Costs = {\n"]
    for cpu in CPUS:
        costs = fit(lines, cpu)
        entries = [f'        "{key}": {tuple(costs[key])},\n' for key in sorted(costs)]
        fitted += [f'    "{cpu}": {{\n', *entries, "    },\n"]
    MODULE.write_text("".join([before, BEGIN, *fitted, "}\n", END, rest.split(END)[1]]))


if __name__ == "__main__":
    main()
