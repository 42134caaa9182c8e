"""Planted faults are detected, sound artifacts pass, and ``docs/evidence.md`` shows the results.

``python -m faults.update_page`` in ``tests`` updates the tables of that page.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.evaluation.keras_reference import find_original, open_keras
from edgeattn.metrics.verdict import PASS
from edgeattn.validation.validate import validate_isolated

from .bundles import ROOT
from .catalog import FAULTS
from .fault_table import (
    END,
    EXCEPTIONS,
    PAGE,
    START,
    fault_rows,
    table,
    validate_faults,
    validate_sound,
)

# One fault reads TensorFlow's schema, whose import emits warnings.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def sound(all_converted):
    return validate_sound(all_converted)


@pytest.fixture(scope="module")
def results(converted, tmp_path_factory):
    return validate_faults(converted, tmp_path_factory.mktemp("planted"))


def failures(reports):
    return {
        key: [(check.metric, check.output, check.value) for check in report.failed]
        for key, report in reports.items()
        if report.verdict != PASS and key not in EXCEPTIONS
    }


def test_there_are_enough_faults():
    assert len(FAULTS) >= 120
    assert len({(fault.name, fault.format, fault.model) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.long
def test_every_fault_is_detected_by_the_expected_stage(results):
    missed = [
        (item.fault.name, item.fault.format, item.fault.stage, item.stages)
        for item in results
        if not item.detected and not item.fault.outside
    ]
    assert missed == []


@pytest.mark.long
def test_artifacts_without_their_fault_pass(converted):
    reports = validate_sound(converted)
    assert failures(reports) == {}
    assert len(reports) >= 25


@pytest.mark.long
def test_no_sound_artifact_fails(sound):
    assert failures(sound) == {}
    assert len([key for key in sound if key not in EXCEPTIONS]) >= 40


@pytest.mark.long
def test_keras_is_the_reference_if_available(converted):
    home = ROOT / "sample_models" / "digits"
    bundle = converted["digits"]
    dataset = read_dataset(home / "samples.npz", bundle)
    assert find_original(bundle, home / "model.h5") == home / "model.h5"
    keras = open_keras(bundle, home / "model.h5")
    with_keras = dataset.with_keras_outputs(keras)
    keras.close()
    assert (with_keras.reference_name, with_keras.fallback_reference) == ("Keras", None)
    expected = bundle.reference()["output/dense"][:64]
    np.testing.assert_allclose(with_keras.reference_outputs["dense"][:64], expected, atol=1e-6)
    selected = bundle.select(("onnx",), ("float32", "float16"))
    report = validate_isolated(bundle, selected, dataset=with_keras)
    assert [item.task.verdict for item in report.artifacts] == [PASS, PASS]
    assert [item.task.results[0].lost for item in report.artifacts] == [0, 0]
    assert len(with_keras) == 360


@pytest.mark.long
def test_the_page_shows_the_current_faults(results):
    text = PAGE.read_text("utf-8")
    assert fault_rows(results) in text


@pytest.mark.long
def test_the_page_shows_the_current_results(sound, results):
    text = PAGE.read_text("utf-8")
    assert text[text.index(START) : text.index(END) + len(END)] == table(sound, results)
