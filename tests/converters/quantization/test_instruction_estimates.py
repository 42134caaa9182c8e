"""The cost model of ARM instructions, compared with counts that were recorded under emulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import page
from benchmarks.instruction_tables import CPUS
from benchmarks.operator_files import Case, repeated
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.instructions import (
    estimate_instructions,
    float_products,
)

FEW, MANY = 2, 6


def _counted(cpu: str, kind: str, dtype: str) -> list[tuple[Case, int]]:
    lines = page.read(page.RESULTS / "operator_costs.json")
    return [
        (Case(kind, dtype, tuple(line["shape"]), line["width"]), line["instructions"])
        for line in lines
        if (line["cpu"], line["kind"], line["dtype"]) == (cpu, kind, dtype)
    ]


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, dtype) for kind in ("ADD", "MUL", "SPLIT") for dtype in ("float32", "int8")),
        ("LOGISTIC", "float32"),
        *(("FULLY_CONNECTED", dtype) for dtype in ("float32", "dynamic", "int8", "int16")),
        ("ROW_PRODUCT", "float32"),
    ],
)
def test_estimates_of_single_operators(cpu: str, kind: str, dtype: str) -> None:
    counts = _counted(cpu, kind, dtype)
    assert counts
    for case, counted in counts:
        files = [repeated(case, number) for number in (FEW, MANY)]
        few, many = (estimate_instructions(content)[cpu] for content in files)
        # Kernels process whole tiles, so costs are not exactly linear in the sizes.
        assert (many - few) / (MANY - FEW) == pytest.approx(counted, rel=0.45, abs=300), case


@pytest.mark.long
def test_fused_lstms_cost_what_was_counted() -> None:
    from benchmarks.routes import edgeattn

    counts = page.read(page.RESULTS / "instructions.json")["models"]["T50-LSTM64"]
    estimates = estimate_instructions(edgeattn("T50-LSTM64", lowering="fused"))
    for cpu in CPUS:
        counted = counts[cpu]["edgeattn TFLite fused"]["instructions"]
        assert estimates[cpu] == pytest.approx(counted, rel=0.1)


@pytest.mark.long
def test_estimates_of_a_model_have_the_counted_ratios() -> None:
    """The ratio that a selection depends on, of files that are made now to recorded counts."""
    from benchmarks.routes import edgeattn

    counts = page.read(page.RESULTS / "instructions.json")["models"]["T10-LSTM128"]
    estimates = [
        estimate_instructions(edgeattn("T10-LSTM128", scheme=scheme))
        for scheme in ("float32", "dynamic_int8")
    ]
    for cpu in CPUS:
        counted = [
            counts[cpu][f"edgeattn TFLite{label}"]["instructions"] for label in ("", " dynamic")
        ]
        estimated = estimates[1][cpu] / estimates[0][cpu]
        assert estimated == pytest.approx(counted[1] / counted[0], rel=0.1)


def test_reference_kernels_of_int16_cost_more_than_float32() -> None:
    """Counted: an int16 product of 64 x 256 takes 530,000 instructions, a float32 one 8,600."""
    files = [repeated(Case("FULLY_CONNECTED", d, (1, 64), 256), 4) for d in ("float32", "int16")]
    float32, int16 = map(estimate_instructions, files)
    assert all(int16[cpu] > 20 * float32[cpu] for cpu in CPUS)


def test_products_that_are_faster_with_float32_inputs() -> None:
    """Those that were counted to be, in the sum of both processors."""
    counted: dict[Case, int] = {}
    for cpu in CPUS:
        for dtype, sign in (("float32", -1), ("dynamic", 1)):
            for case, number in _counted(cpu, "FULLY_CONNECTED", dtype):
                key = Case(case.kind, "float32", case.shape, case.width)
                counted[key] = counted.get(key, 0) + sign * number
    kinds = set()
    for case, lost in counted.items():
        # Differences below a tenth of a product are within the error of the fit.
        if abs(lost) > 0.1 * np.prod(case.shape) * case.width:
            file = TFLiteFile(repeated(case, 1))
            assert bool(float_products(file)) == (lost > 0), case
            kinds.add(lost > 0)
    assert kinds == {False, True}
