"""Answers from outputs; expected values are worked by hand."""

import math

import numpy as np
import pytest

from edgeattn.errors import ArtifactError, UsageError
from edgeattn.frontend.answers import Answer, Answers
from edgeattn.tensors import TensorSpec

LABELS = ("sitting", "walking", "running")


def answers(answer, *outputs):
    answer = Answers(answer)
    return [answer({"score": np.float32(values)}) for values in outputs]


def test_the_label_with_the_highest_score():
    assert answers(Answer(labels=LABELS), [0.25, 0.5, 0.25]) == [{"label": "walking", "score": 0.5}]
    assert answers(Answer(), [0.25, 0.25, 0.5]) == [{"label": 2, "score": 0.5}]


def test_softmax():
    (answer,) = answers(Answer(labels=LABELS, activation="softmax"), np.log([1, 2, 5]) + 1000)
    assert answer["label"] == "running"
    assert answer["score"] == pytest.approx(5 / 8, rel=1e-4)


def test_top():
    (answer,) = answers(Answer(labels=LABELS, top=2), [0.25, 0.125, 0.5])
    assert answer["top"] == [
        {"label": "running", "score": 0.5},
        {"label": "sitting", "score": 0.25},
    ]


@pytest.mark.parametrize(
    ("logit", "threshold", "expected"),
    [
        (0.0, 0.5, {"label": "yes", "score": 0.5}),
        (0.0, 0.75, {"label": "no", "score": 0.5}),
        (-1000.0, 0.5, {"label": "no", "score": 1.0}),
        (math.log(3), 0.75, {"label": "yes", "score": 0.75}),
    ],
)
def test_a_single_output(logit, threshold, expected):
    answer = Answer(labels=("no", "yes"), activation="sigmoid", threshold=threshold - 1e-6)
    (result,) = answers(answer, [logit])
    assert result == {"label": expected["label"], "score": pytest.approx(expected["score"])}


def test_several_labels():
    (answer,) = answers(Answer(kind="multi_label", labels=LABELS, threshold=0.5), [0.5, 0.25, 0.75])
    assert answer == {
        "labels": [{"label": "sitting", "score": 0.5}, {"label": "running", "score": 0.75}]
    }


def test_tags():
    (answer,) = answers(Answer(kind="tagging", labels=("O", "NAME")), [[0.75, 0.25], [0.25, 0.75]])
    assert answer == {"labels": ["O", "NAME"], "scores": [0.75, 0.75]}


def test_amounts():
    answer = Answer(kind="regression", scale=(10.0,), offset=(-1.0,))
    assert answers(answer, [0.5]) == [{"value": 4.0}]
    several = Answer(kind="regression", scale=(10.0, 2.0), offset=(1.0, 0.0))
    assert answers(several, [0.5, 3.0]) == [{"value": [6.0, 6.0]}]


STREAM = ([0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5], [0.0, 0.25, 0.75])


def test_the_mean_of_scores():
    smoothed = answers(Answer(labels=LABELS, smoothing="mean", smoothing_windows=2), *STREAM)
    assert [item["label"] for item in smoothed] == ["sitting", "walking", "walking", "running"]
    # The scores of windows 1 and 2 of "walking": (0.25 + 1) / 2; of 2 and 3: (1 + 0.25) / 2.
    assert [item["score"] for item in smoothed] == [0.5, 0.625, 0.625, 0.625]


def test_the_majority():
    smoothed = answers(Answer(labels=LABELS, smoothing="majority", smoothing_windows=3), *STREAM)
    # One vote each in windows 1 to 3: the latest. Two of three for running at the end.
    assert [item["label"] for item in smoothed] == ["sitting", "walking", "running", "running"]


def test_a_restart_forgets_earlier_outputs():
    smoothing = Answers(Answer(smoothing="mean"))
    smoothing({"score": np.float32([1, 0])})
    smoothing.restart()
    assert smoothing({"score": np.float32([0, 1])}) == {"label": 1, "score": 1.0}


def test_attention_maps():
    outputs = {"score": np.float32([0, 1]), "attention/a": np.float32([0.25, 0.75])}
    answer = Answers(Answer(), ("attention/a",))(outputs)
    assert answer == {"label": 1, "score": 1.0, "attention": [0.25, 0.75]}
    outputs["attention/b"] = np.float32([1, 0])
    answer = Answers(Answer(), ("attention/a", "attention/b"))(outputs)
    assert answer["attention"] == {"a": [0.25, 0.75], "b": [1.0, 0.0]}


def test_weights_have_nine_decimals():
    """As float64, the values of float32 have up to 17 digits."""
    outputs = {"score": np.float32([0, 1]), "map": np.float32([[0.1, 1 / 3], [2e-10, 12.5]])}
    answer = Answers(Answer(), ("map",))(outputs)
    assert answer["attention"] == [[0.100000001, 0.333333343], [0.0, 12.5]]


def test_an_output_that_is_not_finite_has_no_answer():
    for value in (np.nan, np.inf):
        with pytest.raises(ArtifactError, match="Output score is not finite"):
            answers(Answer(), [0.5, value])


@pytest.mark.parametrize(
    ("answer", "size", "message"),
    [
        (Answer(labels=LABELS), 2, "Output score has 2 classes. Received: 3 labels."),
        (Answer(labels=LABELS), 1, "Output score has 2 classes. Received: 3 labels."),
        (Answer(output="other"), 2, "no output 'other'. Its outputs: score"),
        (
            Answer(kind="regression", scale=(1.0, 2.0)),
            3,
            "scale has 2 values, and the output score has 3",
        ),
    ],
)
def test_an_answer_that_does_not_fit_the_model(answer, size, message):
    with pytest.raises(UsageError, match=message):
        answer.check((TensorSpec("score", (None, size), "float32"),))
