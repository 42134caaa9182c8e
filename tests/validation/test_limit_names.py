"""Limits of the user that apply to nothing are refused."""

import artifacts
import numpy as np
import pytest

from edgeattn.errors import UsageError
from edgeattn.metrics.limits import Limit
from edgeattn.tensors import TensorSpec
from edgeattn.validation.limit_names import check_limits, check_task_limits

MAP = TensorSpec("attention/a", (None, 5), "float32")
# Class probabilities, and amounts.
REFERENCE = {"output/kind": np.array([[0.25, 0.75]]), "output/score": np.array([[-3.0, 7.0]])}


@pytest.fixture
def with_map(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    kind = TensorSpec("kind", (None, 2), "float32")
    outputs = (artifacts.Y, kind, MAP)
    return artifacts.artifact(tmp_path / "m.onnx", outputs=outputs, attention=(MAP.name,))


@pytest.mark.parametrize(
    "text",
    [
        "snr_db=35",
        "score:snr_db=35",
        "score:atol=0.1",
        "attention_jsd=0.1",
        "attention/a:attention_max_abs=0.1",
        "top1_agreement=0.9",
        "kind:top1_agreement=0.9",
        "retention=0.9",
        "score:max_drop=0.05",
        "lost_values=2",
        "score:lost_values=2",
        "attention/a:lost_values=1",
    ],
)
def test_limits_that_apply(with_map, text):
    check_limits([Limit.parse(text)], [with_map], REFERENCE)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nosuch:snr_db=35", "no artifact has an output 'nosuch'", "score, kind"),
        ("nosuch:attention_jsd=1", "no artifact has an output 'nosuch'", "attention/a"),
        ("score:attention_jsd=1", "applies to attention maps only", "attention/a"),
        ("attention/a:snr_db=35", "applies to outputs only", "score, kind"),
        ("attention/a:retention=0.9", "applies to outputs only", "score, kind"),
        (
            "score:top1_agreement=0.9",
            "applies to outputs with classes or their probabilities only",
            "kind",
        ),
        ("top1_agreement=98", "a share from 0 to 1", "0.98"),
        ("max_drop=2", "a share from 0 to 1", "0.98"),
        ("score:retention=-1", "a share from 0 to 1", "0.98"),
        ("atol=-0.1", "cannot be negative", "positive"),
    ],
)
def test_limits_that_cannot_apply(with_map, text, message, hint):
    with pytest.raises(UsageError, match=message) as error:
        check_limits([Limit.parse(text)], [with_map], REFERENCE)
    assert hint in error.value.hint


@pytest.mark.parametrize("name", ["attention_max_abs", "attention_jsd", "top1_agreement"])
def test_limits_of_what_no_artifact_has(with_map, tmp_path, name):
    plain = artifacts.artifact(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="has no effect"):
        check_limits([Limit(name, 0.5)], [plain], REFERENCE)
    # One artifact to which it applies is enough.
    check_limits([Limit(name, 0.5)], [plain, with_map], REFERENCE)


def test_one_hot_rows_have_no_limit_of_the_ratio(with_map):
    arrays = REFERENCE | {"output/kind": np.eye(2)}
    check_limits([Limit("atol", 0.1, "kind"), Limit("top1_agreement", 0.9)], [with_map], arrays)
    with pytest.raises(UsageError, match="snr_db applies to outputs with real numbers only"):
        check_limits([Limit("snr_db", 30.0, "kind")], [with_map], arrays)
    with pytest.raises(UsageError, match="lost_values applies to outputs with real numbers and"):
        check_limits([Limit("lost_values", 1.0, "kind")], [with_map], arrays)


def test_limits_of_real_numbers_do_not_apply_to_classes(with_map, tmp_path):
    """An argmax has no error and no signal-to-noise ratio, only a share of equal values."""
    outputs = (TensorSpec("best", (None,), "int64"),)
    classes = artifacts.artifact(tmp_path / "m.onnx", outputs=outputs)
    reference = {**REFERENCE, "output/best": np.array([0, 3])}
    for name in ("snr_db", "atol", "rtol"):
        for output in (None, "best"):
            with pytest.raises(UsageError, match="applies to outputs with real numbers only"):
                check_limits([Limit(name, 30.0, output)], [classes], reference)
        # It applies to the other outputs of the second artifact.
        check_limits([Limit(name, 30.0)], [classes, with_map], reference)
    check_limits([Limit("top1_agreement", 0.9, "best")], [classes], reference)


def test_a_limit_that_another_replaces(with_map):
    limits = [Limit("snr_db", 30.0, "score"), Limit("snr_db", 40.0)]
    check_limits(limits, [with_map], REFERENCE)
    with pytest.raises(UsageError, match="snr_db of score is given more than once"):
        check_limits([*limits, Limit("snr_db", 50.0, "score")], [with_map], REFERENCE)


def test_limits_of_the_score_need_labels():
    for limit in (Limit("retention", 0.9), Limit("max_drop", 0.9, "score")):
        check_task_limits([limit], ("score", "kind"))
        with pytest.raises(UsageError, match="no effect without labels"):
            check_task_limits([limit], ())
    with pytest.raises(UsageError, match="no effect without labels") as error:
        check_task_limits([Limit("retention", 0.9, "kind")], ("score",))
    assert "score" in error.value.hint
    check_task_limits([Limit("snr_db", 30.0)], ())
