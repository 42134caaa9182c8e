"""TFLite files in Lite Micro: outputs, malformed files, a missing runtime, and the arena."""

import builtins
import sys
from dataclasses import replace

import artifacts
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artifacts import TFLite, X, Y, dense, samples

from edgeattn.errors import ArtifactError, RuntimeUnavailableError
from edgeattn.runners import arena, open_artifact, open_runner, tflite_micro
from edgeattn.runners.accelerators import EDGE_TPU, missing_operators
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO
from edgeattn.tensors import TensorSpec

micro = pytest.importorskip("tflite_micro")


@pytest.fixture
def entry(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    return replace(artifacts.artifact(tmp_path / "m.tflite"), runtimes={MICRO: ">=0"})


def test_outputs(tmp_path, entry, worker):
    for runner in (open_artifact(tmp_path, entry), IsolatedRunner(tmp_path, entry, worker)):
        assert runner.runtime.startswith("tflite-micro 0")
        np.testing.assert_array_equal(runner.run({"x": samples(7)})["score"], dense(samples(7)))
        runner.close()


def test_a_file_for_several_runtimes_does_not_run_in_lite_micro(entry):
    assert replace(entry, runtimes={"ai-edge-litert": ">=2.1"}).runtime is None
    assert entry.runtime == MICRO


def test_quantized_inputs_and_outputs_are_real_numbers(tmp_path):
    artifacts.write_int8_tflite(tmp_path / "m.tflite")
    inputs, outputs = (artifacts.INT8_X,), (artifacts.INT8_Y,)
    litert = open_runner(tmp_path / "m.tflite", "tflite", inputs, outputs)
    runner = open_runner(tmp_path / "m.tflite", "tflite", inputs, outputs, runtime=MICRO)
    x = {"x": np.array([[1.0, 2.6, 1000.0], [0.0, -1000.0, 0.25]])}
    assert runner.run(x)["same"].tolist() == litert.run(x)["same"].tolist()


@pytest.mark.parametrize("content", [b"", b"TFL3", b"garbage" * 999])
def test_malformed_files(tmp_path, content):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot load m\.tflite"):
        open_runner(tmp_path / "m.tflite", "tflite", (X,), (Y,), runtime=MICRO)


def test_an_operator_that_lite_micro_lacks(tmp_path):
    artifacts.write_counter_tflite(tmp_path / "m.tflite")
    specs = (artifacts.COUNTER_X,), (artifacts.COUNTER_Y,)
    with pytest.raises(ArtifactError, match=r"tflite-micro cannot load m\.tflite"):
        open_runner(tmp_path / "m.tflite", "tflite", *specs, runtime=MICRO)


def test_missing_tensors(tmp_path):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    with pytest.raises(ArtifactError, match="no tensor 'z'"):
        open_runner(tmp_path / "m.tflite", "tflite", (replace(X, name="z"),), (Y,), runtime=MICRO)


def test_a_missing_runtime(tmp_path, monkeypatch):
    original = builtins.__import__

    def guarded(name, *arguments, **options):
        if name.split(".")[0] == "tflite_micro":
            raise ImportError(name)
        return original(name, *arguments, **options)

    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    monkeypatch.setattr(builtins, "__import__", guarded)
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_runner(tmp_path / "m.tflite", "tflite", (X,), (Y,), runtime=MICRO)
    assert "edgeattn[micro]" in caught.value.hint


def test_the_arena_is_sufficient_and_not_generous(tmp_path, worker):
    artifacts.write_dense_tflite(tmp_path / "m.tflite")
    size = arena.arena_bytes(tmp_path / "m.tflite", worker)
    assert arena.runs_in(str(tmp_path / "m.tflite"), size)
    # An interpreter without enough memory fails or crashes.
    assert not arena._runs(worker, tmp_path / "m.tflite", size // 2)
    assert arena._runs(worker, tmp_path / "m.tflite", size)


def test_the_arena_of_a_lookup_does_not_depend_on_earlier_memory(tmp_path, worker, monkeypatch):
    """The interpreter of a new arena may have tokens in its input that the table does not have."""
    artifacts.write_lookup_tflite(tmp_path / "m.tflite", rows=3)
    original = tflite_micro.open_interpreter

    def with_old_memory(content, size):
        interpreter = original(content, size)
        interpreter.set_input(np.full((1, 2), 7, np.int32), 0)
        return interpreter

    content = (tmp_path / "m.tflite").read_bytes()
    with pytest.raises(RuntimeError):
        with_old_memory(content, 1 << 20).invoke()
    monkeypatch.setattr(tflite_micro, "open_interpreter", with_old_memory)
    assert arena.runs_in(str(tmp_path / "m.tflite"), 1 << 20)
    assert arena.used_bytes(str(tmp_path / "m.tflite")) < 4096


def test_a_file_that_runs_in_no_arena(tmp_path, monkeypatch):
    artifacts.write_lookup_tflite(tmp_path / "m.tflite", rows=0)
    with pytest.raises(ArtifactError, match=r"tflite-micro cannot run the file: \S"):
        arena.used_bytes(str(tmp_path / "m.tflite"))


def test_methods_of_the_resolver():
    methods = [resolver_method(kind) for kind in ("CONV_2D", "FULLY_CONNECTED", "PADV2", "RELU6")]
    assert methods == ["Conv2D", "FullyConnected", "PadV2", "Relu6"]
    assert resolver_method("UNIDIRECTIONAL_SEQUENCE_LSTM") == "UnidirectionalSequenceLSTM"
    assert resolver_method("GELU") is None


def test_operators_that_hardware_lacks():
    missing = missing_operators(["SOFTMAX", "GELU", "BATCH_MATMUL", "CONV_2D"])
    assert missing == {MICRO: ["GELU"], EDGE_TPU: ["BATCH_MATMUL", "GELU"]}


def unary(path, kind, dtype):
    """A file of one operator between tensors of this type of integers."""
    model = TFLite()
    tensors = [
        model.tensor(name, (1, 4, 3), kind=dtype, quantization=(0.5, 0)) for name in ("x", "y")
    ]
    constants = []
    if kind == schema.BuiltinOperator.SPACE_TO_BATCH_ND:
        for name, value in (("block", np.array([1], "int32")), ("pads", np.zeros((1, 2), "int32"))):
            code = schema.TensorType.INT32
            constants.append(model.tensor(name, value.shape, value=value, kind=code))
    model.operator(kind, (tensors[0], *constants), (tensors[1],))
    model.save(path, tensors[:1], tensors[1:])


@pytest.mark.parametrize(
    ("kind", "action"),
    [("EXP", "cannot load m.tflite"), ("SPACE_TO_BATCH_ND", "failed during inference")],
)
def test_operators_without_a_kernel_for_the_type_are_named(kind, action, tmp_path, capfd):
    path = tmp_path / "m.tflite"
    unary(path, getattr(schema.BuiltinOperator, kind), schema.TensorType.INT16)
    specs = [TensorSpec(name, (1, 4, 3), "int16", 0.5, 0) for name in ("x", "y")]
    with pytest.raises(ArtifactError) as error:
        open_runner(path, "tflite", (specs[0],), (specs[1],), runtime="tflite-micro").run(
            {"x": np.zeros((1, 4, 3), "float32")}
        )
    assert action in error.value.message
    assert f" ({kind}" in error.value.message
    print("restored", file=sys.stderr, flush=True)
    assert "restored" in capfd.readouterr().err
