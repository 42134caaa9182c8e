"""Results that depend on the batch: on its size, its order, or its other samples."""

import sys
from pathlib import Path

import artifacts
import numpy as np
import onnx
import pytest
from artifacts import FEATURES, UNITS, X, Y, dense, samples
from function_runner import FunctionRunner
from onnx import TensorProto, helper

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import ArtifactError
from edgeattn.file_structure.read import read_contents
from edgeattn.metrics.limits import Limit
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.runners import open_artifact
from edgeattn.runners.batching import batch_slices
from edgeattn.targets.target import interpreter_target
from edgeattn.tensors import TensorSpec
from edgeattn.validation.batches import run_batches, tolerance
from edgeattn.validation.on_target import validate_on_target
from edgeattn.validation.validate import ValidationOptions, validate, validate_isolated

MAP = TensorSpec("attention/a", (None, FEATURES), "float32")


def maps(x):
    weights = np.exp(x - x.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def right(tensors):
    return {"score": dense(tensors["x"]), MAP.name: maps(tensors["x"])}


def first_row_for_all(array):
    return np.repeat(array[:1], len(array), axis=0)


def with_a_fifth_of_the_neighbour(array):
    return (0.8 * array + 0.2 * np.roll(array, 1, axis=0)).astype(np.float32)


def reversed_order(array):
    return array[::-1]


def zeros_from_row(first):
    def change(array):
        changed = array.copy()
        changed[first:] = 0
        return changed

    return change


def by_batch(change, output="score"):
    """The right outputs, each batch changed; nothing changes in batches of one sample."""

    def function(tensors):
        outputs = right(tensors)
        if len(tensors["x"]) > 1 and not whole_reference(tensors["x"]):
            outputs[output] = change(outputs[output])
        return outputs

    return function


def whole_reference(x):
    """Whether this call stands for batches of one sample: the whole reference, in order."""
    return np.array_equal(x, samples(len(x)))


@pytest.fixture
def bundle(tmp_path):
    """An ONNX file with an output and a map, in every scheme, and a reference of 70 samples."""
    schemes = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
    entries = artifacts.declared_artifacts(tmp_path, schemes, (Y, MAP))
    x = samples(70)
    arrays = {"input/x": x, "output/score": dense(x), MAP.name: maps(x)}
    return artifacts.write_bundle(tmp_path, entries, arrays)


class BatchRunner(FunctionRunner):
    """Calls the function for each batch."""

    def run(self, tensors, batch_sizes=()):
        count = len(tensors["x"])
        parts = [
            self._outputs({"x": tensors["x"][rows]})
            for rows in batch_slices(count, batch_sizes or (count,))
        ]
        return {spec.name: np.concatenate([p[spec.name] for p in parts]) for spec in self.outputs}


def validated(bundle, function, scheme="float32", limits=()):
    selected = bundle.select(schemes=(scheme,))
    report = validate(
        bundle,
        selected,
        lambda a: BatchRunner(function, a.inputs, a.outputs),
        options=ValidationOptions(limits=limits),
    )
    return report.artifacts[0]


def batch_failures(report):
    return {(check.metric, check.output) for check in report.failed}


SCHEMES = pytest.mark.parametrize(
    "scheme", ["float32", "float16", "dynamic_int8", "int8", "int16x8"]
)


@SCHEMES
def test_independent_samples_pass(bundle, scheme):
    report = validated(bundle, right, scheme)
    assert report.verdict == PASS
    checks = {c.output: c.value for c in report.checks if c.metric == "batch_error"}
    assert checks == {"score": 0.0, MAP.name: 0.0}


@SCHEMES
@pytest.mark.parametrize(
    "change",
    [first_row_for_all, with_a_fifth_of_the_neighbour, reversed_order, zeros_from_row(40)],
    ids=lambda change: change.__name__,
)
@pytest.mark.parametrize("output", ["score", MAP.name])
def test_results_that_depend_on_the_batch_fail(bundle, change, scheme, output):
    report = validated(bundle, by_batch(change, output), scheme)
    assert batch_failures(report) == {("batch_error", output)}
    stages = {"score": "numbers", MAP.name: "attention"}
    assert report.stages[stages[output]] == FAIL


def test_rounding_in_another_order_is_accepted(bundle):
    """A relative change of 1e-6 in batches is rounding, and one of 1e-3 is not."""
    report = validated(bundle, by_batch(lambda array: array * np.float32(1 + 1e-6)))
    assert report.verdict == PASS
    report = validated(bundle, by_batch(lambda array: array * np.float32(1 + 1e-3)))
    assert batch_failures(report) == {("batch_error", "score")}


def test_tolerance():
    """1e-5 + 1e-4 of the largest magnitude, or a share of the range of an integer output."""
    values = np.array([[-3.0, 1.0], [5.0, np.nan]])
    assert tolerance("float32", values) == pytest.approx(1e-5 + 5e-4)
    assert tolerance("float16", values) == tolerance("float32", values)
    assert tolerance("int8", values) == pytest.approx(8 * 4 / 255)
    assert tolerance("int16x8", values) == pytest.approx(8e-3)
    assert tolerance("int8", np.zeros((3, 1))) == pytest.approx(1e-5)


def test_a_single_step_of_an_integer_may_move(bundle):
    extent = float(np.ptp(dense(samples(70))))
    for scheme, step in (("int8", extent / 255), ("int16x8", extent / 32767)):
        report = validated(bundle, by_batch(lambda array, s=step: array + np.float32(s)), scheme)
        assert report.verdict == PASS


def test_every_size_and_order_runs(bundle):
    """Batches of 2, 3, 7 and 64 samples; neighbours differ from those in the reference."""
    calls = []

    def function(tensors):
        calls.append(tensors["x"])
        return right(tensors)

    validated(bundle, function)
    assert [len(call) for call in calls[:2]] == [70, 1]
    sizes = [len(call) for call in calls[2:]]
    assert sizes == [2] * 32 + [3] * 21 + [1] + [7] * 9 + [1] + [64]
    order = [int(np.flatnonzero((samples(70) == row).all(1))[0]) for row in calls[-1]]
    assert len(set(order)) == 64
    assert order != sorted(order)


def test_few_samples_are_repeated(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    x = samples(2)
    bundle = artifacts.write_bundle(
        tmp_path,
        [artifacts.artifact(tmp_path / "m.onnx")],
        {"input/x": x, "output/score": dense(x)},
    )
    (artifact,) = bundle.manifest.artifacts
    runner = BatchRunner(right, artifact.inputs, artifact.outputs)
    assert [len(rows) for rows in run_batches(runner, artifact, {"x": x}, None).rows] == [
        15
    ] * 3 + [64]
    report = validated(bundle, by_batch(with_a_fifth_of_the_neighbour))
    assert batch_failures(report) == {("batch_error", "score")}


def test_a_file_that_runs_single_samples_only_fails(bundle):
    def function(tensors):
        if len(tensors["x"]) > 1 and not whole_reference(tensors["x"]):
            raise ArtifactError("cannot reshape")
        return right(tensors)

    report = validated(bundle, function)
    assert batch_failures(report) == {("batch_error", "score"), ("batch_error", MAP.name)}
    assert report.reason == "In batches of 2 samples: cannot reshape"


def test_a_batch_of_another_shape_fails(bundle):
    def function(tensors):
        outputs = right(tensors)
        if len(tensors["x"]) == 7:
            outputs["score"] = outputs["score"][:1]
        return outputs

    report = validated(bundle, function)
    assert ("batch_error", "score") in batch_failures(report)
    assert report.verdict == FAIL


def test_an_extreme_neighbour_must_not_show(tmp_path):
    """Row 7 is an extreme edge case; 0.1% of it reaches other samples of its batch."""
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    x = np.concatenate([samples(7), np.full((1, FEATURES), 1e6, np.float32)])
    arrays = {"input/x": x, "output/score": dense(x)}
    bundle = artifacts.write_bundle(tmp_path, [artifacts.artifact(tmp_path / "m.onnx")], arrays)
    bundle.manifest.reference.update(samples=7, edge_cases=1)

    def function(tensors):
        score = dense(tensors["x"])
        if len(score) > 1 and not np.array_equal(tensors["x"], x):
            score += (1e-3 * (score.sum(0) - score) * (np.abs(score.sum(0)) > 1e5)).astype("f")
        return {"score": score}

    assert batch_failures(validated(bundle, function)) == {("batch_error", "score")}


@pytest.mark.parametrize(("scheme", "least"), [("float32", 1.0), ("int8", 0.98)])
def test_classes_in_batches_are_equal_or_not(tmp_path, scheme, least):
    """Class 1001 instead of 1000 is within the tolerance of numbers of this size, and wrong."""
    best = TensorSpec("best", (None,), "int64")
    entries = artifacts.declared_artifacts(tmp_path, (scheme,), (best,))
    x, truth = samples(70), np.full(70, 1000)
    truth[0] = 100_000
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, "output/best": truth})

    def function(tensors):
        rows = [int(np.flatnonzero((x == row).all(1))[0]) for row in tensors["x"]]
        return {"best": truth[rows] + (1 < len(rows) < 70)}

    report = validated(bundle, function, scheme)
    assert batch_failures(report) == {("batch_equal_values", "best")}
    (check,) = report.failed
    assert (check.value, check.limit) == (0.0, least)


# Files whose operators quantize activations with one scale for the whole batch


def with_dynamic_operators(bundle):
    for artifact in bundle.manifest.artifacts:
        path = bundle.artifact_path(artifact)
        proto = onnx.load(path)
        node = helper.make_node("DynamicQuantizeLinear", ["x"], ["integers of x", "by", "from"])
        proto.graph.node.append(node)
        onnx.save(proto, path)
        artifact.achieved.update(read_contents(path, "onnx").to_json())
    artifacts.write_manifest(bundle.path, bundle.manifest)
    artifacts.rehash(bundle.path)
    return Bundle.open(bundle.path)


def one_scale_for_the_batch(bits):
    """Inputs rounded to integers of one scale for all samples, as DynamicQuantizeLinear does."""

    def function(tensors):
        x = tensors["x"]
        if whole_reference(x):
            scale = np.abs(x).max(1, keepdims=True) / 2 ** (bits - 1)
        else:
            scale = np.abs(x).max() / 2 ** (bits - 1)
        scale = np.where(scale == 0, 1, scale)
        rounded = (np.rint(x / scale) * scale).astype(np.float32)
        return {"score": dense(rounded), MAP.name: maps(rounded)}

    return function


def test_one_scale_for_the_batch_must_stay_within_the_limits(bundle):
    bundle = with_dynamic_operators(bundle)
    report = validated(bundle, one_scale_for_the_batch(9), "dynamic_int8")
    assert report.verdict == PASS
    (check,) = [c for c in report.checks if c.metric == "batch_snr_db"]
    assert (check.output, check.limit, check.relation) == ("score", 30.0, ">=")
    assert check.value > 40
    strict = validated(bundle, one_scale_for_the_batch(9), "dynamic_int8", (Limit("snr_db", 70.0),))
    assert ("batch_snr_db", "score") in batch_failures(strict)
    coarse = validated(bundle, one_scale_for_the_batch(4), "dynamic_int8")
    assert ("batch_snr_db", "score") in batch_failures(coarse)


@pytest.mark.parametrize("change", [first_row_for_all, with_a_fifth_of_the_neighbour])
def test_other_samples_results_fail_in_such_files_too(bundle, change):
    bundle = with_dynamic_operators(bundle)
    report = validated(bundle, by_batch(change), "dynamic_int8")
    assert batch_failures(report) == {("batch_snr_db", "score")}
    report = validated(bundle, by_batch(change, MAP.name), "dynamic_int8")
    assert batch_failures(report) == {("batch_max_abs_error", MAP.name)}


def test_float32_files_have_no_such_operators(bundle):
    """Their samples must be independent, whatever the manifest says."""
    bundle = with_dynamic_operators(bundle)
    report = validated(bundle, by_batch(with_a_fifth_of_the_neighbour), "float32")
    assert batch_failures(report) == {("batch_error", "score")}


# Real files


def write_onnx(path, nodes, constants):
    """The dense model, whose result ``right`` the ``nodes`` turn into ``score``."""
    artifacts.save_onnx(
        path,
        [helper.make_node("Gemm", ["x", "kernel", "bias"], ["right"]), *nodes],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", UNITS])],
        {"kernel": artifacts.KERNEL, "bias": artifacts.BIAS, **constants},
    )


def first_row_nodes():
    indices = {"zero": np.array([0], np.int64), "nothing": np.array(0, np.float32)}
    nodes = [
        helper.make_node("Gather", ["right", "zero"], ["first"], axis=0),
        helper.make_node("Mul", ["right", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "first"], ["score"]),
    ]
    return nodes, indices


def neighbour_nodes():
    constants = {
        "begin": np.array([0], np.int64),
        "last": np.array([-1], np.int64),
        "end": np.array([2**31], np.int64),
        "axis": np.array([0], np.int64),
        "most": np.array(0.8, np.float32),
        "rest": np.array(0.2, np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["right", "last", "end", "axis"], ["tail"]),
        helper.make_node("Slice", ["right", "begin", "last", "axis"], ["head"]),
        helper.make_node("Concat", ["tail", "head"], ["rolled"], axis=0),
        helper.make_node("Mul", ["right", "most"], ["own"]),
        helper.make_node("Mul", ["rolled", "rest"], ["other"]),
        helper.make_node("Add", ["own", "other"], ["score"]),
    ]
    return nodes, constants


def single_sample_nodes():
    shape = {"shape": np.array([1, UNITS], np.int64)}
    return [helper.make_node("Reshape", ["right", "shape"], ["score"])], shape


def write_faulty_onnx(path, make):
    nodes, constants = make()
    if make is not single_sample_nodes:
        write_onnx(path, nodes, constants)
        return
    # Its declared shape contradicts the constant, which the checker would notice.
    constants = {"kernel": artifacts.KERNEL, "bias": artifacts.BIAS, **constants}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "kernel", "bias"], ["right"]), *nodes],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@pytest.mark.parametrize("make", [first_row_nodes, neighbour_nodes, single_sample_nodes])
def test_onnx_files_that_are_right_for_single_samples_only(tmp_path, make):
    path = tmp_path / "m.onnx"
    write_faulty_onnx(path, make)
    x = samples()
    bundle = artifacts.write_bundle(
        tmp_path, [artifacts.artifact(path)], {"input/x": x, "output/score": dense(x)}
    )
    target = interpreter_target(Path(sys.executable), bundle)
    for validated_bundle in (
        validate_isolated(bundle, bundle.manifest.artifacts),
        validate_on_target(target, bundle, bundle.manifest.artifacts),
    ):
        (report,) = validated_bundle.artifacts
        assert batch_failures(report) == {("batch_error", "score")}
        assert report.verdict == FAIL


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (neighbour_nodes, "A sample's score depends on the other samples of its batch"),
        (single_sample_nodes, "The file does not run in all batches it accepts."),
    ],
)
def test_the_explanation_names_the_batch(edgeattn, tmp_path, make, text):
    write_faulty_onnx(tmp_path / "m.onnx", make)
    x = samples()
    entry = artifacts.artifact(tmp_path / "m.onnx")
    artifacts.write_bundle(tmp_path, [entry], {"input/x": x, "output/score": dense(x)})
    result = edgeattn("validate", tmp_path, "--explain")
    assert result.code == 1
    assert f"onnx float32: {text}" in result.out


@pytest.mark.parametrize("batch", [1, 2, 4, 64])
def test_sound_files_of_every_batch_size_pass(tmp_path, batch):
    artifacts.write_dense_tflite(tmp_path / "m.tflite", batch=batch)
    artifacts.write_dense_onnx(tmp_path / "m.onnx", batch=batch if batch > 1 else None)
    x = samples()
    entries = [
        artifacts.artifact(tmp_path / "m.tflite", inputs=fixed(X, batch), outputs=fixed(Y, batch)),
        artifacts.artifact(
            tmp_path / "m.onnx",
            inputs=fixed(X, batch) if batch > 1 else (X,),
            outputs=fixed(Y, batch) if batch > 1 else (Y,),
        ),
    ]
    bundle = artifacts.write_bundle(tmp_path, entries, {"input/x": x, "output/score": dense(x)})
    report = validate_isolated(bundle, entries)
    assert report.verdict == PASS
    metrics = [{check.metric for check in item.checks} for item in report.artifacts]
    assert ["batch_error" in names for names in metrics] == [batch > 1, True]


def fixed(spec, batch):
    return (TensorSpec(spec.name, (batch, *spec.shape[1:]), spec.dtype),)


def test_rows_of_a_fixed_batch_are_permuted_and_one_batch_is_not_full(tmp_path):
    """A file with batches of 3 whose third row is wrong unless the reference's order is used."""
    x = samples(9)
    artifacts.write_dense_tflite(tmp_path / "m.tflite", batch=3)
    entry = artifacts.artifact(tmp_path / "m.tflite", inputs=fixed(X, 3), outputs=fixed(Y, 3))
    bundle = artifacts.write_bundle(tmp_path, [entry], {"input/x": x, "output/score": dense(x)})
    calls = []

    def function(tensors):
        calls.append(len(tensors["x"]))
        score = dense(tensors["x"])
        if not whole_reference(tensors["x"]):
            score[2::3] += 1
        return {"score": score}

    report = validated(bundle, function)
    assert batch_failures(report) == {("batch_error", "score")}
    # 16 samples: five full batches, and one with a single sample.
    assert calls[2:] == [3, 3, 3, 3, 3, 1]


def write_dynamic_onnx(path):
    """The dense model as onnxruntime's dynamic quantizer writes it."""
    scale = np.float32(np.abs(artifacts.KERNEL).max() / 127)
    artifacts.save_onnx(
        path,
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["integers", "x_scale", "zero"]),
            helper.make_node("MatMulInteger", ["integers", "kernel", "zero"], ["product"]),
            helper.make_node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x_scale", "kernel_scale"], ["scale"]),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "bias"], ["score"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", UNITS])],
        {
            "kernel": np.rint(artifacts.KERNEL / scale).astype(np.int8),
            "kernel_scale": scale,
            "bias": artifacts.BIAS,
        },
    )


def test_a_file_of_onnxruntimes_dynamic_quantizer_passes(tmp_path):
    """Its samples depend on their neighbours by more than rounding, within the limits."""
    write_dynamic_onnx(tmp_path / "m.onnx")
    entry = artifacts.artifact(tmp_path / "m.onnx", scheme="dynamic_int8")
    operators = {"DynamicQuantizeLinear": 1, "MatMulInteger": 1, "Cast": 1, "Mul": 2, "Add": 1}
    entry.achieved["operators"] = operators
    x = samples(64)
    bundle = artifacts.write_bundle(tmp_path, [entry], {"input/x": x, "output/score": dense(x)})
    (report,) = validate_isolated(bundle, bundle.manifest.artifacts).artifacts
    assert report.verdict == PASS
    (check,) = [check for check in report.checks if check.metric.startswith("batch")]
    assert (check.metric, check.limit) == ("batch_snr_db", 30.0)
    runner = open_artifact(bundle.path, entry)
    alone, together = (runner.run({"x": x}, (size,))["score"] for size in (1, 64))
    assert np.abs(alone - together).max() > tolerance("float32", alone)
