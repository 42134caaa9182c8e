"""Threads share a loaded model: the results are those of calls one after the other."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artifacts import TFLite, artifact, dense, samples, save_onnx, write_bundle
from onnx import TensorProto, helper

import edgeattn
from edgeattn.errors import SampleError
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.tensors import TensorSpec

THREADS, CALLS = 4, 250
X = TensorSpec("x", (1, 3), "float32")
INITIAL = TensorSpec("sum_initial", (1, 3), "float32", state="sum_final")
FINAL = TensorSpec("sum_final", (1, 3), "float32")
MAP = TensorSpec("attention/look", (1, 3), "float32")
INPUTS, OUTPUTS = (X, INITIAL), (FINAL, MAP)


def write_onnx(path):
    save_onnx(
        path,
        [
            helper.make_node("Add", ["x", "sum_initial"], ["sum_final"]),
            helper.make_node("Add", ["x", "x"], ["attention/look"]),
        ],
        [helper.make_tensor_value_info(s.name, TensorProto.FLOAT, s.shape) for s in INPUTS],
        [helper.make_tensor_value_info(s.name, TensorProto.FLOAT, s.shape) for s in OUTPUTS],
        {},
    )


def write_tflite(path):
    model = TFLite()
    x, initial, final, look = (model.tensor(spec.name, spec.shape) for spec in (*INPUTS, *OUTPUTS))
    for operands, result in (((x, initial), final), ((x, x), look)):
        model.operator(
            schema.BuiltinOperator.ADD,
            operands,
            (result,),
            schema.AddOptionsT(),
            schema.BuiltinOptions.AddOptions,
        )
    model.save(path, (x, initial), (final, look))


@pytest.fixture(scope="module", params=["tflite", "onnx"])
def summing(request, tmp_path_factory):
    """``sum_final = sum_initial + x`` and the attention map ``2 x``, in a bundle."""
    folder = tmp_path_factory.mktemp("summing.edge")
    file = folder / f"model.float32.{request.param}"
    {"tflite": write_tflite, "onnx": write_onnx}[request.param](file)
    entry = artifact(file, inputs=INPUTS, outputs=OUTPUTS, attention=(MAP.name,))
    x = samples(1)
    reference = {
        "input/x": x,
        "input/sum_initial": 0 * x,
        "output/sum_final": x,
        "attention/look": 2 * x,
    }
    return write_bundle(folder, [entry], reference)


class Paused:
    """A session whose first call waits, before or after the runtime, for what ``meanwhile`` does.

    ``meanwhile`` runs in another thread. If the model is locked it cannot end before the first
    call, so the wait is limited; without a lock it ends long before the limit.
    """

    def __init__(self, invoke, meanwhile, *, before):
        self._invoke, self._before = invoke, before
        self.thread = threading.Thread(target=meanwhile)
        self._waited = False

    def __call__(self):
        if self._waited:
            self._invoke()
            return
        self._waited = True
        if not self._before:
            self._invoke()
        self.thread.start()
        self.thread.join(timeout=0.3)
        if self._before:
            self._invoke()


@pytest.mark.parametrize("before", [True, False], ids=["before the runtime", "after the runtime"])
def test_a_call_during_another_changes_neither(summing, before):
    model = edgeattn.load(summing.path)
    first, second = np.float32([[1, 2, 3], [-4, 0, 8]])
    other = []
    paused = Paused(
        model._invoke,
        lambda: other.append({name: array.copy() for name, array in model(second).items()}),
        before=before,
    )
    model._invoke = paused
    outputs = model(first)
    paused.thread.join()
    for sample, result in ((first, outputs), (second, other[0])):
        np.testing.assert_array_equal(result["sum_final"][0], sample)
        np.testing.assert_array_equal(result["attention/look"][0], 2 * sample)


def test_a_reset_during_a_call_takes_effect_after_it(summing):
    model = edgeattn.load(summing.path, carry_states=True)
    row = np.float32([1, 2, 3])
    paused = Paused(model._invoke, model.reset, before=True)
    model._invoke = paused
    model(row)
    paused.thread.join()
    np.testing.assert_array_equal(model(row)["sum_final"][0], row)


def test_no_call_changes_the_arrays_of_another_thread(summing):
    model = edgeattn.load(summing.path)
    first, second = np.float32([[1, 2, 3], [-4, 0, 8]])
    outputs = model(first)
    thread = threading.Thread(target=model, args=(second,))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(outputs["sum_final"][0], first)
    assert model(second) is outputs


@pytest.fixture
def frequent_switches():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(function):
    """``function(thread)`` in every thread, started together; raises the first error."""
    barrier = threading.Barrier(THREADS)

    def run(thread):
        barrier.wait()
        return function(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def rows(thread):
    """The samples of a thread, of small integers."""
    return np.random.default_rng(thread).integers(-9, 10, (CALLS, 3)).astype(np.float32)


def test_many_calls_from_threads(summing, frequent_switches):
    model = edgeattn.load(summing.path)

    def run(thread):
        wrong = 0
        for row in rows(thread):
            outputs = model(row)
            wrong += not np.array_equal(outputs["sum_final"][0], row)
            wrong += not np.array_equal(outputs["attention/look"][0], 2 * row)
        return wrong

    assert in_threads(run) == [0] * THREADS


def test_many_calls_with_carried_states(summing, frequent_switches):
    """Every sample is added to the carried sum once, in any order."""
    model = edgeattn.load(summing.path, carry_states=True)

    def run(thread):
        for row in rows(thread):
            model(row)

    in_threads(run)
    total = sum(rows(thread).sum(0) for thread in range(THREADS))
    np.testing.assert_array_equal(model(np.zeros(3, np.float32))["sum_final"][0], total)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_runners_in_threads(dense_bundle, frequent_switches, format):
    (entry,) = dense_bundle.select((format,), ())
    runner = edgeattn.open_runner(
        dense_bundle.artifact_path(entry), format, entry.inputs, entry.outputs
    )
    x = samples(CALLS)

    def run(thread):
        return all(
            np.array_equal(runner.run({"x": row[None]})["score"], dense(row[None]))
            for row in np.roll(x, thread, axis=0)
        )

    assert in_threads(run) == [True] * THREADS


def test_workers_and_states_in_threads(summing):
    (entry,) = summing.manifest.artifacts
    with Worker() as worker:
        runner = StatefulRunner(IsolatedRunner(summing.path, entry, worker))

        def run(thread):
            for row in rows(thread)[:25]:
                runner.run({"x": row[None]})

        in_threads(run)
        outputs = runner.run({"x": np.zeros((1, 3), np.float32)})
    total = sum(rows(thread)[:25].sum(0) for thread in range(THREADS))
    np.testing.assert_array_equal(outputs["sum_final"][0], total)


def test_a_failed_call_does_not_change_the_carried_states(summing):
    model = edgeattn.load(summing.path, carry_states=True)
    row = np.float32([1, 2, 3])
    model(row)
    with pytest.raises(SampleError):
        model(row[:2])
    np.testing.assert_array_equal(model(row)["sum_final"][0], 2 * row)
    model.reset()
    with pytest.raises(SampleError):
        model(row[:2])
    np.testing.assert_array_equal(model(row)["sum_final"][0], row)
