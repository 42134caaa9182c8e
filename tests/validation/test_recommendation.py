"""Which artifact is recommended, worked out by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from edgeattn.bundle.manifest import Artifact, Manifest
from edgeattn.metrics.limits import Check
from edgeattn.validation.recommendation import (
    LATENCY,
    SIZE,
    Candidate,
    lowest_latencies,
    recommend,
    recommend_reported,
)
from edgeattn.validation.report import ArtifactReport


def artifact(scheme, size, format="tflite"):
    return Artifact(format, scheme, f"m.{scheme}.{format}", "0" * 64, size, (), ())


def candidate(scheme, size, verdict="pass", milliseconds=None, threads=None):
    return Candidate(
        artifact(scheme, size), verdict, "Keras", "9 samples (t.npz)", "rt 1", milliseconds, threads
    )


def test_the_smallest_that_passes():
    candidates = [
        candidate("float32", 4000),
        candidate("float16", 2000),
        candidate("dynamic_int8", 1500, "inconclusive"),
        candidate("int8", 1000, "fail"),
        candidate("int4", 500, "not run"),
    ]
    result = recommend(candidates, "this machine")
    assert (result.artifact.scheme, result.criterion) == ("float16", SIZE)
    assert result.line == (
        "Recommended: m.float16.tflite (tflite float16), the smallest that passes: 2.0 kB. "
        "Compared with Keras on 9 samples (t.npz), in rt 1 on this machine."
    )
    document = result.to_json()
    assert (document["path"], document["bytes"], document["p50_ms"]) == (
        *("m.float16.tflite", 2000),
        None,
    )
    assert (document["data"], document["runtime"], document["device"]) == (
        *("9 samples (t.npz)", "rt 1"),
        "this machine",
    )


def test_the_achieved_scheme_is_named():
    """An Embedding alone has no weight that dynamic_int8 quantizes."""
    made = replace(artifact("dynamic_int8", 1500), achieved={"scheme": "float32"})
    result = recommend([replace(candidate("int8", 1), artifact=made)], "this machine")
    assert "(tflite dynamic_int8 -> float32), the smallest that passes" in result.line
    assert result.short == "recommended: tflite dynamic_int8 -> float32"


def test_the_fastest_that_passes_although_it_is_larger():
    candidates = [
        candidate("float32", 4000, milliseconds=0.5, threads=2),
        candidate("float16", 2000, milliseconds=0.75, threads=1),
        candidate("int8", 1000, "fail", milliseconds=0.125, threads=1),
    ]
    result = recommend(candidates, "pi@a")
    assert (result.artifact.scheme, result.criterion) == ("float32", LATENCY)
    assert result.line == (
        "Recommended: m.float32.tflite (tflite float32), the fastest that passes: median 0.5 ms "
        "with 2 threads, 4.0 kB. Compared with Keras on 9 samples (t.npz), in rt 1 on pi@a."
    )


def test_the_smaller_of_two_that_are_equally_fast():
    candidates = [
        candidate("float32", 4000, milliseconds=0.5),
        candidate("float16", 2000, milliseconds=0.5),
    ]
    assert recommend(candidates, "").artifact.scheme == "float16"


def test_the_first_of_two_of_the_same_size():
    candidates = [candidate("float16", 2000), candidate("dynamic_int8", 2000)]
    assert recommend(candidates, "").artifact.scheme == "float16"


def test_one_that_was_not_timed_is_not_the_fastest():
    candidates = [
        candidate("float32", 4000, milliseconds=0.5),
        candidate("float16", 2000),
    ]
    result = recommend(candidates, "")
    assert result.artifact.scheme == "float32"
    assert "the fastest that was timed and passes" in result.line


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ((), "no artifact was compared with Keras"),
        (("not run", "not run"), "no artifact was compared with Keras"),
        (("not run", "fail"), "no artifact passes"),
        (("inconclusive",), "no artifact passes"),
    ],
)
def test_none(verdicts, reason):
    candidates = [candidate("float32", 10, verdict, 0.1) for verdict in verdicts]
    result = recommend(candidates, "this machine")
    assert (result.artifact, result.to_json()) == (None, None)
    assert result.line == f"Recommended: none, because {reason}."


def test_only_a_pass_is_recommended_whatever_the_sizes_and_latencies():
    """All combinations of verdict, size and latency of three artifacts."""
    kinds = list(
        itertools.product(("pass", "fail", "inconclusive", "not run"), (1, 2), (None, 1.0, 2.0))
    )
    for three in itertools.combinations_with_replacement(kinds, 3):
        candidates = [
            candidate(scheme, size, verdict, milliseconds)
            for scheme, (verdict, size, milliseconds) in zip("abc", three, strict=True)
        ]
        passing = [item for item in candidates if item.verdict == "pass"]
        result = recommend(candidates, "")
        assert (result.candidate is None) == (not passing)
        if result.candidate is not None:
            assert result.candidate in passing
            timed = [item.p50_ms for item in passing if item.p50_ms is not None]
            assert result.candidate.p50_ms == min(timed, default=None)
            if not timed:
                assert result.artifact.bytes == min(item.artifact.bytes for item in passing)


def test_integers_on_few_samples_are_passed_over():
    """The ranges of their calibration may clip 21% of other samples."""
    few = [replace(candidate("int8", 1000), uncertain=0.206)]
    result = recommend([*few, candidate("float16", 2000), candidate("dynamic_int8", 1500)], "a")
    assert result.line == (
        "Recommended: m.dynamic_int8.tflite (tflite dynamic_int8), the smallest that passes, apart "
        "from tflite int8: 1.5 kB. Compared with Keras on 9 samples (t.npz), in rt 1 on a. tflite "
        "int8 is smaller, but up to 21% of other samples may have larger errors in integers than "
        "any of these (97.5% confidence)."
    )
    larger = recommend([*few, candidate("dynamic_int8", 999)], "a")
    assert larger.why == (
        "the smallest that passes: 1.0 kB. Compared with Keras on 9 samples (t.npz), in rt 1 on a"
    )
    timed = [
        replace(candidate("int8", 1000, milliseconds=0.5), uncertain=0.206),
        replace(candidate("int16x8", 1000, milliseconds=0.6), uncertain=0.1),
        candidate("float16", 2000, milliseconds=0.75),
    ]
    fastest = recommend(timed, "a")
    assert fastest.artifact.scheme == "float16"
    assert ", apart from tflite int8 and tflite int16x8: median 0.75 ms, 2.0 kB." in fastest.line
    assert "tflite int8 and tflite int16x8 are faster, but up to 21% of other" in fastest.line


def test_integers_on_few_samples_if_nothing_else_passes():
    few = replace(candidate("int8", 1000), uncertain=0.206)
    result = recommend([few, candidate("float16", 2000, "fail")], "a")
    assert result.artifact.scheme == "int8"
    assert result.line.endswith(
        "in rt 1 on a; up to 21% of other samples may have larger errors in integers than any of "
        "these (97.5% confidence)."
    )


@pytest.mark.parametrize(
    ("samples", "scheme", "recommended"),
    [
        # 1 - 0.025 ** (1 / 35) = 0.1000; of 36, it is 0.0974
        (35, "int8", "float16"),
        (36, "int8", "int8"),
        (16, "int16x8", "float16"),
        # Their activations are not clipped, and synthetic samples prove little of any artifact.
        (16, "dynamic_int8", "dynamic_int8"),
        (None, "int8", "int8"),
    ],
)
def test_the_number_of_samples_decides(samples, scheme, recommended):
    checks = (Check("", "numbers", "snr_db", 60.0, 20.0, ">=", "y"),)
    reports = [
        ArtifactReport(artifact("float16", 2000), "rt 1", checks, samples=samples),
        ArtifactReport(artifact(scheme, 1000), "rt 1", checks, samples=samples),
    ]
    reference = {"samples": samples or 16, "source": "t.npz", "edge_cases": 0}
    manifest = Manifest(model={}, artifacts=(), reference=reference, made_with={})
    assert recommend_reported(reports, manifest).artifact.scheme == recommended


def test_lowest_latencies():
    one, two = artifact("float32", 1), artifact("int8", 1)
    measured = [(one, 1, 2.0), (one, 2, 1.5), (one, 4, 1.75), (two, 1, None), (two, None, 3.0)]
    assert lowest_latencies(measured) == {
        "tflite float32": (1.5, 2),
        "tflite int8": (3.0, None),
    }
