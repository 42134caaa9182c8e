"""The choice by latency: candidates that do not pass on the board, and boards that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeattn.benchmark.comparison import MedianLatency
from edgeattn.errors import DeviceError
from edgeattn_converters.tuning import latency
from edgeattn_converters.tuning.latency import TIMED, _check_measured, _measured, confirmed
from edgeattn_converters.tuning.search import Candidate, Result

FAST = Result(Candidate("tflite", "int8", "fused"), "pass", 30, p50_ms=1.0, interval_ms=(0.9, 1.1))
SLOW = Result(Candidate("tflite", "int8"), "pass", 20, p50_ms=2.0, interval_ms=(1.9, 2.1))
LARGE = Result(Candidate("onnx", "float32"), "pass", 90, p50_ms=3.0, interval_ms=(2.9, 3.1))


def test_a_candidate_that_fails_on_the_board_is_not_chosen():
    checked = []

    def on_board(result):
        checked.append(result)
        wrong = result.candidate == FAST.candidate
        return replace(result, verdict="fail", shortfall="on pi: wrong") if wrong else result

    results, chosen = confirmed((LARGE, FAST, SLOW), "latency", on_board)
    assert chosen == SLOW
    assert checked == [FAST, SLOW]
    assert [(item.verdict, item.shortfall) for item in results] == [
        ("pass", ""),
        ("fail", "on pi: wrong"),
        ("pass", ""),
    ]


def test_if_no_candidate_passes_on_the_board_the_result_is_a_fail():
    def on_board(result):
        return replace(result, verdict="fail", excess=result.bytes)

    results, chosen = confirmed((FAST, SLOW), "latency", on_board)
    assert not any(item.passed for item in results)
    assert (chosen.candidate, chosen.verdict) == (SLOW.candidate, "fail")


def test_a_board_that_measures_nothing_is_an_error():
    unmeasured = replace(
        FAST, p50_ms=None, interval_ms=None, unmeasured="The runtime ended with signal 9."
    )
    with pytest.raises(DeviceError, match=r"No candidate could be measured on pi: .* signal 9"):
        _check_measured((unmeasured, unmeasured), "pi")
    _check_measured((unmeasured, SLOW), "pi")


def test_what_the_manifest_has():
    latencies = [MedianLatency((1.0,) * 25, 2), MedianLatency((1.0,) * 24, 2)]
    same = replace(SLOW, interval_ms=(1.0, 2.1))
    assert _measured(same, (FAST, same), latencies, None) == {
        "p50_ms": 2.0,
        "interval_ms": [1.0, 2.1],
        "rounds": 24,
        "threads": 1,
        "on": "the machine that searched",
        "device": None,
        "no_difference_measured": ["tflite int8, fused"],
    }
    assert _measured(replace(SLOW, p50_ms=None), (SLOW,), latencies, None) is None


def test_more_candidates_are_timed_if_latency_is_the_aim():
    results = [replace(SLOW, bytes=size) for size in range(40, 0, -1)]
    for aim, count in TIMED.items():
        sizes = [result.bytes for result in latency._to_time(results, aim)]
        assert sizes == list(range(1, count + 1))
    failing = replace(SLOW, verdict="fail")
    assert latency._to_time([failing], "latency") == [failing]
