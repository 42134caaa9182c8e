"""A bundle with two maps, one of them of two heads, and a report on it: one of each verdict."""

from dataclasses import replace

import artifacts
import numpy as np
import pytest

from edgeattn.evaluation import task
from edgeattn.evaluation.task import TaskReport
from edgeattn.runners.function import FunctionRunner
from edgeattn.tensors import TensorSpec
from edgeattn.validation.validate import Report, validate

HEADS, QUERIES, KEYS = 2, 3, 5
ROW = TensorSpec("attention/row", (None, KEYS), "float32")
MAP = TensorSpec("attention/heads", (None, HEADS, QUERIES, KEYS), "float32")


def softmax(values):
    powers = np.exp(values)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("reported")
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    x = artifacts.samples()
    generator = np.random.default_rng(3)
    entry = artifacts.artifact(
        tmp_path / "m.onnx", outputs=(artifacts.Y, ROW, MAP), attention=(ROW.name, MAP.name)
    )
    arrays = {
        "input/x": x,
        "output/score": artifacts.dense(x),
        ROW.name: softmax(generator.standard_normal((7, KEYS))),
        MAP.name: softmax(generator.standard_normal((7, HEADS, QUERIES, KEYS))),
    }
    return artifacts.write_bundle(tmp_path, [entry, replace(entry, scheme="int8")], arrays)


@pytest.fixture(scope="session")
def report(bundle):
    """float32 with one wrong number, int8 with a task."""
    reference = bundle.reference()

    def answer(tensors):
        count = len(tensors["x"])
        got = {
            "score": reference["output/score"][:count].copy(),
            ROW.name: reference[ROW.name][:count],
            MAP.name: reference[MAP.name][:count].copy(),
        }
        got["score"][0, 0] += 0.01
        # The second head moves from one key to another, by more from sample to sample.
        moved = 1e-3 * np.arange(count, dtype=np.float32)[:, None]
        got[MAP.name][:, 1, :, 0] -= moved
        got[MAP.name][:, 1, :, 1] += moved
        return got

    made = validate(
        bundle,
        bundle.manifest.artifacts,
        lambda item: FunctionRunner(answer, item.inputs, item.outputs),
    )
    truth = np.repeat([0, 1], 200)
    scores = np.eye(2)[truth]
    after = scores.copy()
    after[:2] = after[:2, ::-1]
    outcome = task.compare("score", truth, scores, after, retention=0.99)
    first, second = made.artifacts
    return Report((first, replace(second, task=TaskReport("Keras", (outcome,), "t.npz", ("n",)))))


@pytest.fixture(scope="session")
def text(bundle, report):
    """The page, with a latency of one artifact and a word on what went wrong."""
    pytest.importorskip("matplotlib")
    from edgeattn.report import page

    timed = {"format": "onnx", "scheme": "float32", "threads": 1, "runs": 700}
    timed |= {"p50_ms": 0.0125, "p90_ms": 0.025, "p99_ms": None, "load_ms": 3.5}
    bench = {"artifacts": [timed], "place": "here"}
    told = {"onnx float32": ["The first operation that is off is MatMul_3."]}
    return page.render(bundle, report, bench=bench, explanations=told)
