"""The selection among candidates, on hand-written outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeattn.errors import ConversionError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import (
    DEFAULT,
    Candidate,
    Stage,
    dynamic_stages,
    static_stages,
)
from edgeattn_converters.quantization.quantized_model import ModelIO, QuantizedModel, RunFunction
from edgeattn_converters.quantization.selection import select_candidate, split_samples
from edgeattn_converters.recipes import recipe_for

SPEC = TensorSpec("y", (None, 2), "float32")
IO = ModelIO((TensorSpec("x", (None, 2), "float32"),), (SPEC,), ())
X = {"x": np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)}
FLOAT_ACTIVATIONS = Candidate(float_activations=True)


def _select(
    noise: dict[Candidate, float],
    samples: Any = X,
    sizes: dict[Candidate, int] | None = None,
    stages: tuple[Stage, ...] = dynamic_stages(has_attention=False, is_recurrent=False),
    scheme: str = "dynamic_int8",
    achieves: Callable[[QuantizedModel], bool] = lambda model: True,
) -> QuantizedModel:
    """The selected model, given each candidate's error as a share of the output."""

    def quantize(candidate: Candidate) -> QuantizedModel:
        if candidate not in noise:
            raise ValueError("the quantizer gave up")
        content = bytes((sizes or {}).get(candidate, 9))
        return QuantizedModel(content, IO.inputs, IO.outputs, candidate)

    @contextlib.contextmanager
    def open_model(model: QuantizedModel | None) -> Iterator[RunFunction]:
        share = 0.0 if model is None else noise[model.candidate]
        yield lambda data: {"y": data["x"] * (1 + share)}

    return select_candidate(stages, quantize, open_model, IO, scheme, samples, achieves)


def test_integer_activations_within_the_limits() -> None:
    # An error of 1% is an SNR of 40 dB: a third of the noise that the limit of 30 dB allows.
    model = _select({DEFAULT: 0.01, FLOAT_ACTIVATIONS: 0.0})
    assert (model.candidate, model.notes, model.cost) == (DEFAULT, (), {})


def test_float_activations_if_integers_exceed_the_limits() -> None:
    # 10% is 20 dB, 10 dB short: 10 ** (10 / 20) = 3.2 times the limit.
    model = _select({DEFAULT: 0.1, FLOAT_ACTIVATIONS: 0.001})
    assert model.candidate == FLOAT_ACTIVATIONS
    assert "3.2 times its limit" in model.notes[0]


def test_default_if_nothing_is_gained() -> None:
    assert _select({DEFAULT: 0.1, FLOAT_ACTIVATIONS: 0.1}).candidate == DEFAULT


def test_default_without_samples() -> None:
    assert _select({DEFAULT: 0.1, FLOAT_ACTIVATIONS: 0.0}, samples=None).candidate == DEFAULT


ATTENTION, UPSTREAM = Candidate(attention=True), Candidate(attention=True, upstream=True)
PROJECTIONS = Candidate(attention=True, projections=True)
FLOAT16 = Candidate(attention=True, upstream=True, float16="all")
STATIC = static_stages(
    recipe_for("int8"),
    QuantizationOptions(),
    has_attention=True,
    is_recurrent=False,
    has_steps=False,
)


def test_smallest_model_within_the_target() -> None:
    model = _select(
        {DEFAULT: 0.08, ATTENTION: 0.02, PROJECTIONS: 0.01},
        sizes={ATTENTION: 30, PROJECTIONS: 20},
        stages=STATIC,
        scheme="int8",
    )
    assert model.candidate == PROJECTIONS


def test_later_stages_only_if_earlier_ones_do_not_suffice() -> None:
    # The limit is 20 dB, 10%: 2% are a fifth of it, 7% exceed the target, 9% are nearly all.
    noise = {DEFAULT: 0.5, ATTENTION: 0.02, UPSTREAM: 0.0, FLOAT16: 0.0}
    assert _select(noise, stages=STATIC, scheme="int8").candidate == ATTENTION
    noise[ATTENTION] = 0.07
    assert _select(noise, stages=STATIC, scheme="int8").candidate == UPSTREAM
    noise.update({ATTENTION: 0.3, UPSTREAM: 0.09})
    model = _select(noise, sizes={DEFAULT: 10, FLOAT16: 16}, stages=STATIC, scheme="int8")
    assert model.candidate == FLOAT16
    assert model.cost["bytes"] == 6
    assert model.cost["time"] > 0
    assert model.notes[1] == "the weights that attention depends on are float16"


def test_candidate_with_values_that_are_not_finite_is_not_selected() -> None:
    model = _select({DEFAULT: np.nan, FLOAT_ACTIVATIONS: 0.02})
    assert model.candidate == FLOAT_ACTIVATIONS
    assert _select({DEFAULT: 0.02, FLOAT_ACTIVATIONS: np.nan}).candidate == DEFAULT


def test_smaller_model_that_does_not_achieve_the_scheme_is_not_selected() -> None:
    noise = {DEFAULT: 0.02, ATTENTION: 0.01, PROJECTIONS: 0.0}
    sizes = {DEFAULT: 30, ATTENTION: 20, PROJECTIONS: 10}

    def select(*achieving: Candidate) -> Candidate:
        return _select(
            noise,
            sizes=sizes,
            stages=STATIC,
            scheme="int8",
            achieves=lambda model: model.candidate in achieving,
        ).candidate

    assert select(DEFAULT, ATTENTION) == ATTENTION
    assert select(DEFAULT) == DEFAULT
    # If all that achieve it exceed the limits (10% is one), the caller reports what was missed.
    noise[DEFAULT] = 0.3
    assert select(DEFAULT) == PROJECTIONS


def test_stages_continue_until_a_model_achieves_the_scheme() -> None:
    noise = {DEFAULT: 0.3, ATTENTION: 0.0, UPSTREAM: 0.01}
    model = _select(
        noise,
        stages=STATIC,
        scheme="int8",
        achieves=lambda model: model.candidate == UPSTREAM,
    )
    assert model.candidate == UPSTREAM


def test_no_candidate_can_be_made() -> None:
    with pytest.raises(ConversionError, match="the quantizer gave up"):
        _select({})


def _static(scheme: str, precision: str) -> tuple[Stage, ...]:
    return static_stages(
        recipe_for(scheme),
        QuantizationOptions(attention_precision=precision),
        has_attention=True,
        is_recurrent=True,
        has_steps=False,
    )


@pytest.mark.parametrize(("scheme", "precision"), [("int8", "int8"), ("int16x8", "int16")])
def test_requested_attention_precision_is_the_only_candidate(scheme: str, precision: str) -> None:
    (stage,) = _static(scheme, precision)
    assert stage.candidates == (DEFAULT,)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_attention_in_float32_in_every_candidate(scheme: str) -> None:
    stages = _static(scheme, "float32")
    assert all(candidate.attention for stage in stages for candidate in stage.candidates)


def test_attention_precision_of_another_scheme() -> None:
    with pytest.raises(ConversionError, match="can be int8 or float32, but not int16"):
        _static("int8", "int16")
    assert _static("int16x8", "int8") == _static("int16x8", "auto")


def test_samples_that_are_not_measured_come_first() -> None:
    measured, held_out = split_samples({"x": np.arange(40)})
    assert not set(measured["x"]) & set(held_out["x"][:10])
    assert sorted(held_out["x"]) == list(range(40))
