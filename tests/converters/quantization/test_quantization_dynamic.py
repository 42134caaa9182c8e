"""Which of several files of a scheme is taken: on outputs drawn by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgeattn.errors import ConversionError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import (
    PLAIN,
    Candidate,
    Stage,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.selection import (
    ModelIO,
    QuantizedModel,
    RunFunction,
    select_candidate,
    split_samples,
)
from edgeattn_converters.recipes import recipe_for

SPEC = TensorSpec("y", (None, 2), "float32")
ENDS = ModelIO((TensorSpec("x", (None, 2), "float32"),), (SPEC,), ())
X = {"x": np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)}


CAREFUL = Candidate(careful=True)


def taken(
    noise: dict[Candidate, float],
    samples: Any = X,
    sizes: dict[Candidate, int] | None = None,
    steps: tuple[Stage, ...] = dynamic_stages(attended=False, recurrent=False),
    scheme: str = "dynamic_int8",
) -> QuantizedModel:
    """What is chosen among files whose errors are these shares of the output."""

    def make(plan: Candidate) -> QuantizedModel:
        if plan not in noise:
            raise ValueError("the quantizer gave up")
        return QuantizedModel(bytes((sizes or {}).get(plan, 9)), ENDS.inputs, ENDS.outputs, plan)

    @contextlib.contextmanager
    def opened(made: QuantizedModel | None) -> Iterator[RunFunction]:
        share = 0.0 if made is None else noise[made.plan]
        yield lambda data: {"y": data["x"] * (1 + share)}

    return select_candidate(steps, make, opened, ENDS, scheme, samples)


def test_integer_activations_where_they_do() -> None:
    # An error of 1% is an SNR of 40 dB: a third of the noise that the limit of 30 dB allows.
    made = taken({PLAIN: 0.01, CAREFUL: 0.0})
    assert (made.plan, made.told, made.cost) == (PLAIN, (), {})


def test_float_activations_where_those_do_not() -> None:
    # 10% is 20 dB, and 20 dB are 10 dB short: 10 ** (10 / 20) = 3.2 times the limit.
    made = taken({PLAIN: 0.1, CAREFUL: 0.001})
    assert made.plan == CAREFUL
    assert "3.2 times its limit" in made.told[0]


def test_no_change_without_a_gain() -> None:
    assert taken({PLAIN: 0.1, CAREFUL: 0.1}).plan == PLAIN


def test_nothing_to_see_it_on() -> None:
    assert taken({PLAIN: 0.1, CAREFUL: 0.0}, samples=None).plan == PLAIN


KEPT, UPSTREAM = Candidate(attention=True), Candidate(attention=True, upstream=True)
HALF = Candidate(attention=True, upstream=True, half="all")
STATIC = static_stages(
    recipe_for("int8"), QuantizationOptions(), attended=True, recurrent=False, written_out=False
)


def test_the_smallest_of_those_within() -> None:
    made = taken(
        {PLAIN: 0.08, KEPT: 0.02, Candidate(attention=True, deep=True): 0.01},
        sizes={KEPT: 30, Candidate(attention=True, deep=True): 20},
        steps=STATIC,
        scheme="int8",
    )
    assert made.plan == Candidate(attention=True, deep=True)


def test_what_costs_more_is_made_only_where_nothing_else_does() -> None:
    # The limit is 20 dB, 10%: 2% are a fifth of it, 7% more than the margin, 9% nearly all.
    everything = {PLAIN: 0.5, KEPT: 0.02, UPSTREAM: 0.0, HALF: 0.0}
    assert taken(everything, steps=STATIC, scheme="int8").plan == KEPT
    assert taken({**everything, KEPT: 0.07}, steps=STATIC, scheme="int8").plan == UPSTREAM
    worse = {**everything, KEPT: 0.3, UPSTREAM: 0.09}
    made = taken(worse, sizes={PLAIN: 10, HALF: 16}, steps=STATIC, scheme="int8")
    assert made.plan == HALF
    assert made.cost["bytes"] == 6
    assert made.cost["time"] > 0
    assert "weights of what attention's scores are made of are float16" in made.told[0]


def test_no_file_at_all() -> None:
    with pytest.raises(ConversionError, match="the quantizer gave up"):
        taken({})


def test_what_was_asked_for_is_not_gone_beyond() -> None:
    asked = QuantizationOptions(attention_precision="int8")
    (step,) = static_stages(
        recipe_for("int8"), asked, attended=True, recurrent=True, written_out=False
    )
    assert step.plans == (PLAIN,)


def test_samples_that_nothing_is_measured_on_come_first() -> None:
    measured, judged = split_samples({"x": np.arange(40)})
    assert not set(measured["x"]) & set(judged["x"][:10])
    assert sorted(judged["x"]) == list(range(40))
