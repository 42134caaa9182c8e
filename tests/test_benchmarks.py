"""What the benchmarks make of figures: ratios, noise, targets, tables. Nothing here is timed."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench, command_line, conversion, instructions, page, tables, targets, timing
from benchmarks.names import NAMES, RECURRENT

PROJECT = Path(__file__).parents[1]
TFLITE, ONNX = "edgeattn TFLite", "edgeattn ONNX"


def route(median: float, *, right: bool = True, size: int = 1000) -> dict:
    return {
        "median_ms": median,
        "p10_ms": median * 0.9,
        "p90_ms": median * 1.1,
        "right": right,
        "bytes": size,
        "max_abs_error": 0.0 if right else 0.5,
    }


def steady(median: float) -> list[float]:
    """Rounds around a median: 1% to either side."""
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


def model(medians: dict[str, float] = MEDIANS, wrong: tuple[str, ...] = ()) -> dict:
    routes = {label: route(m, right=label not in wrong) for label, m in medians.items()}
    times = {label: steady(m) for label, m in medians.items()}
    return {
        "routes": routes,
        "ratios": targets.ratios_of(routes, times),
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
        "ratios": targets.ratios(models),
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
def counted() -> dict:
    routes = {
        "a stock TFLite": {"instructions": 4000, "right": True},
        "b stock unroll": {"instructions": 1000, "right": True},
        TFLITE: {"instructions": 1100, "right": True},
        f"{TFLITE} unrolled": {"instructions": 900, "right": True},
        f"{TFLITE} chunked": {"instructions": 1100, "right": True},
        f"{TFLITE} fused": {"failed": "no"},
    }
    models = {name: {cpu: copy.deepcopy(routes) for cpu in instructions.CPUS} for name in NAMES}
    return {"claim": instructions.CLAIM, "versions": {"qemu": "7.2"}, "models": models}


# Ratios and their noise


def test_a_ratio_is_one_of_medians_with_the_quartiles_of_its_rounds():
    theirs, ours = [2.0, 4.0, 6.0, 8.0], [1.0, 1.0, 2.0, 2.0]
    # Medians 5 and 1.5; the rounds' own: 2, 3, 4, 4.
    assert timing.ratio(theirs, ours) == {"value": 3.333, "low": 3.0, "high": 4.0}


def test_a_geometric_mean_adds_spreads_in_squares():
    each = {"value": 2.0, "low": 2 / 1.1, "high": 2 * 1.1}
    mean = timing.geometric([each, {"value": 8.0, "low": 8 / 1.1, "high": 8 * 1.1}])
    assert mean["value"] == 4.0
    half = math.log(1.1) / math.sqrt(2)
    assert mean["high"] == pytest.approx(4 * math.exp(half), rel=1e-3)
    assert timing.geometric([]) is None


@pytest.mark.parametrize(
    ("now", "spread", "expected"),
    [
        (0.97, 1.0, None),  # within 5%, though the rounds did not differ at all
        (0.90, 1.0, 0.90),
        (0.90, 1.06, None),  # 6% to either side in both runs: 12% of noise
        (0.80, 1.06, 0.80),
        (1.30, 1.06, 1.30),
    ],
)
def test_what_is_beyond_noise(now, spread, expected):
    before = {"value": 1.0, "low": 1 / spread, "high": spread}
    after = {"value": now, "low": now / spread, "high": now * spread}
    moved = timing.moved(before, after)
    assert moved == (None if expected is None else pytest.approx(expected))


def test_every_sitting_opens_every_route_and_every_round_times_it():
    opened, called = [], []

    def opening(label):
        def open_one():
            opened.append(label)
            return lambda row: called.append((label, row))

        return open_one

    times = timing.interleaved({n: opening(n) for n in "ab"}, [10, 20, 30], rounds=6, sittings=2)
    assert opened == ["a", "b", "a", "b"]
    assert [len(each) for each in times.values()] == [6, 6]
    assert {row for _, row in called} == {10, 20, 30}


# Which routes are compared


def test_the_ratios_of_a_model():
    told = {name: ratio["value"] for name, ratio in model()["ratios"].items()}
    assert told == {
        "TFLite, the best right stock TFLite": 2.0,  # b at 1.0 over 0.5
        "TFLite, stock (a)": 8.0,
        "TFLite, onnxruntime": 2.0,  # ours at 1.0: faster than (c)
        "ONNX, Keras' export (c)": 1.5,
        "TFLite dynamic, the best right stock dynamic": 2.0,
        "TFLite dynamic, TFLite float32": 1.25,
    }


def test_a_wrong_route_beats_nobody():
    told = model(wrong=("b stock unroll",))["ratios"]
    assert told["TFLite, the best right stock TFLite"]["value"] == 8.0
    assert "TFLite, stock (a)" not in model(wrong=(TFLITE,))["ratios"]


def test_a_geometric_mean_is_of_all_models_or_of_none(document):
    assert document["ratios"]["geometric mean: TFLite, stock (a)"]["value"] == 8.0
    del document["models"][RECURRENT[0]]["ratios"]["TFLite, stock (a)"]
    assert "geometric mean: TFLite, stock (a)" not in targets.ratios(document["models"])


# The comparison with the last table


def test_a_planted_regression_is_seen(document, capsys):
    slower = copy.deepcopy(document)
    name = NAMES[1]
    slower["models"][name] = model({**MEDIANS, TFLITE: 0.7})
    slower["ratios"] = targets.ratios(slower["models"])
    assert bench.compare(document, document) == 0
    assert bench.compare(document, slower) == 1
    told = capsys.readouterr().out
    assert f"{name}: TFLite, the best right stock TFLite: 2.00 (2.00-2.00) before" in told
    # A limit counts the other way round.
    assert f"{name}: TFLite, the limit: 1.25" in told
    # The other way it is no regression, though what is told of dynamic beside float32 sinks.
    assert bench.compare(slower, document) == 0


def test_a_ratio_that_is_gone_is_worse(document):
    now = copy.deepcopy(document["ratios"])
    name = f"{NAMES[0]}: TFLite, stock (a)"
    del now[name]
    worse, better = targets.changes(document["ratios"], now)
    assert (worse, better) == ([f"{name}: 8.00 before, now none"], [])
    # Of models that were not measured nothing is said.
    only = {key: ratio for key, ratio in now.items() if key.startswith(NAMES[1])}
    assert targets.changes(document["ratios"], only) == ([], [])


def test_another_processor_judges_nothing(document, capsys):
    other = copy.deepcopy(document)
    other["machine"]["processor"] = "Another CPU"
    other["machine"]["versions"]["onnxruntime"] = "1.33.0"
    other["ratios"] = {name: {**r, "value": r["value"] / 2} for name, r in other["ratios"].items()}
    assert bench.compare(document, other) == 0
    told = capsys.readouterr().out
    assert "processor: Some CPU before, Another CPU now" in told
    assert "onnxruntime: 1.32.0 before, 1.33.0 now" in told


# What is to be reached


def words(rows: list) -> dict[str, str]:
    return {asked: word for asked, _, _, word in rows}


def test_targets_are_computed(document, counted):
    told = words(targets.judged(document, counted))
    long = "T500-Embedding-LSTM100"
    assert told[f"{long}: TFLite over onnxruntime's LSTM"] == targets.REACHED
    assert told["ONNX over Keras' export (c), geometric mean"] == targets.REACHED
    assert told[f"{long}: ONNX, times the limit"] == targets.MISSED  # 1.0 over 0.4
    assert told[f"{long}: the flatbuffer over the weights"] == targets.REACHED  # 1000 over 900
    assert told["edgeattn --help, times import click"] == targets.MISSED
    counts = [word for asked, word in told.items() if instructions.CLAIM in asked]
    assert counts == [targets.MISSED] * 2 * len(NAMES)  # 1,100 beside 1,000


def test_a_target_that_was_not_measured_is_not_reached():
    rows = targets.judged(None, None)
    assert {word for *_, word in rows} == {targets.UNKNOWN}
    assert targets.table(rows).startswith(f"0 of {len(rows)} are reached.")


def test_nearly_reached_is_told_apart(document):
    name = f"{NAMES[0]}: ONNX, Keras' export (c)"
    asked = f"{NAMES[0]}: ONNX over Keras' export (c)"
    document["ratios"][name] = {"value": 0.99, "low": 0.97, "high": 1.01}
    assert words(targets.judged(document, None))[asked] == targets.NEARLY
    document["ratios"][name] = {"value": 0.95, "low": 0.93, "high": 0.97}
    assert words(targets.judged(document, None))[asked] == targets.MISSED


def test_the_exponent_is_that_of_the_time():
    assert conversion.exponent({"200": 1.0, "800": 8.0}) == pytest.approx(1.5)
    # Below 200 steps the cost that does not depend on the length is left out.
    assert conversion.exponent({"10": 9.0, "200": 1.0, "400": 2.0, "2000": 10.0}) == pytest.approx(
        1
    )
    assert conversion.exponent({"10": 1.0, "200": 2.0}) is None


# ARM instructions


def test_more_than_two_in_a_hundred_is_told(counted):
    before = counted["models"]
    now = copy.deepcopy(before)
    now[NAMES[0]]["cortex-a72"][TFLITE]["instructions"] = 1122  # 2% to the dot
    assert instructions.grown(before, now) == []
    now[NAMES[0]]["cortex-a72"][TFLITE]["instructions"] = 1123
    (line,) = instructions.grown(before, now)
    assert line.startswith(f"{NAMES[0]}, {TFLITE}, cortex-a72: 1,100 before, 1,123 now")
    assert instructions.CLAIM in line
    # What a stock route takes is its own affair.
    now = copy.deepcopy(before)
    now[NAMES[0]]["cortex-a72"]["b stock unroll"]["instructions"] = 5000
    assert instructions.grown(before, now) == []


def test_what_is_no_longer_right_is_told(counted):
    now = copy.deepcopy(counted["models"])
    now[NAMES[0]]["cortex-a76"][TFLITE] = {
        "instructions": 10,
        "right": False,
        "max_abs_error": 0.25,
    }
    now[NAMES[1]]["cortex-a76"][TFLITE] = {"failed": "ended with -11"}
    told = instructions.grown(counted["models"], now)
    assert {line.split(", now ")[1] for line in told} == {"wrong by 0.25", "ended with -11"}


def test_what_auto_chose_beside_the_fewest(counted):
    rows = instructions.choices(counted).splitlines()
    assert len([row for row in rows if row.startswith("| T")]) == 2 * len(NAMES)
    cells = [cell.strip() for cell in rows[4].strip("|").split("|")]
    assert cells[0] == NAMES[0]
    assert cells[-2:] == ["unrolled", "1.22"]


# The page


def test_a_section_is_replaced_and_nothing_else():
    text = "before\n<!-- x: made by program -->\nold\n<!-- x: end -->\nafter \\1\n"
    made = page.with_section(text, "x", r"new \1")
    assert made == text.replace("old", r"" + "\nnew \\1\n")
    with pytest.raises(ValueError, match="one <!-- y: made by program -->"):
        page.with_section(text, "y", "new")


def test_the_page_says_what_is_kept():
    latest, counted = (page.read(page.RESULTS / f"{n}.json") for n in ("latest", "instructions"))
    text = page.PAGE.read_text()
    assert page.renewed(text, latest, counted) == text


def test_tables_and_pictures_of_a_document(document, counted, tmp_path):
    pytest.importorskip("matplotlib")
    document["models"][NAMES[0]]["routes"]["b stock unroll"] = {"failed": "it crashed"}
    document["models"][NAMES[1]]["routes"][TFLITE]["right"] = False
    text = tables.page_of(document, counted)
    assert "Some CPU, one thread of 2" in text
    assert f"| {NAMES[0]} | 4.000 (3.600-4.400) | not made |" in text
    assert "wrong by 0" in text
    tables.plot(document, tmp_path / "plot.svg")
    tables.plot_conversion(document["conversion"], tmp_path / "conversion.svg")
    assert all((tmp_path / f"{name}.svg").stat().st_size > 1000 for name in ("plot", "conversion"))


# What measures


def test_a_command_and_all_its_children_are_measured():
    code = (
        "import subprocess, sys, time; "
        "subprocess.run([sys.executable, '-c', "
        "'import time; block = bytearray(100_000_000); time.sleep(1)'])"
    )
    assert conversion.spent([sys.executable, "-c", code])["peak_bytes"] > 100e6


def test_what_run_takes_beyond_a_script_and_numpy():
    each = {"edgeattn run": 0.5, "script": 0.2, "import numpy": 0.15, "python": 0.05}
    ran = {name: {"seconds": value} for name, value in each.items()}
    assert command_line._more(ran, "seconds") == pytest.approx(0.2)


def test_a_command_that_fails_is_no_figure():
    with pytest.raises(RuntimeError, match="no good"):
        command_line.spent([sys.executable, "-c", "raise SystemExit('no good')"])
    with pytest.raises(RuntimeError, match="no good"):
        conversion.spent([sys.executable, "-c", "raise SystemExit('no good')"])


def test_a_route_that_kills_the_process_is_left_out(monkeypatch):
    asked = []

    def answer(arguments, what):
        without = [word for word in arguments if word.startswith("--without")]
        asked.append(without)
        if len(without) < 2:
            raise bench._Died(f"noise\n{bench.MAKING}{'ab'[len(without)]}\nCheck failed")
        return {"what": what}

    monkeypatch.setattr(bench, "_answer", answer)
    assert bench._in_child(NAMES[0], 4, 1) == {"what": NAMES[0]}
    assert asked == [[], ["--without=a"], ["--without=a", "--without=b"]]


def test_a_death_that_no_route_explains_is_told(monkeypatch):
    def answer(arguments, what):
        raise bench._Died("nothing was made")

    monkeypatch.setattr(bench, "_answer", answer)
    with pytest.raises(SystemExit, match="was not measured: nothing was made"):
        bench._in_child(NAMES[0], 4, 1)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    names, asked = NAMES[:2], []

    def child(name, rounds, sittings):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return model()

    monkeypatch.setattr(bench, "_in_child", child)
    with pytest.raises(KeyboardInterrupt):
        bench.run_all(names, 4, 1, tmp_path, whole=False)
    document = bench.run_all(names, 4, 1, tmp_path, whole=False)
    assert asked == [names[0], names[1], names[1]]
    assert list(document["models"]) == list(names)
    assert page.read(tmp_path / "latest.json") == document
    # With another count of rounds nothing of it would be taken.
    bench.run_all(names, 5, 1, tmp_path, whole=False)
    assert asked[3:] == list(names)


def test_a_run_of_one_model(tmp_path):
    """The whole way, with few rounds: the figures mean nothing, what is told of them does."""
    pytest.importorskip("tensorflow")
    arguments = ["-m", "benchmarks.bench", "--quick", "--rounds", "4", "--sittings", "2"]
    done = subprocess.run(
        [sys.executable, *arguments, "--output", str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "part" / "latest.json").read_text())
    (name,) = document["models"]
    routes = document["models"][name]["routes"]
    for label in ("a stock TFLite", "c Keras ONNX", TFLITE, ONNX, f"{TFLITE} dynamic"):
        assert routes[label]["right"], (label, routes[label])
    ours, stock = routes[TFLITE], routes["a stock TFLite"]
    ratio = document["ratios"][f"{name}: TFLite, stock (a)"]
    assert ratio["value"] == pytest.approx(stock["median_ms"] / ours["median_ms"], rel=2e-3)
    assert ratio["low"] <= ratio["high"]
    assert np.isfinite(document["models"][name]["limit_ms"])
    assert (tmp_path / "part" / "bench.md").read_text().count(f"| {name} |") == 3
    assert not list((tmp_path / "part").glob("parts-*"))
