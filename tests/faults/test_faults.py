"""Planted faults are caught, sound artifacts pass, and the page tells how many.

``python -m faults.renew`` in ``tests`` writes the tables into ``docs/verdict.md``.
"""

from __future__ import annotations

import pytest

from edgeattn.validation import PASS

from .judging import BEYOND, END, PAGE, START, judge_faults, judge_sound, table
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
    assert len([key for key in sound if (key[0], key[2]) not in BEYOND]) >= 40


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
        if report.verdict != PASS and (key[0], key[2]) not in BEYOND
    }
    assert failed == {}


def test_the_page_tells_what_was_found(sound, found):
    text = PAGE.read_text("utf-8")
    told = text[text.index(START) : text.index(END) + len(END)]
    assert told == table(sound, found)
