"""``edgeattn.validate``, ``run``, ``bench``, ``inspect`` and ``load`` do what the commands do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples

import edgeattn
from edgeattn.bundle.manifest import Artifact
from edgeattn.deployment.results import DeploymentResult
from edgeattn.inference.batch import predict
from edgeattn.runners import open_artifact


@pytest.fixture
def cli_command(edgeattn):
    """Runs the command line; the fixture has the name of the package."""
    return edgeattn


def one_line(result):
    text = repr(result)
    assert "\n" not in text
    assert text.startswith(f"<{type(result).__name__} ")
    return text


def test_validate_returns_the_document_of_the_command(cli_command, dense_bundle):
    result = edgeattn.validate(dense_bundle.path)
    assert result.to_dict() == cli_command("validate", dense_bundle.path, "--json").document
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert result.to_dict()["recommended"]["device"] == "this machine"
    assert "dense.edge: pass, 2 artifacts, recommended: " in one_line(result)
    page = result._repr_html_()
    assert page.count("<tr>") == 3
    assert "ai-edge-litert" in page


def test_objects_are_one_line(dense_bundle):
    """A notebook shows what a cell ends with; a bundle has thousands of characters of JSON."""
    result = edgeattn.validate(dense_bundle)
    artifact = dense_bundle.manifest.artifacts[0]
    assert repr(artifact) == f"<Artifact {artifact.path}: tflite float32, {artifact.bytes:,} bytes>"
    assert repr(dense_bundle.manifest) == "<Manifest of hand.h5: tflite float32, onnx float32>"
    assert repr(result.bundle).endswith("dense.edge: tflite float32, onnx float32>")
    assert repr(result.report) == "<Report pass: tflite float32 pass, onnx float32 pass>"
    assert repr(result.report.artifacts[0]) == "<ArtifactReport tflite float32: pass>"
    assert repr(result.recommendation).startswith("<Recommendation Recommended: dense.float32.")
    model = edgeattn.load(dense_bundle, format="tflite")
    runtime = f"ai-edge-litert {version('ai-edge-litert')}"
    assert repr(model) == f"<Model {artifact.path} (tflite float32) in {runtime}>"


def test_names_in_objects_cannot_control_the_terminal(dense_bundle):
    hostile = replace(dense_bundle.manifest.artifacts[0], path="a\x1b[2J\n.tflite")
    assert "\\x1b[2J\\n" in one_line(hostile)


def test_the_smallest_file_that_passes_is_recommended(dense_bundle):
    smallest = min(dense_bundle.manifest.artifacts, key=lambda item: item.bytes)
    assert edgeattn.validate(dense_bundle).recommendation.artifact == smallest
    larger = next(item for item in dense_bundle.manifest.artifacts if item != smallest)
    (dense_bundle.path / smallest.path).write_bytes(b"no model")
    artifacts.rehash(dense_bundle.path)
    result = edgeattn.validate(dense_bundle.path)
    assert (result.verdict, result.recommendation.artifact.path) == ("fail", larger.path)
    assert edgeattn.load(dense_bundle.path, best=True).artifact.format == larger.format


def test_nothing_is_recommended_if_everything_fails(tmp_path, cli_command):
    bias = artifacts.BIAS + np.float32(1e-2)
    bundle = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    command = cli_command("validate", bundle.path)
    assert command.out.splitlines()[-2:] == [
        "Recommended: none, because no artifact passes.",
        "Verdict: fail",
    ]
    result = edgeattn.validate(bundle.path)
    assert result.to_dict()["recommended"] is None
    for source in (bundle.path, result):
        with pytest.raises(edgeattn.BundleError, match="no artifact passes"):
            edgeattn.load(source, best=True)


def test_what_passes_on_a_device_is_recommended_for_it(dense_bundle):
    """With one host, the result of a deployment stands for its bundle, as other results do."""
    onnx = edgeattn.validate(dense_bundle, formats="onnx").recommendation
    device = DeploymentResult("pi@a", "serves now", recommendation=onnx)
    deployed = edgeattn.DeployResult((device,), dense_bundle)
    assert deployed.recommendation is onnx
    assert edgeattn.load(deployed, best=True).artifact.format == "onnx"
    assert edgeattn.load(deployed).artifact.format == "tflite"
    several = edgeattn.DeployResult((device, DeploymentResult("pi@b", "failed")), dense_bundle)
    with pytest.raises(edgeattn.UsageError, match="2 hosts have a recommendation each"):
        edgeattn.load(several, best=True)
    assert several["pi@a"].recommendation is onnx
    failed = edgeattn.DeployResult((several["pi@b"],), dense_bundle)
    with pytest.raises(edgeattn.BundleError, match="no artifact was validated there"):
        edgeattn.load(failed, best=True)
    with pytest.raises(edgeattn.UsageError, match="A rollback has no bundle"):
        edgeattn.load(edgeattn.DeployResult((device,)))


def test_a_bundle_that_was_replaced_after_the_result(dense_bundle):
    """What the result recommends must not be another file of the same name."""
    result = edgeattn.validate(dense_bundle.path)
    shutil.rmtree(dense_bundle.path)
    artifacts.write_dense_bundle(dense_bundle.path, bias=artifacts.BIAS + np.float32(1e-2))
    with pytest.raises(edgeattn.BundleError, match="was replaced after"):
        edgeattn.load(result, best=True)
    with pytest.raises(edgeattn.BundleError, match="no artifact passes"):
        edgeattn.load(dense_bundle.path, best=True)


def test_the_arguments_of_earlier_versions(dense_bundle):
    report = edgeattn.validate(
        dense_bundle, dense_bundle.select(), lambda item: open_artifact(dense_bundle.path, item)
    )
    assert (report.verdict, len(report.artifacts), report.exit_code) == ("pass", 2, 0)
    assert report.to_json()["verdict"] == "pass"


def test_data_as_arrays(dense_bundle):
    x = samples(40)
    result = edgeattn.validate(
        dense_bundle.path, formats="onnx", data={"x": x}, limits={"snr_db": 20.0}
    )
    assert result.artifacts[0].task.samples == 40
    with pytest.raises(edgeattn.SampleError, match="shape"):
        edgeattn.validate(dense_bundle.path, data=(x[:, :2], np.zeros(40)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": "keras"}, "unknown name 'keras'"),
        ({"schemes": ["int9"]}, "unknown name 'int9'"),
        ({"limits": {"nothing": 1.0}}, "not a limit"),
        ({"jobs": 0}, "jobs is 0"),
        ({"max_drop": 0.1}, "no effect without labels"),
        ({"junit_inconclusive": "skipped"}, "no effect without --junit"),
        ({"data": (1, 2, 3)}, "expected inputs and labels"),
        ({"data": [object()]}, "dtype object"),
    ],
)
def test_wrong_arguments(dense_bundle, arguments, message):
    with pytest.raises(edgeattn.UsageError, match=message):
        edgeattn.validate(dense_bundle.path, **arguments)


@pytest.mark.parametrize("source", [3, None, object()])
def test_what_is_no_bundle(source):
    for function in (edgeattn.validate, edgeattn.inspect, edgeattn.bench, edgeattn.load):
        with pytest.raises(edgeattn.UsageError, match="Expected a bundle"):
            function(source)
    with pytest.raises(edgeattn.UsageError, match="Expected a Keras model"):
        edgeattn.convert(source)


def test_run(cli_command, dense_bundle, tmp_path):
    x = samples(5)
    result = edgeattn.run(dense_bundle.path, x, formats="onnx")
    np.testing.assert_array_equal(result["score"], dense(x))
    assert (result.samples, result.path) == (5, None)
    assert list(tmp_path.glob("*.npz")) == []
    np.save(tmp_path / "x.npy", x)
    command = cli_command(
        "run", dense_bundle.path, "--input", tmp_path / "x.npy", "--format", "onnx", "--json"
    )
    written = edgeattn.run(
        edgeattn.validate(dense_bundle), {"x": x}, tmp_path / "y.npz", formats="onnx"
    )
    assert written.to_dict() == {**command.document, "path": str(tmp_path / "y.npz")}
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["score"], dense(x))
    assert "5 samples, score" in one_line(written)
    assert "<td>5x2</td>" in written._repr_html_()
    with pytest.raises(edgeattn.UsageError, match="no attention map"):
        written.plot()


def test_bench(cli_command, dense_bundle):
    result = edgeattn.bench(dense_bundle.path, threads=1, runs=5)
    document = result.to_dict()
    command = cli_command("bench", dense_bundle.path, "--threads", 1, "--runs", 5, "--json")
    assert list(document) == list(command.document)
    assert list(document["artifacts"][0]) == list(command.document["artifacts"][0])
    medians = [item["p50_ms"] for item in document["artifacts"]]
    assert document["recommended"]["p50_ms"] == min(medians)
    assert document["recommended"]["criterion"] == "latency"
    assert document["recommended"]["threads"] == 1
    assert edgeattn.load(result, best=True).artifact == result.recommendation.artifact
    assert "2 artifacts, recommended: " in one_line(result)


def test_bench_recommends_nothing_that_fails(tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    bundle = artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    result = edgeattn.bench(bundle.path, formats="onnx", threads=1, runs=1)
    assert (result.exit_code, result.to_dict()["recommended"]) == (0, None)


def test_inspect(cli_command, dense_bundle):
    result = edgeattn.inspect(dense_bundle)
    assert result.to_dict() == cli_command("inspect", dense_bundle.path, "--json").document
    assert "2 artifacts" in one_line(result)
    file = dense_bundle.path / dense_bundle.manifest.artifacts[1].path
    assert edgeattn.inspect(file).kind == "onnx"


def test_names_of_models_cannot_forge_a_result(dense_bundle):
    def rename(manifest):
        manifest["model"]["file"] = "<b>\n\x1b[2J.h5"

    artifacts.edit_manifest(dense_bundle.path, rename)
    result = edgeattn.inspect(dense_bundle.path)
    assert "\x1b" not in one_line(result)
    assert "<b>" not in result._repr_html_()


class TestPredict:
    @pytest.fixture(params=["tflite", "onnx"])
    def model(self, request, dense_bundle):
        return edgeattn.load(dense_bundle.path, format=request.param)

    def test_a_batch_gives_new_arrays(self, model):
        x = samples(6)
        first = model.predict(x)
        np.testing.assert_array_equal(first["score"], dense(x))
        second = model.predict({"x": x[::-1]})
        np.testing.assert_array_equal(second["score"], dense(x[::-1]))
        np.testing.assert_array_equal(first["score"], dense(x))

    def test_in_place(self, model):
        one, two = samples(2)
        outputs = model.predict_in_place(one)
        assert model.predict_in_place(two) is outputs
        np.testing.assert_array_equal(outputs["score"], dense(two[None]))

    def test_names(self, model):
        assert (model.input_names, model.output_names) == (("x",), ("score",))

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            (np.zeros((0, 3), "f"), "There is no sample"),
            (np.float32(1), "There is no sample"),
            (np.zeros(3, "f"), "expected one sample of shape"),
            (np.zeros((2, 4), "f"), "expected one sample of shape"),
            ({"y": np.zeros((2, 3), "f")}, "is missing"),
            ({"x": np.zeros((2, 3), "f"), "z": np.zeros(3)}, "different numbers of samples"),
        ],
    )
    def test_wrong_batches(self, model, batch, message):
        with pytest.raises(edgeattn.SampleError, match=message):
            model.predict(batch)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
def test_files_with_a_fixed_batch_size(count):
    """Batches of 4 are filled with repeated samples, whose outputs are left out."""
    spec = edgeattn.TensorSpec("x", (4, 3), "float32")

    sizes = []

    class Model:
        inputs = (spec,)

        def __call__(self, sample):
            sizes.append(len(sample["x"]))
            return {"score": dense(sample["x"])}

    model, x = Model(), np.arange(3.0 * count, dtype="float32").reshape(count, 3)
    np.testing.assert_array_equal(predict(model, x)["score"], dense(x))
    assert sizes == [4] * -(-count // 4)


def test_without_tensorflow_one_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for function in (edgeattn.convert, edgeattn.inspect):
        with pytest.raises(edgeattn.UsageError) as error:
            function(__file__)
        assert "tensorflow" in error.value.message
        assert error.value.hint == "Install the converters with: pip install 'edgeattn[convert]'"


def test_results_are_frozen(dense_bundle):
    result = edgeattn.inspect(dense_bundle)
    with pytest.raises(AttributeError):
        result.kind = "keras"


def test_importing_the_functions_loads_no_numpy():
    code = (
        "import sys, edgeattn\n"
        "edgeattn.convert, edgeattn.validate, edgeattn.bench, edgeattn.deploy, edgeattn.load\n"
        "assert not {'numpy', 'keras', 'tensorflow', 'click'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_maps_of_reports_are_selected_by_name():
    from edgeattn.api.pictures import draw_map

    item = Artifact("onnx", "float32", "m.onnx", "0", 1, (), (), ("attention/a", "attention/b"))
    outputs = {"attention/a": np.full((2, 4), 0.25), "attention/b": np.full((2, 4), 0.5)}
    pytest.importorskip("matplotlib")
    assert draw_map(item, outputs, "b", 1).axes
    with pytest.raises(edgeattn.UsageError, match="No attention map 'c'"):
        draw_map(item, outputs, "c", 0)
    with pytest.raises(edgeattn.UsageError, match="no sample 2"):
        draw_map(item, outputs, None, 2)


def test_the_report_names_the_recommended_file(dense_bundle, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    result = edgeattn.validate(dense_bundle.path, report=page)
    text = re.sub("<.*?>", "", page.read_text("utf-8"))
    assert result.recommendation.line in text
