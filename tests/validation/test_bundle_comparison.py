"""Two bundles side by side: every kind of change, the limits, the exit code and bad input."""

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import artifacts
import numpy as np
import onnx
import pytest

import edgeattn as package
from edgeattn.api.result import plain
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, UsageError
from edgeattn.evaluation.results import TaskReport, TaskResult
from edgeattn.metrics.limits import Check
from edgeattn.validation.bundle_comparison import Basis, compare_reports
from edgeattn.validation.changes import ComparisonLimits, difference, growth
from edgeattn.validation.report import ArtifactReport

MAP = "attention/a"
DEFAULTS = ComparisonLimits()


def report(size=1000, error=0.5, attention=0.125, score=None, passes=True, maps=(MAP,), data=None):
    """A report on an artifact of ``size`` bytes with these errors."""
    artifact = Artifact("onnx", "int8", "m.onnx", "0" * 64, size, (), (), maps)
    limit = math.inf if passes else 0.0
    checks = [
        Check("a", "numbers", "samples_max_abs_error", error, limit, output="y"),
        Check("a", "numbers", "max_abs_error", error, limit, output="y", data=data),
        Check("a", "attention", "max_abs_error", attention, math.inf, output=MAP, data=data),
    ]
    result = TaskReport("Keras", (), "t.npz")
    if score is not None:
        outcome = TaskResult("y", "classes", "accuracy", 100, 1.0, score, (0, 0), 0.5, "pass")
        result = replace(result, results=(outcome,), samples=100)
    return ArtifactReport(artifact, "rt 1", tuple(checks), task=None if score is None else result)


def compared(old, new, limits=DEFAULTS, same_samples=True, latencies=None):
    basis = Basis("old.edge", limits, same_samples, 7, latencies or {})
    return compare_reports([old], [new], basis)


@pytest.mark.parametrize(
    ("old", "new", "regressions"),
    [
        ({}, {}, []),
        ({"size": 1000}, {"size": 1100}, []),
        ({"size": 1000}, {"size": 1125}, ["size grew by 12.5% (limit 10%)"]),
        ({"size": 1125}, {"size": 1000}, []),
        ({"score": 0.75}, {"score": 0.74}, []),
        ({"score": 0.75}, {"score": 0.5}, ["score of y dropped by 25.00 points (limit 1)"]),
        ({"score": 0.5}, {"score": 0.75}, []),
        ({"score": 0.5}, {"score": math.nan}, ["score of y dropped by nan points (limit 1)"]),
        ({"error": 0.5}, {"error": 50.0}, []),
        ({}, {"attention": 0.25}, ["max map error increased by 0.12 (limit 0.01)"]),
        ({"attention": 0.25}, {}, []),
        ({}, {"passes": False}, ["verdict was pass and is fail"]),
        ({"passes": False}, {}, []),
        ({}, {"maps": ()}, ["no longer has the attention map a"]),
    ],
)
def test_what_is_worse_beyond_the_default_limits(old, new, regressions):
    comparison = compared(report(**old), report(**new))
    assert [text.removeprefix("onnx int8: ") for text in comparison.regressions] == regressions
    json.dumps(plain(comparison.to_json()), allow_nan=False)


def test_limits_replace_the_defaults():
    limits = ComparisonLimits.parse(["size=0.5", "error=1", "attention=inf", "score=0.3"])
    assert limits.latency == ComparisonLimits().latency
    old, new = report(score=0.75), report(1500, 1.0, 0.75, 0.5)
    assert compared(old, new, limits).regressions == ()
    worse = compared(old, report(1501, 1.5, 1.0, 0.25), limits).regressions
    assert [text.removeprefix("onnx int8: ") for text in worse] == [
        "size grew by 50.1% (limit 50%)",
        "score of y dropped by 50.00 points (limit 30)",
        "max abs error grew by 200.0% (limit 100%)",
    ]
    assert ComparisonLimits.parse({"size": 0.25}) == ComparisonLimits(size=0.25)


@pytest.mark.parametrize(
    "texts", [["size"], ["size=-1"], ["size=nan"], ["bytes=1"], ["size=1", "size=2"], ["=1"]]
)
def test_limits_that_are_none(texts):
    with pytest.raises(UsageError, match="is not NAME=NUMBER"):
        ComparisonLimits.parse(texts)


def test_latencies_are_compared_for_each_number_of_threads():
    latencies = {("onnx int8", 1): (2.0, 2.25), ("onnx int8", 4): (1.0, 1.5)}
    (text,) = compared(report(), report(), latencies=latencies).regressions
    assert text == "onnx int8: median latency with 4 threads grew by 50.0% (limit 20%)"


def test_errors_on_other_samples_are_no_regression():
    strict = ComparisonLimits(error=0, attention=0)
    worse = report(error=5.0, attention=0.5)
    assert len(compared(report(), worse, strict).regressions) == 2
    assert compared(report(), worse, strict, same_samples=False).regressions == ()
    on_data = replace(report(data="d.npz"), task=None), report(9, 5.0, 0.5, data="d.npz")
    assert len(compared(*on_data, replace(strict, size=99), same_samples=False).regressions) == 2
    # One on the user's data, the other on the reference.
    assert compared(report(), report(data="d.npz", error=9), strict).regressions == ()


def test_files_that_only_one_bundle_has():
    basis = Basis("old.edge", ComparisonLimits(), True, 7)
    first, second = report(), report()
    second = replace(second, artifact=replace(second.artifact, scheme="float16"))
    comparison = compare_reports([first], [second], basis)
    assert [item.present_in for item in comparison.artifacts] == ["new", "old"]
    assert comparison.regressions == ("onnx int8: not in the new bundle",)
    assert comparison.summary == "1 regression from old.edge"


def test_the_change_of_outputs_is_that_of_the_samples():
    """Rows after the samples are edge cases, which may be off by much."""
    values = np.arange(18, dtype=np.float32).reshape(9, 2)
    other = values.copy()
    other[3, 1] += 0.25
    other[8] += 100
    spec = artifacts.Y
    made = replace(report(maps=()).artifact, outputs=(spec,))
    old, new = (
        replace(report(), artifact=made, outputs={spec.name: array}) for array in (values, other)
    )
    (item,) = compared(old, new).artifacts
    assert (item.output_change, item.map_change) == (0.25, None)


@pytest.mark.parametrize(
    ("old", "new", "change", "share"),
    [
        (2.0, 3.0, 1.0, 0.5),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0, math.inf),
        (math.inf, math.inf, 0.0, 0.0),
        (math.nan, math.nan, 0.0, 0.0),
    ],
)
def test_differences(old, new, change, share):
    assert (difference(old, new), growth(old, new)) == (change, share)


# The command


@pytest.fixture
def pair(tmp_path):
    """Two equal bundles."""
    return [artifacts.write_dense_bundle(tmp_path / name) for name in ("old.edge", "new.edge")]


def enlarge(bundle, count):
    """Add ``count`` bytes to the ONNX file, which computes the same."""
    path = bundle.path / "dense.float32.onnx"
    model = onnx.load(path)
    model.doc_string = count * "x"
    onnx.save(model, path)
    artifacts.rehash(bundle.path)


def test_equal_bundles_have_no_regression(edgeattn, pair, tmp_path):
    old, new = (bundle.path for bundle in pair)
    data = tmp_path / "d.npz"
    x = artifacts.samples(50)
    np.savez(data, x=x, y=artifacts.dense(x).argmax(1))
    result = edgeattn("validate", new, "--compare", old, "--data", data, "--max-drop", "0.2")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "Verdict: pass, no regression from old.edge"
    assert "Compared with old.edge (old -> new)" in result.out
    # Twice 50 of 50 right in the ONNX files, and no change.
    (row,) = [line for line in result.out.split("(old -> new)")[1].splitlines() if "onnx" in line]
    assert "->" not in row
    assert "100.00" in row


def test_a_regression_has_an_exit_code_of_its_own(edgeattn, pair, tmp_path):
    pytest.importorskip("matplotlib")
    old, new = (bundle.path for bundle in pair)
    before = (new / "dense.float32.onnx").stat().st_size
    enlarge(pair[1], before)
    growth = (new / "dense.float32.onnx").stat().st_size / before - 1
    command = ("validate", new, "--compare", old)
    result = edgeattn(*command, "--report", "r.html", "--junit", "r.xml")
    assert result.code == 7
    line = f"onnx float32: size grew by {100 * growth:.1f}% (limit 10%)"
    assert f"Regression: {line}" in result.out.splitlines()
    assert result.out.splitlines()[-1] == "Verdict: pass, 1 regression from old.edge"
    page = (tmp_path / "r.html").read_text("utf-8")
    assert f"<li>{line}</li>" in page
    assert '<a href="#comparison">1 regression from old.edge</a>' in page
    suite = ElementTree.parse(tmp_path / "r.xml").getroot().findall("testsuite")[-1]
    assert [case.get("name") for case in suite if len(case)] == ["onnx float32"]
    assert suite.get("failures") == "1"
    document = edgeattn(*command, "--json", "--compare-limit", "size=2").document["comparison"]
    assert (document["old"], document["regressions"]) == ("old.edge", [])
    assert document["limits"]["size"] == 2
    size = document["artifacts"][1]["changes"][0]
    assert (size["metric"], size["old"]) == ("size", before)
    assert size["worse_by"] == pytest.approx(growth)


def test_a_file_that_fails_keeps_the_exit_code_of_a_failure(edgeattn, pair):
    old, new = (bundle.path for bundle in pair)
    wrong = artifacts.BIAS + np.float32(0.5)
    artifacts.write_dense_onnx(new / "dense.float32.onnx", bias=wrong)
    artifacts.rehash(new)
    result = edgeattn("validate", new, "--compare", old, "--json")
    assert result.code == 1
    comparison = result.document["comparison"]
    assert comparison["regressions"][0] == "onnx float32: verdict was pass and is fail"
    assert comparison["artifacts"][1]["output_change"] == 0.5
    # The other way around, the new bundle passes.
    assert edgeattn("validate", old, "--compare", new).code == 0


def test_in_python(pair):
    old, new = pair
    enlarge(new, 2000)
    result = package.validate(new.path, formats="onnx", compare=old, compare_limits={"size": 0.5})
    assert result.exit_code == 7
    (item,) = result.comparison.artifacts
    assert item.artifact.label == "onnx float32"
    unlimited = {"size": math.inf}
    assert package.validate(new.path, compare=old, compare_limits=unlimited).exit_code == 0
    with pytest.raises(UsageError, match="no artifact in common"):
        package.validate(
            new.path,
            artifacts=new.manifest.artifacts[:1],
            compare=artifacts.write_dense_bundle(old.path / "x" / "o.edge", formats=("onnx",)),
        )


def bench_document(bundle, milliseconds, **other):
    return {
        "artifacts": [
            {"format": item.format, "scheme": item.scheme, "sha256": item.sha256, "threads": 1}
            | {"runs": 700, "p50_ms": value}
            | other
            for item, value in zip(bundle.manifest.artifacts, milliseconds, strict=True)
        ],
        "place": "pi@a",
    }


def test_measured_latencies(edgeattn, pair, tmp_path):
    old, new = pair
    for bundle, values in ((old, (2.0, 4.0)), (new, (3.0, 1.0))):
        text = json.dumps(bench_document(bundle, values))
        (tmp_path / f"{bundle.path.stem}.json").write_text(text)
    command = ("validate", new.path, "--compare", old.path, "--bench", "new.json")
    result = edgeattn(*command, "--compare-bench", "old.json")
    assert result.code == 7
    line = "Regression: tflite float32: median latency with 1 thread grew by 50.0% (limit 20%)"
    assert line in result.out.splitlines()
    assert "note: Latencies were measured on pi@a." in result.out
    (recommended,) = [line for line in result.out.splitlines() if line.startswith("Recommended")]
    assert "(onnx float32), the fastest that passes: median 1 ms with 1 thread on pi@a" in (
        recommended
    )
    (tmp_path / "here.json").write_text(
        json.dumps({**bench_document(old, (2.0, 4.0)), "place": "pi@b"})
    )
    result = edgeattn(*command[:-2], "--compare-bench", "old.json")
    assert (result.code, "latencies of the new bundle" in result.err) == (2, True)
    result = edgeattn(*command, "--compare-bench", "here.json")
    assert (result.code, "on pi@b and on pi@a" in result.err) == (2, True)
    # Documents of earlier versions do not name this machine.
    for text, code in (("a Pi 4", 2), ("a Pi 5", 7), (None, 7)):
        for name, bundle, machine in (("new", new, "a Pi 5"), ("old", old, text)):
            values = (2.0, 4.0) if bundle is old else (3.0, 1.0)
            document = {**bench_document(bundle, values), "place": "here", "machine": machine}
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        result = edgeattn(*command, "--compare-bench", "old.json")
        assert result.code == code
        assert ("on a Pi 4 and on a Pi 5" in result.err) == (code == 2)
        assert ("median 1 ms with 1 thread on a Pi 5" in result.out) == (code == 7)
    # Latencies of other files.
    enlarge(new, 10)
    result = edgeattn(*command, "--compare-bench", "old.json")
    assert (result.code, "of another onnx float32 file" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compare", "none.edge"), "No such bundle: "),
        (("--compare", "old.edge/dense.float32.onnx"), "OLD is the file dense.float32.onnx"),
        (("--compare-limit", "size=1"), "--compare-limit has no effect without --compare"),
        (("--compare-bench", "b.json"), "--compare-bench has no effect without --compare"),
        (("--compare", "old.edge", "--compare-limit", "bytes=1"), "is not NAME=NUMBER"),
        (("--compare", "old.edge", "--compare-limit", "latency=1"), "latency has no effect"),
        (("--compare", "old.edge", "--compare-limit", "score=1"), "score has no effect"),
        (("--compare", "old.edge", "--scheme", "float16"), "no artifact for float16"),
    ],
)
def test_bad_arguments_are_usage_errors(edgeattn, pair, tmp_path, options, message):
    result = edgeattn("validate", pair[1].path, *options, "--report", "r.html")
    assert (result.code, message in result.err) == (2, True), result.err
    assert not (tmp_path / "r.html").exists()


def rename_output(folder):
    def change(manifest):
        for entry in manifest["artifacts"]:
            entry["outputs"][0]["name"] = "other"

    artifacts.edit_manifest(folder, change)


def cut(folder):
    path = folder / "dense.float32.onnx"
    path.write_bytes(path.read_bytes()[:100])


def remove_artifacts(folder):
    artifacts.edit_manifest(folder, lambda manifest: manifest["artifacts"].clear())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename_output, "are bundles of different models: their outputs are other (2,)"),
        (cut, "dense.float32.onnx"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "cannot be read"),
        (lambda folder: (folder / "reference.npz").unlink(), "reference.npz is missing"),
        (remove_artifacts, ""),
    ],
)
def test_other_and_damaged_bundles_are_refused_before_any_work(
    edgeattn, pair, monkeypatch, damage, message
):
    from edgeattn.validation import validate as validation

    monkeypatch.setattr(validation, "validate_isolated", lambda *_, **__: pytest.fail("it ran"))
    old, new = (bundle.path for bundle in pair)
    damage(old)
    result = edgeattn("validate", new, "--compare", old)
    assert result.code in (2, 4), result.err
    assert message in result.err


def test_other_models_and_other_samples_are_noted(edgeattn, pair, tmp_path):
    old, new = (bundle.path for bundle in pair)
    for folder, digest in ((old, "1"), (new, "2")):
        artifacts.edit_manifest(folder, lambda m, d=digest: m["model"].update(sha256=64 * d))
    more = artifacts.write_dense_bundle(tmp_path / "more.edge", count=9)
    assert (
        "note: The Keras models differ (SHA-256)."
        in edgeattn("validate", new, "--compare", old).out
    )
    result = edgeattn("validate", new, "--compare", more.path)
    assert "note: The samples of the references differ, so that errors are not" in result.out
    result = edgeattn("validate", new, "--compare", more.path, "--compare-limit", "error=1")
    assert (result.code, "error has no effect" in result.err) == (2, True)


def test_a_damaged_new_bundle_is_an_error_too(pair):
    cut(pair[1].path)
    with pytest.raises(BundleError):
        package.validate(pair[1].path, compare=pair[0].path)
