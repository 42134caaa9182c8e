"""The search on synthetic errors whose optimum is known, without models and files."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from edgeattn.metrics.medians import FASTEST, NO_DIFFERENCE, SLOWER, median_interval
from edgeattn_converters.tuning.search import (
    Candidate,
    Layer,
    Result,
    Space,
    best,
    compare_with_fastest,
    fastest_group,
    frontier,
    search,
)

BITS = {"int4": 4, "dynamic_int8": 8, "float16": 16, "float32": 32}
LAYERS = (Layer("embedding", 8000), Layer("lstm", 4000), Layer("scorer", 400), Layer("dense", 200))
UNIFORM = tuple(Candidate("tflite", scheme) for scheme in ("float32", "float16", "dynamic_int8"))


class Landscape:
    """Evaluates candidates whose error is the sum of ``errors`` by layer and scheme; limit: 1."""

    def __init__(self, errors):
        self.errors = errors
        self.evaluated = []

    def size_and_error(self, candidate):
        precision = dict(candidate.precision)
        schemes = {layer.name: precision.get(layer.name, candidate.scheme) for layer in LAYERS}
        size = sum(layer.bytes * BITS[schemes[layer.name]] // 32 for layer in LAYERS)
        error = sum(self.errors.get((name, scheme), 0.0) for name, scheme in schemes.items())
        return size, error

    def __call__(self, candidate, task):
        self.evaluated.append((candidate, task))
        size, error = self.size_and_error(candidate)
        verdict = "pass" if error <= 1 else "fail"
        return Result(candidate, verdict, size, error, score=1 - error / 10)

    def smallest(self, *schemes):
        """The smallest size that passes, by exhaustive search over mixtures of two schemes."""
        sizes = []
        for low, high in itertools.combinations(schemes, 2):
            for choice in itertools.product((low, high), repeat=len(LAYERS)):
                precision = dict(zip([x.name for x in LAYERS], choice, strict=True))
                size, error = self.size_and_error(
                    Candidate("tflite", low).with_precision(precision)
                )
                if error <= 1:
                    sizes.append(size)
        return min(sizes)


def test_only_the_sensitive_layer_is_raised():
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0, ("dense", "dynamic_int8"): 0.2})
    results = search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results
    chosen = best(results, "size")
    assert chosen.candidate == Candidate(
        "tflite", "dynamic_int8", precision=(("scorer", "float16"),)
    )
    assert chosen.bytes == landscape.smallest("dynamic_int8", "float16")


def test_layers_that_fail_only_together():
    errors = {(name, "dynamic_int8"): 0.6 for name in ("embedding", "lstm", "dense")}
    landscape = Landscape(errors)
    chosen = best(search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results, "size")
    # The sum is 1.8 and the limit 1, so two of the three must be raised: the two smallest.
    assert dict(chosen.candidate.precision) == {"dense": "float16", "lstm": "float16"}
    assert chosen.bytes == landscape.smallest("dynamic_int8", "float16")


def test_no_mixtures_if_the_smallest_scheme_passes():
    landscape = Landscape({})
    results = search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results
    assert {result.candidate for result in results} == set(UNIFORM)
    assert best(results, "size").candidate.scheme == "dynamic_int8"


def test_mixtures_use_the_next_larger_scheme_that_passes():
    uniform = (*UNIFORM, Candidate("tflite", "int4"))
    landscape = Landscape({("lstm", "int4"): 3.0})
    results = search(Space(uniform, LAYERS), landscape, max_candidates=100).results
    chosen = best(results, "size")
    assert dict(chosen.candidate.precision) == {"lstm": "dynamic_int8"}
    assert chosen.candidate.scheme == "int4"


def test_mixtures_of_each_format():
    uniform = (*UNIFORM, Candidate("onnx", "float32"), Candidate("onnx", "dynamic_int8"))
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    chosen = [
        r.candidate
        for r in search(Space(uniform, LAYERS), landscape, max_candidates=100).results
        if r.passed and r.candidate.precision
    ]
    assert {candidate.format for candidate in chosen} == {"tflite", "onnx"}
    onnx = next(c for c in chosen if c.format == "onnx")
    assert set(dict(onnx.precision).values()) == {"float32"}  # its schemes do not include float16


def test_the_task_is_not_evaluated_to_measure_costs():
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    search(Space(UNIFORM, LAYERS), landscape, max_candidates=100)
    alone = [task for candidate, task in landscape.evaluated if len(candidate.precision) == 3]
    assert alone == [False] * 4


def test_a_candidate_passes_only_if_its_task_was_evaluated():
    """The smallest mixture that the measurement of costs evaluates fails the task."""

    class Task(Landscape):
        def __call__(self, candidate, task):
            result = super().__call__(candidate, task)
            if task and candidate.scheme == "dynamic_int8":
                return replace(result, verdict="inconclusive")
            return result if task else replace(result, score=None)

    landscape = Task({("scorer", "dynamic_int8"): 7.0})
    results = search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results
    assert {r.candidate.scheme for r in results if r.passed} == {"float16", "float32"}
    assert best(results, "size").candidate == Candidate("tflite", "float16")


@pytest.mark.parametrize("limit", [1, 3, 5, 8])
def test_the_number_of_candidates_is_limited(limit):
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    results = search(Space(UNIFORM, LAYERS), landscape, max_candidates=limit).results
    assert len(results) <= limit
    assert best(results, "size") is not None


def test_the_promising_candidates_are_first_and_the_others_are_listed():
    """Every format's smallest schemes come first; then other lowerings of those that pass."""
    uniform = tuple(
        Candidate(format, scheme, lowering)
        for format in ("tflite", "onnx")
        for scheme in ("float32", "float16", "dynamic_int8")
        for lowering in (("auto", "fused", "chunked") if format == "tflite" else ("auto",))
    )
    landscape = Landscape({("scorer", "dynamic_int8"): 7.0})
    searched = search(Space(uniform, LAYERS), landscape, max_candidates=8)
    assert [result.candidate for result in searched.results] == [
        Candidate("tflite", "dynamic_int8"),
        Candidate("onnx", "dynamic_int8"),
        Candidate("tflite", "float16"),
        Candidate("onnx", "float16"),
        Candidate("tflite", "float32"),
        Candidate("onnx", "float32"),
        Candidate("tflite", "float16", "fused"),
        Candidate("tflite", "float16", "chunked"),
    ]
    assert not searched.mixtures
    assert set(searched.untried) == {
        Candidate("tflite", scheme, lowering)
        for scheme in ("float32", "dynamic_int8")
        for lowering in ("fused", "chunked")
    }
    complete = search(Space(uniform, LAYERS), landscape, max_candidates=100)
    assert (complete.untried, complete.mixtures) == ((), True)


def test_the_closest_candidate_if_none_passes():
    landscape = Landscape({("lstm", scheme): 5.0 for scheme in BITS})
    results = search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results
    assert not any(result.passed for result in results)
    assert best(results, "size").excess == 5.0


def test_an_inconclusive_verdict_is_closer_than_a_failed_one():
    failed = Result(UNIFORM[0], "fail", 10, 1.2)
    inconclusive = Result(UNIFORM[1], "inconclusive", 20, 0.9, drop=(0.0, -0.01, 0.02))
    assert best([failed, inconclusive], "size") is inconclusive
    assert best([Result(UNIFORM[0], "not made")], "size") is None


def timed(index, size, p50_ms, interval_ms, verdict="pass"):
    candidate = replace(UNIFORM[index % len(UNIFORM)], precision=(("layer", str(index)),))
    return Result(candidate, verdict, size, p50_ms=p50_ms, interval_ms=interval_ms)


def test_latency_prefers_the_fastest_and_among_those_without_a_difference_the_smallest():
    slow = timed(0, 10, 2.0, (1.9, 2.1))
    fast = timed(1, 30, 1.0, (0.9, 1.1))
    # Its interval overlaps with that of the fastest.
    same = timed(2, 20, 1.15, (1.05, 1.2))
    failing = timed(3, 1, 0.1, (0.1, 0.1), "fail")
    results = [slow, fast, same, failing]
    assert best(results, "latency") is same
    assert best(results, "size") is slow
    assert fastest_group(results) == (fast, same)
    assert [compare_with_fastest(item, results) for item in results] == [
        SLOWER,
        NO_DIFFERENCE,
        NO_DIFFERENCE,
        None,
    ]
    # Without it, the difference is measured.
    assert compare_with_fastest(fast, [slow, fast]) == FASTEST
    # A result without latency cannot be the fastest.
    untimed = Result(UNIFORM[0], "pass", 1)
    assert best([untimed, fast], "latency") is fast
    assert compare_with_fastest(untimed, [untimed, fast]) is None


def test_overlaps_that_form_a_chain():
    """The third overlaps with the second only, and is slower than the first."""
    first, second, third = (
        timed(index, 30 - index, start + 0.5, (start, start + 1.0))
        for index, start in enumerate((1.0, 1.9, 2.8))
    )
    results = [third, second, first]
    assert best(results, "latency") is second
    assert [compare_with_fastest(item, results) for item in results] == [
        SLOWER,
        NO_DIFFERENCE,
        NO_DIFFERENCE,
    ]


def simulated_results(generator, medians, noise):
    results = []
    for index, median in enumerate(medians):
        rounds = median * np.exp(noise * generator.standard_normal(25))
        middle, low, high = median_interval(rounds.tolist(), len(medians))
        results.append(timed(index, 10 + index, middle, (low, high)))
    return results


def test_noise_is_hardly_ever_called_a_difference():
    """16 candidates that are equally fast, 300 times; none has a difference in 95%."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        results = simulated_results(generator, [1.0] * 16, 0.05)
        wrong += len(fastest_group(results)) < 16
    assert wrong <= 15


def test_a_difference_beyond_the_noise_is_measured():
    generator = np.random.default_rng(2)
    for _ in range(50):
        results = simulated_results(generator, [1.05, 1.0, 1.05], 0.01)
        assert [compare_with_fastest(item, results) for item in results] == [
            SLOWER,
            FASTEST,
            SLOWER,
        ]


def test_the_frontier_ignores_differences_within_noise():
    small = replace(timed(0, 10, 1.1, (0.9, 1.3)), score=0.9)
    large = replace(timed(1, 20, 1.0, (0.8, 1.2)), score=0.9)
    assert frontier([large, small]) == (small,)
    faster = replace(timed(2, 20, 0.5, (0.4, 0.6)), score=0.9)
    assert frontier([faster, small]) == (small, faster)


def test_the_frontier_excludes_results_that_another_beats():
    small = Result(UNIFORM[0], "pass", 10, score=0.90, p50_ms=2.0)
    good = Result(UNIFORM[1], "pass", 30, score=0.95, p50_ms=2.0)
    quick = Result(UNIFORM[2], "pass", 40, score=0.90, p50_ms=1.0)
    beaten = Result(UNIFORM[2], "pass", 30, score=0.94, p50_ms=2.0)
    unknown = Result(UNIFORM[0], "fail", 5)
    assert frontier([good, beaten, quick, small, unknown]) == (small, good, quick)
    assert frontier([good, beaten, quick, small], "latency")[0] is quick


def test_labels():
    candidate = Candidate("tflite", "dynamic_int8", "chunked").with_precision(
        {"lstm": "float16", "dense": "float16", "embedding": "float32"}
    )
    assert candidate.label == (
        "tflite dynamic_int8, chunked, float16 in dense, lstm, float32 in embedding"
    )
    assert Candidate("onnx", "int8").label == "onnx int8"


def test_an_infinite_excess():
    landscape = Landscape({("scorer", "dynamic_int8"): math.inf})
    chosen = best(search(Space(UNIFORM, LAYERS), landscape, max_candidates=100).results, "size")
    assert dict(chosen.candidate.precision) == {"scorer": "float16"}
