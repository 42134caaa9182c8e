"""Planted faults are caught, sound artifacts pass, and the page tells how many.

``python -m faults.renew`` in ``tests`` writes the tables into ``docs/verdict.md``.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.evaluation.keras_reference import find_original, open_keras
from edgeattn.metrics.verdict import PASS
from edgeattn.validation.validate import validate_isolated

from .judging import BEYOND, END, PAGE, START, judge_faults, judge_sound, table
from .making import ROOT
from .planting import FAULTS

# TensorFlow's schema is read by the audit of one fault, and warns of its own doings.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def sound(converted):
    return judge_sound(converted)


@pytest.fixture(scope="module")
def found(converted, tmp_path_factory):
    return judge_faults(converted, tmp_path_factory.mktemp("planted"))


def test_there_are_enough_of_both(sound):
    assert len(FAULTS) >= 40
    assert len({(fault.name, fault.format, fault.model) for fault in FAULTS}) == len(FAULTS)
    assert len([key for key in sound if key not in BEYOND]) >= 40


def test_every_fault_is_caught_by_the_stage_that_must_see_it(found):
    missed = [
        (item.fault.name, item.fault.format, item.fault.stage, item.stages)
        for item in found
        if not item.caught
    ]
    assert missed == []


def test_no_sound_artifact_fails(sound):
    failed = {
        key: [(check.metric, check.output, check.value) for check in report.failed]
        for key, report in sound.items()
        if report.verdict != PASS and key not in BEYOND
    }
    assert failed == {}


def test_keras_itself_answers_where_it_is(converted):
    """The reference of the task is the model's own file, known by its hash."""
    home = ROOT / "sample_models" / "digits"
    bundle = converted["digits"]
    dataset = read_dataset(home / "samples.npz", bundle)
    assert find_original(bundle, home / "model.h5") == home / "model.h5"
    keras = open_keras(bundle, home / "model.h5")
    answered = dataset.with_keras_outputs(keras)
    keras.close()
    assert (answered.reference_name, answered.fallback_reference) == ("Keras", None)
    truth = bundle.reference()["output/dense"][:64]
    np.testing.assert_allclose(answered.reference_outputs["dense"][:64], truth, atol=1e-6)
    chosen = bundle.select(("onnx",), ("float32", "float16"))
    report = validate_isolated(bundle, chosen, dataset=answered)
    assert [item.task.verdict for item in report.artifacts] == [PASS, PASS]
    assert [item.task.results[0].lost for item in report.artifacts] == [0, 0]
    assert len(answered) == 360


def test_the_page_tells_what_was_found(sound, found):
    text = PAGE.read_text("utf-8")
    told = text[text.index(START) : text.index(END) + len(END)]
    assert told == table(sound, found)
