"""The cost model of ARM instructions, compared with counts that were recorded under emulation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import page
from benchmarks.instruction_tables import CPUS
from benchmarks.operator_files import Case, Graph, repeated
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
        *((kind, d) for kind in ("SCORES", "WEIGHTED_SUM") for d in ("float32", "int8")),
        ("REQUANTIZE", "int8"),
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


@pytest.mark.parametrize(
    ("dtype", "rows", "size", "counted"),
    [
        *(("FLOAT32", 1, 64, 1391), ("FLOAT32", 1, 1024, 2021), ("FLOAT32", 29, 64, 4400)),
        *(("INT8", 1, 64, 1537), ("INT8", 1, 1024, 1627), ("INT8", 29, 64, 4130)),
    ],
)
def test_selections_of_rows(dtype: str, rows: int, size: int, counted: int) -> None:
    """Counted between products on a Cortex-A76, whose own counts are subtracted."""
    files = []
    for number in (FEW, MANY):
        graph = Graph((rows, size))
        scale = None if dtype == "FLOAT32" else (0.05, 0)
        condition = graph.tensor("BOOL", (rows, 1))
        operands = [graph.tensor(dtype, (rows, size), scale=scale) for _ in range(2)]
        for _ in range(number):
            result = graph.tensor(dtype, (rows, size), scale=scale)
            graph.operator("SELECT_V2", [condition, *operands], [result])
        graph.file.main.outputs = [result]
        files.append(estimate_instructions(graph.file.to_bytes())["cortex-a76"])
    assert (files[1] - files[0]) / (MANY - FEW) == pytest.approx(counted, rel=0.2)


def test_int8_sums_of_states_cost_more_than_float32() -> None:
    """Counted with 50 weights and states of 64 values: 5,300 instructions in float32 on both cores,
    47,000 in int8 on a Cortex-A72 and 15,000 on a Cortex-A76."""
    case = Case("WEIGHTED_SUM", "float32", (1, 50, 64))
    files = [repeated(Case(case.kind, d, case.shape), 4) for d in ("float32", "int8")]
    float32, int8 = map(estimate_instructions, files)
    assert int8["cortex-a72"] > 6 * float32["cortex-a72"]
    assert int8["cortex-a76"] > 2 * float32["cortex-a76"]


def test_reference_kernels_of_int16_cost_more_than_float32() -> None:
    """Counted: an int16 product of 64 x 256 takes 530,000 instructions, a float32 one 8,600."""
    files = [repeated(Case("FULLY_CONNECTED", d, (1, 64), 256), 4) for d in ("float32", "int16")]
    float32, int16 = map(estimate_instructions, files)
    assert all(int16[cpu] > 20 * float32[cpu] for cpu in CPUS)


@pytest.mark.parametrize("kind", ["FULLY_CONNECTED", "ROW_PRODUCT"])
def test_weights_that_are_dequantized_at_load_time_cost_nothing(kind: str) -> None:
    """XNNPACK dequantizes and packs them once, as it packs constants."""
    case = Case(kind, "float32", (1, 64), 256)
    file = TFLiteFile(repeated(case, 3))
    conversions = []
    for operator in file.main.operators:
        if file.kind(operator) in ("FULLY_CONNECTED", "BATCH_MATMUL"):
            weights = file.main.tensors[int(operator.inputs[1])]
            integers = np.zeros(weights.shape, np.int8)
            stored = file.add_tensor(file.main, "", "INT8", weights.shape, value=integers)
            weights.buffer = 0
            index = int(operator.inputs[1])
            conversions.append(file.new_operator("DEQUANTIZE", [stored], [index]))
    assert len(conversions) == 3
    file.main.operators = [*conversions, *file.main.operators]
    assert estimate_instructions(file.to_bytes()) == estimate_instructions(repeated(case, 3))


def test_int8_minimum_costs_more_than_float32() -> None:
    """Counted in a GRU of 64 units with hard sigmoids: 0.42 million instructions in int8, of which
    46 are MINIMUM, and 0.34 million in float32."""
    file = TFLiteFile(repeated(Case("MUL", "float32", (1, 64)), 4))
    for operator in file.main.operators:
        if file.kind(operator) == "MUL":
            operator.opcodeIndex = file.code_index("MINIMUM")
    float32 = estimate_instructions(file.to_bytes())
    other = TFLiteFile(repeated(Case("MUL", "int8", (1, 64)), 4))
    for operator in other.main.operators:
        if other.kind(operator) == "MUL":
            operator.opcodeIndex = other.code_index("MINIMUM")
    int8 = estimate_instructions(other.to_bytes())
    assert all(int8[cpu] > 10 * float32[cpu] for cpu in CPUS)


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
