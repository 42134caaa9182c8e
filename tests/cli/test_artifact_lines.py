"""Lines on artifacts that convert and validate print below their tables."""

from dataclasses import replace

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples
from function_runner import FunctionRunner

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import write_manifest
from edgeattn.cli.artifact_lines import conversion_summary, failure_lines
from edgeattn.metrics.verdict import UNKNOWN
from edgeattn.validation.validate import validate


def validated(folder, function):
    """The report on ``function`` for 5 samples and 2 edge cases."""
    bundle = artifacts.write_dense_bundle(folder, formats=("tflite",))
    reference = {**bundle.manifest.reference, "samples": 5, "edge_cases": 2}
    write_manifest(folder, replace(bundle.manifest, reference=reference))
    bundle = Bundle.open(folder)
    (report,) = validate(
        bundle, bundle.manifest.artifacts, lambda a: FunctionRunner(function, a.inputs, a.outputs)
    ).artifacts
    return report


@pytest.mark.parametrize(
    ("error", "failure", "reason"),
    [
        (
            0.5,
            "tolerance_ratio of score is ",
            "(limit <= 1): with edge cases (max abs error 0.5); ",
        ),
        (np.nan, "non_finite of score is ", "(limit <= 0): with edge cases; "),
    ],
)
def test_an_error_of_an_edge_case_is_not_that_of_the_table(tmp_path, error, failure, reason):
    """The limits apply to the edge cases, and the table has the error of the samples, 0."""

    def wrong_in_the_last_row(tensors):
        edge_case = (tensors["x"] == samples()[-1]).all(axis=1, keepdims=True)
        return {"score": np.where(edge_case, dense(tensors["x"]) + error, dense(tensors["x"]))}

    report = validated(tmp_path, wrong_in_the_last_row)
    assert report.max_abs_error == 0
    (line,) = [line for line in failure_lines(report) if failure in line]
    assert line.startswith(f"tflite float32: {failure}")
    assert line.endswith(reason + "on the samples alone it is 0")
    assert report.shortcoming.endswith("on the samples alone it is 0")


def test_an_error_of_a_sample_has_no_other_value(tmp_path):
    report = validated(tmp_path, lambda tensors: {"score": dense(tensors["x"]) + 0.5})
    assert report.max_abs_error == 0.5
    assert failure_lines(report)
    assert all("edge cases" not in line for line in failure_lines(report))


def test_unknown_conversions_are_not_counted_as_wrong(tmp_path):
    report = replace(validated(tmp_path, lambda x: {"score": dense(x["x"])}), conversion=UNKNOWN)
    assert list(conversion_summary([report])) == [
        "Converted right: unknown for tflite float32. The limits decide.",
        "Unknown for tflite float32: the errors of score are on synthetic samples, on which Keras "
        "itself is unstable.",
    ]
