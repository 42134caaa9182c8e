"""Shares that miss their limit by so few samples that it may be chance."""

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.cli.artifact_lines import failure_lines, settling_command
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.metrics.limits import Limit
from edgeattn.metrics.verdict import FAIL, FEW_SAMPLES, INCONCLUSIVE, PASS
from edgeattn.tensors import TensorSpec
from edgeattn.validation.validate import ValidationOptions, validate

SAMPLES = 92
CLASSES = TensorSpec("score", (None, 3), "float32")
# No near tie in int8: the two first differ by more than a tenth of the largest.
SCORES = np.float32([0.4, 0.33, 0.27])


def write(folder, scheme):
    entries = artifacts.declared_artifacts(folder, (scheme,), (CLASSES,))
    x = np.arange(3 * SAMPLES, dtype=np.float32).reshape(-1, 3)
    scores = np.tile(SCORES, (SAMPLES, 1))
    return artifacts.write_bundle(folder, entries, {"input/x": x, "output/score": scores})


def validated(bundle, changed, limits=(), dataset=None, more=()):
    """The report on outputs with another class in the first ``changed`` samples and in ``more``."""

    def run(tensors):
        numbers = tensors["x"][:, 0] / 3
        scores = np.tile(SCORES, (len(numbers), 1))
        scores[(numbers < changed) | np.isin(numbers, more)] = SCORES[[1, 0, 2]]
        return {"score": scores}

    (report,) = validate(
        bundle,
        bundle.manifest.artifacts,
        lambda a: FunctionRunner(run, a.inputs, a.outputs),
        dataset=dataset,
        options=ValidationOptions(limits=limits),
    ).artifacts
    return report


@pytest.mark.parametrize(
    ("scheme", "changed", "verdict"),
    [
        # 2% of 92 samples are 1.84. Clopper and Pearson's lower limits are 0.26% for 2 of 92,
        # 1.79% for 5 and 2.43% for 6.
        ("int8", 1, PASS),
        ("int8", 2, INCONCLUSIVE),
        ("int8", 5, INCONCLUSIVE),
        ("int8", 6, FAIL),
        # 0.1%; 0.028% for 1 of 92 and 0.26% for 2.
        ("float16", 1, INCONCLUSIVE),
        ("float16", 2, FAIL),
        # No class may change.
        ("float32", 1, FAIL),
    ],
)
def test_a_share_fails_if_chance_does_not_explain_it(tmp_path, scheme, changed, verdict):
    limits = (Limit("atol", 0.1),)
    report = validated(write(tmp_path, scheme), changed, limits)
    assert report.stages["numbers"] == verdict, [check.name for check in report.failed]
    shares = {c.metric: c for c in report.checks if c.samples is not None}
    assert shares["top1_agreement"].samples == SAMPLES
    if verdict == INCONCLUSIVE:
        assert report.verdict_reason == FEW_SAMPLES
        assert report.failed == ()


def test_the_output_names_the_samples_that_would_decide(tmp_path):
    bundle = write(tmp_path, "int8")
    report = validated(bundle, 2, (Limit("atol", 0.1),))
    (line,) = failure_lines(report)
    assert line == (
        "onnx int8: not decided: too few samples. top1_agreement of score is 0.978 (limit >= 0.98)"
    )
    (line,) = settling_command(str(bundle.path), [report])
    assert line.startswith("Validate on more samples to decide: edgeattn validate ")


def test_a_limit_of_the_user_is_strict(tmp_path):
    limits = (Limit("atol", 0.1), Limit("top1_agreement", 0.98))
    assert validated(write(tmp_path, "int8"), 2, limits).verdict == FAIL


@pytest.mark.parametrize(
    ("changed_on_data", "verdict"), [(0, PASS), (7, PASS), (10, INCONCLUSIVE), (20, FAIL)]
)
def test_more_samples_decide(tmp_path, changed_on_data, verdict):
    """400 samples: 2% are 8, and the lower limits are 1.2% for 10 and 3.1% for 20."""
    bundle = write(tmp_path, "int8")
    # Numbers that are not in the reference.
    x = 3 * SAMPLES + np.arange(3 * 400, dtype=np.float32).reshape(-1, 3)
    np.savez(tmp_path / "data.npz", x=x)

    def keras(tensors):
        return {"score": np.tile(SCORES, (len(tensors["x"]), 1))}

    dataset = open_dataset(tmp_path / "data.npz", bundle).with_keras(keras)
    first = SAMPLES + np.arange(changed_on_data)
    report = validated(bundle, 2, (Limit("atol", 0.1),), dataset, more=first)
    assert report.verdict == verdict
    assert report.verdict_reason == (FEW_SAMPLES if verdict == INCONCLUSIVE else None)
    if verdict == PASS:
        assert report.shortcoming is None
    else:
        # The reason with the limit, or the limit.
        assert report.shortcoming.startswith(FEW_SAMPLES if verdict == INCONCLUSIVE else "")
        assert "(limit " in report.shortcoming or "allowed)" in report.shortcoming
