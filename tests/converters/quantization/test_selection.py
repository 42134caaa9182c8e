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
from edgeattn_converters.quantization.integer_only import FloatOperator
from edgeattn_converters.quantization.quantized_model import (
    ModelIO,
    QuantizationSamples,
    QuantizedModel,
    RunFunction,
)
from edgeattn_converters.quantization.selection import (
    missed_limits,
    select_candidate,
    selected_rows,
)
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
    beyond: dict[Candidate, float] | None = None,
    blocked: tuple[Candidate, ...] = (),
    instructions: dict[Candidate, float] | None = None,
) -> QuantizedModel:
    """The selected model, given each candidate's error as a share of the output.

    ``beyond`` are the errors for values over 9, by candidate. Those in ``blocked`` have a float
    operator. Without ``instructions``, the smallest model is the fastest.
    """

    def quantize(candidate: Candidate) -> QuantizedModel:
        if candidate not in noise:
            raise ValueError("the quantizer gave up")
        content = bytes((sizes or {}).get(candidate, 9))
        blockers = (FloatOperator("EXP", "y"),) if candidate in blocked else ()
        return QuantizedModel(content, IO.inputs, IO.outputs, candidate, blockers=blockers)

    @contextlib.contextmanager
    def open_model(model: QuantizedModel | None) -> Iterator[RunFunction]:
        share = 0.0 if model is None else noise[model.candidate]
        large = 0.0 if model is None else (beyond or noise).get(model.candidate, share)
        yield lambda data: {"y": data["x"] * (1 + np.where(data["x"] > 9, large, share))}

    def expense(model: QuantizedModel) -> float:
        return model.size if instructions is None else instructions[model.candidate]

    return select_candidate(stages, quantize, open_model, IO, scheme, samples, achieves, expense)


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


def test_fastest_model_within_the_target_whatever_its_size() -> None:
    fastest = _select(
        {DEFAULT: 0.02, ATTENTION: 0.02, PROJECTIONS: 0.01},
        sizes={DEFAULT: 10, ATTENTION: 30, PROJECTIONS: 20},
        instructions={DEFAULT: 900.0, ATTENTION: 500.0, PROJECTIONS: 700.0},
        stages=STATIC,
        scheme="int8",
    )
    assert fastest.candidate == ATTENTION


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


# Two ordinary rows, of which one is beyond what was calibrated, and an extreme.
REFERENCE = {"x": np.array([[3.0, 4.0], [30.0, 40.0], [300.0, 400.0]], np.float32)}


@pytest.mark.parametrize(
    ("errors", "candidate"),
    [
        # The limit is 20 dB, 10%. What meets it on the reference needs no further room there.
        ({DEFAULT: 0.09, ATTENTION: 0.0}, DEFAULT),
        ({DEFAULT: 0.2, ATTENTION: 0.09}, ATTENTION),
        ({DEFAULT: 0.2, ATTENTION: 0.11, PROJECTIONS: 0.5, UPSTREAM: 0.02}, UPSTREAM),
        # None meets it: the closest one, whatever its errors on the samples.
        ({DEFAULT: 0.9, ATTENTION: 0.3, PROJECTIONS: 0.5, UPSTREAM: 0.9, FLOAT16: 0.9}, ATTENTION),
        ({DEFAULT: np.inf, ATTENTION: np.nan, PROJECTIONS: 0.05}, PROJECTIONS),
    ],
)
def test_candidate_that_fails_on_the_reference_is_not_selected(
    errors: dict[Candidate, float], candidate: Candidate
) -> None:
    noise = dict.fromkeys((DEFAULT, ATTENTION, PROJECTIONS, UPSTREAM, FLOAT16), 0.02)
    noise[DEFAULT] = 0.01
    model = _select(
        noise,
        samples=QuantizationSamples(X, REFERENCE, ordinary=2),
        sizes={DEFAULT: 10, ATTENTION: 20, PROJECTIONS: 30, UPSTREAM: 40, FLOAT16: 50},
        stages=STATIC,
        scheme="int8",
        beyond=errors,
    )
    assert model.candidate == candidate


def test_only_infinite_outputs_for_extremes_reject_a_candidate() -> None:
    noise = {DEFAULT: 0.01, ATTENTION: 0.02}
    for error, candidate in ((0.9, DEFAULT), (np.inf, ATTENTION)):
        model = _select(
            noise,
            samples=QuantizationSamples(X, REFERENCE, ordinary=1),
            stages=STATIC,
            scheme="int8",
            beyond={DEFAULT: error},
        )
        assert model.candidate == candidate


def test_attention_maps_are_compared_with_the_limits_of_the_verdict() -> None:
    """Weights that are each off by 0.01 only diverge by more than ten times the mean's
    limit."""
    spec = TensorSpec("attention/a", (None, 100), "float32")
    io = ModelIO((), (spec,), (spec.name,))
    expected = {spec.name: np.full((20, 100), 0.01)}
    actual = {spec.name: expected[spec.name].copy()}
    assert missed_limits(expected, actual, 20, io, "int8") == 0
    actual[spec.name][0] = np.repeat([0.02, 0.0], 50)
    # The divergence of (1/2, 1/2) from (1, 0): (2 ln 2 - 1.5 ln 1.5) / 2 with m = 3/4 and 1/4.
    divergence = 0.5 * (np.log(4 / 3)) + 0.5 * (0.5 * np.log(2 / 3) + 0.5 * np.log(2))
    ratio = missed_limits(expected, actual, 20, io, "int8")
    assert ratio == pytest.approx(np.sqrt(divergence / 0.05))
    # It is an extreme if it is not among the ordinary rows.
    swapped = {spec.name: actual[spec.name][::-1]}
    assert missed_limits(expected, swapped, 19, io, "int8") == 0


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


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [
        ((), PROJECTIONS),
        ((PROJECTIONS,), ATTENTION),
        ((ATTENTION, PROJECTIONS), DEFAULT),
        ((DEFAULT, ATTENTION, PROJECTIONS), PROJECTIONS),
    ],
)
def test_integers_only_are_preferred_to_float_operators(
    blocked: tuple[Candidate, ...], expected: Candidate
) -> None:
    """All exceed the limits. The caller reports the float operators if no candidate is free of
    them."""
    model = _select(
        {DEFAULT: 0.9, ATTENTION: 0.6, PROJECTIONS: 0.3},
        stages=STATIC,
        scheme="int8",
        achieves=lambda model: model.candidate not in blocked,
        blocked=blocked,
    )
    assert model.candidate == expected


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


def test_candidates_are_compared_on_samples_of_the_whole_file() -> None:
    # 128 of 255 samples: every second one, from the first to the last.
    assert selected_rows({"x": np.arange(255)})["x"].tolist() == list(range(0, 255, 2))
    assert selected_rows({"x": np.arange(40)})["x"].tolist() == list(range(40))


@pytest.mark.parametrize("keeps", [True, False])
def test_a_larger_file_that_does_not_lose_a_value(keeps: bool) -> None:
    """In the faster file, values from -1 to 1 beside those from -1000 to 1000 are always zero.

    If the other one loses them too, the faster one is selected. Both have less noise than 20 dB.
    """
    larger = Candidate(recurrence=True)
    values = np.random.default_rng(2).uniform(-1, 1, (64, 2)) * [1.0, 1000.0]

    def quantize(candidate: Candidate) -> QuantizedModel:
        return QuantizedModel(b"x", IO.inputs, IO.outputs, candidate)

    @contextlib.contextmanager
    def open_model(model: QuantizedModel | None) -> Iterator[RunFunction]:
        exact = model is None or (model.candidate == larger and keeps)
        yield lambda data: {"y": data["x"] if exact else np.rint(data["x"] / 8) * 8}

    model = select_candidate(
        (Stage((DEFAULT, larger)),),
        quantize,
        open_model,
        IO,
        "int8",
        {"x": values},
        expense=lambda model: 2.0 if model.candidate == larger else 1.0,
    )
    assert model.candidate == (larger if keeps else DEFAULT)
