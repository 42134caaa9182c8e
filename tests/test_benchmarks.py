"""Ratios, noise, targets and tables of the benchmarks. No test depends on measured times."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    bench,
    by_target,
    command_line,
    conversion,
    figures,
    front_end,
    instruction_tables,
    instructions,
    kernel_bounds,
    other_quantizers,
    page,
    tables,
    targets,
    timing,
)
from benchmarks.model_names import NAMES, RECURRENT, WORDS
from benchmarks.operator_files import Case, repeated
from benchmarks.target_models import TargetCase
from edgeattn_converters.quantization import instruction_costs

PROJECT = Path(__file__).parents[1]
TFLITE, ONNX = "edgeattn TFLite", "edgeattn ONNX"


def route(median: float, *, correct: bool = True, size: int = 1000) -> dict:
    return {
        "median_ms": median,
        "p10_ms": median * 0.9,
        "p90_ms": median * 1.1,
        "correct": correct,
        "bytes": size,
        "max_abs_error": 0.0 if correct else 0.5,
    }


def steady(median: float) -> list[float]:
    """Return the times of five rounds within 1% of the median."""
    return [median * factor for factor in (0.99, 1.0, 1.0, 1.0, 1.01)]


MEDIANS = {
    "a stock TFLite": 4.0,
    "b stock unroll": 1.0,
    "c Keras ONNX": 1.5,
    TFLITE: 0.5,
    ONNX: 1.0,
    "a dynamic": 3.0,
    "b dynamic": 0.8,
    f"{TFLITE} dynamic": 0.4,
}


def model(medians: dict[str, float] = MEDIANS, incorrect: tuple[str, ...] = ()) -> dict:
    routes = {label: route(m, correct=label not in incorrect) for label, m in medians.items()}
    times = {label: steady(m) for label, m in medians.items()}
    return {
        "routes": routes,
        "ratios": targets.model_ratios(routes, times),
        "limit_ms": 0.4,
        "weight_bytes": 900,
        "multiplications": 1,
        "streamed_bytes": 1,
    }


@pytest.fixture
def document() -> dict:
    models = {name: model() for name in NAMES}
    return {
        "machine": {
            "processor": "Some CPU",
            "processors": 2,
            "python": "3.11.7",
            "versions": {"onnxruntime": "1.32.0"},
        },
        "measured": "2024-01-02",
        "rounds": 5,
        "sittings": 1,
        "models": models,
        "ratios": targets.all_ratios(models),
        "steps": {"product, XNNPACK": 2.0},
        "conversion": {
            "beside_stock": {
                "edgeattn convert": {"seconds": 20.0, "peak_bytes": 1.5e9},
                "stock": {"seconds": 10.0, "peak_bytes": 1e9},
                "ratio": 2.0,
                "low": 1.9,
                "high": 2.1,
            },
            "seconds_by_steps": {"200": 10.0, "2000": 50.0},
            "exponent": 0.7,
        },
        "command line": {
            "help": {
                "import click": {"seconds": 0.1, "cpu_seconds": 0.1},
                "help": {"seconds": 0.2, "cpu_seconds": 0.2},
                "ratio": 2.0,
                "cpu_ratio": 2.0,
            },
            "run": {
                "edgeattn run": {"seconds": 0.4, "cpu_seconds": 0.4},
                "script": {"seconds": 0.3, "cpu_seconds": 0.3},
                "more_s": 0.1,
                "more_cpu_s": 0.1,
            },
        },
    }


@pytest.fixture
def counts() -> dict:
    routes = {
        "a stock TFLite": {"instructions": 4000, "correct": True},
        "b stock unroll": {"instructions": 1000, "correct": True},
        TFLITE: {"instructions": 1100, "correct": True},
        f"{TFLITE} unrolled": {"instructions": 900, "correct": True},
        f"{TFLITE} chunked": {"instructions": 1100, "correct": True},
        f"{TFLITE} fused": {"failed": "no"},
    }
    models = {
        name: {cpu: copy.deepcopy(routes) for cpu in instruction_tables.CPUS} for name in NAMES
    }
    return {"claim": instruction_tables.CLAIM, "versions": {"qemu": "7.2"}, "models": models}


# Ratios and their noise


def test_ratio_of_medians_and_quartiles_of_rounds():
    other, ours = [2.0, 4.0, 6.0, 8.0], [1.0, 1.0, 2.0, 2.0]
    # Medians 5 and 1.5; ratios per round 2, 3, 4 and 4.
    assert timing.ratio(other, ours) == {"value": 3.333, "low": 3.0, "high": 4.0}


def test_geometric_mean_adds_spreads_in_squares():
    ratio = {"value": 2.0, "low": 2 / 1.1, "high": 2 * 1.1}
    mean = timing.geometric([ratio, {"value": 8.0, "low": 8 / 1.1, "high": 8 * 1.1}])
    assert mean["value"] == 4.0
    half = math.log(1.1) / math.sqrt(2)
    assert mean["high"] == pytest.approx(4 * math.exp(half), rel=1e-3)
    assert timing.geometric([]) is None


@pytest.mark.parametrize(
    ("now", "spread", "expected"),
    [
        (0.97, 1.0, None),  # within 5%, although the rounds do not differ
        (0.90, 1.0, 0.90),
        (0.90, 1.06, None),  # half-widths of 6% in both runs: 12% noise
        (0.80, 1.06, 0.80),
        (1.30, 1.06, 1.30),
    ],
)
def test_change_beyond_noise(now, spread, expected):
    before = {"value": 1.0, "low": 1 / spread, "high": spread}
    after = {"value": now, "low": now / spread, "high": now * spread}
    change = timing.significant_change(before, after)
    assert change == (None if expected is None else pytest.approx(expected))


def test_every_sitting_opens_and_every_round_times_every_route():
    opened, called = [], []

    def opener(label):
        def open_route():
            opened.append(label)
            return lambda row: called.append((label, row))

        return open_route

    times = timing.interleaved({n: opener(n) for n in "ab"}, [10, 20, 30], rounds=6, sittings=2)
    assert opened == ["a", "b", "a", "b"]
    assert [len(seconds) for seconds in times.values()] == [6, 6]
    assert {row for _, row in called} == {10, 20, 30}


# Which routes are compared


def test_ratios_of_a_model():
    values = {name: ratio["value"] for name, ratio in model()["ratios"].items()}
    assert values == {
        "TFLite vs best correct stock TFLite": 2.0,  # (b): 1.0 / 0.5
        "TFLite vs stock (a)": 8.0,
        "TFLite vs onnxruntime": 2.0,  # edgeattn ONNX at 1.0 is faster than (c)
        "ONNX vs Keras export (c)": 1.5,
        "TFLite dynamic vs best correct stock dynamic": 2.0,
        "TFLite dynamic vs TFLite float32": 1.25,
    }


def test_incorrect_routes_are_not_compared():
    ratios = model(incorrect=("b stock unroll",))["ratios"]
    assert ratios["TFLite vs best correct stock TFLite"]["value"] == 8.0
    assert "TFLite vs stock (a)" not in model(incorrect=(TFLITE,))["ratios"]


def test_geometric_mean_requires_all_models(document):
    assert document["ratios"]["geometric mean: TFLite vs stock (a)"]["value"] == 8.0
    del document["models"][RECURRENT[0]]["ratios"]["TFLite vs stock (a)"]
    assert "geometric mean: TFLite vs stock (a)" not in targets.all_ratios(document["models"])


# Comparison with the recorded results


def test_regression_is_reported(document, capsys):
    slower = copy.deepcopy(document)
    name = NAMES[1]
    slower["models"][name] = model({**MEDIANS, TFLITE: 0.7})
    slower["ratios"] = targets.all_ratios(slower["models"])
    assert bench.compare(document, document) == 0
    assert bench.compare(document, slower) == 1
    output = capsys.readouterr().out
    assert f"{name}: TFLite vs best correct stock TFLite: 2.00 (2.00-2.00) before" in output
    # A higher multiple of the limit is worse.
    assert f"{name}: TFLite / limit: 1.25" in output
    # A faster float32 file is no regression, although dynamic vs float32 decreases.
    assert bench.compare(slower, document) == 0


def test_missing_ratio_is_worse(document):
    now = copy.deepcopy(document["ratios"])
    name = f"{NAMES[0]}: TFLite vs stock (a)"
    del now[name]
    worse, better = targets.changes(document["ratios"], now)
    assert (worse, better) == ([f"{name}: 8.00 before, now missing"], [])
    # Models that were not measured are ignored.
    only = {key: ratio for key, ratio in now.items() if key.startswith(NAMES[1])}
    assert targets.changes(document["ratios"], only) == ([], [])


def test_other_processor_is_no_regression(document, capsys):
    other = copy.deepcopy(document)
    other["machine"]["processor"] = "Another CPU"
    other["machine"]["versions"]["onnxruntime"] = "1.33.0"
    other["ratios"] = {name: {**r, "value": r["value"] / 2} for name, r in other["ratios"].items()}
    assert bench.compare(document, other) == 0
    output = capsys.readouterr().out
    assert "processor: Some CPU before, Another CPU now" in output
    assert "onnxruntime: 1.32.0 before, 1.33.0 now" in output


# Targets


def states(rows: list) -> dict[str, str]:
    return {title: state for title, _, _, state in rows}


def test_targets_are_evaluated(document, counts):
    result = states(targets.evaluate(document, counts))
    long = "T500-Embedding-LSTM100"
    assert result[f"{long}: TFLite vs onnxruntime"] == targets.REACHED
    assert result["geometric mean: ONNX vs Keras export (c)"] == targets.REACHED
    assert result[f"{long}: ONNX / limit"] == targets.MISSED  # 1.0 / 0.4
    assert result[f"{long}: TFLite file size / weights"] == targets.REACHED  # 1000 / 900
    assert result["edgeattn --help / import click"] == targets.MISSED
    by_instructions = [
        state for title, state in result.items() if instruction_tables.CLAIM in title
    ]
    assert by_instructions == [targets.MISSED] * 2 * len(NAMES)  # 1,100 instead of 1,000


def test_targets_without_results_are_not_measured():
    rows = targets.evaluate(None, None)
    assert {state for *_, state in rows} == {targets.UNKNOWN}
    assert targets.table(rows).startswith(f"0 of {len(rows)} targets are reached.")


def test_targets_within_the_spread_are_distinguished(document):
    name = f"{NAMES[0]}: ONNX vs Keras export (c)"
    document["ratios"][name] = {"value": 0.99, "low": 0.97, "high": 1.01}
    assert states(targets.evaluate(document, None))[name] == targets.NEARLY
    document["ratios"][name] = {"value": 0.95, "low": 0.93, "high": 0.97}
    assert states(targets.evaluate(document, None))[name] == targets.MISSED


def test_exponent_of_conversion_time():
    assert conversion.exponent({"200": 1.0, "800": 8.0}) == pytest.approx(1.5)
    # Lengths below 200 are ignored.
    assert conversion.exponent({"10": 9.0, "200": 1.0, "400": 2.0, "2000": 10.0}) == pytest.approx(
        1
    )
    assert conversion.exponent({"10": 1.0, "200": 2.0}) is None


# ARM instructions


def test_growth_above_two_percent_is_reported(counts):
    before = counts["models"]
    now = copy.deepcopy(before)
    now[NAMES[0]]["cortex-a72"][TFLITE]["instructions"] = 1122  # exactly 2%
    assert instruction_tables.regressions(before, now) == []
    now[NAMES[0]]["cortex-a72"][TFLITE]["instructions"] = 1123
    (line,) = instruction_tables.regressions(before, now)
    assert line.startswith(f"{NAMES[0]}, {TFLITE}, cortex-a72: 1,100 before, 1,123 now")
    assert instruction_tables.CLAIM in line
    # Stock routes are ignored.
    now = copy.deepcopy(before)
    now[NAMES[0]]["cortex-a72"]["b stock unroll"]["instructions"] = 5000
    assert instruction_tables.regressions(before, now) == []


def test_counts_of_selected_routes_leave_the_others(counts):
    """A run for one route compares and replaces only this route."""
    before = counts["models"]
    route = {"instructions": 2000, "correct": True}
    now = {NAMES[1]: {cpu: {TFLITE: route} for cpu in instruction_tables.CPUS}}
    lines = instruction_tables.regressions(before, now, (TFLITE,))
    assert [line.split(": ")[0] for line in lines] == [
        f"{NAMES[1]}, {TFLITE}, {cpu}" for cpu in instruction_tables.CPUS
    ]
    merged = instructions.merge(before, now)
    assert list(merged) == list(before)
    for name, cpus in before.items():
        for cpu, routes in cpus.items():
            expected = {**routes, TFLITE: route} if name == NAMES[1] else routes
            assert merged[name][cpu] == expected
    assert before[NAMES[1]]["cortex-a72"][TFLITE]["instructions"] == 1100


def test_incorrect_and_failed_routes_are_reported(counts):
    now = copy.deepcopy(counts["models"])
    now[NAMES[0]]["cortex-a76"][TFLITE] = {
        "instructions": 10,
        "correct": False,
        "max_abs_error": 0.25,
    }
    now[NAMES[1]]["cortex-a76"][TFLITE] = {"failed": "exit code -11"}
    lines = instruction_tables.regressions(counts["models"], now)
    reasons = {line.split(", now ")[1] for line in lines}
    assert reasons == {"max abs error 0.25", "exit code -11"}


def test_estimates_far_from_the_counts_are_reported(counts):
    models = {"T50": counts["models"][NAMES[0]]}
    routes = models["T50"]["cortex-a72"]
    # Counted: 900 / 1,100 of the instructions.
    routes[TFLITE]["estimated"] = 2200
    routes[f"{TFLITE} unrolled"]["estimated"] = 1800
    assert instruction_tables.wrong_estimates(models) == []
    routes[f"{TFLITE} unrolled"]["estimated"] = 2200
    (line,) = instruction_tables.wrong_estimates(models)
    assert "estimated 1.00 of the instructions of float32, counted 0.82" in line


def test_lowering_table_compares_auto_with_the_fewest(counts):
    rows = instruction_tables.lowering_table(counts).splitlines()
    assert len([row for row in rows if row.startswith("| T")]) == 2 * len(NAMES)
    cells = [cell.strip() for cell in rows[4].strip("|").split("|")]
    assert cells[0] == NAMES[0]
    assert cells[-2:] == ["unrolled", "1.22"]


def test_quantized_files_are_compared_with_float32_in_the_same_lowering():
    """An incorrect file does not count; auto is omitted if a file has no loops."""

    def routes(*millions: float) -> dict:
        return {
            label: {"instructions": int(1e6 * value), "correct": True}
            for label, value in zip(labels, millions, strict=False)
        }

    labels = (*instruction_tables.SAME_LOWERING["unrolled"],)
    labels += instruction_tables.SAME_LOWERING["auto"]
    counts = {
        "A": dict.fromkeys(instruction_tables.CPUS, routes(2, 1.5, 1.1, 3, 2.7, 2.4)),
        "B": dict.fromkeys(instruction_tables.CPUS, routes(2, 1.5, 1.1, 3, 2.7, 1.1)),
    }
    counts["B"]["cortex-a76"]["edgeattn TFLite int8 unrolled"]["correct"] = False
    # Steps written out take too long to convert.
    long = routes(16, 15, 14, 21, 17, 12)
    del long["edgeattn TFLite int8 unrolled"]
    counts["C"] = dict.fromkeys(instruction_tables.CPUS, long)
    counts["D"] = dict.fromkeys(instruction_tables.CPUS, routes(2, 1.5, 1.1))
    bounds = {"A": {"cortex-a76": 0.5}}
    names = ["A", "B", "C", "D", "E"]
    table = instruction_tables.integer_table({"models": counts}, bounds, names)
    assert table.splitlines()[2:] == [
        "| A | in loops | 3.00 | 2.70 | 2.40 | 0.80 | - | 0.80 |",
        "| A | written out | 2.00 | 1.50 | 1.10 | **0.55** | 0.50 | 0.55 |",
        "| B | written out | 2.00 | 1.50 | 1.10 (incorrect) | 0.75 | - | 0.75 |",
        "| C | in loops | 21.00 | 17.00 | 12.00 | **0.57** | - | 0.57 |",
        "| C | written out | 16.00 | 15.00 | - | 0.94 | - | 0.94 |",
        "| D | written out | 2.00 | 1.50 | 1.10 | **0.55** | - | 0.55 |",
    ]


@pytest.mark.parametrize(
    ("kind", "bound"), [("FULLY_CONNECTED", 0.4), ("ROW_PRODUCT", 0.3), ("ADD", 1.0)]
)
def test_the_bound_of_a_file_takes_the_cheapest_kernel(kind, bound, monkeypatch):
    def cost(instructions: float) -> tuple[float, float, float, float]:
        return (instructions, 0.0, 0.0, 0.0)

    costs = {
        "FULLY_CONNECTED float32 row": cost(100),
        "FULLY_CONNECTED dynamic row": cost(60),
        "FULLY_CONNECTED int8 row": cost(40),
        "ROW_PRODUCT float32 row": cost(400 / 3),
        "ADD float32": cost(10),
        "ADD int8": cost(20),
    }
    monkeypatch.setattr(instruction_costs, "COSTS", {"cortex-a76": costs})
    monkeypatch.setattr(instruction_costs, "COUNTED_IN_MODELS", {})
    monkeypatch.setattr(instruction_costs, "OTHER", cost(0))
    content = repeated(Case(kind, "float32", (1, 64), 256), 3)
    assert kernel_bounds.bounds(content) == {"cortex-a76": bound}


# The page


def test_only_the_section_is_replaced():
    text = "before\n<!-- x: generated -->\nold\n<!-- x: end -->\nafter \\1\n"
    result = page.with_section(text, "x", r"new \1")
    assert result == text.replace("old", r"" + "\nnew \\1\n")
    with pytest.raises(ValueError, match="one <!-- y: generated -->"):
        page.with_section(text, "y", "new")


def test_the_table_of_raw_input_is_that_of_the_recorded_results():
    recorded = page.read(front_end.RECORDED)
    assert set(recorded) == {"commands", "activity", "spoken_digits"}
    text = page.PAGE.read_text()
    assert page.with_section(text, "front end", front_end.table(recorded)) == text
    row = {"network": 1.0, "front_end": 0.4, "in_stream": 0.25, "stream": 1.75}
    assert front_end.added(row) == 0.5


def test_page_is_generated_from_the_recorded_results():
    names = ("latest", "instructions", "kernel_bounds")
    latest, counts, bounds = (page.read(page.RESULTS / f"{name}.json") for name in names)
    text = page.PAGE.read_text()
    assert page.with_results(text, latest, counts, bounds) == text
    readers = page.READERS_PAGE.read_text()
    assert page.with_expectations(readers, latest) == readers


def test_every_model_has_words():
    assert tuple(WORDS) == NAMES


def test_tables_and_figures(document, counts, tmp_path):
    pytest.importorskip("matplotlib")
    document["models"][NAMES[0]]["routes"]["b stock unroll"] = {"failed": "it crashed"}
    document["models"][NAMES[1]]["routes"][TFLITE]["correct"] = False
    text = tables.summary_page(document, counts)
    assert "Some CPU, one thread of 2" in text
    assert f"| {NAMES[0]} | 4.000 (3.600-4.400) | failed |" in text
    assert ", incorrect: 0" in text
    expected = tables.expectations(document)
    assert all(f"| {words} | " in expected for words in WORDS.values())
    figures.plot(document, tmp_path / "plot.svg")
    figures.plot_conversion(document["conversion"], tmp_path / "conversion.svg")
    assert all((tmp_path / f"{name}.svg").stat().st_size > 1000 for name in ("plot", "conversion"))


# Measurement


def test_memory_includes_child_processes():
    code = (
        "import subprocess, sys, time; "
        "subprocess.run([sys.executable, '-c', "
        "'import time; block = bytearray(100_000_000); time.sleep(1)'])"
    )
    assert conversion.run_measured([sys.executable, "-c", code])["peak_bytes"] > 100e6


def test_run_overhead_excludes_the_script_and_numpy():
    seconds = {"edgeattn run": 0.5, "script": 0.2, "import numpy": 0.15, "python": 0.05}
    times = {name: {"seconds": value} for name, value in seconds.items()}
    assert command_line.run_overhead(times, "seconds") == pytest.approx(0.2)


def test_failed_command_is_an_error():
    with pytest.raises(RuntimeError, match="failed on purpose"):
        command_line.run_timed([sys.executable, "-c", "raise SystemExit('failed on purpose')"])
    with pytest.raises(RuntimeError, match="failed on purpose"):
        conversion.run_measured([sys.executable, "-c", "raise SystemExit('failed on purpose')"])


def test_route_that_crashes_the_process_is_excluded(monkeypatch):
    calls = []

    def run_python(arguments, what):
        without = [argument for argument in arguments if argument.startswith("--without")]
        calls.append(without)
        if len(without) < 2:
            raise bench._ProcessCrashedError(
                f"noise\n{bench.ROUTE_MARKER}{'ab'[len(without)]}\nCheck failed"
            )
        return {"what": what}

    monkeypatch.setattr(bench, "_run_python", run_python)
    assert bench._measure_in_process(NAMES[0], 4, 1) == {"what": NAMES[0]}
    assert calls == [[], ["--without=a"], ["--without=a", "--without=b"]]


def test_crash_outside_of_routes_is_reported(monkeypatch):
    def run_python(arguments, what):
        raise bench._ProcessCrashedError("no route")

    monkeypatch.setattr(bench, "_run_python", run_python)
    with pytest.raises(SystemExit, match="was not measured: no route"):
        bench._measure_in_process(NAMES[0], 4, 1)


def test_interrupted_run_resumes(tmp_path, monkeypatch):
    names, calls = NAMES[:2], []

    def measure(name, rounds, sittings):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model()

    monkeypatch.setattr(bench, "_measure_in_process", measure)
    with pytest.raises(KeyboardInterrupt):
        bench.run_all(names, 4, 1, tmp_path, complete=False)
    document = bench.run_all(names, 4, 1, tmp_path, complete=False)
    assert calls == [names[0], names[1], names[1]]
    assert list(document["models"]) == list(names)
    assert page.read(tmp_path / "latest.json") == document
    # Parts with another number of rounds are not used.
    bench.run_all(names, 5, 1, tmp_path, complete=False)
    assert calls[3:] == list(names)


def test_tables_by_target():
    """Rows in the order of the models; the reasons are those of the files of edgeattn in int8, and
    of others that did not achieve their scheme."""
    common = {"target": "litert", "verdict": "pass"}
    recorded = {
        "R03": [
            {**common, "model": "R03", "scheme": name, "achieved": achieved, "notes": notes}
            for name, achieved, notes in (
                ("dynamic_int8", "dynamic_int8", "ranges differ"),
                ("dynamic_int8", "int8_weights", ""),
                ("int8", "dynamic_int8", "in float32: a | b"),
            )
        ],
        "digits": [
            {**common, "model": "digits", "scheme": "float32", "bytes": "1,234"},
            {**common, "model": "digits", "scheme": "int8", "notes": ""},
            {"model": "digits", "target": "TensorFlow", "scheme": "int8", "verdict": "no file"},
        ],
    }
    lines = by_target.table(recorded).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["| digits", "litert", "float32"],
        ["| digits", "litert", "int8"],
        ["| digits", "TensorFlow", "int8"],
        *(["| R03", "litert", scheme] for scheme in ("dynamic_int8", "dynamic_int8", "int8")),
    ]
    assert {line.count(" | ") for line in lines} == {len(by_target.HEADER) - 1}
    assert by_target.reasons(recorded).splitlines()[2:] == [
        "| digits | litert | int8 | - | nothing |",
        f"| R03 | litert | dynamic_int8 | int8_weights | {by_target.KERNELS['litert']} |",
        "| R03 | litert | int8 | dynamic_int8 | in float32: a \\| b |",
    ]


@pytest.mark.parametrize(
    ("recurrent", "expected"),
    [
        ("", []),
        ("GRU", [by_target.RECURRENT["GRU"]]),
        ("LSTM", [by_target.RECURRENT["LSTM"]]),
        ("LSTM, GRU", list(by_target.RECURRENT.values())),
    ],
)
def test_reasons_name_the_recurrences_that_a_file_has(recurrent, expected):
    row = {"model": "R05", "target": "onnxruntime", "scheme": "int8", "achieved": "int8_weights"}
    (line,) = by_target.reasons(
        {"R05": [{**row, "notes": "", "recurrent": recurrent}]}
    ).splitlines()[2:]
    reason = "; ".join((*expected, by_target.KERNELS["onnxruntime"]))
    assert line == f"| R05 | onnxruntime | int8 | int8_weights | {reason} |"


def test_recurrences_of_a_file():
    counts = {"float32": {"GRU": 1, "MatMul": 2}, "dynamic_int8": {"DynamicQuantizeLSTM": 1}}
    assert by_target._recurrent(counts) == ["LSTM", "GRU"]
    assert by_target._recurrent({"int8": {"MatMul": 3}}) == []


def test_measured_targets_replace_their_rows():
    rows = [
        {"target": target, "scheme": scheme}
        for target, scheme in (("litert", "float32"), ("litert", "int8"), ("TensorFlow", "int8"))
    ]
    new = [{"target": "litert", "scheme": "float32", "bytes": "7"}]
    micro = [{"target": "tflite-micro", "scheme": "int8"}]
    assert by_target.merge(rows, new, ["litert"]) == [*new, rows[2]]
    assert by_target.merge(rows, micro, ["tflite-micro"]) == [*rows[:2], *micro, rows[2]]


def test_the_tables_by_target_are_those_of_the_recorded_rows():
    recorded, text = page.read(by_target.RECORDED), by_target.PAGE.read_text()
    assert page.with_section(text, by_target.SECTION, by_target.table(recorded)) == text
    assert page.with_section(text, by_target.REASONS, by_target.reasons(recorded)) == text


def test_the_row_of_a_failed_conversion_has_its_message(tmp_path):
    """Not the hint that follows it, nor the error of a later command."""
    x = np.zeros((4, 3), "float32")
    case = TargetCase(tmp_path / "missing.h5", x, x, None, "no data")
    (row,) = by_target.rows("R03", case, tmp_path, ["litert"], memory=False)
    assert row["verdict"] == f"No such file: {tmp_path / 'missing.h5'}"
    assert row["scheme"] == "float32, dynamic_int8, int8"


def test_tools_that_crash_leave_the_files_of_the_others(tmp_path, monkeypatch):
    np.save(tmp_path / "expected.npy", np.ones((2, 1)))
    np.save(tmp_path / "a.npy", np.zeros((2, 1)))
    commands = []

    def run(command, **options):
        commands.append(command[5:])
        lines = [
            {"tool": other_quantizers.AI_EDGE, "scheme": "dynamic_int8", "path": "a.tflite"},
            {"tool": other_quantizers.AI_EDGE, "scheme": "int8", "failure": "no file: why"},
            {"tool": other_quantizers.UNROLLED, "scheme": "int8", "failure": "-"},
        ]
        return subprocess.CompletedProcess(command, -11, "\n".join(map(json.dumps, lines)), "")

    monkeypatch.setattr(other_quantizers.subprocess, "run", run)
    results = other_quantizers.quantize(tmp_path, tmp_path, list(other_quantizers.SCHEMES))
    assert commands == [
        [
            *("ai-edge-quantizer/dynamic_int8", "ai-edge-quantizer/int8"),
            *("TensorFlow, unroll=True/int8", "TensorFlow/int8"),
        ]
    ]
    assert [(result.tool, result.scheme, result.failure) for result in results] == [
        ("ai-edge-quantizer", "dynamic_int8", ""),
        ("ai-edge-quantizer", "int8", "no file: why"),
        ("TensorFlow", "int8", "no file: the process crashes"),
    ]
    assert results[0].path == tmp_path / "a.tflite"


@pytest.mark.long
def test_quick_run(tmp_path):
    """A complete run with few rounds, whose times are meaningless."""
    pytest.importorskip("tensorflow")
    arguments = ["-m", "benchmarks.bench", "--quick", "--rounds", "4", "--sittings", "2"]
    result = subprocess.run(
        [sys.executable, *arguments, "--output", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "part" / "latest.json").read_text())
    (name,) = document["models"]
    routes = document["models"][name]["routes"]
    for label in ("a stock TFLite", "c Keras ONNX", TFLITE, ONNX, f"{TFLITE} dynamic"):
        assert routes[label]["correct"], (label, routes[label])
    ours, stock = routes[TFLITE], routes["a stock TFLite"]
    ratio = document["ratios"][f"{name}: TFLite vs stock (a)"]
    assert ratio["value"] == pytest.approx(stock["median_ms"] / ours["median_ms"], rel=2e-3)
    assert ratio["low"] <= ratio["high"]
    assert np.isfinite(document["models"][name]["limit_ms"])
    assert (tmp_path / "part" / "bench.md").read_text().count(f"| {name} |") == 3
    assert not list((tmp_path / "part").glob("parts-*"))
