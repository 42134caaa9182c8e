"""A bundle with two attention maps, one of them with two heads, and a report with two verdicts."""

from dataclasses import replace

import artifacts
import chromium
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.evaluation.results import TaskReport
from edgeattn.evaluation.score_comparison import compare_scores
from edgeattn.tensors import TensorSpec
from edgeattn.validation import changes
from edgeattn.validation.bundle_comparison import ArtifactComparison, BundleComparison
from edgeattn.validation.recommendation import LATENCY, SIZE, Candidate, Recommendation
from edgeattn.validation.report import Report
from edgeattn.validation.validate import validate

HEADS, QUERIES, KEYS = 2, 3, 5
ROW = TensorSpec("attention/row", (None, KEYS), "float32")
MAP = TensorSpec("attention/heads", (None, HEADS, QUERIES, KEYS), "float32")


def softmax(values):
    powers = np.exp(values)
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    x = artifacts.samples()
    generator = np.random.default_rng(3)
    entries = artifacts.declared_artifacts(tmp_path, ("float32", "int8"), (artifacts.Y, ROW, MAP))
    arrays = {
        "input/x": x,
        "output/score": artifacts.dense(x),
        ROW.name: softmax(generator.standard_normal((7, KEYS))),
        MAP.name: softmax(generator.standard_normal((7, HEADS, QUERIES, KEYS))),
    }
    return artifacts.write_bundle(tmp_path, entries, arrays)


@pytest.fixture(scope="session")
def report(bundle):
    """float32 with one wrong value fails; int8 has a task that is inconclusive."""
    reference = bundle.reference()

    def run(tensors):
        count = len(tensors["x"])
        outputs = {
            "score": reference["output/score"][:count].copy(),
            ROW.name: reference[ROW.name][:count],
            MAP.name: reference[MAP.name][:count].copy(),
        }
        outputs["score"][0, 0] += 0.01
        # In the second head, weight moves from one key to another, more with every sample.
        shift = 1e-3 * np.arange(count, dtype=np.float32)[:, None]
        outputs[MAP.name][:, 1, :, 0] -= shift
        outputs[MAP.name][:, 1, :, 1] += shift
        return outputs

    validated = validate(
        bundle,
        bundle.manifest.artifacts,
        lambda item: FunctionRunner(run, item.inputs, item.outputs),
    )
    labels = np.repeat([0, 1], 200)
    before = np.eye(2)[labels]
    after = before.copy()
    after[:4] = after[:4, ::-1]
    outcome = compare_scores("score", labels, before, after)
    first, second = validated.artifacts
    return Report((first, replace(second, task=TaskReport("Keras", (outcome,), "t.npz", ("n",)))))


@pytest.fixture(scope="session")
def recommendation(report):
    """The artifact with a task, timed on a device."""
    artifact = report.artifacts[1].artifact
    candidate = Candidate(artifact, "pass", "Keras", "400 samples", "a runtime", 0.25, 2)
    return Recommendation(candidate, LATENCY, "pi@raspberrypi")


@pytest.fixture(scope="session")
def text(bundle, report, recommendation):
    """The HTML report, with the latency of one artifact and a diagnosis of one."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from edgeattn.report import page

    latency = {"format": "onnx", "scheme": "float32", "threads": 1, "runs": 700}
    latency |= {"p50_ms": 0.0125, "p90_ms": 0.025, "p99_ms": None, "load_ms": 3.5}
    bench = {"artifacts": [latency], "place": "here"}
    explanations = {"onnx float32": ["The first operation with an error is MatMul_3."]}
    return page.render(
        bundle,
        report,
        bench=bench,
        explanations=explanations,
        recommendation=recommendation,
        facts={"Device": "Raspberry Pi 4 <B>", "Validated": "2026-01-02 03:04 UTC"},
    )


@pytest.fixture(scope="session")
def several_inputs(bundle, report):
    """A bundle that passes, whose maps look at words, a signal and an image; compared."""
    generator = np.random.default_rng(5)
    inputs = {
        "words": generator.integers(2, 7, (7, 6)).astype(np.int32),
        "sensor": np.cumsum(generator.normal(size=(7, 6, 2)), 1).astype(np.float32),
        "photo": generator.random((7, 6, 6, 1), dtype=np.float32),
    }
    shapes = {"attention/read": (6,), "attention/feel": (6,), "attention/see": (9,)}
    attended = {
        name: {"keys": [key], "queries": []} for name, key in zip(shapes, inputs, strict=True)
    }
    maps = {name: generator.random((7, *shape), dtype=np.float32) for name, shape in shapes.items()}
    maps = {name: array / array.sum(-1, keepdims=True) for name, array in maps.items()}
    reference = {f"input/{name}": array for name, array in inputs.items()} | maps
    outputs = {name: array + np.float32(1e-3) for name, array in maps.items()}
    specs = tuple(
        TensorSpec(name, (None, *x.shape[1:]), str(x.dtype)) for name, x in inputs.items()
    )
    items = tuple(
        replace(
            report.artifacts[1],
            artifact=replace(item.artifact, inputs=specs, attention=tuple(shapes)),
            outputs=outputs,
            task=None,
        )
        for item in report.artifacts
    )
    changed = (
        changes.Change(changes.SIZE, 900, 600, -1 / 3, 0.1),
        changes.Change(changes.LATENCY, 0.5, 0.9, 0.8, 0.1, "1 thread"),
        changes.Change(changes.SCORE, 0.97, 0.96, 0.01, 0.005, "score"),
    )
    compared = tuple(ArtifactComparison(item, item, changed, (), 0.01, 0.002) for item in items)
    candidate = Candidate(items[1].artifact, "pass", "Keras", "7 samples", "a runtime")
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from edgeattn.report import page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bundle), "reference", lambda _: reference)
        patch.setitem(bundle.manifest.model, "attended", attended)
        return page.render(
            bundle,
            Report(items),
            vocabulary=["-", "?", "turn", "the", "radio", "on", "off"],
            recommendation=Recommendation(candidate, SIZE, "this machine"),
            facts={"Device": "a device"},
            comparison=BundleComparison("old.edge", compared, notes=("The references differ.",)),
        )


@pytest.fixture(scope="session")
def browser():
    driver = chromium.start()
    yield driver
    driver.quit()
