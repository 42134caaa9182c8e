"""The search, on landscapes whose optimum is known: no model and no file."""

import itertools
import math

import pytest

from edgeattn_converters.tuning.search import (
    Candidate,
    Layer,
    Result,
    Space,
    best,
    frontier,
    search,
)

BITS = {"int4": 4, "dynamic_int8": 8, "float16": 16, "float32": 32}
LAYERS = (Layer("embedding", 8000), Layer("lstm", 4000), Layer("scorer", 400), Layer("dense", 200))
SINGLES = tuple(Candidate("tflite", scheme) for scheme in ("float32", "float16", "dynamic_int8"))


class Landscape:
    """Files whose errors add up: that of each layer at each scheme is given, the rest is bytes."""

    def __init__(self, errors):
        self.errors = errors
        self.asked = []

    def of(self, candidate):
        chosen = dict(candidate.precision)
        schemes = {layer.name: chosen.get(layer.name, candidate.scheme) for layer in LAYERS}
        size = sum(layer.bytes * BITS[schemes[layer.name]] // 32 for layer in LAYERS)
        error = sum(self.errors.get((name, scheme), 0.0) for name, scheme in schemes.items())
        return size, error

    def __call__(self, candidate, task):
        self.asked.append((candidate, task))
        size, error = self.of(candidate)
        verdict = "pass" if error <= 1 else "fail"
        return Result(candidate, verdict, size, error, score=1 - error / 10)

    def smallest(self, *schemes):
        """The smallest that passes, of all mixtures of two of these schemes."""
        sizes = []
        for low, high in itertools.combinations(schemes, 2):
            for choice in itertools.product((low, high), repeat=len(LAYERS)):
                precision = dict(zip([x.name for x in LAYERS], choice, strict=True))
                size, error = self.of(Candidate("tflite", low).with_precision(precision))
                if error <= 1:
                    sizes.append(size)
        return min(sizes)


def test_one_bad_layer_is_raised_and_nothing_else():
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0, ("dense", "dynamic_int8"): 0.2})
    results = search(Space(SINGLES, LAYERS), landscape, most=100)
    chosen = best(results, "size")
    assert chosen.candidate == Candidate(
        "tflite", "dynamic_int8", precision=(("scorer", "float16"),)
    )
    assert chosen.bytes == landscape.smallest("dynamic_int8", "float16")


def test_layers_that_fail_only_together_are_found():
    errors = {(name, "dynamic_int8"): 0.6 for name in ("embedding", "lstm", "dense")}
    landscape = Landscape(errors)
    chosen = best(search(Space(SINGLES, LAYERS), landscape, most=100), "size")
    # 1.8 in all, and 1 is allowed: of the three two must be raised, and these are the smallest.
    assert dict(chosen.candidate.precision) == {"dense": "float16", "lstm": "float16"}
    assert chosen.bytes == landscape.smallest("dynamic_int8", "float16")


def test_nothing_is_mixed_where_the_smallest_scheme_passes():
    landscape = Landscape({})
    results = search(Space(SINGLES, LAYERS), landscape, most=100)
    assert [result.candidate for result in results] == list(SINGLES)
    assert best(results, "size").candidate.scheme == "dynamic_int8"


def test_mixtures_are_of_the_smallest_and_of_what_passes_above_it():
    singles = (*SINGLES, Candidate("tflite", "int4"))
    landscape = Landscape({("lstm", "int4"): 3.0})
    results = search(Space(singles, LAYERS), landscape, most=100)
    chosen = best(results, "size")
    assert dict(chosen.candidate.precision) == {"lstm": "dynamic_int8"}
    assert chosen.candidate.scheme == "int4"


def test_each_format_is_mixed_by_itself():
    singles = (*SINGLES, Candidate("onnx", "float32"), Candidate("onnx", "dynamic_int8"))
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    chosen = [
        r.candidate
        for r in search(Space(singles, LAYERS), landscape, most=100)
        if r.passed and r.candidate.precision
    ]
    assert {candidate.format for candidate in chosen} == {"tflite", "onnx"}
    onnx = next(c for c in chosen if c.format == "onnx")
    assert set(dict(onnx.precision).values()) == {
        "float32"
    }  # there is no float16 among its singles


def test_the_task_is_not_asked_for_where_only_a_cost_is_wanted():
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    search(Space(SINGLES, LAYERS), landscape, most=100)
    alone = [task for candidate, task in landscape.asked if len(candidate.precision) == 3]
    assert alone == [False] * 4


@pytest.mark.parametrize("most", [1, 3, 5, 8])
def test_no_more_is_tried_than_was_allowed_and_something_is_always_found(most):
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    results = search(Space(SINGLES, LAYERS), landscape, most=most)
    assert len(results) <= most
    assert best(results, "size") is not None


def test_where_nothing_passes_the_nearest_is_told():
    landscape = Landscape({("lstm", scheme): 5.0 for scheme in BITS})
    results = search(Space(SINGLES, LAYERS), landscape, most=100)
    assert not any(result.passed for result in results)
    assert best(results, "size").excess == 5.0


def test_an_open_verdict_is_nearer_than_a_failed_one():
    failed = Result(SINGLES[0], "fail", 10, 1.2)
    open_ = Result(SINGLES[1], "inconclusive", 20, 0.9, drop=(0.0, -0.01, 0.02))
    assert best([failed, open_], "size") is open_
    assert best([Result(SINGLES[0], "not made")], "size") is None


def test_what_is_fastest_is_chosen_for_latency_and_of_equals_the_smaller():
    slow = Result(SINGLES[0], "pass", 10, p50_ms=2.0)
    fast = Result(SINGLES[1], "pass", 30, p50_ms=1.0)
    same = Result(SINGLES[2], "pass", 20, p50_ms=1.02)
    failing = Result(SINGLES[2], "fail", 1, 9.0, p50_ms=0.1)
    assert best([slow, fast, same, failing], "latency") is same
    assert best([slow, fast, same, failing], "size") is slow
    # What was not timed cannot be the fastest.
    assert best([Result(SINGLES[0], "pass", 1), fast], "latency") is fast


def test_the_frontier_holds_what_nothing_beats():
    small = Result(SINGLES[0], "pass", 10, score=0.90, p50_ms=2.0)
    good = Result(SINGLES[1], "pass", 30, score=0.95, p50_ms=2.0)
    quick = Result(SINGLES[2], "pass", 40, score=0.90, p50_ms=1.0)
    beaten = Result(SINGLES[2], "pass", 30, score=0.94, p50_ms=2.0)
    unknown = Result(SINGLES[0], "fail", 5)
    assert frontier([good, beaten, quick, small, unknown]) == (small, good, quick)
    assert frontier([good, beaten, quick, small], "latency")[0] is quick


def test_labels_tell_what_a_candidate_is():
    candidate = Candidate("tflite", "dynamic_int8", "chunked").with_precision(
        {"lstm": "float16", "dense": "float16", "embedding": "float32"}
    )
    assert candidate.label == (
        "tflite dynamic_int8, chunked, float16 in dense, lstm, float32 in embedding"
    )
    assert Candidate("onnx", "int8").label == "onnx int8"


def test_an_unlimited_excess_can_be_ordered():
    landscape = Landscape({("scorer", "dynamic_int8"): math.inf})
    chosen = best(search(Space(SINGLES, LAYERS), landscape, most=100), "size")
    assert dict(chosen.candidate.precision) == {"scorer": "float16"}
